/* Calls into Python whose answer is wanted as a C value.

   1. The answer's truth is Python's: a method may return any object. */
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
