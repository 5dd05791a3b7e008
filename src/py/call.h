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

/* callable(*args), for any callable of an application; args is a tuple.
   PyObject_Call() alone does not check the result of a vectorcall: a callable
   may return NULL without an exception, as a Python function does that raises
   while there is no memory for its frame object. */
static inline PyObject *
fl_call_args(PyObject *callable, PyObject *args)
{
    return PyType_HasFeature(Py_TYPE(callable), Py_TPFLAGS_HAVE_VECTORCALL)
               ? PyObject_Vectorcall(callable,
                                     ((PyTupleObject *)args)->ob_item,
                                     (size_t)PyTuple_GET_SIZE(args), NULL)
               : PyObject_Call(callable, args, NULL);
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
