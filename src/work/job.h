/* A job of the thread pool: a call, and the future that awaits it.

   The future is asyncio's, with its loop, for run_in_executor, and
   concurrent.futures' for the executor's own submit().  Making and freeing a
   job needs the GIL. */
#ifndef FL_WORK_JOB_H
#define FL_WORK_JOB_H

#include "loop/loop.h"
#include "work/pool.h"

typedef struct {
    FlJob link;
    FlState *state;
    FlLoop *loop; /* owned; NULL: the future is a concurrent one */
    PyObject *future;
    PyObject *func;
    PyObject *kwargs; /* a dict or NULL */
    Py_ssize_t nargs;
    PyObject *args[]; /* the first is vectorcall's spare slot */
} FlCallJob;

#define FL_CALL_JOB(link) ((FlCallJob *)(link))

/* Takes references of its own.  NULL with MemoryError. */
FlCallJob *fl_job_new(FlState *state, FlLoop *loop, PyObject *future,
                      PyObject *func, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwargs);

void fl_job_free(FlCallJob *job);

/* Run a job and free it: nothing of the call is referred to any more when its
   future learns the result.  Never leaves an exception set.  *owed: the poller
   of a loop that sleeps, which the caller must wake soon (see inbox.c). */
void fl_job_run_steal(FlCallJob *job, FlPoller **owed);

/* Cancel the future of a job that will not run, and free it. */
void fl_job_cancel_steal(FlCallJob *job);

/* What every bridge does with an outcome, on the loop's thread: set it on the
   future unless that is done. */
int fl_future_give_result(FlLoop *loop, PyObject *future, PyObject *result);
int fl_future_give_exception(FlLoop *loop, PyObject *future, PyObject *exc);

/* Have the loop run op(future, value), from any thread.  A loop that is closed
   drops it silently.  Steals value.  owed as above; NULL: wake it now. */
void fl_future_post_anythread(FlLoop *loop, FlReadyOp op, PyObject *future,
                              PyObject *value, FlPoller **owed);

#endif
