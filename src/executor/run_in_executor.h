/* run_in_executor: a call handed to a thread pool, or to any executor.

   The loop's method is reached through the module's state, for loop/ does not
   know this folder. */
#ifndef FL_EXECUTOR_RUN_IN_EXECUTOR_H
#define FL_EXECUTOR_RUN_IN_EXECUTOR_H

#include "py/state.h"

/* Add the types, and give the state the method.  0 or -1. */
int fl_run_in_executor_register(PyObject *module, FlState *state);

#endif
