/* The socket operations that are tried: see attempt.h.

   1. On a TCP connection a read shorter than requested has emptied the receive
      buffer, and a send shorter than requested has filled the send buffer.
      Later data or room produces a new edge, however early it arrives
      (epoll(7)).  So the next try may be skipped until that event.  This does
      not hold after EOF, an error or urgent data (FL_LASTING): these produce
      no second edge, so every later read is tried.
   2. A short transfer proves nothing on a datagram, Unix or listening socket.
      These get no persistent registration, because an edge could be missed
      there: each call is tried first and then waits as add_reader does.
   3. fl_attempt_try flushes corked writes (fl_loop_before_io) before any send
      and before any method of an application's class.  Otherwise bytes that
      the callback wrote earlier could leave after this call's bytes. */
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

/* A read of at most this many bytes goes to the C stack first: a read that
   would block then costs no bytes object. */
#define STACK_BUFFER_BYTES ((Py_ssize_t)16 * 1024)

/* --- persistent registrations -------------------------------------------- */

/* The socket's persistent registration, or NULL.  Always NULL in debug mode,
   where calls wait by a Handle, and for a class whose calls we do not make. */
static FlRegistration *
persistent_reg(const FlAttempt *self, int fd)
{
    return fl_attempt_is_plain(self) && !self->loop->debug
               ? fl_fd_persistent_registration(self->loop, fd, self->sock)
               : NULL;
}

/* True if an earlier call found the socket not ready and epoll has reported
   nothing since: a system call now would return EAGAIN. */
static bool
is_known_unready(const FlAttempt *self, int fd, int event)
{
    const FlRegistration *reg = persistent_reg(self, fd);
    return reg != NULL && !(reg->ready & event);
}

/* Record what a system call proved.  It moved `moved` of `requested` bytes, or
   failed with errno. */
static void
note_transfer(const FlAttempt *self, int fd, int event, ssize_t moved,
              size_t requested)
{
    FlRegistration *reg = persistent_reg(self, fd);
    if (reg == NULL) {
        return;
    }
    reg->unwanted = 0; /* the socket is in use: its events are not surplus */
    if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        fl_registration_not_ready(reg, event);
    }
    /* Zero bytes mean EOF, which lasts: reads stay allowed. */
    else if (moved > 0 && (size_t)moved < requested && !reg->lasting) {
        reg->ready &= (uint8_t)~event;
    }
}

#if defined(__linux__) && FL_HAVE_GIL
/* An integer attribute of the socket, read through the C descriptor of
   _socket.socket.  The Python property would make an enum member of it.
   -1 with an exception on failure. */
static long
socket_attribute(PyObject *descriptor, PyObject *sock)
{
    PyObject *value =
        Py_TYPE(descriptor)
            ->tp_descr_get(descriptor, sock, (PyObject *)Py_TYPE(sock));
    long number = value == NULL ? -1 : PyLong_AsLong(value);
    Py_XDECREF(value);
    return number;
}

/* A SOL_SOCKET option, or -1. */
static int
socket_option(int fd, int name)
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
    if (fl_fd_persistent_registration(self->loop, fd, self->sock) != NULL) {
        return true;
    }
    /* The object's attributes cost no system call, so they are checked first.
       The application chose them when it made the object, so the kernel is
       queried too.  With a larger SO_RCVLOWAT the kernel reports no edge for
       data below that mark, which invariant 1 relies on. */
    long family = socket_attribute(self->state->socket_family, self->sock);
    long kind = socket_attribute(self->state->socket_kind, self->sock);
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* whatever it is, persistence is only a short cut */
        return false;
    }
    return (family == AF_INET || family == AF_INET6) && kind == SOCK_STREAM
           && socket_option(fd, SO_PROTOCOL) == IPPROTO_TCP
           && socket_option(fd, SO_RCVLOWAT) == 1;
#else
    (void)self;
    (void)fd;
    return false;
#endif
}

/* --- attempts ------------------------------------------------------------ */

/* What a failed system call means, by errno: 0 if it would block, else -1 with
   an OSError set. */
static int
outcome_of_errno(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return 0;
    }
    return fl_raise_errno(-errno);
}

/* The same for a failed method call, by the exception set. */
static int
outcome_of_exception(void)
{
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
        || PyErr_ExceptionMatches(PyExc_InterruptedError))
    {
        PyErr_Clear(); /* asyncio waits after these two, and no others */
        return 0;
    }
    return -1;
}

/* Hand a new reference to the caller of fl_attempt_try: 1, or -1 for NULL. */
static int
store_result(PyObject *object, PyObject **result)
{
    *result = object;
    return object == NULL ? -1 : 1;
}

/* Try the operation by the socket object's own method. */
static int
call_method(FlAttempt *self, PyObject **result)
{
    PyObject *args[1 + FL_MOST_ARGUMENTS] = {self->sock};
    for (Py_ssize_t at = 0; at < self->nargs; at++) {
        args[1 + at] = self->args[at];
    }
    PyObject *object =
        PyObject_VectorcallMethod(fl_attempt_name(self), args,
                                  (size_t)(1 + self->nargs), NULL);
    return object == NULL ? outcome_of_exception()
                          : store_result(object, result);
}

/* The first argument as a positive size, else 0.  For 0 the caller calls the
   socket object's method, which accepts or rejects it as asyncio does. */
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

/* recvfrom(), and record in the registration what it proved.  MSG_DONTWAIT:
   outside debug mode nothing has checked that the socket is non-blocking. */
static ssize_t
receive(FlAttempt *self, int fd, char *buffer, size_t size,
        struct sockaddr_storage *name, socklen_t *name_size)
{
    ssize_t got;
    do {
        got = recvfrom(fd, buffer, size, MSG_DONTWAIT, (struct sockaddr *)name,
                       name_size);
    } while (got < 0 && errno == EINTR);
    note_transfer(self, fd, FL_READABLE, got, size);
    return got;
}

/* Receive at most size bytes as a new bytes object.  1, 0 or -1. */
static int
receive_bytes(FlAttempt *self, int fd, Py_ssize_t size,
              struct sockaddr_storage *name, socklen_t *name_size,
              PyObject **result)
{
    char stack[STACK_BUFFER_BYTES];
    PyObject *bytes = NULL;
    char *buffer = stack;
    if (size > STACK_BUFFER_BYTES) {
        bytes = PyBytes_FromStringAndSize(NULL, size);
        if (bytes == NULL) {
            return -1;
        }
        buffer = PyBytes_AS_STRING(bytes);
    }
    ssize_t got = receive(self, fd, buffer, (size_t)size, name, name_size);
    if (got < 0) {
        int code = outcome_of_errno(); /* first: freeing may change errno */
        Py_XDECREF(bytes);
        return code;
    }
    if (bytes == NULL) {
        return store_result(PyBytes_FromStringAndSize(stack, got), result);
    }
    (void)_PyBytes_Resize(&bytes, got); /* sets bytes to NULL on failure */
    return store_result(bytes, result);
}

static int
try_recv(FlAttempt *self, int fd, PyObject **result)
{
    Py_ssize_t size = size_argument(self);
    if (size == 0) {
        return call_method(self, result);
    }
    return is_known_unready(self, fd, FL_READABLE)
               ? 0
               : receive_bytes(self, fd, size, NULL, NULL, result);
}

static int
try_recv_into(FlAttempt *self, int fd, PyObject **result)
{
    Py_buffer view;
    if (PyObject_GetBuffer(self->args[0], &view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear(); /* the socket's method raises its own TypeError */
        return call_method(self, result);
    }
    if (view.len == 0) {
        /* An empty buffer is the method's to judge, as for size 0. */
        PyBuffer_Release(&view);
        return call_method(self, result);
    }
    int code = 0;
    ssize_t got = 0;
    if (!is_known_unready(self, fd, FL_READABLE)) {
        got = receive(self, fd, view.buf, (size_t)view.len, NULL, NULL);
        code = got < 0 ? outcome_of_errno() : 1;
    }
    PyBuffer_Release(&view);
    return code == 1 ? store_result(PyLong_FromSsize_t(got), result) : code;
}

/* The system call is made only for address families that sockaddr.h can turn
   into an address object; the method handles the others. */
static int
try_recvfrom(FlAttempt *self, int fd, PyObject **result)
{
    struct sockaddr_storage name;
    socklen_t size = sizeof(name);
    Py_ssize_t max_bytes = size_argument(self);
    PyObject *data;
    if (max_bytes == 0 || getsockname(fd, (struct sockaddr *)&name, &size) < 0
        || !fl_sockaddr_is_known(&name))
    {
        return call_method(self, result);
    }
    size = sizeof(name); /* getsockname() changed it */
    int code = receive_bytes(self, fd, max_bytes, &name, &size, &data);
    if (code != 1) {
        return code;
    }
    /* size is 0 when the kernel gave no sender, as on a connected stream. */
    PyObject *sender =
        size == 0 ? Py_NewRef(Py_None) : fl_sockaddr_object(&name, size);
    code = sender == NULL
               ? -1
               : store_result(PyTuple_Pack(2, data, sender), result);
    Py_DECREF(data);
    Py_XDECREF(sender);
    return code;
}

/* Whether a connection can arrive.  If not, accept() raises the reason, and
   waiting would never end. */
static bool
is_listening(int fd)
{
    int on = 0;
    socklen_t size = sizeof(on);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size) < 0) {
        return errno == ENOPROTOOPT; /* macOS lacks the option: assume so */
    }
    return on != 0;
}

/* poll() first: it saves making and dropping a BlockingIOError. */
static int
try_accept(FlAttempt *self, int fd, PyObject **result)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (fd >= 0 && poll(&ready, 1, 0) == 0 && is_listening(fd)) {
        return 0;
    }
    int code = call_method(self, result);
    if (code != 1) {
        return code;
    }
    /* The method may be the application's and return anything; asyncio makes
       the first item of the result non-blocking. */
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

/* SO_ERROR by the socket object's getsockopt(), which the application may have
   replaced: an errno, 0 for none, or -1 with an exception set. */
static long
socket_error(const FlAttempt *self)
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

/* The first try starts the connection.  A retry runs when the socket is
   writable: the connection has then succeeded or failed, and SO_ERROR says
   which, as in asyncio. */
static int
try_connect(FlAttempt *self, int fd, PyObject **result)
{
    (void)fd;
    if (!self->is_retry) {
        return call_method(self, result);
    }
    long code = socket_error(self);
    if (code == 0) {
        return store_result(Py_NewRef(Py_None), result);
    }
    if (!PyErr_Occurred()) {
        fl_raise_os_error(code, "Connect call failed %S", self->args[0]);
    }
    return outcome_of_exception();
}

/* Send the rest by the send() of a socket of another class.  Returns the
   number of bytes sent, or -1 with an exception set. */
static Py_ssize_t
send_by_method(FlAttempt *self)
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

/* send() the rest, and record in the registration what it proved.  -1 with
   errno on failure. */
static ssize_t
send_rest(FlAttempt *self, int fd)
{
    const char *rest = (char *)self->view.buf + self->sent_bytes;
    size_t size = (size_t)(self->view.len - self->sent_bytes);
    ssize_t sent;
    do {
        sent = send(fd, rest, size, FL_SEND_FLAGS);
    } while (sent < 0 && errno == EINTR);
    note_transfer(self, fd, FL_WRITABLE, sent, size);
    return sent;
}

/* May send a part and return 0: the next try continues at sent_bytes. */
static int
try_sendall(FlAttempt *self, int fd, PyObject **result)
{
    /* The view is taken once and held until the call ends, so that the
       application cannot resize the buffer between two tries. */
    if (self->view.obj == NULL
        && PyObject_GetBuffer(self->args[0], &self->view, PyBUF_SIMPLE) < 0)
    {
        return -1;
    }
    Py_ssize_t sent;
    if (fl_attempt_is_plain(self) && fd >= 0) {
        /* Empty data completes at once, even if the send buffer is full. */
        if (self->view.len > 0 && is_known_unready(self, fd, FL_WRITABLE)) {
            return 0;
        }
        sent = send_rest(self, fd);
        if (sent < 0) {
            return outcome_of_errno();
        }
    }
    else {
        sent = send_by_method(self);
        if (sent < 0 && PyErr_Occurred()) {
            return outcome_of_exception();
        }
    }
    self->sent_bytes += sent;
    return self->sent_bytes == self->view.len
               ? store_result(Py_NewRef(Py_None), result)
               : 0;
}

int
fl_attempt_try(FlAttempt *self, PyObject **result)
{
    const FlOperation *operation = self->operation;
    /* Invariant 3.  A receive on a plain socket does not flush: it neither
       sends nor runs any Python. */
    if (operation->event == FL_WRITABLE || !fl_attempt_is_plain(self)) {
        fl_loop_before_io(self->loop);
    }
    if (operation->try_once == NULL
        || !(fl_attempt_is_plain(self) || operation->any_class))
    {
        return call_method(self, result);
    }
    /* The fd is read again at each try: since the last one the socket may have
       been closed and its fd given to another file. */
    int fd = PyObject_AsFileDescriptor(self->sock);
    if (fd < 0) {
        if (fl_error_leaves_loop()) {
            return -1; /* Ctrl-C during an application's fileno() */
        }
        PyErr_Clear(); /* closed: the socket's own method raises EBADF */
        if (!operation->any_class) {
            return call_method(self, result);
        }
    }
    return operation->try_once(self, fd, result);
}

/* --- operations ---------------------------------------------------------- */

/* recvfrom_into() and sendto() have no try_once: a direct system call would
   have to parse an address or a size as the socket module does.  recvfrom()
   has one but no may_persist: it is for datagrams (invariant 2). */
const FlOperation fl_operation_recv = {
    .method_offset = offsetof(FlNames, recv),
    .event = FL_READABLE,
    .may_persist = true,
    .try_once = try_recv,
};

const FlOperation fl_operation_recv_into = {
    .method_offset = offsetof(FlNames, recv_into),
    .event = FL_READABLE,
    .may_persist = true,
    .try_once = try_recv_into,
};

const FlOperation fl_operation_recvfrom = {
    .method_offset = offsetof(FlNames, recvfrom),
    .event = FL_READABLE,
    .try_once = try_recvfrom,
};

const FlOperation fl_operation_recvfrom_into = {
    .method_offset = offsetof(FlNames, recvfrom_into),
    .event = FL_READABLE,
};

const FlOperation fl_operation_sendall = {
    .method_offset = offsetof(FlNames, sendall),
    .event = FL_WRITABLE,
    .any_class = true,
    .may_persist = true,
    .try_once = try_sendall,
};

const FlOperation fl_operation_sendto = {
    .method_offset = offsetof(FlNames, sendto),
    .event = FL_WRITABLE,
};

const FlOperation fl_operation_accept = {
    .method_offset = offsetof(FlNames, accept),
    .event = FL_READABLE,
    .any_class = true,
    .try_once = try_accept,
};

const FlOperation fl_operation_connect = {
    .method_offset = offsetof(FlNames, connect),
    .event = FL_WRITABLE,
    .any_class = true,
    .try_once = try_connect,
};
