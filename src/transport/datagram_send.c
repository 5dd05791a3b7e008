/* Datagrams out; and DatagramTransport: events, opening, the Python type.

   Opening is that of a stream.  The caller passes in the socket object, which
   owns the fd from the start: C code never closes it.  The socket's class does
   not override fileno() or socket I/O, and sockaddr.c can format its family's
   addresses.  Otherwise _make_datagram_transport in _loop/connections.py
   creates asyncio's transport: C code would bypass the overridden methods, and
   could not format a sender's address.

   1. sendto tries a datagram exactly once, with the system call that asyncio
      makes, and only if the queue is empty.  If the call would block, the
      datagram is queued, and later ones are queued behind it.  Otherwise they
      would be reordered.
   2. C code parses a numeric address, and recognizes the last sender's
      address by the identity of its object.  Any other address goes to the
      socket object's sendto, which resolves host names and raises for invalid
      addresses.
   3. A queued datagram whose send failed is dropped, error_received is called,
      and the rest waits for the next event, as in asyncio.

   Rejected: sendmmsg.  A datagram is queued only after the kernel refused one,
   and the kernel does not say why it stopped after the first of a batch. */
#include "transport/datagram.h"

#include "base/codes.h"
#include "core/cork.h"
#include "core/flush.h"
#include "core/loop.h"
#include "core/meter.h"
#include "core/poller.h"
#include "core/write_queue.h"
#include "loop/user_fd.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"
#include "transport/sockaddr.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/stream_open.h"
#include "transport/stream_send.h"
#include "transport/stream_transport.h"
#include "transport/stream_write.h"
#include "transport/transport.h"

#include <errno.h>

#define WRITE_FAILED "Fatal write error on datagram transport"

/* The outcome of a send; -1: an exception for the caller is set. */
#define SENT           0
#define WOULD_BLOCK    1
#define ERROR_REPORTED 2

/* --- one datagram -------------------------------------------------------- */

/* The outcome of a system call, from its result and errno.  An error has been
   reported to error_received. */
static int
syscall_outcome(FlDatagram *self, ssize_t result)
{
    int code = result < 0 ? errno : 0;
    if (fl_errno_would_block(code)) {
        return WOULD_BLOCK;
    }
    if (code == 0) {
        return SENT;
    }
    return fl_datagram_report_errno(self, -code) < 0 ? -1 : ERROR_REPORTED;
}

/* The outcome when Python code raised: the socket object, the buffer protocol
   or an audit hook. */
static int
exception_outcome(FlDatagram *self)
{
    if (fl_error_would_block()) {
        return WOULD_BLOCK;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        int code = fl_datagram_call_error_received(self, exc);
        Py_DECREF(exc);
        return code < 0 ? -1 : ERROR_REPORTED;
    }
    PyErr_SetRaisedException(exc);
    return fl_stream_fatal(&self->stream, WRITE_FAILED) < 0 ? -1
                                                            : ERROR_REPORTED;
}

/* Call the socket object's sendto: invariant 2.  The outcome. */
static int
send_by_socket(FlDatagram *self, PyObject *data, PyObject *address)
{
    if (self->stream.sock == NULL || self->stream.loop == NULL) {
        /* Python that ran before has ended the transport: the datagram is
           dropped, as if sent. */
        return SENT;
    }
    /* The flush and the call may end the transport, which drops its socket. */
    PyObject *sock = Py_NewRef(self->stream.sock);
    FlLoop *loop = (FlLoop *)Py_NewRef(self->stream.loop);
    /* Corked bytes of a stream were written earlier: they leave first. */
    fl_loop_flush_before_send(loop);
    PyObject *result =
        PyObject_CallMethodObjArgs(sock, self->stream.state->names.sendto,
                                   data, address, NULL);
    Py_DECREF(sock);
    if (result != NULL && FL_UNLIKELY(loop->metrics != NULL)) {
        Py_ssize_t size_bytes = PyLong_AsSsize_t(result);
        PyErr_Clear(); /* a socket of the application's may return anything */
        FL_METER(loop, bytes_out, (uint64_t)Py_MAX(size_bytes, 0));
    }
    Py_DECREF(loop);
    if (result == NULL) {
        return exception_outcome(self);
    }
    Py_DECREF(result);
    return SENT;
}

/* True if the datagram is sent without an address: the socket is connected,
   and the kernel knows the destination.  The peer may be unnamed: each end of
   a socketpair is.  asyncio's transports fail there, since they take an empty
   peername for none. */
static bool
is_for_peer(const FlDatagram *self, PyObject *address)
{
    return self->connected
           || (address == Py_None && self->stream.peer != NULL);
}

/* The address as a struct sockaddr, from one of the transport's two caches and
   valid until the cache changes.  NULL without an exception if only the socket
   object can parse it. */
static const FlAddress *
find_address(FlDatagram *self, PyObject *address)
{
    if (address == self->last_sender.object) {
        return &self->last_sender; /* a reply to the last datagram received */
    }
    if (address != self->last_target.object
        && !fl_address_parse(&self->last_target, address, self->family))
    {
        return NULL;
    }
    return &self->last_target;
}

/* Make the system call: its result and errno.  to is NULL for the socket's
   peer. */
static ssize_t
send_view(FlDatagram *self, const Py_buffer *view, const FlAddress *to)
{
    int fd = self->stream.fd;
    size_t size = (size_t)view->len;
    if (to == NULL) {
        return send(fd, view->buf, size, FL_SEND_FLAGS);
    }
    return sendto(fd, view->buf, size, FL_SEND_FLAGS,
                  (const struct sockaddr *)&to->name, to->size);
}

/* Send one datagram to an address that C code knows, or to the socket's peer.
   The outcome.  If Python that ran meanwhile has replaced the cached address,
   the socket object sends; its audit event is a second one. */
static int
send_data(FlDatagram *self, PyObject *data, PyObject *address)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        /* A memoryview may be non-contiguous. */
        return exception_outcome(self);
    }
    bool for_peer = is_for_peer(self, address);
    /* As in the socket module: sendto raises an audit event, send does not.
       __buffer__() of the data may have ended the transport: then sock is
       NULL. */
    PyObject *sock = self->stream.sock;
    if (!for_peer && sock != NULL
        && PySys_Audit("socket.sendto", "OO", sock, address) < 0)
    {
        PyBuffer_Release(&view);
        return exception_outcome(self);
    }
    int code = fl_stream_prepare_send(&self->stream);
    /* Looked up only now: Python that ran since the view was taken may have
       sent to another address, or received from one, which replaced a cached
       one. */
    const FlAddress *to = for_peer ? NULL : find_address(self, address);
    if (code == 0 && to == NULL && !for_peer) {
        PyBuffer_Release(&view);
        return send_by_socket(self, data, address);
    }
    errno = -code;
    ssize_t sent = code < 0 ? -1 : send_view(self, &view, to);
    code = errno;
    if (sent > 0) {
        FL_METER(self->stream.loop, bytes_out, (uint64_t)sent);
    }
    /* Released before error_received is called: the protocol may resize the
       buffer.  Releasing it may change errno. */
    PyBuffer_Release(&view);
    errno = code;
    return syscall_outcome(self, sent);
}

/* Send one datagram.  The outcome.  The caller owns references to data and
   address. */
static int
send_now(FlDatagram *self, PyObject *data, PyObject *address)
{
    bool direct =
        is_for_peer(self, address) || find_address(self, address) != NULL;
    return direct ? send_data(self, data, address)
                  : send_by_socket(self, data, address);
}

/* --- sendto -------------------------------------------------------------- */

/* Append a datagram to the write queue, wait for writability, and call
   pause_writing if necessary.  0, or -1 with an exception set. */
static int
queue_datagram(FlDatagram *self, PyObject *data, PyObject *address)
{
    if (self->connected) {
        address = Py_None; /* not needed to send it; do not keep it alive */
    }
    /* A copy unless it is a bytes object: the caller may change its buffer. */
    PyObject *datagram =
        Py_BuildValue("NO", PyBytes_FromObject(data), address);
    if (datagram == NULL) {
        return -1;
    }
    FlStream *stream = &self->stream;
    if (stream->loop == NULL) { /* __buffer__() has ended the transport */
        Py_DECREF(datagram);
        return 0;
    }
    /* As in asyncio, whose add_writer() raises on a closed loop before the
       first datagram is queued. */
    int code = fl_write_queue_is_empty(&stream->out.queue)
                   ? fl_loop_check_open(stream->loop)
                   : 0;
    if (code == 0) {
        code = fl_write_queue_append(&stream->out.queue, datagram);
    }
    Py_DECREF(datagram);
    if (code < 0) {
        return -1;
    }
    code = fl_stream_update_registration(stream);
    if (code < 0) {
        fl_stream_fail(stream, code);
        return 0;
    }
    return fl_flow_check(stream, true);
}

/* The destination, a new reference: the fixed remote address if there is one.
   NULL with an exception set: ValueError if the argument is another one. */
static PyObject *
check_address(FlDatagram *self, PyObject *address)
{
    PyObject *own = fl_field_get(self, &self->address);
    if (own == NULL) {
        return Py_NewRef(address);
    }
    /* Identity first: the comparison may run Python code. */
    int same = address == Py_None || address == own;
    if (!same) {
        same = PyObject_RichCompareBool(address, own, Py_EQ);
    }
    if (same == 0) {
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S",
                     own);
    }
    if (same <= 0) {
        Py_CLEAR(own);
    }
    return own;
}

/* Check for a lost transport.  It drops the datagram and counts it.  As in
   asyncio, one without a fixed remote address still sends until the socket is
   closed. */
static FlMaySend
may_send(FlDatagram *self)
{
    return self->address != NULL || self->stream.phase == FL_STREAM_CLOSED
               ? fl_stream_may_send(&self->stream)
               : FL_SEND;
}

/* Invariant 1, in a critical section.  0, or -1 with an exception set. */
static int
send_or_queue(FlDatagram *self, PyObject *data, PyObject *address)
{
    if (!fl_write_queue_is_empty(&self->stream.out.queue)) {
        return queue_datagram(self, data, address);
    }
    int result = send_now(self, data, address);
    /* Python code in the send may have closed the transport. */
    if (result == WOULD_BLOCK && self->stream.loop != NULL) {
        return queue_datagram(self, data, address);
    }
    return result < 0 ? -1 : 0;
}

static PyObject *
datagram_sendto(FlDatagram *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    static const FlParameters parameters = {"sendto",
                                            {"data", "addr"},
                                            .optional = 1};
    FlArgs parsed;
    if (fl_args_parse(&parameters, args, nargs, kwnames, &parsed) < 0) {
        return NULL;
    }
    PyObject *data = parsed.args[0];
    if (fl_transport_check_data(
            data, "data argument must be a bytes-like object, not '%U'")
        < 0)
    {
        return NULL;
    }
    /* Before 3.13 asyncio ignores empty data; `not data` of a memoryview may
       raise. */
    if (!FL_EMPTY_DATAGRAMS) {
        int nonempty = PyObject_IsTrue(data);
        if (nonempty <= 0) {
            return nonempty < 0 ? NULL : Py_NewRef(Py_None);
        }
    }
    PyObject *address =
        check_address(self, parsed.args[1] == NULL ? Py_None : parsed.args[1]);
    if (address == NULL) {
        return NULL;
    }
    int code;
    Py_BEGIN_CRITICAL_SECTION(self);
    FlMaySend may = may_send(self); /* in it: the loop's thread may end it */
    code = may == FL_SEND ? send_or_queue(self, data, address) : (int)may;
    Py_END_CRITICAL_SECTION();
    Py_DECREF(address);
    return fl_call_none(code);
}

/* --- the write queue ----------------------------------------------------- */

/* Put a datagram back at the front of the queue, and wait for writability.
   WOULD_BLOCK, or the outcome of a failure. */
static int
put_back(FlDatagram *self, PyObject *datagram)
{
    FlStream *stream = &self->stream;
    int code = fl_write_queue_prepend(&stream->out.queue, datagram, 0);
    if (code == 0) {
        /* Code that ran in the send may have found the queue empty and no
           longer wait for room. */
        code = fl_stream_update_registration(stream);
        if (code == 0) {
            return WOULD_BLOCK;
        }
        (void)fl_raise_errno(code);
    }
    return fl_stream_fatal(stream, WRITE_FAILED) < 0 ? -1 : ERROR_REPORTED;
}

/* Send the first datagram of the queue.  It is not in the queue meanwhile, as
   in asyncio: Python code that the send runs may change the queue, but not
   this datagram.  The outcome. */
static int
send_first(FlDatagram *self)
{
    PyObject *datagram = fl_write_queue_take(&self->stream.out.queue);
    if (datagram == NULL) {
        return SENT; /* the queue is empty */
    }
    int result = send_now(self, PyTuple_GET_ITEM(datagram, 0),
                          PyTuple_GET_ITEM(datagram, 1));
    if (result == WOULD_BLOCK && self->stream.loop != NULL) {
        result = put_back(self, datagram);
    }
    Py_DECREF(datagram);
    return result;
}

/* The fd is writable: send from the queue, and complete a close that
   waited for it.  The caller owns a reference to the transport.  0, or -1 if
   an exception ends the run. */
FL_NOINLINE static int
write_ready(FlDatagram *self)
{
    FlStream *stream = &self->stream;
    if (stream->phase >= FL_STREAM_LOST || stream->reg == NULL) {
        return 0;
    }
    int result;
    bool is_empty;
    Py_BEGIN_CRITICAL_SECTION(self);
    do {
        result = send_first(self);
        is_empty = fl_write_queue_is_empty(&stream->out.queue);
    } while (result == SENT && !is_empty);
    Py_END_CRITICAL_SECTION();
    if (result < 0
        && fl_datagram_report(self, stream->state->names.error_received) < 0)
    {
        return -1;
    }
    /* After a failure the rest waits for the next event (invariant 3).  If the
       queue is empty, resume_writing and a close are due now. */
    bool failed = result < 0 || result == ERROR_REPORTED;
    if (failed && !is_empty) {
        return 0;
    }
    if (stream->phase < FL_STREAM_LOST && fl_flow_check(stream, false) < 0) {
        return -1;
    }
    return fl_stream_drained(stream); /* the protocol may have ended it */
}

/* --- events -------------------------------------------------------------- */

/* Dispatch an event: read first, then write; each checks the phase.  0, or -1
   if an exception ends the run. */
static int
run_events(FlStream *stream, int events)
{
    FlDatagram *self = FL_DATAGRAM(stream);
    int code = events & FL_READABLE ? fl_datagram_read_ready(self) : 0;
    return code == 0 && (events & FL_WRITABLE) ? write_ready(self) : code;
}

/* --- opening ------------------------------------------------------------- */

static const char open_datagram_doc[] =
    "open_datagram(loop, sock, fd_shared, protocol, address, waiter, extra, "
    "/)\n--\n\n"
    "Create a DatagramTransport on a non-blocking datagram socket.\n\n"
    "The transport owns the socket from now on.  fd_shared: other code may\n"
    "have the socket object.  address: the only remote address, or None for\n"
    "any.  The parameters after protocol may be None.";

/* The method open_datagram: checks its arguments, opens a stream of this type,
   then fills in the fields of FlDatagram.  On failure the socket remains the
   caller's, and open. */
static PyObject *
open_datagram(PyObject *module, PyObject *args)
{
    FlState *state = fl_state_get(module);
    PyObject *loop, *sock, *protocol, *address, *waiter, *extra;
    int fd_shared;
    if (!PyArg_ParseTuple(args, "O!OpOOOO:open_datagram", state->loop_type,
                          &loop, &sock, &fd_shared, &protocol, &address,
                          &waiter, &extra))
    {
        return NULL;
    }
    FlStreamOptions options = {
        .type = state->datagram_type,
        .run_events = run_events,
        .sock = sock,
        .fd_shared = fd_shared,
        .fd = PyObject_AsFileDescriptor(sock),
        .protocol = protocol,
        .waiter = fl_none_to_null(waiter),
        .extra = fl_none_to_null(extra),
    };
    /* fileno() of a closed socket is -1: AsFileDescriptor has raised. */
    if (options.fd < 0
        || fl_fd_check(FL_LOOP(loop), sock, options.fd, false) < 0) {
        return NULL;
    }
    /* This queues connection_made and runs no protocol: the fields below are
       set before anybody uses the transport. */
    PyObject *transport = fl_stream_open(FL_LOOP(loop), &options);
    if (transport != NULL) {
        FlDatagram *self = FL_DATAGRAM(transport);
        const FlName *name = self->stream.sockname;
        const FlName *peer = self->stream.peer;
        self->address = Py_XNewRef(fl_none_to_null(address));
        /* Without a name C code parses no address: the socket object handles
           each. */
        self->family =
            name == NULL ? AF_UNSPEC : fl_name_address(name)->ss_family;
        /* As asyncio, which tests the peername: that of a Unix peer without a
           name is the empty string, which is false. */
        self->connected = peer != NULL
                          && (fl_name_address(peer)->ss_family != AF_UNIX
                              || fl_sockaddr_path_bytes(fl_name_address(peer),
                                                        (socklen_t)peer->size)
                                     > 0);
    }
    return transport;
}

/* --- methods ------------------------------------------------------------- */

static const char sendto_doc[] =
    "sendto($self, /, data, addr=None)\n--\n\n"
    "Send a bytes, bytearray or memoryview object as one datagram, without\n"
    "blocking.  It is buffered while the kernel has no space for it.\n\n"
    "addr is the destination; None if the endpoint has a remote address or\n"
    "its socket is connected.\n"
    "Raises TypeError for other data, ValueError for an address other than\n"
    "the endpoint's.  A system error goes to the protocol's\n"
    "error_received().  "
    "Implements asyncio's DatagramTransport.sendto().";

/* --- garbage collection -------------------------------------------------- */

/* Objects that cannot be part of a cycle are not visited: bytes, and the
   addresses that C code created or accepted (FlAddress). */
static int
datagram_traverse(FlDatagram *self, visitproc visit, void *arg)
{
    Py_VISIT(self->address);
    /* An address in the queue may be any object. */
    const FlWriteQueue *queue = &self->stream.out.queue;
    for (unsigned at = queue->head; at < queue->tail; at++) {
        Py_VISIT(queue->items[at]);
    }
    return fl_stream_traverse(&self->stream, visit, arg);
}

static int
datagram_clear(FlDatagram *self)
{
    /* The base's clear does not drop the queue: a stream's bytes cannot be
       part of a cycle, but these addresses can. */
    fl_write_queue_clear(&self->stream.out.queue);
    Py_CLEAR(self->address);
    Py_CLEAR(self->last_sender.object);
    Py_CLEAR(self->last_target.object);
    return fl_stream_clear(&self->stream);
}

static void
datagram_dealloc(FlDatagram *self)
{
    /* First of all: the finalizer needs every field, and it may resurrect the
       object. */
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    (void)datagram_clear(self);
    fl_stream_free(&self->stream);
}

/* --- the type ------------------------------------------------------------ */

static PyMethodDef datagram_methods[] = {
    FL_METHOD("sendto", datagram_sendto, FL_FASTCALL, sendto_doc),
    {NULL, NULL, 0, NULL},
};

static const char datagram_doc[] =
    "An asyncio.DatagramTransport for a UDP or Unix datagram socket,\n"
    "created by the loop.";

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, (void *)datagram_doc},     {Py_tp_dealloc, datagram_dealloc},
    {Py_tp_finalize, fl_stream_finalize},  {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},         {Py_tp_repr, fl_stream_repr},
    {Py_tp_methods, datagram_methods},     {Py_tp_getset, fl_transport_getset},
    {Py_tp_members, fl_transport_members}, {0, NULL},
};

static PyMethodDef datagram_functions[] = {
    {"open_datagram", open_datagram, METH_VARARGS, open_datagram_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_datagram_register(PyObject *module, FlState *state)
{
    /* Since 3.12 asyncio's own class also derives from DatagramTransport, so
       isinstance must hold here as well. */
    PyObject *mixin = FL_HAVE_DATAGRAM_BASE ? state->asyncio_datagrams : NULL;
    state->datagram_type =
        fl_transport_type_new(module, "fastloop._core.DatagramTransport",
                              sizeof(FlDatagram), datagram_slots, mixin);
    if (state->datagram_type == NULL) {
        return -1;
    }
    return PyModule_AddFunctions(module, datagram_functions);
}
