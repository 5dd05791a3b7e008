/* Errors of a stream, reported as asyncio's _fatal_error reports them.

   1. An exception is reported before the stream is closed, so that the
      exception handler finds the transport open, as with asyncio.
   2. A raised exception that leaves the loop closes nothing, as in asyncio:
      it goes up to run_forever.
   3. An exception of a pipe's callback closes nothing either: asyncio's pipe
      transports leave it to the loop, which reports it.  A MemoryError does
      close the pipe: bytes that were read may be lost, and the protocol must
      not get the bytes after them. */
#include "transport/stream_error.h"

#include "core/report.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/stream.h"
#include "transport/stream_close.h"

int
fl_stream_fatal_exception(FlStream *self, PyObject *exc, const char *message)
{
    int code = 0;
    /* asyncio would have sent the corked bytes before the error. */
    fl_stream_flush(self);
    /* As in asyncio, a system error goes to connection_lost alone, unless it
       is that of a read pipe.  A stream without a loop is closed: nothing
       handles a report. */
    bool silent = self->kind != FL_READ_PIPE
                  && PyErr_GivenExceptionMatches(exc, PyExc_OSError);
    if (self->loop != NULL && !silent) {
        code = fl_transport_report((FlTransport *)self, NULL, exc, message);
    }
    if (code == 0) {
        fl_stream_force_close(self, exc);
    }
    return code;
}

int
fl_stream_fatal(FlStream *self, const char *message)
{
    if (fl_error_leaves_loop()) {
        return -1;
    }
    if (self->kind != FL_SOCKET && self->loop != NULL
        && !PyErr_ExceptionMatches(PyExc_MemoryError))
    {
        /* Invariant 3. */
        return fl_loop_report_call(self->loop, (PyObject *)self,
                                   self->state->names._read_ready, NULL, NULL);
    }
    PyObject *exc = PyErr_GetRaisedException();
    int code = fl_stream_fatal_exception(self, exc, message);
    Py_DECREF(exc);
    return code;
}

int
fl_stream_fatal_errno(FlStream *self, int code, const char *message)
{
    /* Raised, because fl_stream_fatal takes the raised exception. */
    (void)fl_raise_errno(code);
    return fl_stream_fatal(self, message);
}

void
fl_stream_fail(FlStream *self, int code)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *exc = fl_errno_exception(code);
    if (exc == NULL) {
        exc = PyErr_GetRaisedException();
    }
    fl_stream_force_close(self, exc);
    Py_DECREF(exc);
    fl_error_restore(raised);
}
