/* Calls to Python whose result is a C value: see call.h. */
#include "py/call.h"

#include "py/compat.h"

/* Steals the result, which may be NULL. */
static int
truth_of(PyObject *result)
{
    int truth = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    return truth;
}

int
fl_call_truth(PyObject *object, PyObject *name)
{
    return truth_of(PyObject_CallMethodNoArgs(object, name));
}

int
fl_attr_truth(PyObject *object, PyObject *name)
{
    return truth_of(PyObject_GetAttr(object, name));
}

int
fl_call_unless_done(PyObject *future, PyObject *done, PyObject *method,
                    PyObject *value)
{
    Py_INCREF(future); /* done() may make its owner drop it */
    int code = fl_call_truth(future, done);
    if (code == 0) {
        code = fl_call_method(future, method, value);
    }
    Py_DECREF(future);
    return code < 0 ? -1 : 0;
}

int
fl_call_method(PyObject *object, PyObject *name, PyObject *argument)
{
    PyObject *owned = Py_NewRef(object);
    PyObject *result = argument == NULL
                           ? PyObject_CallMethodNoArgs(owned, name)
                           : PyObject_CallMethodOneArg(owned, name, argument);
    Py_DECREF(owned);
    return fl_call_done(result);
}
