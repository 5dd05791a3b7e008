/* Calls to Python whose result is needed as a C value. */
#ifndef FL_PY_CALL_H
#define FL_PY_CALL_H

#include "py/compat.h"

/* Drop the result of a call: 0, or -1 if it is NULL and an exception is
   set. */
static inline int
fl_call_done(PyObject *result)
{
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The reverse: the result of a method that returns None.  NULL for -1, with
   the exception that is set. */
static inline PyObject *
fl_call_none(int code)
{
    return code < 0 ? NULL : Py_NewRef(Py_None);
}

/* The truth of object.name(): 1 or 0, or -1 with an exception set.  Runs
   Python. */
int fl_call_truth(PyObject *object, PyObject *name);

/* The truth of object.name, an attribute: as fl_call_truth. */
int fl_attr_truth(PyObject *object, PyObject *name);

/* Call future.method(value), unless future.done(): as fl_call_method. */
int fl_call_unless_done(PyObject *future, PyObject *done, PyObject *method,
                        PyObject *value);

/* Call object.name(), or object.name(argument) if argument is not NULL: 0, or
   -1 with an exception set.  Owns the object during the call, which may clear
   the field that it comes from. */
int fl_call_method(PyObject *object, PyObject *name, PyObject *argument);

#endif
