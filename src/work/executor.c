/* The native thread pool as Python sees it.

   1. Threads are threading.Thread objects, made by a Python function the pool
      was given: names, tracing and exit hooks work as for any thread.
   2. In a forked child a pool starts empty: its threads and jobs stayed in the
      parent, and its lock may be held by one of them, so it is left behind.
   3. Nothing a worker's thread holds leads to the executor or its loop: both
      are garbage as soon as nobody else holds them, and the threads end. */
#include "work/executor.h"

#include "work/job.h"

/* --- submitting ---------------------------------------------------------- */

static int
pool_renew(FlThreadPool *self, unsigned limit)
{
    FlPool *pool = fl_pool_new(limit);
    if (pool == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->pool = pool;
    self->forks = atomic_load(&self->state->forks);
    return 0;
}

static bool
is_forked(const FlThreadPool *self)
{
    return self->forks != atomic_load(&self->state->forks);
}

/* 0 when there is a pool of this process. */
static int
pool_check(FlThreadPool *self)
{
    if (FL_UNLIKELY(self->pool == NULL)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the pool's __init__ was not called");
        return -1;
    }
    if (FL_UNLIKELY(is_forked(self))) {
        return pool_renew(self, self->pool->limit);
    }
    return 0;
}

static int
refuse(FlPoolPhase phase)
{
    PyErr_SetString(PyExc_RuntimeError,
                    phase == FL_POOL_SHUT
                        ? "cannot schedule new futures after shutdown"
                        : "cannot schedule new futures after interpreter "
                          "shutdown");
    return -1;
}

/* True if the worker is in that state from now on. */
static bool
decide(FlPoolWorker *worker, int life)
{
    int found = FL_WORKER_NEW;
    return atomic_compare_exchange_strong(&worker->life, &found, life)
           || found == life;
}

/* A thread did not start, and an exception says why.  0 when another one will
   run the job; -1 with the exception when not, or when it is none to hide. */
static int
thread_failed(FlThreadPool *self, FlPoolWorker *worker, FlWorker *place,
              FlJob *job, bool *taken_back)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (worker == NULL || decide(worker, FL_WORKER_GIVEN_UP)) {
        *taken_back = fl_pool_unstart(self->pool, place, job);
    }
    if (!*taken_back && PyErr_GivenExceptionMatches(exc, PyExc_Exception)) {
        Py_DECREF(exc); /* the job only waits for a busy thread instead */
        return 0;
    }
    PyErr_SetRaisedException(exc);
    return -1;
}

/* Start the thread that a push asked for.  0, or -1 with an exception set; the
   job then is the caller's again if *taken_back, else it will be run. */
static int
start_thread(FlThreadPool *self, FlWorker *place, FlJob *job, bool *taken_back)
{
    PyTypeObject *type = self->state->worker_type;
    FlPoolWorker *worker = (FlPoolWorker *)type->tp_alloc(type, 0);
    PyObject *started = NULL;
    *taken_back = false;
    if (worker != NULL) {
        worker->state = self->state;
        worker->pool = self->pool;
        worker->place = place;
        worker->forks = self->forks;
        atomic_init(&worker->life, FL_WORKER_NEW);
        fl_pool_retain(worker->pool);
        started = PyObject_CallOneArg(self->start, (PyObject *)worker);
    }
    int code = started != NULL
                   ? 0
                   : thread_failed(self, worker, place, job, taken_back);
    Py_XDECREF(started);
    Py_XDECREF(worker);
    return code;
}

int
fl_executor_submit(FlThreadPool *self, FlLoop *loop, PyObject *future,
                   PyObject *func, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwargs)
{
    if (pool_check(self) < 0) {
        return -1;
    }
    if (FL_UNLIKELY(self->start == NULL)) {
        /* The collector took the pool apart, and then ran code that found
           it. */
        return refuse(FL_POOL_SHUT);
    }
    FlCallJob *job =
        fl_job_new(self->state, loop, future, func, args, nargs, kwargs);
    if (job == NULL) {
        return -1;
    }
    FlWorker *newcomer;
    /* Once pushed the job is a worker's, which may have freed it already: it
       is only a name until the pool says that it was given back. */
    FlPoolPhase phase = fl_pool_push(self->pool, &job->link, &newcomer);
    if (FL_UNLIKELY(phase != FL_POOL_OPEN)) {
        fl_job_free(job);
        return refuse(phase);
    }
    bool taken_back = false;
    if (newcomer == NULL
        || start_thread(self, newcomer, &job->link, &taken_back) == 0)
    {
        return 0;
    }
    if (taken_back) {
        /* Dropping arguments may run destructors, and those look at errors. */
        PyObject *exc = PyErr_GetRaisedException();
        fl_job_free(job);
        PyErr_SetRaisedException(exc);
    }
    return -1;
}

/* --- _core.ThreadPool ---------------------------------------------------- */

static int
pool_init(FlThreadPool *self, PyObject *args, PyObject *kwargs)
{
    Py_ssize_t limit;
    PyObject *start;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "ThreadPool takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "nO:ThreadPool", &limit, &start)) {
        return -1;
    }
    if (limit <= 0 || self->pool != NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "a pool has a thread at least, and is made once");
        return -1;
    }
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), fl_module_def());
    if (module == NULL) {
        return -1;
    }
    self->state = fl_state_get(module);
    self->start = Py_NewRef(start);
    return pool_renew(self, limit > UINT_MAX ? UINT_MAX : (unsigned)limit);
}

static int
pool_traverse(FlThreadPool *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->start);
    return 0;
}

static int
pool_clear(FlThreadPool *self)
{
    Py_CLEAR(self->start);
    return 0;
}

static void
pool_dealloc(FlThreadPool *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    /* A parent's pool is not even freed (invariant 2). */
    if (self->pool != NULL && !is_forked(self)) {
        (void)fl_pool_stop(self->pool, FL_POOL_SHUT, false);
        fl_pool_release(self->pool);
    }
    (void)pool_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static const char submit_doc[] =
    "submit($self, fn, /, *args, **kwargs)\n--\n\n"
    "Have a worker thread call fn(*args, **kwargs).\n\n"
    "Returns a concurrent.futures.Future.  Raises RuntimeError after\n"
    "shutdown().  As concurrent.futures.ThreadPoolExecutor.submit().";

static PyObject *
pool_submit(FlThreadPool *self, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames)
{
    if (nargs < 1) {
        PyErr_SetString(
            PyExc_TypeError,
            "submit() missing 1 required positional argument: 'fn'");
        return NULL;
    }
    if (pool_check(self) < 0) {
        return NULL;
    }
    PyObject *kwargs = NULL;
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (named > 0 && (kwargs = PyDict_New()) == NULL) {
        return NULL;
    }
    PyObject *future = NULL;
    for (Py_ssize_t at = 0; at < named; at++) {
        if (PyDict_SetItem(kwargs, PyTuple_GET_ITEM(kwnames, at),
                           args[nargs + at])
            < 0)
        {
            goto done;
        }
    }
    future = PyObject_CallNoArgs(self->state->concurrent_future);
    if (future != NULL
        && fl_executor_submit(self, NULL, future, args[0], args + 1, nargs - 1,
                              kwargs)
               < 0)
    {
        Py_CLEAR(future);
    }
done:
    Py_XDECREF(kwargs);
    return future;
}

static const char stop_doc[] =
    "_stop($self, cancel_futures, /)\n--\n\n"
    "Take no more jobs and let the workers end; optionally cancel the\n"
    "futures of those that wait.";

static PyObject *
pool_stop(FlThreadPool *self, PyObject *cancel_futures)
{
    int drain = PyObject_IsTrue(cancel_futures);
    if (drain < 0 || pool_check(self) < 0) {
        return NULL;
    }
    FlJob *job = fl_pool_stop(self->pool, FL_POOL_SHUT, drain);
    while (job != NULL) {
        FlJob *next = job->next;
        fl_job_cancel_steal(FL_CALL_JOB(job));
        job = next;
    }
    Py_RETURN_NONE;
}

static PyObject *
shutdown_get(FlThreadPool *self, void *Py_UNUSED(closure))
{
    if (pool_check(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(fl_pool_phase(self->pool) != FL_POOL_OPEN);
}

static PyObject *
queued_get(FlThreadPool *self, void *Py_UNUSED(closure))
{
    if (pool_check(self) < 0) {
        return NULL;
    }
    return PyLong_FromSize_t(fl_pool_queued(self->pool));
}

#define AS_METHOD(function) (PyCFunction)(void (*)(void)) function

static PyMethodDef pool_methods[] = {
    {"submit", AS_METHOD(pool_submit), METH_FASTCALL | METH_KEYWORDS,
     submit_doc},
    {"_stop", AS_METHOD(pool_stop), METH_O, stop_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pool_getset[] = {
    {"_shutdown", (getter)shutdown_get, NULL, "Whether jobs are refused.",
     NULL},
    {"_queued", (getter)queued_get, NULL, "How many jobs wait.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static const char pool_doc[] =
    "ThreadPool(limit, start, /)\n--\n\n"
    "A queue of calls for up to `limit` threads, written in C.\n\n"
    "start(worker) makes and starts a thread that calls worker.run(f).  Not\n"
    "for use by itself: fastloop.executor.DefaultExecutor completes it.";

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)pool_doc},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, pool_init},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_getset},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "fastloop._core.ThreadPool",
    .basicsize = sizeof(FlThreadPool),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

/* --- _core.PoolWorker ---------------------------------------------------- */

static void
worker_dealloc(FlPoolWorker *self)
{
    PyTypeObject *type = Py_TYPE(self);
    /* Else the pool is the parent's, left behind (invariant 2). */
    if (self->forks == atomic_load(&self->state->forks)) {
        fl_pool_release(self->pool);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static const char run_doc[] =
    "run($self, pause, /)\n--\n\n"
    "Run jobs until the pool ends; what the worker's thread calls.\n\n"
    "pause is a Python function that does nothing, called now and then\n"
    "between jobs to let other threads have their turn.";

static PyObject *
worker_run(FlPoolWorker *self, PyObject *pause)
{
    if (decide(self, FL_WORKER_RUNS)) {
        fl_worker_run(self, pause);
    }
    Py_RETURN_NONE;
}

static const char give_up_doc[] =
    "give_up($self, /)\n--\n\n"
    "The thread failed to start: return True if it does not run, and then\n"
    "it never will.";

static PyObject *
worker_give_up(FlPoolWorker *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(decide(self, FL_WORKER_GIVEN_UP));
}

static const char exit_doc[] =
    "exit($self, /)\n--\n\n"
    "The interpreter exits: let the pool finish what it has, and end.";

static PyObject *
worker_exit(FlPoolWorker *self, PyObject *Py_UNUSED(ignored))
{
    (void)fl_pool_stop(self->pool, FL_POOL_EXITING, false);
    Py_RETURN_NONE;
}

static PyObject *
index_get(FlPoolWorker *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->place->index);
}

static PyMethodDef worker_methods[] = {
    {"run", AS_METHOD(worker_run), METH_O, run_doc},
    {"give_up", AS_METHOD(worker_give_up), METH_NOARGS, give_up_doc},
    {"exit", AS_METHOD(worker_exit), METH_NOARGS, exit_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef worker_getset[] = {
    {"index", (getter)index_get, NULL, "Its number in the pool, from 0.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot worker_slots[] = {
    {Py_tp_doc, "A worker of a ThreadPool; made by the pool."},
    {Py_tp_dealloc, worker_dealloc},
    {Py_tp_methods, worker_methods},
    {Py_tp_getset, worker_getset},
    {0, NULL},
};

static PyType_Spec worker_spec = {
    .name = "fastloop._core.PoolWorker",
    .basicsize = sizeof(FlPoolWorker),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = worker_slots,
};

int
fl_executor_register(PyObject *module, FlState *state)
{
    state->pool_type = fl_type_add(module, &pool_spec, NULL);
    state->worker_type = fl_type_add(module, &worker_spec, NULL);
    return state->pool_type == NULL || state->worker_type == NULL ? -1 : 0;
}
