/* Contexts: copying one, and leaving one while an exception is set.

   1. PyContext_Exit is never called with an exception set: its own exception
      would replace the callback's. */
#include "py/context.h"

#include "py/compat.h"

PyObject *
fl_context_copy(PyObject *context)
{
    Py_INCREF(context); /* see context.h: the owner may release it */
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
