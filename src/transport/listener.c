/* Accepting: one listener per listening socket of a Server.

   A listener is a callable that the loop's add_reader machinery calls: so
   remove_reader, add_reader and sock_accept of a serving socket do what they
   do in asyncio, whose servers use it too.

   1. An event accepts up to a limit that doubles while it is reached and the
      next poll finds more, and starts again from one otherwise: a lone
      connection costs one accept call.
   2. Each connection has a context of its own, a copy of the server's; the
      protocol factory and every callback of the connection run in it.
   3. A factory that raises costs its connection, never the listener.
   4. accept has no flag of its own that keeps it from waiting, and any process
      that shares the socket can clear O_NONBLOCK.  So an event accepts without
      the GIL, and sets O_NONBLOCK before it looks for more than the one
      connection it was told of.  Where another process has cleared it and
      takes that one, too, the loop waits for the next: other threads run on.
   5. Out of descriptors or memory: reported, and the listener rests for
      asyncio's ACCEPT_RETRY_DELAY (Loop._accept_exhausted starts it again),
      unless its server stops it meanwhile. */
#include "transport/listener.h"

#include "core/handle.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/poller.h"
#include "core/report.h"
#include "loop/user_fd.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/extra_info.h"
#include "transport/sockaddr.h"
#include "transport/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

#define MOST_ACCEPTS 64

/* The watcher's handle owns it while it accepts, a timer while it rests.  The
   listening socket is its Server's; the reference only keeps the number
   true. */
typedef struct {
    PyObject_HEAD
    FlLoop *loop;
    FlHandle *handle; /* the watcher's, or NULL */
    PyObject *sock;
    PyObject *factory;
    PyObject *server;
    PyObject *accept_tls; /* called with (socket, peer) instead, or NULL */
    PyObject *context;
    int fd; /* sock's */
    int backlog;
    int accept_limit;      /* of the last event: invariant 1 */
    uint64_t reached_poll; /* the poll whose event reached it, or 0 */
} Listener;

/* --- one connection ------------------------------------------------------ */

typedef struct {
    struct sockaddr_storage peer;
    socklen_t peer_size;
    int fd;
} Accepted;

/* 0 or a negative errno. */
static int
accept_one(int listener_fd, Accepted *accepted)
{
    accepted->peer_size = sizeof(accepted->peer);
    struct sockaddr *peer = (struct sockaddr *)&accepted->peer;
#ifdef __linux__
    accepted->fd = accept4(listener_fd, peer, &accepted->peer_size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    accepted->fd = accept(listener_fd, peer, &accepted->peer_size);
    if (accepted->fd >= 0) {
        (void)fcntl(accepted->fd, F_SETFL, O_NONBLOCK);
        (void)fcntl(accepted->fd, F_SETFD, FD_CLOEXEC);
    }
#endif
    return accepted->fd < 0 ? -errno : 0;
}

/* Up to limit connections, without the GIL.  How many, and in *code why there
   are not more: 0 or a negative errno. */
static int
accept_some(int listener_fd, Accepted *accepted, int limit, int *code)
{
    int on = 1, count = 0;
    if (limit > 1) {
        /* If this fails, accept says why. */
        (void)ioctl(listener_fd, FIONBIO, &on);
    }
    PyThreadState *thread = PyEval_SaveThread();
    *code = 0;
    for (int tries = 0; tries < limit && *code == 0; tries++) {
        *code = accept_one(listener_fd, &accepted[count]);
        if (*code == 0) {
            count++;
        }
        else if (*code == -EINTR || *code == -ECONNABORTED) {
            *code = 0; /* the peer has left already */
        }
    }
    PyEval_RestoreThread(thread);
    return count;
}

static int
open_plain(Listener *self, const Accepted *accepted, PyObject *context)
{
    PyObject *protocol = PyObject_CallNoArgs(self->factory);
    if (protocol == NULL) {
        return -1;
    }
    FlStreamOptions options = {
        .fd = accepted->fd,
        .protocol = protocol,
        .server = self->server,
        .context = context,
        .peer = &accepted->peer,
        .peer_size = accepted->peer_size,
    };
    PyObject *stream = NULL;
    /* The factory is the program's code, and may have closed the loop. */
    if (fl_loop_check_open(self->loop) == 0) {
        stream = fl_stream_open(self->loop, &options);
    }
    Py_DECREF(protocol);
    Py_XDECREF(stream);
    return stream == NULL ? -1 : 0;
}

/* From the call on, the socket object owns the descriptor. */
static int
open_tls(Listener *self, Accepted *accepted)
{
    PyObject *sock =
        fl_socket_from_descriptor(self->loop->state, accepted->fd);
    if (sock == NULL) {
        return -1;
    }
    accepted->fd = -1;
    PyObject *peer = fl_sockaddr_object(&accepted->peer, accepted->peer_size);
    PyObject *result =
        peer == NULL
            ? NULL
            : PyObject_CallFunctionObjArgs(self->accept_tls, sock, peer, NULL);
    Py_XDECREF(peer);
    Py_DECREF(sock);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* 0, or -1 with an exception that leaves the loop. */
static int
open_accepted(Listener *self, Accepted *accepted)
{
    PyObject *context = PyContext_Copy(self->context);
    int code = -1;
    if (context != NULL && PyContext_Enter(context) == 0) {
        code = self->accept_tls == NULL ? open_plain(self, accepted, context)
                                        : open_tls(self, accepted);
        fl_context_leave(context, code < 0);
    }
    Py_XDECREF(context);
    if (code == 0) {
        return 0;
    }
    FL_METER(self->loop, connections_refused, 1);
    /* No stream took it, nor a socket object. */
    if (accepted->fd >= 0) {
        fl_close_socket(accepted->fd);
    }
    if (fl_error_leaves_loop()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *result = PyObject_CallMethodOneArg(
        (PyObject *)self->loop, self->loop->state->names._accept_failed, exc);
    Py_DECREF(exc);
    Py_XDECREF(result);
    return result == NULL ? fl_loop_report_callback(self->loop, NULL) : 0;
}

/* --- events -------------------------------------------------------------- */

static bool
is_exhaustion(int code)
{
    return code == -EMFILE || code == -ENFILE || code == -ENOBUFS
           || code == -ENOMEM;
}

/* True while it is the one that the socket's events go to. */
static bool
is_accepting(const Listener *self)
{
    return self->handle != NULL && !fl_handle_is_cancelled(self->handle);
}

/* Stop watching the socket; the loop may be closed.  0 or -1. */
static int
listener_stop(Listener *self)
{
    bool accepts = is_accepting(self);
    Py_CLEAR(self->handle);
    if (!accepts) {
        return 0; /* another took the number, or it was removed */
    }
    PyObject *number = PyLong_FromLong(self->fd);
    PyObject *removed =
        number == NULL
            ? NULL
            : fl_loop_remove_reader_raw(self->loop, &number, 1, NULL);
    Py_XDECREF(number);
    Py_XDECREF(removed);
    return removed == NULL ? -1 : 0;
}

static int
listener_start(Listener *self)
{
    PyObject *number = PyLong_FromLong(self->fd);
    PyObject *args[] = {number, (PyObject *)self};
    PyObject *handle = number == NULL
                           ? NULL
                           : fl_loop_add_reader_raw(self->loop, args, 2, NULL);
    Py_XDECREF(number);
    Py_XSETREF(self->handle, (FlHandle *)handle);
    return handle == NULL ? -1 : 0;
}

/* accept failed: rest, or report.  0 or -1 to leave the loop. */
static int
accept_failed(Listener *self, int code)
{
    PyObject *exc = fl_errno_exception(code);
    if (exc == NULL) {
        return fl_loop_report_callback(self->loop, NULL);
    }
    FlNames *names = &self->loop->state->names;
    PyObject *result;
    if (is_exhaustion(code)) {
        result = listener_stop(self) < 0
                     ? NULL
                     : PyObject_CallMethodObjArgs((PyObject *)self->loop,
                                                  names->_accept_exhausted,
                                                  self->sock, exc, self, NULL);
    }
    else {
        result = PyObject_CallMethodOneArg((PyObject *)self->loop,
                                           names->_accept_failed, exc);
    }
    Py_DECREF(exc);
    Py_XDECREF(result);
    return result == NULL ? fl_loop_report_callback(self->loop, NULL) : 0;
}

/* Open all that were accepted, also past an exception that leaves the loop:
   their peers are connected.  0, or -1 with the first such exception. */
static int
open_all(Listener *self, Accepted *accepted, int count)
{
    PyObject *leaving = NULL;
    for (int at = 0; at < count; at++) {
        if (!is_accepting(self)) {
            /* A factory has stopped the listener: a server refuses, too, what
               comes to it later. */
            fl_loop_expect_io(self->loop);
            fl_close_socket(accepted[at].fd);
            FL_METER(self->loop, connections_refused, 1);
        }
        else if (open_accepted(self, &accepted[at]) < 0) {
            if (leaving != NULL) {
                PyErr_WriteUnraisable((PyObject *)self);
            }
            else {
                leaving = PyErr_GetRaisedException();
            }
        }
    }
    if (leaving != NULL) {
        PyErr_SetRaisedException(leaving);
    }
    return leaving == NULL ? 0 : -1;
}

/* How many to accept now: see invariant 1. */
static int
next_limit(Listener *self)
{
    bool more = self->reached_poll != 0
                && self->reached_poll + 1 == self->loop->poller->polls;
    if (!more) {
        self->accept_limit = 1;
    }
    else if (self->accept_limit < MOST_ACCEPTS
             && self->accept_limit <= self->backlog)
    {
        self->accept_limit *= 2;
    }
    return self->accept_limit;
}

static int
accept_event(Listener *self)
{
    Accepted accepted[MOST_ACCEPTS];
    int code;
    int count = accept_some(self->fd, accepted, next_limit(self), &code);
    FL_METER(self->loop, connections_accepted, (uint64_t)count);
    bool emptied = code == -EAGAIN || code == -EWOULDBLOCK;
    self->reached_poll = code == 0 ? self->loop->poller->polls : 0;
    if (open_all(self, accepted, count) < 0) {
        return -1;
    }
    return code < 0 && !emptied && is_accepting(self)
               ? accept_failed(self, code)
               : 0;
}

static PyObject *
listener_call(Listener *self, PyObject *Py_UNUSED(args),
              PyObject *Py_UNUSED(kwargs))
{
    return accept_event(self) < 0 ? NULL : Py_NewRef(Py_None);
}

/* --- starting and stopping ----------------------------------------------- */

static Listener *
listener_new(FlLoop *loop, PyObject *sock, int fd)
{
    PyTypeObject *type = loop->state->listener_type;
    Listener *self = (Listener *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    self->sock = Py_NewRef(sock);
    self->fd = fd;
    self->accept_limit = 1;
    return self;
}

static bool
exposed(PyObject *object)
{
    return object != NULL && object != Py_None;
}

static int
parse_loop(PyObject *module, PyObject *object, FlLoop **loop)
{
    PyTypeObject *type = fl_state_get(module)->loop_type;
    if (!PyObject_TypeCheck(object, type)) {
        PyErr_SetString(PyExc_TypeError, "a fastloop.Loop is required");
        return -1;
    }
    *loop = FL_LOOP(object);
    return fl_loop_check_open(*loop);
}

/* --- module functions ---------------------------------------------------- */

static const char start_accepting_doc[] =
    "start_accepting(loop, sock, factory, server, backlog, accept_tls,\n"
    "                context, /)\n--\n\n"
    "Accept connections of a listening socket; whatever takes its reader\n"
    "away ends that.\n\n"
    "accept_tls, when not None, is called with (socket, peer name) for each\n"
    "instead of opening a plain transport; context is the\n"
    "contextvars.Context that connections copy, or None.";

static PyObject *
start_accepting(PyObject *module, PyObject *args)
{
    PyObject *loop_object, *sock, *factory, *server, *accept_tls, *context;
    int backlog;
    FlLoop *loop;
    if (!PyArg_ParseTuple(args, "OOOOiOO:start_accepting", &loop_object, &sock,
                          &factory, &server, &backlog, &accept_tls, &context)
        || parse_loop(module, loop_object, &loop) < 0)
    {
        return NULL;
    }
    int fd = fl_fd_of(loop, sock);
    if (fd < 0) {
        return NULL;
    }
    Listener *self = listener_new(loop, sock, fd);
    if (self == NULL) {
        return NULL;
    }
    self->backlog = backlog;
    self->factory = Py_NewRef(factory);
    self->server = exposed(server) ? Py_NewRef(server) : NULL;
    self->accept_tls = exposed(accept_tls) ? Py_NewRef(accept_tls) : NULL;
    self->context =
        exposed(context) ? Py_NewRef(context) : PyContext_CopyCurrent();
    int code = self->context == NULL ? -1 : listener_start(self);
    Py_DECREF(self);
    /* A reader that was there before may have closed the loop as it went. */
    if (code < 0 || fl_loop_check_open(loop) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static const char resume_accepting_doc[] =
    "resume_accepting(listener, /)\n--\n\n"
    "Accept again after a pause.";

static PyObject *
resume_accepting(PyObject *module, PyObject *object)
{
    PyTypeObject *type = fl_state_get(module)->listener_type;
    if (!Py_IS_TYPE(object, type)) {
        PyErr_SetString(PyExc_TypeError, "a Listener is required");
        return NULL;
    }
    return listener_start((Listener *)object) < 0 ? NULL : Py_NewRef(Py_None);
}

static const char open_stream_doc[] =
    "open_stream(loop, sock, shared, protocol, waiter, extra, server, "
    "context, /)\n"
    "--\n\n"
    "A StreamTransport on a connected, non-blocking socket, which it owns\n"
    "from now on.  shared: others may have the socket, too.  Everything\n"
    "after protocol may be None.";

static PyObject *
open_stream(PyObject *module, PyObject *args)
{
    PyObject *loop_object, *sock, *protocol, *waiter, *extra, *server,
        *context;
    FlLoop *loop;
    int shared;
    if (!PyArg_ParseTuple(args, "OOpOOOOO:open_stream", &loop_object, &sock,
                          &shared, &protocol, &waiter, &extra, &server,
                          &context)
        || parse_loop(module, loop_object, &loop) < 0)
    {
        return NULL;
    }
    FlStreamOptions options = {
        .sock = sock,
        .sock_private = !shared,
        .fd = fl_fd_of(loop, sock),
        .protocol = protocol,
        .waiter = exposed(waiter) ? waiter : NULL,
        .extra = exposed(extra) ? extra : NULL,
        .server = exposed(server) ? server : NULL,
        .context = exposed(context) ? context : NULL,
    };
    return options.fd < 0 ? NULL : fl_stream_open(loop, &options);
}

static const char is_literal_doc[] =
    "is_literal(address, /)\n--\n\n"
    "Whether an address is as connect() takes it: a tuple of a numeric host\n"
    "and a port, of IPv6 with flow and scope.";

static PyObject *
is_literal(PyObject *Py_UNUSED(module), PyObject *address)
{
    return PyBool_FromLong(fl_address_is_literal(address));
}

static const char check_no_transport_doc[] =
    "check_no_transport(loop, fd, /)\n--\n\n"
    "Raise RuntimeError if a transport uses a descriptor, ValueError for\n"
    "what is no descriptor.";

static PyObject *
check_no_transport(PyObject *module, PyObject *args)
{
    PyObject *loop, *object;
    if (!PyArg_ParseTuple(args, "O!O:check_no_transport",
                          fl_state_get(module)->loop_type, &loop, &object)
        || fl_fd_check(FL_LOOP(loop), object) < 0)
    {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"start_accepting", start_accepting, METH_VARARGS, start_accepting_doc},
    {"resume_accepting", resume_accepting, METH_O, resume_accepting_doc},
    {"open_stream", open_stream, METH_VARARGS, open_stream_doc},
    {"is_literal", is_literal, METH_O, is_literal_doc},
    {"check_no_transport", check_no_transport, METH_VARARGS,
     check_no_transport_doc},
    {NULL, NULL, 0, NULL},
};

/* --- the type ------------------------------------------------------------ */

static int
listener_traverse(Listener *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->handle);
    Py_VISIT(self->sock);
    Py_VISIT(self->factory);
    Py_VISIT(self->server);
    Py_VISIT(self->accept_tls);
    Py_VISIT(self->context);
    return 0;
}

static int
listener_clear(Listener *self)
{
    Py_CLEAR(self->handle);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->server);
    Py_CLEAR(self->accept_tls);
    Py_CLEAR(self->context);
    return 0;
}

static void
listener_dealloc(Listener *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)listener_clear(self);
    Py_CLEAR(self->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot listener_slots[] = {
    {Py_tp_call, listener_call},
    {Py_tp_dealloc, listener_dealloc},
    {Py_tp_traverse, listener_traverse},
    {Py_tp_clear, listener_clear},
    {0, NULL},
};

static PyType_Spec listener_spec = {
    .name = "fastloop._core.Listener",
    .basicsize = sizeof(Listener),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = listener_slots,
};

int
fl_listener_register(PyObject *module, FlState *state)
{
    state->listener_type = fl_type_add(module, &listener_spec, NULL);
    if (state->listener_type == NULL) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
