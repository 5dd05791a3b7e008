/* Errors of a stream, reported as asyncio's _fatal_error reports them.

   1. An exception is reported before the stream is closed, so that the
      exception handler finds the transport open, as with asyncio.
   2. A raised exception that leaves the loop closes nothing, as in asyncio:
      it goes up to run_forever. */
#include "transport/stream_error.h"

#include "core/report.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/stream.h"
#include "transport/stream_write.h"

/* Pass exc to the loop's call_exception_handler, which the application may
   have replaced.  0, or -1 with what leaves the loop. */
static int
report(FlStream *self, const char *message, PyObject *exc)
{
    FlNames *names = &self->state->names;
    PyObject *protocol = self->protocol == NULL ? Py_None : self->protocol;
    /* Owned: the handler may run the loop, which then lets the stream go. */
    FlLoop *loop = (FlLoop *)Py_NewRef((PyObject *)self->loop);
    PyObject *result = NULL;
    int code = 0;
    PyObject *context =
        Py_BuildValue("{OsOOOOOO}", names->message, message, names->exception,
                      exc, names->transport, (PyObject *)self, names->protocol,
                      protocol);
    if (context != NULL) {
        result =
            PyObject_CallMethodOneArg((PyObject *)loop,
                                      names->call_exception_handler, context);
        Py_DECREF(context);
    }
    if (result == NULL) {
        /* The handler itself failed, or there was no memory to call it. */
        code = fl_loop_report_callback(loop, NULL);
    }
    Py_XDECREF(result);
    Py_DECREF(loop);
    return code;
}

int
fl_stream_report(FlStream *self, const char *message)
{
    if (fl_error_leaves_loop()) {
        return -1;
    }
    if (self->loop == NULL) {
        /* The callback ended the stream, for want of memory at once. */
        PyErr_WriteUnraisable((PyObject *)self);
        return 0;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int code = report(self, message, exc);
    Py_DECREF(exc);
    return code;
}

int
fl_stream_fatal_exception(FlStream *self, PyObject *exc, const char *message)
{
    int code = 0;
    /* asyncio would have sent the corked bytes before the error. */
    fl_stream_flush(self);
    /* As in asyncio, the network's errors go to connection_lost alone.  A
       stream without a loop is closed: nothing handles a report. */
    if (self->loop != NULL && !PyErr_GivenExceptionMatches(exc, PyExc_OSError))
    {
        code = report(self, message, exc);
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
