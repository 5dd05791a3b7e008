/* Reports: how an exception of a callback reaches the program.

   The texts are made in fastloop/loop.py: a report is rare, and asyncio's own
   helpers give each Python version's words there. */
#include "core/report.h"

#include "base/clock.h"
#include "core/handle.h"
#include "core/loop.h"
#include "py/compat.h"
#include "py/errors.h"

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
    /* What the program's call_exception_handler raises ends the run. */
    return result == NULL ? -1 : 0;
}

int
fl_loop_report_call(FlLoop *loop, PyObject *object, PyObject *name,
                    PyObject *argument, PyObject *source)
{
    if (fl_error_leaves_loop()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    FlHandle *handle = NULL;
    /* The call had no handle, but a report names one, as asyncio's does. */
    PyObject *method = PyObject_GetAttr(object, name);
    if (method == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear(); /* that is what is reported */
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
        PyErr_Clear(); /* the report does without the call's name */
    }
    else {
        handle->source_traceback = Py_XNewRef(source);
    }
    PyErr_SetRaisedException(exc);
    int code = fl_loop_report_callback(loop, (PyObject *)handle);
    Py_XDECREF(handle);
    return code;
}

int
fl_loop_report_slow(FlLoop *loop, PyObject *subject, int64_t began_ns,
                    int code)
{
    double seconds = (double)(fl_clock_ns() - began_ns) / 1e9;
    if (seconds < loop->slow_callback_duration) {
        return code;
    }
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
        code = -1; /* a Ctrl-C came while the callback ran */
    }
    else if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    return fl_error_keep_first(exc, code, (PyObject *)loop);
}

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
    /* One exception can leave the run: the callback's. */
    return fl_error_keep_first(exc, result == NULL ? -1 : 0, (PyObject *)loop);
}
