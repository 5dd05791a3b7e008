/* Leaving a context past an exception, and copying one.

   1. PyContext_Exit must not be called with an exception set: its own would
      replace that. */
#include "py/context.h"

#include "py/compat.h"

PyObject *
fl_context_copy(PyObject *context)
{
    Py_INCREF(context);
    PyObject *copy = PyContext_Copy(context);
    Py_DECREF(context);
    return copy;
}

void
fl_context_leave_raising(PyObject *context)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (PyContext_Exit(context) < 0) {
        PyErr_WriteUnraisable(context);
    }
    PyErr_SetRaisedException(exc);
}
