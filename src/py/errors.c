/* One place where an errno becomes an exception.

   1. OSError's constructor picks the subclass and programs see the
      message they know: strerror's text and nothing else. */
#include "py/errors.h"

#include "base/codes.h"
#include "py/compat.h"

#include <string.h>

PyObject *
fl_errno_exception(int code)
{
    if (code == FL_NO_MEMORY) {
        return PyObject_CallNoArgs(PyExc_MemoryError);
    }
    return PyObject_CallFunction(PyExc_OSError, "is", -code, strerror(-code));
}

int
fl_raise_errno(int code)
{
    PyObject *exc = fl_errno_exception(code);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return -1;
}

bool
fl_error_leaves_loop(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)
           || PyErr_ExceptionMatches(PyExc_SystemExit);
}

int
fl_error_keep_first(PyObject *first, int code, PyObject *source)
{
    if (first == NULL) {
        return code;
    }
    if (code < 0) {
        PyErr_WriteUnraisable(source);
    }
    PyErr_SetRaisedException(first);
    return -1;
}

void
fl_raise_os_error(long code, const char *format, PyObject *subject)
{
    PyObject *text = PyUnicode_FromFormat(format, subject);
    PyObject *args = text == NULL ? NULL : Py_BuildValue("lN", code, text);
    if (args != NULL) {
        PyErr_SetObject(PyExc_OSError, args);
        Py_DECREF(args);
    }
}
