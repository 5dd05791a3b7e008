/* sock_recv and its kin: a socket's call made at once, or when it can be.

   A coroutine of fastloop/sockets.py calls one function here.  What could be
   done at once is its answer; else it gets a SocketCall, which watches the
   descriptor, makes the call when that is ready, and settles a future.

   1. Every try asks the socket for its number: a socket that was closed has
      none, even if the system gave the number to another meanwhile.
   2. The watcher is the loop's own (add_reader's): a later one of the same
      number and direction takes its place, and the earlier call waits until it
      is cancelled, as in asyncio.  A call removes only its own handle.
   3. The descriptor is let go of in the turn in which the call ends: by its
      own success, or by the coroutine that was cancelled.
   4. Sockets of a class of their own, and calls not worth more, go through the
      socket object, which raises what asyncio passes on. */
#include "sock/sock_call.h"

#include "core/fd_set.h"
#include "core/handle.h"
#include "core/loop.h"
#include "loop/fd_watcher.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/messages.h"
#include "transport/sockaddr.h"

#include <errno.h>
#include <poll.h>

/* What is read without knowing that there is something. */
#define STACK_BYTES ((Py_ssize_t)16 * 1024)

typedef struct SocketCall SocketCall;

/* Try the call once.  1 with *result set, 0 when it would block, -1 with an
   exception set. */
typedef int (*Attempt)(SocketCall *self, int fd, PyObject **result);

typedef struct {
    size_t called;   /* of the socket's method: where FlNames has it */
    int event;       /* what to wait for */
    bool any_class;  /* the attempt bears sockets of other classes */
    Attempt attempt; /* NULL: by the socket object */
} Operation;

struct SocketCall {
    PyObject_HEAD
    FlState *state;
    FlLoop *loop;
    const Operation *operation;
    PyObject *sock;
    PyObject *args;   /* a tuple */
    PyObject *future; /* NULL: not waiting */
    FlHandle *handle; /* the watcher's */
    Py_buffer view;   /* of what is sent; obj NULL: none */
    Py_ssize_t sent_bytes;
    int fd; /* the watched number */
};

static void
release_view(SocketCall *self)
{
    if (self->view.obj != NULL) {
        PyBuffer_Release(&self->view);
    }
}

static PyObject *
method_name(const FlState *state, const Operation *operation)
{
    return *(PyObject *const *)((const char *)&state->names
                                + operation->called);
}

/* --- attempts ------------------------------------------------------------ */

/* After a system call: 0 or -1. */
static int
blocked_or_raise(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return 0;
    }
    return fl_raise_errno(-errno);
}

static int
blocked_or_raised(void)
{
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
        || PyErr_ExceptionMatches(PyExc_InterruptedError))
    {
        PyErr_Clear(); /* asyncio's test of what is to wait */
        return 0;
    }
    return -1;
}

static int
answer(PyObject *object, PyObject **result)
{
    *result = object;
    return object == NULL ? -1 : 1;
}

static int
call_object(SocketCall *self, PyObject **result)
{
    PyObject *method =
        PyObject_GetAttr(self->sock,
                         method_name(self->state, self->operation));
    PyObject *object =
        method == NULL ? NULL : PyObject_Call(method, self->args, NULL);
    Py_XDECREF(method);
    return object == NULL ? blocked_or_raised() : answer(object, result);
}

/* A positive size as a first argument, or 0: the socket knows what then. */
static Py_ssize_t
size_argument(const SocketCall *self)
{
    PyObject *number = PyTuple_GET_ITEM(self->args, 0);
    int overflow = 0;
    long value = PyLong_CheckExact(number)
                     ? PyLong_AsLongAndOverflow(number, &overflow)
                     : 0;
    return overflow || value < 0 ? 0 : value;
}

/* Receive at most size bytes as a new bytes object. */
static int
receive_bytes(int fd, Py_ssize_t size, struct sockaddr_storage *name,
              socklen_t *name_size, PyObject **result)
{
    char stack[STACK_BYTES];
    PyObject *bytes = NULL;
    char *buffer = stack;
    if (size > STACK_BYTES) {
        bytes = PyBytes_FromStringAndSize(NULL, size);
        if (bytes == NULL) {
            return -1;
        }
        buffer = PyBytes_AS_STRING(bytes);
    }
    ssize_t got = recvfrom(fd, buffer, (size_t)size, MSG_DONTWAIT,
                           (struct sockaddr *)name, name_size);
    if (got < 0) {
        int code = blocked_or_raise();
        Py_XDECREF(bytes);
        return code;
    }
    if (bytes == NULL) {
        return answer(PyBytes_FromStringAndSize(stack, got), result);
    }
    (void)_PyBytes_Resize(&bytes, got);
    return answer(bytes, result);
}

static int
try_recv(SocketCall *self, int fd, PyObject **result)
{
    Py_ssize_t size = size_argument(self);
    if (size == 0) {
        return call_object(self, result);
    }
    return receive_bytes(fd, size, NULL, NULL, result);
}

static int
try_recv_into(SocketCall *self, int fd, PyObject **result)
{
    Py_buffer view;
    if (PyObject_GetBuffer(PyTuple_GET_ITEM(self->args, 0), &view,
                           PyBUF_WRITABLE)
        < 0)
    {
        PyErr_Clear(); /* the socket says it in its own words */
        return call_object(self, result);
    }
    if (view.len == 0) {
        PyBuffer_Release(&view);
        return call_object(self, result);
    }
    ssize_t got = recv(fd, view.buf, (size_t)view.len, MSG_DONTWAIT);
    int code = got < 0 ? blocked_or_raise() : 1;
    PyBuffer_Release(&view);
    return code == 1 ? answer(PyLong_FromSsize_t(got), result) : code;
}

static int
try_recvfrom(SocketCall *self, int fd, PyObject **result)
{
    struct sockaddr_storage name;
    socklen_t size = sizeof(name);
    Py_ssize_t wanted = size_argument(self);
    PyObject *data;
    if (wanted == 0 || getsockname(fd, (struct sockaddr *)&name, &size) < 0
        || !fl_sockaddr_is_known(&name))
    {
        return call_object(self, result);
    }
    size = sizeof(name);
    int code = receive_bytes(fd, wanted, &name, &size, &data);
    if (code != 1) {
        return code;
    }
    PyObject *sender =
        size == 0 ? Py_NewRef(Py_None) : fl_sockaddr_object(&name, size);
    code = sender == NULL ? -1 : answer(PyTuple_Pack(2, data, sender), result);
    Py_DECREF(data);
    Py_XDECREF(sender);
    return code;
}

/* Whether waiting for a connection makes sense; if not, accept says why. */
static bool
listens(int fd)
{
    int on = 0;
    socklen_t size = sizeof(on);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size) < 0) {
        return errno == ENOPROTOOPT; /* macOS does not tell */
    }
    return on != 0;
}

static int
try_accept(SocketCall *self, int fd, PyObject **result)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (fd >= 0 && poll(&ready, 1, 0) == 0 && listens(fd)) {
        return 0;
    }
    int code = call_object(self, result);
    if (code != 1) {
        return code;
    }
    PyObject *set = PySequence_Check(*result) ? PySequence_GetItem(*result, 0)
                                              : Py_NewRef(*result);
    Py_XSETREF(set, set == NULL
                        ? NULL
                        : PyObject_CallMethodOneArg(
                            set, self->state->names.setblocking, Py_False));
    if (set == NULL) {
        Py_CLEAR(*result);
        return -1;
    }
    Py_DECREF(set);
    return 1;
}

/* What the socket object's send, of another class, takes of the rest. */
static Py_ssize_t
send_by_object(SocketCall *self)
{
    PyObject *view = PyMemoryView_FromObject(PyTuple_GET_ITEM(self->args, 0));
    PyObject *rest = view == NULL ? NULL
                                  : PySequence_GetSlice(view, self->sent_bytes,
                                                        PY_SSIZE_T_MAX);
    PyObject *sent =
        rest == NULL
            ? NULL
            : PyObject_CallMethodOneArg(self->sock, self->state->names.send,
                                        rest);
    Py_ssize_t count = sent == NULL ? -1 : PyLong_AsSsize_t(sent);
    Py_XDECREF(view);
    Py_XDECREF(rest);
    Py_XDECREF(sent);
    return count;
}

static int
try_sendall(SocketCall *self, int fd, PyObject **result)
{
    if (self->view.obj == NULL
        && PyObject_GetBuffer(PyTuple_GET_ITEM(self->args, 0), &self->view,
                              PyBUF_SIMPLE)
               < 0)
    {
        return -1;
    }
    Py_ssize_t sent;
    if (Py_TYPE(self->sock) == (PyTypeObject *)self->state->socket_type
        && fd >= 0) {
        fl_loop_expect_io(self->loop);
        sent =
            send(fd, (char *)self->view.buf + self->sent_bytes,
                 (size_t)(self->view.len - self->sent_bytes), FL_SEND_FLAGS);
        if (sent < 0) {
            return blocked_or_raise();
        }
    }
    else {
        sent = send_by_object(self);
        if (sent < 0 && PyErr_Occurred()) {
            return blocked_or_raised();
        }
    }
    self->sent_bytes += sent;
    return self->sent_bytes == self->view.len
               ? answer(Py_NewRef(Py_None), result)
               : 0;
}

static int
try_call(SocketCall *self, PyObject **result)
{
    const Operation *operation = self->operation;
    bool plain =
        Py_TYPE(self->sock) == (PyTypeObject *)self->state->socket_type;
    if (operation->attempt == NULL || !(plain || operation->any_class)) {
        return call_object(self, result);
    }
    int fd = PyObject_AsFileDescriptor(self->sock);
    if (fd < 0) {
        PyErr_Clear(); /* closed: the socket object says so */
        if (!operation->any_class) {
            return call_object(self, result);
        }
    }
    return operation->attempt(self, fd, result);
}

/* --- waiting ------------------------------------------------------------- */

/* Let go of the descriptor, the future and the buffer.  0 or -1. */
static int
release(SocketCall *self)
{
    FlHandle *handle = self->handle;
    self->handle = NULL;
    Py_CLEAR(self->future);
    release_view(self);
    if (handle == NULL) {
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
        self->operation->event == FL_READABLE
            ? fl_loop_remove_reader_raw(self->loop, &number, 1, NULL)
            : fl_loop_remove_writer_raw(self->loop, &number, 1, NULL);
    Py_DECREF(number);
    Py_XDECREF(removed);
    return removed == NULL ? -1 : 0;
}

/* Settle the future with a result or the raised exception.  0 or -1. */
static int
finish_future(SocketCall *self, PyObject *result)
{
    FlNames *names = &self->state->names;
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
    int done = self->future == NULL
                   ? 1
                   : fl_call_truth(self->future, self->state->names.done);
    if (done != 0) {
        return done < 0 ? -1 : 0; /* the coroutine is about to release it */
    }
    PyObject *result = NULL;
    int code = try_call(self, &result);
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
    code = release(self);
    if (exc == NULL) {
        return code;
    }
    if (code < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    PyErr_SetRaisedException(exc);
    return -1;
}

static PyObject *
ready_callback(SocketCall *self, PyObject *Py_UNUSED(args),
               PyObject *Py_UNUSED(kwargs))
{
    Py_INCREF(self);
    int code = on_ready(self);
    Py_DECREF(self);
    return code < 0 ? NULL : Py_NewRef(Py_None);
}

/* Watch the descriptor for what the call needs.  0 or -1. */
static int
wait(SocketCall *self)
{
    FlLoop *loop = self->loop;
    self->fd = PyObject_AsFileDescriptor(self->sock);
    PyObject *number = self->fd < 0 ? NULL : PyLong_FromLong(self->fd);
    if (number == NULL) {
        return -1;
    }
    PyObject *args[] = {number, (PyObject *)self};
    if (fl_fd_check(loop, number) == 0) {
        self->future =
            PyObject_CallMethodNoArgs((PyObject *)loop,
                                      self->state->names.create_future);
    }
    if (self->future != NULL) {
        self->handle =
            (FlHandle *)(self->operation->event == FL_READABLE
                             ? fl_loop_add_reader_raw(loop, args, 2, NULL)
                             : fl_loop_add_writer_raw(loop, args, 2, NULL));
    }
    Py_DECREF(number);
    return self->handle == NULL ? -1 : 0;
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

static SocketCall *
call_new(FlState *state, PyObject *const *args, Py_ssize_t nargs,
         const Operation *operation)
{
    PyTypeObject *type = state->socket_call_type;
    SocketCall *self = (SocketCall *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    self->operation = operation;
    self->loop = (FlLoop *)Py_NewRef(args[0]);
    self->sock = Py_NewRef(args[1]);
    self->args = fl_args_tuple(args + 2, nargs - 2);
    if (self->args == NULL) {
        Py_CLEAR(self);
    }
    return self;
}

/* The answer of a call that was made, or a SocketCall that waits. */
static PyObject *
begin(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
      Py_ssize_t wanted, const Operation *operation)
{
    FlState *state = fl_state_get(module);
    if (nargs != wanted || !PyObject_TypeCheck(args[0], state->loop_type)) {
        PyErr_Format(PyExc_TypeError,
                     "sock_%U() takes a loop, a socket and its arguments",
                     method_name(state, operation));
        return NULL;
    }
    if (check_socket(state, FL_LOOP(args[0]), args[1]) < 0) {
        return NULL;
    }
    SocketCall *self = call_new(state, args, nargs, operation);
    PyObject *result = NULL;
    if (self == NULL) {
        return NULL;
    }
    int code = try_call(self, &result);
    if (code == 0 && wait(self) == 0) {
        return (PyObject *)self;
    }
    Py_DECREF(self);
    return code == 1 ? result : NULL;
}

#define CALL(name, count, method, watched, any, attempt_function, parameters, \
             what)                                                            \
    static const Operation name##_operation = {                               \
        .called = offsetof(FlNames, method),                                  \
        .event = watched,                                                     \
        .any_class = any,                                                     \
        .attempt = attempt_function,                                          \
    };                                                                        \
    static const char name##_doc[] =                                          \
        #name "(loop, sock" parameters ", /)\n--\n\n" what                    \
              "\nReturns a SocketCall when it "                               \
              "would block.";                                                 \
    static PyObject *name(PyObject *module, PyObject *const *args,            \
                          Py_ssize_t nargs)                                   \
    {                                                                         \
        return begin(module, args, nargs, count, &name##_operation);          \
    }

CALL(sock_recv, 3, recv, FL_READABLE, false, try_recv, ", size",
     "sock.recv(size).")
CALL(sock_recv_into, 3, recv_into, FL_READABLE, false, try_recv_into,
     ", buffer", "sock.recv_into(buffer).")
CALL(sock_recvfrom, 3, recvfrom, FL_READABLE, false, try_recvfrom, ", size",
     "sock.recvfrom(size).")
CALL(sock_recvfrom_into, 4, recvfrom_into, FL_READABLE, false, NULL,
     ", buffer, size", "sock.recvfrom_into(buffer, size).")
CALL(sock_sendall, 3, sendall, FL_WRITABLE, true, try_sendall, ", data",
     "sock.send(data) until all is sent.")
CALL(sock_sendto, 4, sendto, FL_WRITABLE, false, NULL, ", data, address",
     "sock.sendto(data, address).")
CALL(sock_accept, 2, accept, FL_READABLE, true, try_accept, "",
     "sock.accept(), and the new socket made non-blocking.")

#define FUNCTION(name)                                                      \
    {                                                                       \
#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, name##_doc \
    }

static PyMethodDef functions[] = {
    FUNCTION(sock_recv),     FUNCTION(sock_recv_into),
    FUNCTION(sock_recvfrom), FUNCTION(sock_recvfrom_into),
    FUNCTION(sock_sendall),  FUNCTION(sock_sendto),
    FUNCTION(sock_accept),   {NULL, NULL, 0, NULL},
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
                                method_name(self->state, self->operation),
                                self->fd);
}

static int
call_traverse(SocketCall *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->args);
    Py_VISIT(self->future);
    Py_VISIT(self->handle);
    Py_VISIT(self->view.obj);
    return 0;
}

static int
call_clear(SocketCall *self)
{
    Py_CLEAR(self->future);
    Py_CLEAR(self->handle);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->args);
    release_view(self);
    return 0;
}

static void
call_dealloc(SocketCall *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)call_clear(self);
    Py_CLEAR(self->loop);
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
    {Py_tp_doc, (void *)call_doc},
    {Py_tp_call, ready_callback},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_repr, call_repr},
    {Py_tp_methods, call_methods},
    {Py_tp_getset, call_getset},
    {0, NULL},
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
    state->socket_type = PyObject_GetAttrString(state->streams, "socket_type");
    state->socket_call_type = fl_type_add(module, &call_spec, NULL);
    return state->socket_type == NULL || state->socket_call_type == NULL
               ? -1
               : PyModule_AddFunctions(module, functions);
}
