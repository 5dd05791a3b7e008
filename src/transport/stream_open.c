/* Opening a stream, and connection_made: see stream_open.h. */
#include "transport/stream_open.h"

#include "base/list.h"
#include "core/dispatch.h"
#include "core/flush.h"
#include "core/loop.h"
#include "core/meter.h"
#include "core/report.h"
#include "loop/add_reader.h"
#include "loop/user_fd.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"
#include "transport/native_protocol.h"
#include "transport/sockaddr.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/stream_read.h"
#include "transport/stream_transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

/* --- what the loop calls ------------------------------------------------- */

static const FlOpenTransportKind stream_kind = {
    .node_offset = offsetof(FlStream, loop_node),
    .visits_own_ref = fl_stream_visits_own_ref,
    .abandon = fl_stream_abandon,
    .has_fd = fl_stream_has_fd,
    .evict = fl_stream_evict,
};

/* --- connection_made ----------------------------------------------------- */

/* Resolve the future of create_connection or its like.  0, or -1 to end the
   run. */
static int
wake_waiter(FlLoop *loop, FlStream *self)
{
    PyObject *waiter = self->waiter;
    self->waiter = NULL; /* its reference is ours now */
    if (waiter == NULL) {
        return 0;
    }
    int code =
        fl_stream_resolve_if_pending(loop, waiter,
                                     self->state->names.set_result, Py_None);
    Py_DECREF(waiter);
    return code;
}

/* asyncio queues this as callbacks of their own, so it also runs when
   connection_made has raised.  0, or -1 to end the run. */
static int
start_reading(FlLoop *loop, FlStream *self)
{
    int code;
    Py_BEGIN_CRITICAL_SECTION(self); /* another thread may be writing */
    code = fl_stream_update_registration(self);
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        fl_stream_fail(self, code);
    }
    return wake_waiter(loop, self);
}

/* Read at once what an accepted connection has sent already: its request, or
   the beginning of TLS.  A server that stops before the next poll (uvicorn on
   SIGTERM) closes a connection without a request, and the kernel resets one
   with unread bytes.  Where nothing has arrived this costs a recv.  What is
   written leaves as after an event.  0, or -1 to end the run. */
static int
read_first_bytes(FlLoop *loop, FlStream *self)
{
    int code = fl_loop_time_rest(loop, (PyObject *)self, 0);
    code = code < 0 ? -1 : self->run_events(self, FL_READABLE);
    fl_loop_flush_corked(loop);
    return code;
}

static int
run_connection_made(FlLoop *loop, PyObject *subject,
                    PyObject *Py_UNUSED(argument))
{
    FlStream *self = (FlStream *)subject;
    PyObject *name = loop->state->names.connection_made;
    FlProtocol protocol = fl_protocol_get(self, &self->protocol);
    if (protocol.object == NULL) {
        /* connection_lost has run, for lack of memory, or a finalizer. */
        return wake_waiter(loop, self);
    }
    /* A stream closed before this still gets connection_made; its
       connection_lost is queued behind. */
    if (self->phase == FL_STREAM_OPENING) {
        fl_stream_set_phase(self, FL_STREAM_OPEN);
    }
    PyObject *exc = NULL;
    uint64_t tail = loop->ready.tail;
    fl_protocol_before_made(self->state, &protocol);
    int code = fl_call_method(protocol.object, name, subject);
    if (code < 0) {
        code = fl_loop_report_call(loop, protocol.object, name, subject);
    }
    if (code < 0) {
        exc = PyErr_GetRaisedException(); /* ends the run, afterwards */
    }
    Py_DECREF(protocol.object);
    /* Also when it has ended the stream: the waiter must not wait for ever. */
    code = start_reading(loop, self);
    /* What connection_made has queued runs before data_received. */
    if (code == 0 && exc == NULL && self->server != NULL
        && loop->ready.tail == tail)
    {
        code = read_first_bytes(loop, self);
    }
    return fl_error_keep_first(exc, code, subject);
}

/* --- opening ------------------------------------------------------------- */

/* Save the names for get_extra_info, as asyncio does: getpeername fails once
   the peer has left, getsockname once the fd is closed.  0, or -1 with
   MemoryError. */
static int
save_names(FlStream *self, const FlStreamOptions *options)
{
    struct sockaddr_storage name;
    struct sockaddr *address = (struct sockaddr *)&name;
    socklen_t size = sizeof(name);
    if (options->peer != NULL) {
        self->peer = fl_name_new(options->peer, options->peer_size);
    }
    else if (getpeername(options->fd, address, &size) == 0) {
        self->peer = fl_name_new(&name, size);
    }
    size = sizeof(name);
    if (getsockname(options->fd, address, &size) == 0) {
        self->sockname = fl_name_new(&name, size);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* A stream without an fd or a registration.  NULL with an exception. */
static FlStream *
stream_new(FlLoop *loop, const FlStreamOptions *options)
{
    PyTypeObject *type =
        options->type == NULL ? loop->state->stream_type : options->type;
    FlStream *self = (FlStream *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->fd = self->last_fd = -1;
    self->run_events = options->run_events == NULL ? fl_stream_run_events
                                                   : options->run_events;
    self->state = loop->state;
    Py_INCREF(self->state->module);
    self->ops = &fl_stream_ops;
    self->high_water_bytes = FL_HIGH_WATER_BYTES;
    self->low_water_bytes = FL_HIGH_WATER_BYTES / 4;
    self->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    self->loop_node.kind = &stream_kind; /* the loop's calls */
    fl_list_init(&self->loop_node.link);
    fl_outbox_init(&self->out);
    self->sock = Py_XNewRef(options->sock);
    /* Over SCTP each send is a message: nothing is corked. */
    self->messages = options->messages;
    self->fd_shared = options->fd_shared || options->messages;
    self->waiter = Py_XNewRef(options->waiter);
    self->extra = Py_XNewRef(options->extra);
    self->context = options->context == NULL ? PyContext_CopyCurrent()
                                             : Py_NewRef(options->context);
    if (self->context == NULL || save_names(self, options) < 0
        || fl_protocol_change(self->state, self, &self->protocol,
                              options->protocol)
               < 0
        /* As in asyncio, AttributeError if a factory returned no protocol. */
        || fl_call_done(PyObject_GetAttr(options->protocol,
                                         loop->state->names.connection_made))
               < 0)
    {
        Py_CLEAR(self);
    }
    return self;
}

/* Give a new stream its fd and a registration, and the loop its reference.  0,
   or -1 with an exception and nothing to undo. */
static int
stream_start(FlStream *self, const FlStreamOptions *options)
{
    FlLoop *loop = self->loop;
    if (fl_stream_take_fd(self, options->fd) < 0) {
        return -1;
    }
    self->fd = self->last_fd = self->out.fd = options->fd;
    fl_list_append(&loop->transports, &self->loop_node.link);
    Py_INCREF(self); /* the loop's, see drop_loop_reference */
    if (fl_stream_is_connection(self)) {
        fl_count_add(&loop->open_connections, 1);
    }
    return 0;
}

PyObject *
fl_stream_open(FlLoop *loop, const FlStreamOptions *options)
{
    FlStream *self = stream_new(loop, options);
    if (self == NULL) {
        return NULL;
    }
    int code = stream_start(self, options);
    if (code == 0 && options->server != NULL) {
        code = fl_stream_call_server(self, options->server,
                                     loop->state->names._attach);
        fl_field_set(self, &self->server, code < 0 ? NULL : options->server);
    }
    if (code < 0
        || fl_loop_queue_op(loop, run_connection_made, (PyObject *)self, NULL,
                            self->context)
               < 0)
    {
        fl_stream_undo_open(self);
        return NULL;
    }
    if (fl_stream_is_connection(self)) {
        /* asyncio sets TCP_NODELAY where the socket object's proto is
           IPPROTO_TCP, which misses sockets made with proto 0; here the
           address family decides.  An accepted socket inherits the option only
           if it arrived after the listener had set it, so each sets its
           own. */
        int family = self->sockname == NULL
                         ? AF_UNSPEC /* the fd was closed meanwhile */
                         : fl_name_address(self->sockname)->ss_family;
        int on = 1;
        if (family == AF_INET || family == AF_INET6) {
            (void)setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on,
                             sizeof(on));
        }
        FL_METER(loop, connections_made, 1);
    }
    return (PyObject *)self;
}

/* --- module functions, for _loop/connections.py -------------------------- */

static const char open_stream_doc[] =
    "open_stream(loop, sock, fd_shared, protocol, waiter, extra, server, "
    "context, /)\n"
    "--\n\n"
    "Create a StreamTransport on a connected, non-blocking socket.\n\n"
    "The transport owns the socket from now on.  fd_shared: other code may\n"
    "have the socket object; 2: it is one of SCTP.  The parameters after\n"
    "protocol may be None.";

static PyObject *
open_stream(PyObject *module, PyObject *args)
{
    PyObject *loop, *sock, *protocol, *waiter, *extra, *server, *context;
    int fd_shared;
    if (!PyArg_ParseTuple(args, "O!OiOOOOO:open_stream",
                          fl_state_get(module)->loop_type, &loop, &sock,
                          &fd_shared, &protocol, &waiter, &extra, &server,
                          &context))
    {
        return NULL;
    }
    FlStreamOptions options = {
        .sock = sock,
        .fd_shared = fd_shared != 0,
        .messages = fd_shared == 2,
        .fd = fl_fd_of(FL_LOOP(loop), sock),
        .protocol = protocol,
        .waiter = fl_none_to_null(waiter),
        .extra = fl_none_to_null(extra),
        .server = fl_none_to_null(server),
        .context = fl_none_to_null(context),
    };
    /* On failure the socket remains the caller's, and open. */
    return options.fd < 0
                   || fl_fd_check(FL_LOOP(loop), sock, options.fd, false) < 0
               ? NULL
               : fl_stream_open(FL_LOOP(loop), &options);
}

static const char is_literal_doc[] =
    "is_literal(family, address, /)\n--\n\n"
    "Return True if an address of this family needs no resolver: (numeric\n"
    "host, port), or for AF_INET6 (numeric host, port, flow info, scope ID).";

static PyObject *
is_literal(PyObject *Py_UNUSED(module), PyObject *args)
{
    int family;
    PyObject *address;
    if (!PyArg_ParseTuple(args, "iO:is_literal", &family, &address)) {
        return NULL;
    }
    return PyBool_FromLong((family == AF_INET || family == AF_INET6)
                           && fl_address_is_literal(family, address));
}

static PyMethodDef functions[] = {
    {"open_stream", open_stream, METH_VARARGS, open_stream_doc},
    {"is_literal", is_literal, METH_VARARGS, is_literal_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_stream_open_register(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
