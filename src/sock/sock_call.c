/* sock_recv and the other sock_* calls: see sock_call.h.

   1. A call waits in the slots of add_reader() and add_writer().  A later
      registration for the same fd and direction replaces it.  The replaced
      call then waits until it is cancelled, as in asyncio.  A call removes
      only its own registration, never the one that replaced it.
   2. _loop/sockets.py awaits and closes each call.  From then on the call
      counts in the socket's _io_refs, as a file of makefile() does, so that
      close() takes effect only when the call ends.  Without that, closing
      would free the fd and the call would wait for ever.  A call that has lost
      its slot does so anyway (invariant 1), and counts no longer: closing the
      socket, or the transport that has it, closes the fd. */
#include "sock/sock_call.h"

#include "core/loop.h"
#include "core/overrides.h"
#include "loop/user_fd.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "sock/attempt.h"

#include <stdatomic.h>

/* A waiting operation.  Its life: call_new, call_await (registers it),
   on_ready (any number of times), call_release.  The coroutine and the fd's
   slot own it. */
typedef struct {
    PyObject_HEAD
    FlAttempt attempt;  /* owns its references, unlike other attempts */
    PyObject *future;   /* NULL before call_await, and once released */
    int fd;             /* the fd it waits for; -1: it does not wait */
    atomic_bool counts; /* in the socket's _io_refs: invariant 2 */
} SocketCall;

/* --- the socket's count of users ----------------------------------------- */

/* Add to the socket's _io_refs.  0, or -1 with an exception set. */
static int
add_users(SocketCall *self, long change)
{
    PyObject *sock = self->attempt.sock;
    PyObject *name = self->attempt.state->names._io_refs;
    PyObject *count = PyObject_GetAttr(sock, name);
    long users = count == NULL ? -1 : PyLong_AsLong(count);
    Py_XDECREF(count);
    if (users == -1 && PyErr_Occurred()) {
        return -1;
    }
    count = PyLong_FromLong(users + change);
    int code = count == NULL ? -1 : PyObject_SetAttr(sock, name, count);
    Py_XDECREF(count);
    return code;
}

/* Count it no longer, which closes the socket if the application has called
   close().  Loop's thread, or with a GIL any.  0, or -1 with an exception
   set. */
static int
end_count(SocketCall *self)
{
    if (!atomic_exchange(&self->counts, false)) {
        return 0;
    }
    const FlNames *names = &self->attempt.state->names;
    PyObject *sock = self->attempt.sock;
    /* Not its _decref_socketios(): Ctrl-C there would leave the count. */
    int closed =
        add_users(self, -1) < 0 ? -1 : fl_attr_truth(sock, names->_closed);
    return closed > 0 ? fl_call_method(sock, names->close, NULL) : closed;
}

/* --- waiting ------------------------------------------------------------- */

/* End the wait: drop the future and the buffer, and leave the slot.  A
   persistent registration stays. */
static void
call_release(SocketCall *self)
{
    /* First: without a future on_ready does nothing, and the clean-up below
       may run any Python. */
    Py_CLEAR(self->future);
    fl_attempt_release_view(&self->attempt);
    int fd = self->fd;
    self->fd = -1;
    if (fd >= 0) {
        /* Does nothing if another call or handle occupies the slot by now, or
           if the registration failed. */
        (void)fl_fd_remove(self->attempt.loop, fd,
                           self->attempt.operation->event, (PyObject *)self);
    }
}

/* The fd is ready: try again, and settle the future unless it would block.
   The call of this object, by the slot of the fd.  The caller has a reference:
   this may empty the slot that owns it. */
static PyObject *
on_ready(SocketCall *self, PyObject *Py_UNUSED(args),
         PyObject *Py_UNUSED(kwargs))
{
    const FlNames *names = &self->attempt.state->names;
    /* The future may have been cancelled since the event was reported. */
    int done =
        self->future == NULL ? 1 : fl_call_truth(self->future, names->done);
    if (done != 0 || self->future == NULL) {
        /* Released or cancelled.  The coroutine's `finally` releases it. */
        return fl_call_none(done < 0 ? -1 : 0);
    }
    PyObject *result = NULL;
    int code = fl_attempt_try(&self->attempt, &result);
    if (code == 0 || self->future == NULL) {
        /* Still registered: the next event tries again.  Or a method of the
           application's ran, and released this call. */
        Py_XDECREF(result);
        return fl_call_none(code < 0 ? -1 : 0);
    }
    PyObject *method = names->set_result;
    if (code < 0) {
        if (fl_exception_ends_run()) {
            return NULL; /* it leaves run_forever(), not by the future */
        }
        method = names->set_exception;
        result = PyErr_GetRaisedException();
    }
    code = fl_call_method(self->future, method, result);
    Py_DECREF(result);
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    call_release(self);
    return fl_call_none(fl_error_keep_first(exc, 0, NULL));
}

/* --- module functions ---------------------------------------------------- */

/* asyncio's checks of the socket, in _core_helpers.py.  0, or -1 with a
   TypeError or ValueError. */
static int
check_socket(FlState *state, FlLoop *loop, PyObject *sock)
{
    return fl_call_done(
        PyObject_CallMethodObjArgs(state->helpers, state->names.check_socket,
                                   sock, loop->debug ? Py_True : Py_False,
                                   NULL));
}

/* A call that continues an attempt.  The attempt's references were borrowed:
   the call takes its own.  The buffer moves over to it.  NULL with
   MemoryError. */
static SocketCall *
call_new(FlAttempt *attempt)
{
    PyTypeObject *type = attempt->state->socket_call_type;
    SocketCall *self = (SocketCall *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->attempt = *attempt;
    self->attempt.is_retry = true;
    self->fd = -1;
    attempt->view.obj = NULL; /* the copy above owns the buffer now */
    Py_INCREF(attempt->loop);
    Py_INCREF(attempt->sock);
    Py_XINCREF(attempt->args[0]);
    Py_XINCREF(attempt->args[1]);
    return self;
}

/* Try an operation: its result, or a SocketCall to await; NULL with an
   exception set. */
static PyObject *
sock_begin(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
           const FlOperation *operation)
{
    FlState *state = fl_state_get(module);
    FlAttempt attempt = {.state = state, .operation = operation};
    if (nargs != 2 + operation->nargs
        || !PyObject_TypeCheck(args[0], state->loop_type))
    {
        return PyErr_Format(
            PyExc_TypeError,
            "sock_%U() takes a loop, a socket and its arguments",
            fl_attempt_name(&attempt));
    }
    attempt.loop = FL_LOOP(args[0]);
    attempt.sock = args[1];
    /* The checks pass for socket.socket itself, except in debug mode. */
    if ((Py_TYPE(attempt.sock) != (PyTypeObject *)state->socket_type
         || attempt.loop->debug)
        && check_socket(state, attempt.loop, attempt.sock) < 0)
    {
        return NULL;
    }
    attempt.args[0] = nargs > 2 ? args[2] : NULL;
    attempt.args[1] = nargs > 3 ? args[3] : NULL;
    /* The attempt borrows from the caller's arguments, which live until this
       function returns.  Only an operation that would block needs more. */
    PyObject *result = NULL;
    if (fl_attempt_try(&attempt, &result) == 0) {
        result = (PyObject *)call_new(&attempt);
    }
    fl_attempt_release_view(&attempt);
    return result;
}

/* One function of the module: sock_<name>. */
#define FUNCTION(name, parameters, doc)                                    \
    static const char name##_doc[] =                                       \
        "sock_" #name "(loop, sock" parameters ", /)\n--\n\n" doc          \
        "\nReturns a SocketCall to await when it would block.";            \
    static PyObject *begin_##name(PyObject *module, PyObject *const *args, \
                                  Py_ssize_t nargs)                        \
    {                                                                      \
        return sock_begin(module, args, nargs, &fl_operation_##name);      \
    }

FUNCTION(recv, ", size", "sock.recv(size).")
FUNCTION(recv_into, ", buffer", "sock.recv_into(buffer).")
FUNCTION(recvfrom, ", size", "sock.recvfrom(size).")
FUNCTION(recvfrom_into, ", buffer, size", "sock.recvfrom_into(buffer, size).")
FUNCTION(sendall, ", data", "sock.send(data) until all is sent.")
FUNCTION(sendto, ", data, address", "sock.sendto(data, address).")
FUNCTION(accept, "", "sock.accept().")
FUNCTION(connect, ", address", "sock.connect(address).")

static const char is_plain_doc[] =
    "is_plain_class(kind, /)\n--\n\n"
    "Whether a socket's class is socket.socket, with the system's methods.";

static PyObject *
is_plain_class(PyObject *module, PyObject *kind)
{
    FlState *state = fl_state_get(module);
    return PyBool_FromLong(
        fl_socket_is_plain(state, (const PyTypeObject *)kind));
}

#define ROW(name) \
    FL_METHOD("sock_" #name, begin_##name, METH_FASTCALL, name##_doc)

static PyMethodDef sock_functions[] = {
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

static const char close_doc[] = "close($self, /)\n--\n\n"
                                "Stop waiting for the descriptor.";

static PyObject *
call_close(SocketCall *self, PyObject *Py_UNUSED(ignored))
{
    call_release(self);
    return fl_call_none(end_count(self));
}

/* Make the future, register for the fd, then wait as the future's own
   __await__ does.  After a failure the coroutine's `finally` releases it. */
static PyObject *
call_await(SocketCall *self)
{
    const FlAttempt *attempt = &self->attempt;
    PyObject *sock = attempt->sock;
    if (self->future != NULL || atomic_load(&self->counts)) {
        return PyErr_Format(PyExc_RuntimeError,
                            "a SocketCall is awaited once");
    }
    self->future =
        PyObject_CallMethodNoArgs((PyObject *)attempt->loop,
                                  attempt->state->names.create_future);
    /* A closed socket raises here and is not registered. */
    self->fd = self->future == NULL ? -1 : PyObject_AsFileDescriptor(sock);
    if (self->fd < 0) {
        return NULL;
    }
    if (PyObject_TypeCheck(sock, (PyTypeObject *)attempt->state->socket_type))
    {
        if (add_users(self, 1) < 0) {
            return NULL;
        }
        atomic_store(&self->counts, true);
    }
    const FlOperation *operation = attempt->operation;
    if (fl_fd_add_call(
            attempt->loop, self->fd, sock, operation->event, (PyObject *)self,
            operation->direct != NULL && fl_attempt_is_plain(attempt))
        < 0)
    {
        return NULL;
    }
    if (self->future == NULL) { /* the socket's fileno() has closed it */
        return PyErr_Format(PyExc_RuntimeError, "a SocketCall was closed");
    }
    const PyAsyncMethods *methods = Py_TYPE(self->future)->tp_as_async;
    if (methods == NULL || methods->am_await == NULL) {
        return PyErr_Format(PyExc_TypeError,
                            "create_future() returned what cannot be awaited");
    }
    return methods->am_await(self->future);
}

/* Debug mode and slow_callback_hook name a slow call by it. */
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
    Py_VISIT(self->attempt.args[0]);
    Py_VISIT(self->attempt.args[1]);
    Py_VISIT(self->attempt.view.obj);
    Py_VISIT(self->future);
    return 0;
}

/* The loop and the socket stay: close() needs them. */
static int
call_clear(SocketCall *self)
{
    Py_CLEAR(self->future);
    Py_CLEAR(self->attempt.args[0]);
    Py_CLEAR(self->attempt.args[1]);
    fl_attempt_release_view(&self->attempt);
    return 0;
}

static void
call_dealloc(SocketCall *self)
{
    PyObject_GC_UnTrack(self);
    (void)call_clear(self);
    Py_CLEAR(self->attempt.sock);
    Py_CLEAR(self->attempt.loop);
    fl_object_free(self);
}

static PyMethodDef call_methods[] = {
    {"close", (PyCFunction)call_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

static const char call_doc[] =
    "A socket operation that waits for its descriptor; sets its future.";

static PyType_Slot call_slots[] = {
    {Py_tp_doc, (void *)call_doc},
    {Py_tp_call, on_ready},
    {Py_tp_dealloc, call_dealloc},
    {Py_am_await, call_await},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_repr, call_repr},
    {Py_tp_methods, call_methods},
    {0, NULL},
};

/* _core_helpers.py keeps socket.socket under a name of its own, because tests
   replace the attribute of the socket module. */
int
fl_sock_call_register(PyObject *module, FlState *state)
{
    state->socket_type = PyObject_GetAttrString(state->helpers, "socket_type");
    if (state->socket_type == NULL) {
        return -1;
    }
    PyType_Spec spec = {"fastloop._core.SocketCall", sizeof(SocketCall), 0,
                        FL_TYPE_FLAGS | Py_TPFLAGS_IMMUTABLETYPE, call_slots};
    state->socket_call_type = fl_type_add(module, &spec, NULL);
    return state->socket_call_type == NULL
               ? -1
               : PyModule_AddFunctions(module, sock_functions);
}
