/* Error reports: how a callback's exception reaches the application.

   Each function starts with an exception set, or with the `code` of a call,
   and returns with an exception set exactly if it returns -1.  Otherwise a
   later, unrelated call would find that exception. */
#include "core/report.h"

#include "core/loop.h"
#include "core/meter.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"

int
fl_loop_report_by(FlLoop *loop, PyObject *method, PyObject *first,
                  PyObject *second, PyObject *third)
{
    if (fl_exception_ends_run()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *outer = fl_error_begin_handling(exc);
    PyObject *result =
        PyObject_CallMethodObjArgs((PyObject *)loop, method, exc, first,
                                   second, third, NULL);
    fl_error_end_handling(outer);
    Py_DECREF(exc);
    /* What an application's call_exception_handler raises ends the run, as in
       asyncio. */
    return fl_call_done(result);
}

int
fl_loop_report_callback(FlLoop *loop, PyObject *handle)
{
    return fl_loop_report_by(loop, loop->state->names._report_callback,
                             handle == NULL ? Py_None : handle, NULL, NULL);
}

int
fl_loop_report_call(FlLoop *loop, PyObject *object, PyObject *name,
                    PyObject *argument)
{
    return fl_loop_report_by(loop, loop->state->names._report_call, object,
                             name, argument);
}

int
fl_loop_report_slow(FlLoop *loop, PyObject *subject, int64_t took_ns, int code)
{
    PyObject *handle = loop->current_handle;
    PyObject *callback = loop->timing.callback;
    /* asyncio's comparison: nothing is slow if the limit is NaN. */
    bool slow = (double)took_ns / 1e9 >= loop->timing.slow_s;
    if (!slow || (handle == NULL && subject == NULL)) {
        return code;
    }
    FL_METER(loop, slow_callbacks, 1);
    /* Save the callback's exception: only one can end the run, the first. */
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    PyObject *took = PyLong_FromLongLong(took_ns);
    PyObject *result =
        took == NULL
            ? NULL
            : PyObject_CallMethodObjArgs((PyObject *)loop,
                                         loop->state->names._report_slow,
                                         handle == NULL ? subject : handle,
                                         callback == NULL ? subject : callback,
                                         took, NULL);
    Py_XDECREF(took);
    return fl_error_keep_first(exc, fl_call_done(result), (PyObject *)loop);
}
