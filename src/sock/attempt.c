/* The attempts: see attempt.h.

   1. On a TCP connection a read that gets less than it asked for, or a send
      that takes less than it was given, has met the end of what there is: what
      comes later makes an event, however early it comes (epoll(7) says so).
      Not so where a state lasts (an end, an error), or urgent data parts what
      is there: then every read is tried.
   2. A datagram, a Unix socket and a listening socket tell less, so theirs is
      no kept watch: there a call is tried first, and waits for a level.
   3. What sends, and what runs code of a class of the application's, passes
      the gate of corked writes (fl_loop_expect_io) in fl_attempt_make. */
#include "sock/attempt.h"

#include "core/loop.h"
#include "core/registration.h"
#include "loop/fd_wait.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/messages.h"
#include "transport/sockaddr.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

/* What is read without knowing that there is something. */
#define STACK_BYTES ((Py_ssize_t)16 * 1024)

/* --- kept watches -------------------------------------------------------- */

static FlRegistration *
persistent_reg(const FlAttempt *self, int fd)
{
    return fl_attempt_is_plain(self) && !self->loop->debug
               ? fl_fd_persistent(self->loop, fd, self->sock)
               : NULL;
}

/* Whether an event is known not to be so. */
static bool
is_known_not(const FlAttempt *self, int fd, int event)
{
    const FlRegistration *reg = persistent_reg(self, fd);
    return reg != NULL && !(reg->ready & event);
}

/* After a system call that moved so many bytes of so many, or failed with
   errno. */
static void
note_moved(const FlAttempt *self, int fd, int event, ssize_t moved,
           size_t asked)
{
    FlRegistration *reg = persistent_reg(self, fd);
    if (reg == NULL) {
        return;
    }
    reg->unwanted = 0;
    if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        fl_registration_not_ready(reg, event);
    }
    else if (moved > 0 && (size_t)moved < asked && !reg->lasting) {
        reg->ready &= (uint8_t)~event;
    }
}

#if defined(__linux__) && FL_HAVE_GIL
static long
entry_of(PyObject *descriptor, PyObject *sock)
{
    PyObject *value =
        Py_TYPE(descriptor)
            ->tp_descr_get(descriptor, sock, (PyObject *)Py_TYPE(sock));
    long number = value == NULL ? -1 : PyLong_AsLong(value);
    Py_XDECREF(value);
    return number;
}

static int
option_of(int fd, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);
    return getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0 ? -1 : value;
}
#endif

bool
fl_attempt_may_persist(const FlAttempt *self, int fd)
{
#if defined(__linux__) && FL_HAVE_GIL
    if (!self->operation->may_persist || !fl_attempt_is_plain(self)
        || self->loop->debug)
    {
        return false;
    }
    if (fl_fd_persistent(self->loop, fd, self->sock) != NULL) {
        return true;
    }
    /* The object's numbers first, which cost no system call; they are what a
       program said, so the system is asked too. */
    long family = entry_of(self->state->socket_family, self->sock);
    long kind = entry_of(self->state->socket_kind, self->sock);
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* whatever it is: then the watch is not kept */
        return false;
    }
    return (family == AF_INET || family == AF_INET6) && kind == SOCK_STREAM
           && option_of(fd, SO_PROTOCOL) == IPPROTO_TCP
           && option_of(fd, SO_RCVLOWAT) == 1;
#else
    (void)self;
    (void)fd;
    return false;
#endif
}

/* --- attempts ------------------------------------------------------------ */

/* After a system call: 0 or -1. */
static int
blocked_or_raise(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
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
call_object(FlAttempt *self, PyObject **result)
{
    PyObject *args[1 + FL_MOST_ARGUMENTS] = {self->sock};
    for (Py_ssize_t at = 0; at < self->nargs; at++) {
        args[1 + at] = self->args[at];
    }
    PyObject *object =
        PyObject_VectorcallMethod(fl_attempt_name(self), args,
                                  (size_t)(1 + self->nargs), NULL);
    return object == NULL ? blocked_or_raised() : answer(object, result);
}

/* A positive size as a first argument, or 0: the socket knows what then. */
static Py_ssize_t
size_argument(const FlAttempt *self)
{
    PyObject *number = self->args[0];
    int overflow = 0;
    long value = PyLong_CheckExact(number)
                     ? PyLong_AsLongAndOverflow(number, &overflow)
                     : 0;
    return overflow || value < 0 ? 0 : value;
}

/* recvfrom(), noted. */
static ssize_t
receive(FlAttempt *self, int fd, char *buffer, size_t size,
        struct sockaddr_storage *name, socklen_t *name_size)
{
    ssize_t got;
    do {
        got = recvfrom(fd, buffer, size, MSG_DONTWAIT, (struct sockaddr *)name,
                       name_size);
    } while (got < 0 && errno == EINTR);
    note_moved(self, fd, FL_READABLE, got, size);
    return got;
}

/* Receive at most size bytes as a new bytes object. */
static int
receive_bytes(FlAttempt *self, int fd, Py_ssize_t size,
              struct sockaddr_storage *name, socklen_t *name_size,
              PyObject **result)
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
    ssize_t got = receive(self, fd, buffer, (size_t)size, name, name_size);
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
try_recv(FlAttempt *self, int fd, PyObject **result)
{
    Py_ssize_t size = size_argument(self);
    if (size == 0) {
        return call_object(self, result);
    }
    return is_known_not(self, fd, FL_READABLE)
               ? 0
               : receive_bytes(self, fd, size, NULL, NULL, result);
}

static int
try_recv_into(FlAttempt *self, int fd, PyObject **result)
{
    Py_buffer view;
    if (PyObject_GetBuffer(self->args[0], &view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear(); /* the socket says it in its own words */
        return call_object(self, result);
    }
    if (view.len == 0) {
        PyBuffer_Release(&view);
        return call_object(self, result);
    }
    int code = 0;
    ssize_t got = 0;
    if (!is_known_not(self, fd, FL_READABLE)) {
        got = receive(self, fd, view.buf, (size_t)view.len, NULL, NULL);
        code = got < 0 ? blocked_or_raise() : 1;
    }
    PyBuffer_Release(&view);
    return code == 1 ? answer(PyLong_FromSsize_t(got), result) : code;
}

static int
try_recvfrom(FlAttempt *self, int fd, PyObject **result)
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
    int code = receive_bytes(self, fd, wanted, &name, &size, &data);
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
try_accept(FlAttempt *self, int fd, PyObject **result)
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

/* How a connection went, by the socket object: an errno, 0, or -1 with an
   exception set. */
static long
error_of_socket(const FlAttempt *self)
{
    PyObject *level = PyLong_FromLong(SOL_SOCKET);
    PyObject *option = level == NULL ? NULL : PyLong_FromLong(SO_ERROR);
    PyObject *error =
        option == NULL
            ? NULL
            : PyObject_CallMethodObjArgs(self->sock,
                                         self->state->names.getsockopt, level,
                                         option, NULL);
    long code = error == NULL ? -1 : PyLong_AsLong(error);
    Py_XDECREF(level);
    Py_XDECREF(option);
    Py_XDECREF(error);
    return code;
}

/* The first try begins to connect; when the socket is writable that is done,
   and how it ended is asked as asyncio asks it. */
static int
try_connect(FlAttempt *self, int fd, PyObject **result)
{
    (void)fd;
    if (!self->again) {
        return call_object(self, result);
    }
    long code = error_of_socket(self);
    if (code == 0) {
        return answer(Py_NewRef(Py_None), result);
    }
    if (!PyErr_Occurred()) {
        fl_raise_os_error(code, "Connect call failed %S", self->args[0]);
    }
    return blocked_or_raised();
}

/* What the socket object's send, of another class, takes of the rest. */
static Py_ssize_t
send_by_object(FlAttempt *self)
{
    PyObject *view = PyMemoryView_FromObject(self->args[0]);
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

static ssize_t
send_rest(FlAttempt *self, int fd)
{
    const char *rest = (char *)self->view.buf + self->sent_bytes;
    size_t size = (size_t)(self->view.len - self->sent_bytes);
    ssize_t sent;
    do {
        sent = send(fd, rest, size, FL_SEND_FLAGS);
    } while (sent < 0 && errno == EINTR);
    note_moved(self, fd, FL_WRITABLE, sent, size);
    return sent;
}

static int
try_sendall(FlAttempt *self, int fd, PyObject **result)
{
    if (self->view.obj == NULL
        && PyObject_GetBuffer(self->args[0], &self->view, PyBUF_SIMPLE) < 0)
    {
        return -1;
    }
    Py_ssize_t sent;
    if (fl_attempt_is_plain(self) && fd >= 0) {
        if (self->view.len > 0 && is_known_not(self, fd, FL_WRITABLE)) {
            return 0;
        }
        sent = send_rest(self, fd);
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

int
fl_attempt_make(FlAttempt *self, PyObject **result)
{
    const FlOperation *operation = self->operation;
    if (operation->event == FL_WRITABLE || !fl_attempt_is_plain(self)) {
        fl_loop_expect_io(self->loop);
    }
    if (operation->make == NULL
        || !(fl_attempt_is_plain(self) || operation->any_class))
    {
        return call_object(self, result);
    }
    int fd = PyObject_AsFileDescriptor(self->sock);
    if (fd < 0) {
        if (fl_error_leaves_loop()) {
            return -1; /* a Ctrl-C in a fileno() of the program's */
        }
        PyErr_Clear(); /* closed: the socket object says so */
        if (!operation->any_class) {
            return call_object(self, result);
        }
    }
    return operation->make(self, fd, result);
}

/* --- operations ---------------------------------------------------------- */

const FlOperation fl_operation_recv = {
    .called = offsetof(FlNames, recv),
    .event = FL_READABLE,
    .may_persist = true,
    .make = try_recv,
};

const FlOperation fl_operation_recv_into = {
    .called = offsetof(FlNames, recv_into),
    .event = FL_READABLE,
    .may_persist = true,
    .make = try_recv_into,
};

const FlOperation fl_operation_recvfrom = {
    .called = offsetof(FlNames, recvfrom),
    .event = FL_READABLE,
    .make = try_recvfrom,
};

const FlOperation fl_operation_recvfrom_into = {
    .called = offsetof(FlNames, recvfrom_into),
    .event = FL_READABLE,
};

const FlOperation fl_operation_sendall = {
    .called = offsetof(FlNames, sendall),
    .event = FL_WRITABLE,
    .any_class = true,
    .may_persist = true,
    .make = try_sendall,
};

const FlOperation fl_operation_sendto = {
    .called = offsetof(FlNames, sendto),
    .event = FL_WRITABLE,
};

const FlOperation fl_operation_accept = {
    .called = offsetof(FlNames, accept),
    .event = FL_READABLE,
    .any_class = true,
    .make = try_accept,
};

const FlOperation fl_operation_connect = {
    .called = offsetof(FlNames, connect),
    .event = FL_WRITABLE,
    .any_class = true,
    .make = try_connect,
};
