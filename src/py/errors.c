/* Error codes and exceptions: see errors.h. */
#include "py/errors.h"

#include "base/codes.h"
#include "py/compat.h"

#include <string.h>

/* Codes are negative errnos, OSError takes positive ones.  Applications
   compare its text with strerror's: nothing is added. */
PyObject *
fl_errno_exception(int code)
{
    if (code == FL_NO_MEMORY) {
        return PyObject_CallNoArgs(PyExc_MemoryError);
    }
    if (code == FL_CLOSED) {
        return PyObject_CallFunction(PyExc_RuntimeError, "s",
                                     "Event loop is closed");
    }
    if (code == FL_IN_USE) {
        return PyObject_CallFunction(PyExc_RuntimeError, "s",
                                     "File descriptor is used by transport");
    }
    /* In the locale's encoding, as CPython decodes it. */
    PyObject *text =
        PyUnicode_DecodeLocale(strerror(-code), "surrogateescape");
    return PyObject_CallFunction(PyExc_OSError, "iN", -code, text);
}

int
fl_raise_errno(int code)
{
    PyObject *exc = fl_errno_exception(code);
    if (exc != NULL) { /* else making it has raised another one */
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return -1;
}

bool
fl_exception_ends_run(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)
           || PyErr_ExceptionMatches(PyExc_SystemExit);
}

bool
fl_error_would_block(void)
{
    bool blocks = PyErr_ExceptionMatches(PyExc_BlockingIOError)
                  || PyErr_ExceptionMatches(PyExc_InterruptedError);
    if (blocks) {
        PyErr_Clear(); /* no failure: the caller waits, and tries again */
    }
    return blocks;
}

PyObject *
fl_error_begin_handling(PyObject *exc)
{
    PyObject *outer = PyErr_GetHandledException();
    /* A coroutine has a place of its own for what it handles.  To get looks
       further out where that is empty, and to set does not: what would then be
       restored to the coroutine is another one's. */
    PyErr_SetHandledException(NULL);
    PyObject *further = PyErr_GetHandledException();
    if (further == outer) {
        Py_CLEAR(outer);
    }
    Py_XDECREF(further);
    PyErr_SetHandledException(exc);
    return outer;
}

void
fl_error_end_handling(PyObject *outer)
{
    PyErr_SetHandledException(outer);
    Py_XDECREF(outer);
}

/* `first` wins, because it came first and is the likely cause. */
int
fl_error_keep_first(PyObject *first, int code, PyObject *source)
{
    if (first == NULL) {
        return code;
    }
    if (code < 0) {
        PyErr_WriteUnraisable(source); /* only one exception can propagate */
    }
    PyErr_SetRaisedException(first);
    return -1;
}
