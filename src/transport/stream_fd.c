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
#include "py/compat.h"
#include "py/errors.h"
#include "transport/stream.h"

#include <errno.h>

/* 1 if the socket object still has the stream's fd; 0 if it was closed; -1
   with the exception of its fileno(). */
static int
socket_has_fd(FlStream *self)
{
    if (self->sock == NULL) {
        return self->fd >= 0; /* no object could have closed it */
    }
    PyObject *result =
        PyObject_CallMethodNoArgs(self->sock, self->state->names.fileno);
    long fd = result == NULL ? -1 : PyLong_AsLong(result);
    Py_XDECREF(result);
    /* A closed socket's fileno() is -1, which is no error. */
    return fd == -1 && PyErr_Occurred() ? -1 : fd == self->fd;
}

int
fl_stream_has_fd(FlOwned *owned)
{
    FlStream *self = FL_LIST_ENTRY(&owned->link, FlStream, owned.link);
    return socket_has_fd(self);
}

int
fl_stream_query_fd(FlStream *self)
{
    int has_fd = socket_has_fd(self);
    if (has_fd < 0) {
        /* A fileno() that raises means that the fd is not usable. */
        PyErr_Clear();
    }
    return has_fd > 0 ? 0 : -EBADF;
}

void
fl_stream_invalidate_fd(FlOwned *owned)
{
    FlStream *self = FL_LIST_ENTRY(&owned->link, FlStream, owned.link);
    Py_INCREF(self); /* detach() and its like may drop other references */
    fl_stream_unregister(self);
    if (self->sock != NULL && fl_stream_query_fd(self) == 0) {
        /* The fd was closed by os.close() or the like, so the object does not
           know.  Its own close() would close the fd's new file. */
        PyObject *result =
            PyObject_CallMethodNoArgs(self->sock, self->state->names.detach);
        if (result == NULL) {
            PyErr_WriteUnraisable(self->sock);
        }
        Py_XDECREF(result);
    }
    self->fd = -1; /* so fl_stream_finish closes nothing either */
    PyObject *exc = fl_errno_exception(-EBADF);
    if (exc == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    fl_stream_force_close(self, exc);
    Py_XDECREF(exc);
    Py_DECREF(self);
}
