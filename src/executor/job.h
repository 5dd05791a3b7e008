/* _core.ExecutorJob: a function call for a worker thread, and the asyncio
   future that gets its outcome.

   A job replaces concurrent.futures' _WorkItem in the queue of a standard
   ThreadPoolExecutor.  The standard library still runs the threads, their
   names and initializers, shutdown, and the interpreter's exit.  Only the cost
   of a call is ours.  The executor uses a job in two ways: a worker calls
   job.run(); shutdown() and a failed initializer call cancel() or
   set_exception() of job.future, which is the job itself.  Both reach the
   asyncio future on its loop's thread.

   Owner: a job owns its loop, future, function and arguments.  Threads: any
   thread may call its methods; functions here are for the loop's thread unless
   named _anythread. */
#ifndef FL_EXECUTOR_JOB_H
#define FL_EXECUTOR_JOB_H

#include "core/loop.h"

/* A job that calls func(*args) and gives the outcome to a future of the loop.
   A new reference, or NULL with MemoryError. */
PyObject *fl_job_new(FlLoop *loop, PyObject *future, PyObject *func,
                     PyObject *const *args, Py_ssize_t nargs);

/* Add the type to the module.  0 or -1. */
int fl_job_register(PyObject *module, FlState *state);

/* Set a future's result or exception, unless the future is done.  For the
   loop's thread; both serve as an FlReadyOp.  Failures are reported to the
   exception handler.  0, or -1 with an exception that must leave the loop. */
int fl_future_set_result(FlLoop *loop, PyObject *future, PyObject *result);
int fl_future_set_exception(FlLoop *loop, PyObject *future, PyObject *exc);

/* Queue op(future, value) to the loop, from any thread.  A closed loop drops
   it silently.  Steals value, which may be NULL.  Reports no error: after a
   MemoryError it retries for up to a second, without the GIL, and then writes
   the exception as unraisable. */
void fl_future_post_anythread(FlLoop *loop, FlReadyOp op, PyObject *future,
                              PyObject *value);

#endif
