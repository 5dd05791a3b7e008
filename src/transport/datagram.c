/* DatagramTransport: opening, errors, the Python type.

   1. Opening is that of a stream, in asyncio's order: connection_made, then
      reading begins, then the waiter is done.
   2. The socket object is passed in by the caller and owns the descriptor from
      the start.  C code never closes this fd itself: the object would close it
      again.
   3. The socket's class does not override fileno() or socket I/O, and
      sockaddr.c can format its family's addresses.  Otherwise
      _make_datagram_transport in fastloop/connections.py creates asyncio's
      transport: C code would bypass the overridden methods, and could not
      format a sender's address. */
#include "transport/datagram.h"

#include "core/fd_set.h"
#include "core/loop.h"
#include "core/report.h"
#include "core/registration.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/datagram_read.h"
#include "transport/datagram_write.h"
#include "transport/stream.h"
#include "transport/stream_gc.h"
#include "transport/transport.h"
#include "transport/write_queue.h"

#include <sys/un.h>

/* --- errors -------------------------------------------------------------- */

int
fl_datagram_call_error_received(FlDatagram *self, PyObject *exc)
{
    if (self->stream.protocol == NULL) {
        return 0; /* Python code in the failed call ended the transport */
    }
    /* error_received may replace the protocol. */
    PyObject *protocol = Py_NewRef(self->stream.protocol);
    PyObject *result = PyObject_CallMethodOneArg(
        protocol, self->stream.state->names.error_received, exc);
    Py_DECREF(protocol);
    return fl_call_done(result);
}

int
fl_datagram_report_errno(FlDatagram *self, int code)
{
    PyObject *exc = fl_errno_exception(code);
    int result = exc == NULL ? -1 : fl_datagram_call_error_received(self, exc);
    Py_XDECREF(exc);
    return result;
}

int
fl_datagram_report(FlDatagram *self, PyObject *method)
{
    /* The call that raised may have ended the transport: no loop is left to
       report to. */
    if (self->stream.loop == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
        return 0;
    }
    return fl_loop_report_call(self->stream.loop, (PyObject *)self, method,
                               NULL, NULL);
}

/* --- events -------------------------------------------------------------- */

/* Dispatch an event: read first, then write.  0, or -1 if an exception must
   leave run_forever. */
static int
run_events(FlStream *stream, int events)
{
    FlDatagram *self = FL_DATAGRAM(stream);
    int code = 0;
    if ((events & FL_READABLE) && stream->phase == FL_STREAM_OPEN) {
        code = fl_datagram_read_ready(self);
    }
    /* A read may have closed the transport: fl_datagram_write_ready checks. */
    if (code == 0 && (events & FL_WRITABLE)) {
        code = fl_datagram_write_ready(self);
    }
    return code;
}

/* The registration's callback: runs the above in the transport's context. */
static int
on_datagram(void *owner, FlRegistration *reg, int events)
{
    return fl_stream_run_events(owner, reg, events, run_events);
}

/* --- opening ------------------------------------------------------------- */

/* True if asyncio's peername would be true: it then sends without an address.
   A Unix peer without a name has the empty string as its peername, which is
   false. */
static bool
has_peer(const FlStream *stream)
{
    size_t header = offsetof(struct sockaddr_un, sun_path);
    const FlName *peer = stream->peer;
    return peer != NULL
           && (fl_name_address(peer)->ss_family != AF_UNIX
               || peer->size > header);
}

/* An optional argument: None means absent.  Borrowed. */
static PyObject *
none_to_null(PyObject *object)
{
    return object == Py_None ? NULL : object;
}

static const char open_datagram_doc[] =
    "open_datagram(loop, sock, shared, protocol, address, waiter, extra, /)"
    "\n--\n\n"
    "Create a DatagramTransport on a non-blocking datagram socket.\n\n"
    "The transport owns the socket from now on.  shared: the caller may keep\n"
    "references to the socket object.  address: the only remote address, or\n"
    "None for any.  The parameters after protocol may be None.";

/* The method open_datagram: checks its arguments, opens a stream of this type,
   then fills in the fields of FlDatagram.  On failure the socket remains the
   caller's, and open. */
static PyObject *
open_datagram(PyObject *module, PyObject *args)
{
    FlState *state = fl_state_get(module);
    PyObject *loop, *sock, *protocol, *address, *waiter, *extra;
    int shared;
    if (!PyArg_ParseTuple(args, "O!OpOOOO:open_datagram", state->loop_type,
                          &loop, &sock, &shared, &protocol, &address, &waiter,
                          &extra)
        || fl_loop_check_open(FL_LOOP(loop)) < 0)
    {
        return NULL;
    }
    FlStreamOptions options = {
        .type = state->datagram_type,
        .on_events = on_datagram,
        .sock = sock,
        .sock_private = !shared,
        .fd = PyObject_AsFileDescriptor(sock),
        .protocol = protocol,
        .waiter = none_to_null(waiter),
        .extra = none_to_null(extra),
    };
    struct sockaddr_storage name = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof(name);
    /* fileno() of a closed socket is -1: AsFileDescriptor has raised. */
    if (options.fd < 0) {
        return NULL;
    }
    if (getsockname(options.fd, (struct sockaddr *)&name, &size) < 0) {
        /* Then C code parses no address: the socket object handles each. */
        name.ss_family = AF_UNSPEC;
    }
    /* This queues connection_made and runs no protocol: the fields below are
       set before anybody uses the transport. */
    PyObject *transport = fl_stream_open(FL_LOOP(loop), &options);
    if (transport != NULL) {
        FlDatagram *self = FL_DATAGRAM(transport);
        self->address = Py_XNewRef(none_to_null(address));
        self->family = name.ss_family;
        self->connected = has_peer(&self->stream);
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

/* fl_transport_resume_reading, and then delivery of the datagrams that were
   received before the pause.  That is queued, since asyncio's resume_reading
   calls no protocol. */
static PyObject *
datagram_resume_reading(FlDatagram *self, PyObject *ignored)
{
    FlNames *names = &self->stream.state->names;
    PyObject *result;
    /* Checked here, too: the queue of received datagrams is the loop thread's
       as well. */
    if (fl_transport_was_queued(&self->stream, names->resume_reading, &result))
    {
        return result;
    }
    result = fl_transport_resume_reading(&self->stream, ignored);
    /* Not reading: the transport is closing, and drops them. */
    if (result != NULL && fl_stream_is_reading(&self->stream)
        && fl_datagram_deliver_later(self) < 0)
    {
        Py_CLEAR(result);
    }
    return result;
}

/* asyncio's private names for the event callbacks.  Programs and tests call
   them, and reports of exceptions name them. */
static PyObject *
datagram_read_ready(FlDatagram *self, PyObject *Py_UNUSED(ignored))
{
    if (self->stream.phase == FL_STREAM_OPEN
        && fl_datagram_read_ready(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* fl_datagram_write_ready checks the phase itself, since a closing transport
   still sends its queue. */
static PyObject *
datagram_sendto_ready(FlDatagram *self, PyObject *Py_UNUSED(ignored))
{
    if (fl_datagram_write_ready(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static const char read_ready_doc[] =
    "_read_ready($self, /)\n--\n\n"
    "Receive and deliver datagrams; asyncio's private name.";

static const char sendto_ready_doc[] =
    "_sendto_ready($self, /)\n--\n\n"
    "Send buffered datagrams; asyncio's private name.";

/* --- garbage collection -------------------------------------------------- */

/* Objects that cannot be part of a cycle are not visited: bytes, and the
   addresses that C code created or accepted (FlAddress). */
static int
datagram_traverse(FlDatagram *self, visitproc visit, void *arg)
{
    Py_VISIT(self->address);
    /* An address in the queue may be any object. */
    PyObject *const *pair;
    for (size_t at = 0;
         (pair = fl_write_queue_pair(&self->stream.write_queue, at)) != NULL;
         at++)
    {
        Py_VISIT(pair[1]);
    }
    return fl_stream_traverse(&self->stream, visit, arg);
}

static int
datagram_clear(FlDatagram *self)
{
    /* The base's clear does not drop the queue: a stream's bytes cannot be
       part of a cycle, but these addresses can. */
    fl_write_queue_clear(&self->stream.write_queue);
    fl_datagram_drop_received(self);
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
    fl_stream_dealloc(&self->stream);
}

/* --- the type ------------------------------------------------------------ */

static PyMethodDef datagram_methods[] = {
    FL_COMMON_METHODS,
    FL_METHOD("resume_reading", datagram_resume_reading, METH_NOARGS,
              fl_transport_resume_reading_doc),
    FL_METHOD("sendto", fl_datagram_sendto, FL_FASTCALL, sendto_doc),
    FL_METHOD("_read_ready", datagram_read_ready, METH_NOARGS, read_ready_doc),
    FL_METHOD("_sendto_ready", datagram_sendto_ready, METH_NOARGS,
              sendto_ready_doc),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef datagram_getset[] = {
    FL_DICT_GETTER,
    {NULL, NULL, NULL, NULL, NULL},
};

/* As for StreamTransport: see transport.c. */
#if PY_VERSION_HEX < 0x030C0000
static PyMemberDef datagram_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(FlStream, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(FlStream, weakrefs), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};
#endif

static const char datagram_doc[] =
    "An asyncio.DatagramTransport for a UDP or Unix datagram socket,\n"
    "created by the loop.";

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, (void *)datagram_doc},
    {Py_tp_dealloc, datagram_dealloc},
    {Py_tp_finalize, fl_stream_finalize},
    {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},
    {Py_tp_repr, fl_transport_repr},
    {Py_tp_methods, datagram_methods},
    {Py_tp_getset, datagram_getset},
#if PY_VERSION_HEX < 0x030C0000
    {Py_tp_members, datagram_members},
#endif
    {0, NULL},
};

static PyType_Spec datagram_spec = {
    .name = "fastloop._core.DatagramTransport",
    .basicsize = sizeof(FlDatagram),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | FL_DICT_FLAGS
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = datagram_slots,
};

static PyMethodDef functions[] = {
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
        fl_type_derive(module, &datagram_spec, state->asyncio_transport, mixin,
                       fl_transport_base_slots);
    if (state->datagram_type == NULL) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
