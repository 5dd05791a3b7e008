/* _core.ExecutorJob: a call, and the asyncio future that awaits it.

   A job takes the place of concurrent.futures' work item in the queue of a
   standard ThreadPoolExecutor.  So threads, their names and hooks, shutdown
   and the interpreter's exit are the standard library's; only what a call
   costs is ours.  A worker calls job.run(), shutdown() and a failed
   initializer use job.future, which is the job itself: its cancel() and
   set_exception() reach the asyncio future on its loop's thread. */
#ifndef FL_EXECUTOR_JOB_H
#define FL_EXECUTOR_JOB_H

#include "core/loop.h"

/* func(*args) for a future of the loop.  A new reference, or NULL with
   MemoryError. */
PyObject *fl_job_new(FlLoop *loop, PyObject *future, PyObject *func,
                     PyObject *const *args, Py_ssize_t nargs);

/* Add the type to the module.  0 or -1. */
int fl_job_register(PyObject *module, FlState *state);

/* What every bridge does with an outcome, on the loop's thread: set it on the
   future unless that is done. */
int fl_future_give_result(FlLoop *loop, PyObject *future, PyObject *result);
int fl_future_give_exception(FlLoop *loop, PyObject *future, PyObject *exc);

/* Have the loop run op(future, value), from any thread.  A loop that is closed
   drops it silently.  Steals value.  Where memory is
   short it waits for some, without the GIL, for up to a second. */
void fl_future_post_anythread(FlLoop *loop, FlReadyOp op, PyObject *future,
                              PyObject *value);

#endif
