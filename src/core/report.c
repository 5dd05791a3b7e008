/* Error reports: how a callback's exception reaches the application.

   1. Each function starts with an exception set, or with the `code` of a call,
      and returns with an exception set exactly if it returns -1.  Otherwise a
      later, unrelated call would find that exception.
   2. The messages are composed in fastloop/loop.py, not here: a report is
      rare, and asyncio's helpers have the wording of each Python version. */
#include "core/report.h"

#include "base/clock.h"
#include "core/handle.h"
#include "core/loop.h"
#include "py/compat.h"
#include "py/errors.h"

/* Calls Loop._report_callback of fastloop/loop.py. */
int
fl_loop_report_callback(FlLoop *loop, PyObject *handle)
{
    if (fl_error_leaves_loop()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *result = PyObject_CallMethodObjArgs(
        (PyObject *)loop, loop->state->names._report_callback,
        handle == NULL ? Py_None : handle, exc, NULL);
    Py_DECREF(exc);
    Py_XDECREF(result);
    /* What an application's call_exception_handler raises ends the run, as in
       asyncio. */
    return result == NULL ? -1 : 0;
}

int
fl_loop_report_call(FlLoop *loop, PyObject *object, PyObject *name,
                    PyObject *argument, PyObject *source)
{
    if (fl_error_leaves_loop()) {
        return -1;
    }
    /* Save the exception: the calls below may run Python. */
    PyObject *exc = PyErr_GetRaisedException();
    FlHandle *handle = NULL;
    /* The loop made this call without a handle.  asyncio has one for it and
       names it in the report, so a handle is created for the report alone. */
    PyObject *method = PyObject_GetAttr(object, name);
    if (method == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        /* The method is missing: `exc` is this same AttributeError. */
        PyErr_Clear();
        method = Py_NewRef(name);
    }
    PyObject *args =
        argument == NULL ? PyTuple_New(0) : PyTuple_Pack(1, argument);
    PyObject *context = PyContext_CopyCurrent();
    if (method != NULL && args != NULL && context != NULL) {
        handle = fl_handle_new_filled(loop, method, args, context);
    }
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(context);
    if (handle == NULL) {
        PyErr_Clear(); /* the report then does not name the call */
    }
    else {
        handle->source_traceback = Py_XNewRef(source);
    }
    PyErr_SetRaisedException(exc);
    int code = fl_loop_report_callback(loop, (PyObject *)handle);
    Py_XDECREF(handle);
    return code;
}

/* Calls Loop._report_slow of fastloop/loop.py. */
int
fl_loop_report_slow(FlLoop *loop, PyObject *subject, int64_t began_ns,
                    int code)
{
    double seconds = (double)(fl_clock_ns() - began_ns) / 1e9;
    if (seconds < loop->slow_callback_duration) { /* as asyncio compares */
        return code;
    }
    /* Save the callback's exception: the logger runs any Python code. */
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    PyObject *took = PyFloat_FromDouble(seconds);
    PyObject *result =
        took == NULL
            ? NULL
            : PyObject_CallMethodObjArgs((PyObject *)loop,
                                         loop->state->names._report_slow,
                                         subject, took, NULL);
    Py_XDECREF(took);
    Py_XDECREF(result);
    code = 0;
    if (result == NULL && fl_error_leaves_loop()) {
        /* Such as the KeyboardInterrupt of a Ctrl-C during the callback. */
        code = -1;
    }
    else if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    return fl_error_keep_first(exc, code, (PyObject *)loop);
}

/* Calls Loop._notify_slow of fastloop/loop.py, which calls the hook and
   reports what that raises.  So an exception here is one that must leave the
   run. */
int
fl_loop_notify_slow(FlLoop *loop, PyObject *subject, int64_t took_ns, int code)
{
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    PyObject *took = PyLong_FromLongLong(took_ns);
    PyObject *result =
        took == NULL
            ? NULL
            : PyObject_CallMethodObjArgs((PyObject *)loop,
                                         loop->state->names._notify_slow,
                                         subject, took, NULL);
    Py_XDECREF(took);
    Py_XDECREF(result);
    /* Only one exception can leave the run, and the callback's is first. */
    return fl_error_keep_first(exc, result == NULL ? -1 : 0, (PyObject *)loop);
}
