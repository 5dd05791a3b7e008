/* Whether a stream's descriptor number is its own still.

   Whoever gave a socket object may close it, and the system gives the number
   to another.  The object knows that it was closed; a number alone does not.

   1. A stream with a given socket asks it before each call, as asyncio's
      transports do by making the call through it.
   2. A stream that lost its number ends with EBADF; it does not close, stop
      or use what has the number now. */
#include "transport/stream_fd.h"

#include "base/list.h"
#include "core/loop.h"
#include "py/compat.h"
#include "py/errors.h"
#include "transport/stream.h"

#include <errno.h>

/* Of a socket object that was given, for somebody may have closed it.  -1 with
   an exception set. */
static int
call_fileno(FlStream *self)
{
    if (self->sock == NULL) {
        return self->fd >= 0; /* no object could have closed it */
    }
    PyObject *number =
        PyObject_CallMethodNoArgs(self->sock, self->state->names.fileno);
    long fd = number == NULL ? -1 : PyLong_AsLong(number);
    Py_XDECREF(number);
    return fd == -1 && PyErr_Occurred() ? -1 : fd == self->fd;
}

int
fl_stream_has_fd(FlOwned *owned)
{
    FlStream *self = FL_LIST_ENTRY(&owned->link, FlStream, owned.link);
    return call_fileno(self);
}

int
fl_stream_query_fd(FlStream *self)
{
    int has = call_fileno(self);
    if (has < 0) {
        PyErr_Clear(); /* an object that cannot tell has none */
    }
    return has > 0 ? 0 : -EBADF;
}

void
fl_stream_invalidate_fd(FlOwned *owned)
{
    FlStream *self = FL_LIST_ENTRY(&owned->link, FlStream, owned.link);
    Py_INCREF(self);
    fl_stream_unregister(self);
    if (self->sock != NULL && fl_stream_query_fd(self) == 0) {
        /* Closed by its number: the object would close another's. */
        PyObject *result =
            PyObject_CallMethodNoArgs(self->sock, self->state->names.detach);
        if (result == NULL) {
            PyErr_WriteUnraisable(self->sock);
        }
        Py_XDECREF(result);
    }
    self->fd = -1;
    PyObject *exc = fl_errno_exception(-EBADF);
    if (exc == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    fl_stream_force_close(self, exc);
    Py_XDECREF(exc);
    Py_DECREF(self);
}
