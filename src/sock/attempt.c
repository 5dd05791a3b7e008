/* The socket operations that are tried: see attempt.h.

   1. On a TCP connection a read shorter than requested has emptied the receive
      buffer, and a send shorter than requested has filled the send buffer.  So
      the next try may be skipped until a poll reports an event.  Where that is
      wrong, as before an EOF, the registration is level-triggered and the next
      poll reports it.
   2. fl_attempt_try flushes corked writes first.  Otherwise bytes that were
      written earlier could leave after those that this call sends, or a
      receive would not find them. */
#include "sock/attempt.h"

#include "base/codes.h"
#include "core/cork.h"
#include "core/flush.h"
#include "core/loop.h"
#include "core/registration.h"
#include "loop/user_fd.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

/* A read of at most this many bytes goes to the C stack first: a read that
   would block then costs no bytes object. */
#define STACK_BUFFER_BYTES ((Py_ssize_t)16 * 1024)

/* --- one transfer -------------------------------------------------------- */

/* Receive or send once.  The socket's persistent registration, if it has one,
   records what that proved.  While it records that the socket is not ready,
   and no poll has reported anything since, there is no system call.  1 with
   *moved set; 0 if it would block; or -1 with an OSError set.  MSG_DONTWAIT:
   outside debug mode nothing has checked that the socket is non-blocking. */
static int
transfer(const FlAttempt *self, int fd, char *buffer, size_t size,
         ssize_t *moved)
{
    int event = self->operation->event;
    FlRegistration *reg =
        fl_fd_persistent_registration(self->loop, fd, self->sock);
    if (reg != NULL && !(reg->may_be_ready & event) && size > 0) {
        return 0;
    }
    do {
        *moved = event == FL_READABLE ? recv(fd, buffer, size, MSG_DONTWAIT)
                                      : send(fd, buffer, size, FL_SEND_FLAGS);
    } while (*moved < 0 && errno == EINTR);
    bool blocks = *moved < 0 && fl_errno_would_block(errno);
    /* Zero bytes mean EOF, which lasts: reads stay allowed. */
    if (reg != NULL && (blocks || (*moved > 0 && (size_t)*moved < size))) {
        reg->may_be_ready &= (uint8_t)~event;
    }
    return *moved >= 0 ? 1 : blocks ? 0 : fl_raise_errno(-errno);
}

/* --- attempts ------------------------------------------------------------ */

/* Hand a new reference to the caller of fl_attempt_try: 1.  For NULL: 0 if the
   exception says that the call would block, which clears it, else -1. */
static int
store_result(PyObject *object, PyObject **result)
{
    *result = object;
    return object != NULL ? 1 : fl_error_would_block() ? 0 : -1;
}

/* Try the operation by the socket object's own method. */
static int
call_method(FlAttempt *self, int Py_UNUSED(fd), PyObject **result)
{
    PyObject *args[1 + FL_MOST_ARGUMENTS] = {self->sock};
    memcpy(args + 1, self->args, sizeof(self->args));
    return store_result(
        PyObject_VectorcallMethod(fl_attempt_name(self), args,
                                  (size_t)(1 + self->operation->nargs), NULL),
        result);
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

/* Receive at most as many bytes as requested, as a new bytes object. */
static int
try_recv(FlAttempt *self, int fd, PyObject **result)
{
    Py_ssize_t size = size_argument(self);
    if (size == 0) {
        return call_method(self, fd, result);
    }
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
    ssize_t got;
    int code = transfer(self, fd, buffer, (size_t)size, &got);
    if (code <= 0) {
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
try_recv_into(FlAttempt *self, int fd, PyObject **result)
{
    Py_buffer view;
    if (PyObject_GetBuffer(self->args[0], &view, PyBUF_WRITABLE) < 0) {
        if (fl_exception_ends_run()) {
            return -1; /* Ctrl-C during its __buffer__() */
        }
        PyErr_Clear(); /* the socket's method raises its own TypeError */
        return call_method(self, fd, result);
    }
    if (view.len == 0) {
        /* An empty buffer is the method's to judge, as for size 0. */
        PyBuffer_Release(&view);
        return call_method(self, fd, result);
    }
    ssize_t got;
    int code = transfer(self, fd, view.buf, (size_t)view.len, &got);
    PyBuffer_Release(&view);
    return code == 1 ? store_result(PyLong_FromSsize_t(got), result) : code;
}

/* Where the first try would block, waiting saves making and dropping a
   BlockingIOError. */
static int
try_recvfrom(FlAttempt *self, int fd, PyObject **result)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return fl_attempt_is_plain(self) && size_argument(self) > 0 && fd >= 0
                   && !self->is_retry && poll(&ready, 1, 0) == 0
               ? 0
               : call_method(self, fd, result);
}

/* By connect_ex(), which makes no exception of EINPROGRESS. */
static int
begin_connect(FlAttempt *self, int fd, PyObject **result)
{
    PyObject *code =
        PyObject_CallMethodOneArg(self->sock, self->state->names.connect_ex,
                                  self->args[0]);
    if (code == NULL && fl_exception_ends_run()) {
        return -1;
    }
    if (code == NULL) { /* a bad address: connect() raises in its own name */
        PyErr_Clear();
        return call_method(self, fd, result);
    }
    int number = (int)PyLong_AsLong(code);
    Py_DECREF(code);
    if (number == EINPROGRESS) {
        return 0;
    }
    if (number > 0) {
        (void)fl_raise_errno(-number);
    }
    return store_result(number == 0 ? Py_NewRef(Py_None) : NULL, result);
}

/* The first try starts the connection.  A retry runs when the socket is
   writable: the connection has then succeeded or failed.  Except AF_UNIX: if
   the listener's backlog is full, connect() starts nothing (EAGAIN), and as
   in asyncio the retry takes that for success. */
static int
try_connect(FlAttempt *self, int fd, PyObject **result)
{
    if (!self->is_retry) {
        /* For one with a timeout connect_ex() returns EAGAIN. */
        int code = 1;
        if (fl_attempt_is_plain(self)) {
            code = fl_call_truth(self->sock, self->state->names.gettimeout);
        }
        return code < 0    ? store_result(NULL, result)
               : code == 0 ? begin_connect(self, fd, result)
                           : call_method(self, fd, result);
    }
    int number = 0;
    socklen_t size = sizeof(number);
    if (fl_attempt_is_plain(self)
        && getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size) == 0
        && number == 0)
    {
        return store_result(Py_NewRef(Py_None), result);
    }
    /* Without a code, NULL ends the arguments early, and finish_connect asks
       the socket. */
    PyObject *code = number == 0 ? NULL : PyLong_FromLong(number);
    PyObject *done =
        PyObject_CallMethodObjArgs(self->state->helpers,
                                   self->state->names.finish_connect,
                                   self->sock, self->args[0], code, NULL);
    Py_XDECREF(code);
    return store_result(done, result);
}

/* A part was sent: 1 if it was the last, else 0.  The next try continues after
   it. */
static int
add_sent(FlAttempt *self, Py_ssize_t sent_bytes, PyObject **result)
{
    self->sent_bytes += sent_bytes;
    return self->sent_bytes == self->view.len
               ? store_result(Py_NewRef(Py_None), result)
               : 0;
}

/* By the send() of a socket of another class. */
static int
sendall_by_method(FlAttempt *self, int Py_UNUSED(fd), PyObject **result)
{
    PyObject *start = PyLong_FromSsize_t(self->sent_bytes);
    PyObject *sent =
        start == NULL
            ? NULL
            : PyObject_CallMethodObjArgs(self->state->helpers,
                                         self->state->names.send_rest,
                                         self->sock, self->args[0], start,
                                         NULL);
    Py_ssize_t count = sent == NULL ? -1 : PyLong_AsSsize_t(sent);
    Py_XDECREF(start);
    Py_XDECREF(sent);
    return count < 0 && PyErr_Occurred() ? store_result(NULL, result)
                                         : add_sent(self, count, result);
}

static int
try_sendall(FlAttempt *self, int fd, PyObject **result)
{
    char *rest = (char *)self->view.buf + self->sent_bytes;
    ssize_t sent;
    int code = transfer(self, fd, rest,
                        (size_t)(self->view.len - self->sent_bytes), &sent);
    return code == 1 ? add_sent(self, sent, result) : code;
}

int
fl_attempt_try(FlAttempt *self, PyObject **result)
{
    const FlOperation *operation = self->operation;
    /* sendall's data is held until the call ends, so that the application
       cannot resize it between two tries.  First, because it may run Python:
       invariant 2. */
    if (operation == &fl_operation_sendall && self->view.obj == NULL
        && PyObject_GetBuffer(self->args[0], &self->view, PyBUF_SIMPLE) < 0)
    {
        return -1;
    }
    bool plain = fl_attempt_is_plain(self);
    /* Invariant 2.  The next iteration polls after an operation that may send
       or run a method of the application: its peer may be in this process.
       After a receive on a plain socket it need not, nor after the end of a
       connect. */
    bool may_send = operation->event == FL_WRITABLE
                    && !(operation == &fl_operation_connect && self->is_retry);
    if (may_send || !plain) {
        fl_loop_flush_before_send(self->loop);
    }
    else {
        fl_loop_flush_corked(self->loop);
    }
    /* The fd is read again at each try: since the last one the socket may have
       been closed and its fd given to another file. */
    int fd = PyObject_AsFileDescriptor(self->sock);
    if (fd < 0) {
        if (fl_exception_ends_run()) {
            return -1; /* Ctrl-C during an application's fileno() */
        }
        PyErr_Clear(); /* closed: the socket's own method raises EBADF */
    }
    if (operation == &fl_operation_sendall && self->view.obj == NULL) {
        return 0; /* fileno() ran the GC, and a finalizer ended this call */
    }
    return plain && fd >= 0 && operation->direct != NULL
               ? operation->direct(self, fd, result)
               : operation->by_method(self, fd, result);
}

/* --- operations ---------------------------------------------------------- */

/* What is NULL in `direct` has no direct system call: it would have to parse
   addresses and sizes as the socket module does. */
#define OPERATION(name, nargs, event, direct, by_method)                     \
    const FlOperation fl_operation_##name = {offsetof(FlNames, name), nargs, \
                                             event, direct, by_method};

OPERATION(recv, 1, FL_READABLE, try_recv, call_method)
OPERATION(recv_into, 1, FL_READABLE, try_recv_into, call_method)
OPERATION(recvfrom, 1, FL_READABLE, NULL, try_recvfrom)
OPERATION(recvfrom_into, 2, FL_READABLE, NULL, call_method)
OPERATION(sendall, 1, FL_WRITABLE, try_sendall, sendall_by_method)
OPERATION(sendto, 2, FL_WRITABLE, NULL, call_method)
OPERATION(accept, 0, FL_READABLE, NULL, call_method)
OPERATION(connect, 1, FL_WRITABLE, NULL, try_connect)
