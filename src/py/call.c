/* Calls to Python whose result is a C value: see call.h.

   1. A result's truth is decided by PyObject_IsTrue, not by identity with
      Py_True: an application's future may return any object from done(). */
#include "py/call.h"

#include "py/compat.h"

int
fl_call_truth(PyObject *object, PyObject *name)
{
    PyObject *result = PyObject_CallMethodNoArgs(object, name);
    int truth = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    return truth;
}

bool
fl_call_is_ours(PyObject *method, PyCFunction function)
{
    return PyCFunction_Check(method)
           && PyCFunction_GET_FUNCTION(method) == function;
}
