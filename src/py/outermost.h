/* Calls a function as the outermost one of its thread: `python -m fastloop
   run` runs a program so. */
#ifndef FL_PY_OUTERMOST_H
#define FL_PY_OUTERMOST_H

#include "py/compat.h"

/* Add the function to the module.  0, or -1 with an exception set. */
int fl_outermost_register(PyObject *module);

#endif
