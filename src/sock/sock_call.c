/* sock_recv and its kin: a socket's call made at once, or when it can be.

   A coroutine of fastloop/sockets.py calls one function here.  What could be
   done at once is its answer; else it gets a SocketCall, which watches the
   descriptor, makes the call when that is ready, and settles a future.

   1. Every try asks the socket for its number: a socket that was closed has
      none, even if the system gave the number to another meanwhile.
   2. The watcher is the loop's own (add_reader's): a later one of the same
      number and direction takes its place, and the earlier call waits until it
      is cancelled, as in asyncio.  A call removes only what is its own.
   3. Where the watch may be kept, the call itself stands in the watcher's
      place and leaves the watch as it is; else there is a handle, and the
      number is let go of.
   4. While a call waits the socket is used, as by a file of makefile(): a
      close() takes effect when the call ends, so that none waits for ever for
      a number that is gone. */
#include "sock/sock_call.h"

#include "core/fd_set.h"
#include "core/handle.h"
#include "core/loop.h"
#include "loop/fd_wait.h"
#include "loop/user_fd.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "sock/attempt.h"

typedef struct {
    FlFdCall base;
    FlAttempt attempt; /* which owns what it is about */
    PyObject *future;  /* NULL: not waiting */
    FlHandle *handle;  /* the watcher's, NULL: the call stands in its place */
    int fd;            /* the watched number */
    bool waits;        /* in the watcher's place, as itself or by a handle */
    bool uses_socket;  /* it is counted in the socket's _io_refs */
} SocketCall;

/* --- waiting ------------------------------------------------------------- */

/* Count one more use of the socket, or one less; it is one of Python's or a
   subclass of it.  0 or -1. */
static int
count_use(SocketCall *self, long change)
{
    PyObject *sock = self->attempt.sock;
    PyObject *name = self->attempt.state->names._io_refs;
    PyObject *before = PyObject_GetAttr(sock, name);
    long count = before == NULL ? -1 : PyLong_AsLong(before);
    Py_XDECREF(before);
    if (count == -1 && PyErr_Occurred()) {
        return -1;
    }
    PyObject *after = PyLong_FromLong(count + change);
    int code = after == NULL ? -1 : PyObject_SetAttr(sock, name, after);
    Py_XDECREF(after);
    return code;
}

static int
use_socket(SocketCall *self)
{
    const FlAttempt *attempt = &self->attempt;
    if (!fl_attempt_is_plain(attempt)
        && !PyObject_TypeCheck(attempt->sock,
                               (PyTypeObject *)attempt->state->socket_type))
    {
        return 0; /* it closes in a way of its own */
    }
    int code = count_use(self, 1);
    self->uses_socket = code == 0;
    return code;
}

/* A socket that was closed meanwhile is closed now.  0 or -1. */
static int
stop_using_socket(SocketCall *self)
{
    FlNames *names = &self->attempt.state->names;
    PyObject *sock = self->attempt.sock;
    if (!self->uses_socket) {
        return 0;
    }
    self->uses_socket = false;
    PyObject *closed = PyObject_GetAttr(sock, names->_closed);
    if (closed == NULL) {
        return -1;
    }
    Py_DECREF(closed);
    if (closed == Py_False) {
        return count_use(self, -1);
    }
    PyObject *done = PyObject_CallMethodNoArgs(sock, names->_decref_socketios);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Let go of the number.  0 or -1. */
static int
stop_waiting(SocketCall *self)
{
    FlLoop *loop = self->attempt.loop;
    int event = self->attempt.operation->event;
    FlHandle *handle = self->handle;
    if (!self->waits) {
        return 0;
    }
    self->waits = false;
    self->handle = NULL;
    if (handle == NULL) {
        fl_fd_stop_waiting(loop, self->fd, event, (PyObject *)self);
        return 0;
    }
    bool ours = !fl_handle_is_cancelled(handle);
    Py_DECREF(handle);
    if (!ours) {
        return 0; /* another took the number */
    }
    PyObject *number = PyLong_FromLong(self->fd);
    if (number == NULL) {
        return -1;
    }
    PyObject *removed =
        event == FL_READABLE
            ? fl_loop_remove_reader_raw(loop, &number, 1, NULL)
            : fl_loop_remove_writer_raw(loop, &number, 1, NULL);
    Py_DECREF(number);
    Py_XDECREF(removed);
    return removed == NULL ? -1 : 0;
}

/* Let go of the number, the future, the buffer and the socket.  0 or -1. */
static int
release(SocketCall *self)
{
    Py_CLEAR(self->future);
    fl_attempt_release_view(&self->attempt);
    int code = stop_waiting(self);
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    return fl_error_keep_first(exc, stop_using_socket(self), (PyObject *)self);
}

/* Settle the future with a result or the raised exception.  0 or -1. */
static int
finish_future(SocketCall *self, PyObject *result)
{
    FlNames *names = &self->attempt.state->names;
    PyObject *method =
        result == NULL ? names->set_exception : names->set_result;
    PyObject *value =
        result == NULL ? PyErr_GetRaisedException() : Py_NewRef(result);
    PyObject *future = Py_NewRef(self->future);
    PyObject *done = PyObject_CallMethodOneArg(future, method, value);
    Py_DECREF(future);
    Py_DECREF(value);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* The watcher's callback: the descriptor is ready. */
static int
on_ready(SocketCall *self)
{
    int done =
        self->future == NULL
            ? 1
            : fl_call_truth(self->future, self->attempt.state->names.done);
    if (done != 0) {
        return done < 0 ? -1 : 0; /* the coroutine is about to release it */
    }
    PyObject *result = NULL;
    int code = fl_attempt_make(&self->attempt, &result);
    if (code == 0) {
        return 0;
    }
    if (self->future == NULL) {
        /* The call itself has ended the coroutine. */
        Py_XDECREF(result);
        return code < 0 ? -1 : 0;
    }
    if (code < 0 && fl_error_leaves_loop()) {
        return -1;
    }
    code = finish_future(self, result);
    Py_XDECREF(result);
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    return fl_error_keep_first(exc, release(self), (PyObject *)self);
}

static int
run_call(PyObject *object)
{
    Py_INCREF(object);
    int code = on_ready((SocketCall *)object);
    Py_DECREF(object);
    return code;
}

static PyObject *
ready_callback(SocketCall *self, PyObject *Py_UNUSED(args),
               PyObject *Py_UNUSED(kwargs))
{
    return run_call((PyObject *)self) < 0 ? NULL : Py_NewRef(Py_None);
}

/* Be told by a handle.  0 or -1. */
static int
wait_by_handle(SocketCall *self, PyObject *number)
{
    FlLoop *loop = self->attempt.loop;
    PyObject *args[] = {number, (PyObject *)self};
    self->handle =
        (FlHandle *)(self->attempt.operation->event == FL_READABLE
                         ? fl_loop_add_reader_raw(loop, args, 2, NULL)
                         : fl_loop_add_writer_raw(loop, args, 2, NULL));
    return self->handle == NULL ? -1 : 0;
}

/* Be told by the number's watch, kept if it may be.  0 or -1. */
static int
wait_on_fd(SocketCall *self)
{
    FlAttempt *attempt = &self->attempt;
    PyObject *number = PyLong_FromLong(self->fd);
    int code = number == NULL ? -1 : fl_fd_check(attempt->loop, number);
    if (code == 0 && fl_attempt_may_persist(attempt, self->fd)) {
        code = fl_fd_wait(attempt->loop, self->fd, attempt->sock,
                          attempt->operation->event, (PyObject *)self);
    }
    if (code == 0) {
        code = wait_by_handle(self, number);
    }
    Py_XDECREF(number);
    self->waits = code >= 0;
    return code < 0 ? -1 : 0;
}

/* Watch the descriptor for what the call needs.  0 or -1. */
static int
wait(SocketCall *self)
{
    FlAttempt *attempt = &self->attempt;
    self->future =
        PyObject_CallMethodNoArgs((PyObject *)attempt->loop,
                                  attempt->state->names.create_future);
    self->fd =
        self->future == NULL ? -1 : PyObject_AsFileDescriptor(attempt->sock);
    if (self->fd < 0 || use_socket(self) < 0) {
        return -1;
    }
    if (wait_on_fd(self) < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        return fl_error_keep_first(exc, release(self), (PyObject *)self);
    }
    return 0;
}

/* --- module functions ---------------------------------------------------- */

/* What asyncio checks first.  0 or -1. */
static int
check_socket(FlState *state, FlLoop *loop, PyObject *sock)
{
    if (Py_TYPE(sock) != (PyTypeObject *)state->socket_type) {
        PyObject *fine =
            PyObject_CallMethodOneArg(state->streams,
                                      state->names.check_ssl_socket, sock);
        if (fine == NULL) {
            return -1;
        }
        Py_DECREF(fine);
    }
    if (!loop->debug) {
        return 0;
    }
    PyObject *timeout =
        PyObject_CallMethodNoArgs(sock, state->names.gettimeout);
    int blocking = timeout == NULL ? -1 : PyObject_IsTrue(timeout);
    blocking = timeout == Py_None ? 1 : blocking;
    Py_XDECREF(timeout);
    if (blocking > 0) {
        PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
    }
    return blocking == 0 ? 0 : -1;
}

/* A call that waits for what was tried; it takes the buffer over. */
static SocketCall *
call_new(FlAttempt *attempt)
{
    PyTypeObject *type = attempt->state->socket_call_type;
    SocketCall *self = (SocketCall *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->base.run = run_call;
    self->attempt = *attempt;
    self->attempt.again = true;
    attempt->view.obj = NULL;
    Py_INCREF(attempt->loop);
    Py_INCREF(attempt->sock);
    for (Py_ssize_t at = 0; at < attempt->nargs; at++) {
        Py_INCREF(attempt->args[at]);
    }
    return self;
}

/* The answer of a call that was made, or a SocketCall that waits. */
static PyObject *
begin(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
      Py_ssize_t wanted, const FlOperation *operation)
{
    FlState *state = fl_state_get(module);
    FlAttempt attempt = {.state = state, .operation = operation};
    if (nargs != wanted || !PyObject_TypeCheck(args[0], state->loop_type)) {
        PyErr_Format(PyExc_TypeError,
                     "sock_%U() takes a loop, a socket and its arguments",
                     fl_attempt_name(&attempt));
        return NULL;
    }
    if (check_socket(state, FL_LOOP(args[0]), args[1]) < 0) {
        return NULL;
    }
    attempt.loop = FL_LOOP(args[0]);
    attempt.sock = args[1];
    attempt.nargs = nargs - 2;
    for (Py_ssize_t at = 0; at < attempt.nargs; at++) {
        attempt.args[at] = args[2 + at];
    }
    PyObject *result = NULL;
    SocketCall *self = NULL;
    int code = fl_attempt_make(&attempt, &result);
    if (code == 0) {
        self = call_new(&attempt);
        code = self == NULL ? -1 : wait(self);
    }
    fl_attempt_release_view(&attempt);
    if (code < 0) {
        Py_CLEAR(self);
    }
    return self != NULL ? (PyObject *)self : result;
}

#define FUNCTION(name, count, parameters, what)                           \
    static const char name##_doc[] =                                      \
        "sock_" #name "(loop, sock" parameters ", /)\n--\n\n" what        \
        "\nReturns a SocketCall when it would block.";                    \
    static PyObject *call_##name(PyObject *module, PyObject *const *args, \
                                 Py_ssize_t nargs)                        \
    {                                                                     \
        return begin(module, args, nargs, count, &fl_operation_##name);   \
    }

FUNCTION(recv, 3, ", size", "sock.recv(size).")
FUNCTION(recv_into, 3, ", buffer", "sock.recv_into(buffer).")
FUNCTION(recvfrom, 3, ", size", "sock.recvfrom(size).")
FUNCTION(recvfrom_into, 4, ", buffer, size",
         "sock.recvfrom_into(buffer, size).")
FUNCTION(sendall, 3, ", data", "sock.send(data) until all is sent.")
FUNCTION(sendto, 4, ", data, address", "sock.sendto(data, address).")
FUNCTION(accept, 2, "", "sock.accept(), and the new socket made non-blocking.")
FUNCTION(connect, 3, ", address", "sock.connect(address).")

static const char is_plain_doc[] =
    "is_plain_class(kind, /)\n--\n\n"
    "Whether a socket's class is socket.socket, with the system's methods.";

static PyObject *
is_plain_class(PyObject *module, PyObject *kind)
{
    FlState *state = fl_state_get(module);
    return PyBool_FromLong(kind == state->socket_type
                           && !fl_overrides_socket(state));
}

#define ROW(name)                                                \
    {                                                            \
        "sock_" #name, (PyCFunction)(void (*)(void))call_##name, \
            METH_FASTCALL, name##_doc                            \
    }

static PyMethodDef functions[] = {
    ROW(recv),
    ROW(recv_into),
    ROW(recvfrom),
    ROW(recvfrom_into),
    ROW(sendall),
    ROW(sendto),
    ROW(accept),
    ROW(connect),
    {"is_plain_class", is_plain_class, METH_O, is_plain_doc},
    {NULL, NULL, 0, NULL},
};

/* --- the type ------------------------------------------------------------ */

static const char release_doc[] =
    "release($self, /)\n--\n\n"
    "Stop waiting: the descriptor is watched no more.";

static PyObject *
call_release(SocketCall *self, PyObject *Py_UNUSED(ignored))
{
    return release(self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
future_get(SocketCall *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->future == NULL ? Py_None : self->future);
}

static PyObject *
call_repr(SocketCall *self)
{
    return PyUnicode_FromFormat("<SocketCall %U fd=%d>",
                                fl_attempt_name(&self->attempt), self->fd);
}

static int
call_traverse(SocketCall *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->attempt.loop);
    Py_VISIT(self->attempt.sock);
    for (Py_ssize_t at = 0; at < self->attempt.nargs; at++) {
        Py_VISIT(self->attempt.args[at]);
    }
    Py_VISIT(self->attempt.view.obj);
    Py_VISIT(self->future);
    Py_VISIT(self->handle);
    return 0;
}

/* The loop and the socket stay: release needs them. */
static int
call_clear(SocketCall *self)
{
    Py_CLEAR(self->future);
    Py_CLEAR(self->handle);
    for (Py_ssize_t at = 0; at < self->attempt.nargs; at++) {
        Py_CLEAR(self->attempt.args[at]);
    }
    fl_attempt_release_view(&self->attempt);
    return 0;
}

/* One that was not released leaves the socket as if it were. */
static void
call_finalize(PyObject *object)
{
    SocketCall *self = (SocketCall *)object;
    if (!self->uses_socket) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (stop_using_socket(self) < 0) {
        PyErr_WriteUnraisable(object);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

static void
call_dealloc(SocketCall *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    (void)call_clear(self);
    Py_CLEAR(self->attempt.sock);
    Py_CLEAR(self->attempt.loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef call_methods[] = {
    {"release", (PyCFunction)call_release, METH_NOARGS, release_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef call_getset[] = {
    {"future", (getter)future_get, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static const char call_doc[] =
    "A socket's call that waits for its descriptor; settles its future.";

static PyType_Slot call_slots[] = {
    {Py_tp_doc, (void *)call_doc},   {Py_tp_call, ready_callback},
    {Py_tp_dealloc, call_dealloc},   {Py_tp_finalize, call_finalize},
    {Py_tp_traverse, call_traverse}, {Py_tp_clear, call_clear},
    {Py_tp_repr, call_repr},         {Py_tp_methods, call_methods},
    {Py_tp_getset, call_getset},     {0, NULL},
};

static PyType_Spec call_spec = {
    .name = "fastloop._core.SocketCall",
    .basicsize = sizeof(SocketCall),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = call_slots,
};

int
fl_sock_call_register(PyObject *module, FlState *state)
{
    PyObject *streams = state->streams;
    state->socket_type = PyObject_GetAttrString(streams, "socket_type");
    state->socket_family =
        state->socket_type == NULL
            ? NULL
            : PyObject_GetAttrString(streams, "socket_family");
    state->socket_kind = state->socket_family == NULL
                             ? NULL
                             : PyObject_GetAttrString(streams, "socket_kind");
    if (state->socket_kind == NULL) {
        return -1;
    }
    state->socket_call_type = fl_type_add(module, &call_spec, NULL);
    return state->socket_call_type == NULL
               ? -1
               : PyModule_AddFunctions(module, functions);
}
