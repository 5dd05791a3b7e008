/* The native thread pool as Python sees it, and its workers' thread. */
#ifndef FL_WORK_EXECUTOR_H
#define FL_WORK_EXECUTOR_H

#include "loop/loop.h"
#include "work/pool.h"

/* _core.ThreadPool, the base of fastloop.executor.DefaultExecutor. */
typedef struct {
    PyObject_HEAD
    FlState *state;
    FlPool *pool;    /* NULL until __init__ */
    PyObject *start; /* start(worker): make and start a thread for it */
    unsigned forks;  /* state->forks when the pool was made */
} FlThreadPool;

/* _core.PoolWorker: what a worker's thread runs.  It holds the queue, never
   the executor, so that an executor nobody uses is garbage.  After a fork
   (forks differs) the queue is not touched again: see executor.c. */
typedef struct {
    PyObject_HEAD
    FlState *state;
    FlPool *pool;
    FlWorker *place;
    unsigned forks;
    atomic_int life; /* FL_WORKER_* */
} FlPoolWorker;

/* A thread that fails to start may run all the same (an interrupt came while
   its starter waited for it): whoever is first, it or the starter, decides. */
#define FL_WORKER_NEW      0
#define FL_WORKER_RUNS     1
#define FL_WORKER_GIVEN_UP 2

/* Add both types to the module.  0 or -1. */
int fl_executor_register(PyObject *module, FlState *state);

/* Queue func(*args) for a future of `loop` (NULL: a concurrent future).  0, or
   -1 with RuntimeError when the pool takes no more or no thread starts. */
int fl_executor_submit(FlThreadPool *self, FlLoop *loop, PyObject *future,
                       PyObject *func, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwargs);

/* worker.c: run jobs until the pool ends, or the process forks.  pause is a
   Python function that does nothing. */
void fl_worker_run(FlPoolWorker *self, PyObject *pause);

#endif
