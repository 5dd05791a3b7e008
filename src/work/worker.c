/* What a worker's thread does.

   1. The GIL is given up only to sleep.  Jobs that are C functions would never
      let go of it, so once a tick of the coarse clock a Python function is
      called, where the interpreter switches threads if one has asked for it.
      (Giving the GIL up and taking it again would not do: it starts the wait
      of those who want it anew, and they ask only after a whole one.)
   2. A loop is woken after the GIL was given up, so that it does not wake only
      to wait for it; but before another job begins, which may take long.
   3. A job that forked leaves the child in the middle of it: there the other
      jobs are not its to run. */
#include "base/clock.h"
#include "work/executor.h"
#include "work/job.h"

static void
pay(FlPoller **owed)
{
    if (*owed != NULL) {
        fl_poller_pay_wake_anythread(*owed);
        *owed = NULL;
    }
}

static void
let_others(PyObject *pause, int64_t *tick_ns)
{
    int64_t now_ns = fl_clock_coarse_ns();
    if (now_ns == *tick_ns) {
        return;
    }
    *tick_ns = now_ns;
    PyObject *result = PyObject_CallNoArgs(pause);
    if (result == NULL) {
        PyErr_WriteUnraisable(pause);
    }
    Py_XDECREF(result);
}

void
fl_worker_run(FlPoolWorker *self, PyObject *pause)
{
    FlPool *pool = self->pool;
    FlPoller *owed = NULL;
    unsigned forks = atomic_load(&self->state->forks);
    int64_t tick_ns = fl_clock_coarse_ns();
    bool leave = false;
    while (atomic_load(&self->state->forks) == forks) {
        FlJob *job = fl_pool_take(pool, self->place, &leave);
        if (leave) {
            break;
        }
        if (job != NULL) {
            pay(&owed);
            let_others(pause, &tick_ns);
            fl_job_run_steal(FL_CALL_JOB(job), &owed);
            continue;
        }
        PyThreadState *thread = PyEval_SaveThread();
        pay(&owed);
        fl_pool_sleep(self->place);
        PyEval_RestoreThread(thread);
        tick_ns = fl_clock_coarse_ns();
    }
    pay(&owed);
}
