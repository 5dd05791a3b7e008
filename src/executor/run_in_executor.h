/* loop.run_in_executor(): submits a function call to a thread pool or to any
   other executor, and returns an asyncio future.

   loop/ may not include this folder.  So BaseLoop's method calls the function
   pointer state->run_in_executor, which is set here. */
#ifndef FL_EXECUTOR_RUN_IN_EXECUTOR_H
#define FL_EXECUTOR_RUN_IN_EXECUTOR_H

#include "py/state.h"

/* Add ExecutorJob to the module, import what this folder needs into the state,
   and set state->run_in_executor.  0, or -1 with an exception set. */
int fl_run_in_executor_register(PyObject *module, FlState *state);

#endif
