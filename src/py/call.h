/* Calls into Python whose answer is wanted as a C value. */
#ifndef FL_PY_CALL_H
#define FL_PY_CALL_H

#include "py/compat.h"

/* The truth of object.name(), or -1 with an exception. */
int fl_call_truth(PyObject *object, PyObject *name);

/* Whether a method, looked up on an object, is this C function: nobody has put
   another in its place. */
bool fl_call_is_ours(PyObject *method, PyCFunction function);

#endif
