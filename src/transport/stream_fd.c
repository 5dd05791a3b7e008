/* Whether a stream's fd still belongs to it.

   The application may close a socket object that it passed to a transport, and
   the system may then give the fd to another file.  The socket object knows
   that it was closed; the fd alone does not tell.

   1. A stream whose socket object is exposed queries it before each system
      call.  asyncio's transports do so too, by making the call through it.
   2. A stream that notices that its fd is no longer its own ends with EBADF.
      It does not read, write, shut down or close the fd, which would hit
      another file.

   Limit: an os.close() of the fd leaves no trace in the socket object, and a
   stream may have no such object.  System calls fail with EBADF until the fd
   is reused.  If another transport of this loop acquires it (fl_fd_acquire),
   the stream ends.  If any other file gets it, the stream uses and closes that
   file, as asyncio's transports do. */
#include "transport/stream_fd.h"

#include "base/list.h"
#include "core/loop.h"
#include "core/registration.h"
#include "core/thread_queue.h"
#include "loop/user_fd.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/field.h"
#include "transport/extra_info.h"
#include "transport/stream.h"
#include "transport/stream_close.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* sock.fileno(), or NULL with an exception.  One that leaves the loop, as that
   of a signal handler that runs in it, says nothing about the fd: it is queued
   to the loop, and fileno() is called again. */
static PyObject *
call_fileno(FlStream *self, PyObject *sock)
{
    PyObject *name = self->state->names.fileno;
    PyObject *result = PyObject_CallMethodNoArgs(sock, name);
    if (FL_LIKELY(result != NULL) || !fl_error_leaves_loop()) {
        return result;
    }
    FlLoop *loop = (FlLoop *)fl_field_get(self, (PyObject **)&self->loop);
    if (loop != NULL) {
        fl_thread_queue_raise_anythread(loop, (PyObject *)self);
        Py_DECREF(loop);
    }
    PyErr_Clear(); /* a stream without a loop has ended */
    return PyObject_CallMethodNoArgs(sock, name);
}

int
fl_stream_query_fd(FlStream *self)
{
    /* Owned, because fileno() may end the stream. */
    PyObject *sock = fl_field_get(self, &self->sock);
    if (sock == NULL) { /* no object could have closed it */
        return self->fd >= 0 ? 0 : -EBADF;
    }
    PyObject *result = call_fileno(self, sock);
    Py_DECREF(sock);
    long fd = result == NULL ? -1 : PyLong_AsLong(result);
    Py_XDECREF(result);
    if (FL_UNLIKELY(fd < 0)) {
        PyErr_Clear(); /* a fileno() that raises has no usable fd */
        return -EBADF;
    }
    return fd == self->fd ? 0 : -EBADF;
}

void
fl_stream_expose_fd(FlStream *self)
{
    if (self->loop != NULL && !fl_loop_on_other_thread(self->loop)) {
        fl_stream_flush(self);
    }
    self->exposed = true;
}

/* A pipe never has its fd alone: asyncio allows other users of it. */
bool
fl_stream_has_fd(FlOpenTransport *owned)
{
    FlStream *self = FL_LIST_ENTRY(&owned->link, FlStream, owned.link);
    return self->kind == FL_SOCKET && fl_stream_query_fd(self) == 0;
}

/* 0 or a negative errno. */
static int
open_registration(FlStream *self, int fd)
{
    FlRegistration user = {
        .owner = self,
        .transport = &self->owned,
        .on_events = fl_stream_on_events,
    };
    FlRegistration *reg;
    int code =
        fl_poller_register(self->loop->poller, fd, sizeof(user), &user, &reg);
    if (code == 0) {
        self->reg = reg;
    }
    return code;
}

/* Register a duplicate of a pipe's fd, which fl_stream_unregister closes, in
   place of the pipe's registration, if it has one.  0 or a negative errno; the
   pipe keeps its registration where no fd is left. */
static int
register_duplicate(FlStream *self, int fd)
{
    int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate < 0) {
        return -errno;
    }
    fl_stream_unregister(self, false);
    int code = open_registration(self, duplicate);
    if (code < 0) {
        (void)close(duplicate);
    }
    return code;
}

int
fl_stream_take_fd(FlStream *self, int fd)
{
    FlLoop *loop = self->loop;
    bool shares = self->kind != FL_SOCKET && fl_fd_is_used(loop, fd);
    /* Evicts a previous owner of the fd, whose registration must be gone
       before this one is opened. */
    int code = shares ? fl_loop_check_open(loop) : fl_fd_acquire(loop, fd);
    if (code < 0) {
        return -1;
    }
    code = shares ? register_duplicate(self, fd) : open_registration(self, fd);
    return code < 0 ? fl_raise_errno(code) : 0;
}

/* The part of fl_stream_invalidate_fd that may run Python.  0 if a pipe keeps
   the fd together with another user, or -EBADF. */
static int
release_fd(FlStream *self)
{
    int code = fl_stream_query_fd(self);
    if (self->kind != FL_SOCKET) {
        return code;
    }
    PyObject *sock = code == 0 ? Py_XNewRef(self->sock) : NULL;
    if (sock != NULL) {
        /* The fd was closed by os.close() or the like. */
        fl_socket_detach(self->state, sock);
        Py_DECREF(sock);
    }
    return -EBADF;
}

int
fl_stream_invalidate_fd(FlOpenTransport *owned)
{
    FlStream *self = FL_LIST_ENTRY(&owned->link, FlStream, owned.link);
    Py_INCREF(self); /* detach() and its like may drop other references */
    int fd = self->reg == NULL ? -1 : self->reg->fd;
    int code = release_fd(self);
    bool refused = false;
    if (self->reg == NULL || self->reg->fd != fd) {
        /* That has ended the stream, closed the loop, or left the fd for a
           duplicate. */
        code = 0;
    }
    else if (code == 0) {
        /* Leave a pipe's fd to its other user: wait with a duplicate. */
        code = register_duplicate(self, self->fd);
        refused = code < 0 && self->reg != NULL;
        Py_BEGIN_CRITICAL_SECTION(self); /* another thread may be writing */
        code = code < 0 ? code : fl_stream_update_registration(self);
        Py_END_CRITICAL_SECTION();
    }
    else {
        fl_stream_unregister(self, false);
    }
    if (code < 0 && !refused) {
        self->fd = -1; /* the stream must not use it any more */
        fl_stream_fail(self, code);
        code = 0;
    }
    Py_DECREF(self);
    return code;
}
