/* _core.ExecutorJob: a function call for a worker thread, and the asyncio
   future that gets its outcome.

   A job replaces concurrent.futures' _WorkItem in the queue of a standard
   ThreadPoolExecutor (_loop/_pool.py).  The standard library still runs
   the threads, their names and initializers, shutdown, and the interpreter's
   exit.  The executor uses a job in two ways: a worker calls job.run();
   shutdown() and a failed initializer call cancel() or set_exception() of
   job.future, which is the job itself.  All of these settle the asyncio future
   on its loop's thread.  run() calls the future's cancelled() on the worker's
   thread.

   Owner: a job owns its loop, future, function and arguments.  Threads: a job
   is made on the loop's thread; any thread may call its methods. */
#ifndef FL_EXECUTOR_JOB_H
#define FL_EXECUTOR_JOB_H

#include "py/state.h"

/* Add the type and the function executor_job() to the module.  0, or -1 with
   an exception set. */
int fl_job_register(PyObject *module, FlState *state);

#endif
