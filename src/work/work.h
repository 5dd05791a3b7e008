/* The executor bridge's registration. */
#ifndef FL_WORK_WORK_H
#define FL_WORK_WORK_H

#include "py/state.h"

/* Create and add the executor's types and functions.  0 or -1. */
int fl_work_register(PyObject *module, FlState *state);

#endif
