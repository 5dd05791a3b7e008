/* Runs a job on a worker thread and gives its outcome to its future.

   1. The function and its arguments are dropped before the outcome is posted.
      Otherwise an object that was passed in could still be alive when the
      awaiting task continues.
   2. Cancelling the asyncio future sends the executor nothing.  The worker
      checks future.cancelled() when it takes the job, and skips the call.
   3. The future may be done before its outcome arrives, if it was cancelled
      while the job ran.  The outcome is then dropped: setting it would raise
      InvalidStateError.  A closed loop drops outcomes too. */
#include "executor/job.h"

#include "base/clock.h"
#include "core/thread_queue.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/ready_queue.h"
#include "core/report.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"

#include <time.h>

typedef struct {
    PyObject_VAR_HEAD /* the size is that of args */
        FlLoop *loop;
    PyObject *future;
    PyObject *func;    /* NULL once the call was made or cancelled */
    int64_t queued_ns; /* time of queueing; 0: metrics do not count the job */
    bool running;      /* a worker uses func and args: do not drop them */
    PyObject *args[];
} FlJob;

/* --- on the loop's thread ------------------------------------------------ */

/* End a call whose result nobody needs; NULL: report its exception.  0, or -1
   with an exception that must leave the loop.  Takes the reference. */
static int
report_if_failed(FlLoop *loop, PyObject *result)
{
    if (result == NULL) {
        return fl_loop_report_callback(loop, NULL);
    }
    Py_DECREF(result);
    return 0;
}

int
fl_future_set_result(FlLoop *loop, PyObject *future, PyObject *result)
{
    FlNames *names = &loop->state->names;
    int done = fl_call_truth(future, names->done);
    if (done != 0) { /* invariant 3 */
        return done < 0 ? fl_loop_report_callback(loop, NULL) : 0;
    }
    return report_if_failed(
        loop, PyObject_CallMethodOneArg(future, names->set_result, result));
}

/* concurrent.futures' CancelledError or InvalidStateError as asyncio's class
   of that name, with the same arguments and traceback; any other exception
   unchanged.  A new reference, or NULL with an exception set. */
static PyObject *
to_asyncio_exception(FlState *state, PyObject *exc)
{
    PyObject *type = (PyObject *)Py_TYPE(exc);
    PyObject *asyncio_type = NULL;
    if (type == state->concurrent_cancelled) {
        asyncio_type = state->asyncio_cancelled;
    }
    else if (type == state->concurrent_invalid) {
        asyncio_type = state->asyncio_invalid;
    }
    if (asyncio_type == NULL) {
        return Py_NewRef(exc);
    }
    /* As asyncio's _convert_future_exc() does. */
    PyObject *args = PyObject_GetAttr(exc, state->names.args);
    PyObject *replacement =
        args == NULL ? NULL : PyObject_Call(asyncio_type, args, NULL);
    Py_XDECREF(args);
    PyObject *traceback = PyException_GetTraceback(exc);
    if (replacement != NULL && traceback != NULL) {
        (void)PyException_SetTraceback(replacement, traceback);
    }
    Py_XDECREF(traceback);
    return replacement;
}

int
fl_future_set_exception(FlLoop *loop, PyObject *future, PyObject *exc)
{
    FlNames *names = &loop->state->names;
    int done = fl_call_truth(future, names->done);
    if (done != 0) {
        return done < 0 ? fl_loop_report_callback(loop, NULL) : 0;
    }
    PyObject *converted = to_asyncio_exception(loop->state, exc);
    PyObject *result =
        converted == NULL
            ? NULL
            : PyObject_CallMethodOneArg(future, names->set_exception,
                                        converted);
    Py_XDECREF(converted);
    if (result == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        /* Before 3.12 a future rejects StopIteration with a TypeError.  Set
           that error instead, or the awaiting task would wait for ever. */
        PyObject *refusal = PyErr_GetRaisedException();
        result =
            PyObject_CallMethodOneArg(future, names->set_exception, refusal);
        Py_DECREF(refusal);
    }
    return report_if_failed(loop, result);
}

/* An FlReadyOp.  cancel() of a future that is done does nothing. */
static int
cancel_future(FlLoop *loop, PyObject *future, PyObject *Py_UNUSED(argument))
{
    return report_if_failed(
        loop, PyObject_CallMethodNoArgs(future, loop->state->names.cancel));
}

/* --- on any thread ------------------------------------------------------- */

/* Push one entry that runs op(future, value); steals value.  0, or -1 with
   RuntimeError (the loop is closed) or MemoryError. */
static int
post(FlLoop *loop, FlReadyOp op, PyObject *future, PyObject *value)
{
    FlReady entry = {
        .kind = FL_READY_OP,
        .nargs = value != NULL,
        .of.op = op,
        .callback = Py_NewRef(future),
        .args = {value},
    };
    return fl_thread_queue_push_anythread(loop, &entry);
}

/* If an outcome were lost, its task would wait for ever.  So a push that finds
   no memory is tried 100 times, 10 ms apart. */
void
fl_future_post_anythread(FlLoop *loop, FlReadyOp op, PyObject *future,
                         PyObject *value)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    int tries_left = 100;
    while (post(loop, op, future, Py_XNewRef(value)) < 0) {
        if (PyErr_ExceptionMatches(PyExc_RuntimeError)) {
            PyErr_Clear(); /* the loop is closed: no task can wait */
            break;
        }
        if (--tries_left == 0) {
            PyErr_WriteUnraisable((PyObject *)loop);
            break;
        }
        PyErr_Clear(); /* MemoryError: try again */
        /* Other threads need the GIL to free memory. */
        PyThreadState *thread = PyEval_SaveThread();
        (void)nanosleep(&pause, NULL);
        PyEval_RestoreThread(thread);
    }
    Py_XDECREF(value);
}

/* --- metrics ------------------------------------------------------------- */

/* A job counts only if metrics were on when it was queued.  Otherwise
   jobs_taken could exceed jobs_queued. */
static void
meter_queued(FlJob *job)
{
    if (FL_UNLIKELY(job->loop->metrics != NULL)) {
        FL_METER(job->loop, jobs_queued, 1);
        job->queued_ns = fl_clock_ns();
    }
}

/* A worker took the job, or it was cancelled.  queued_ns is cleared so that
   each job counts once. */
static void
meter_taken(FlJob *job)
{
    if (FL_UNLIKELY(job->queued_ns != 0)) {
        FL_METER(job->loop, jobs_taken, 1);
        job->queued_ns = 0;
    }
}

/* A call begins.  Returns its time, or 0 if metrics do not count the job. */
static int64_t
meter_begin(FlJob *job)
{
    if (FL_LIKELY(job->queued_ns == 0)) {
        return 0;
    }
    int64_t now_ns = fl_clock_ns();
    FL_METER(job->loop, job_wait_ns, (uint64_t)(now_ns - job->queued_ns));
    FL_METER(job->loop, jobs_running, 1);
    meter_taken(job);
    return now_ns;
}

static void
meter_end(FlJob *job, int64_t began_ns)
{
    if (FL_UNLIKELY(began_ns != 0)) {
        FL_METER(job->loop, job_run_ns, (uint64_t)(fl_clock_ns() - began_ns));
        FL_METER(job->loop, jobs_running, (uint64_t)-1);
        FL_METER(job->loop, jobs_done, 1);
    }
}

/* --- _core.ExecutorJob --------------------------------------------------- */

PyObject *
fl_job_new(FlLoop *loop, PyObject *future, PyObject *func,
           PyObject *const *args, Py_ssize_t nargs)
{
    FlJob *job = PyObject_GC_NewVar(FlJob, loop->state->job_type, nargs + 1);
    if (job == NULL) {
        return NULL;
    }
    job->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    job->future = Py_NewRef(future);
    job->func = Py_NewRef(func);
    job->running = false;
    job->queued_ns = 0;
    job->args[0] = NULL; /* vectorcall's spare slot: the arguments follow */
    for (Py_ssize_t at = 0; at < nargs; at++) {
        job->args[at + 1] = Py_NewRef(args[at]);
    }
    meter_queued(job);
    PyObject_GC_Track(job); /* last: every field is set now */
    return (PyObject *)job;
}

/* Drop the function and the arguments, unless a worker uses them now.
   args[0] is left alone: vectorcall borrows it. */
static void
drop_call(FlJob *job)
{
    if (job->running) {
        return;
    }
    meter_taken(job);
    for (Py_ssize_t at = 1; at < Py_SIZE(job); at++) {
        Py_CLEAR(job->args[at]);
    }
    Py_CLEAR(job->func);
}

/* args[0] is not visited: what vectorcall puts there is borrowed. */
static int
job_traverse(FlJob *job, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(job));
    Py_VISIT((PyObject *)job->loop);
    Py_VISIT(job->future);
    Py_VISIT(job->func);
    for (Py_ssize_t at = 1; at < Py_SIZE(job); at++) {
        Py_VISIT(job->args[at]);
    }
    return 0;
}

/* The loop and the future stay: a worker may still run or cancel the job, and
   uses both without a check for NULL. */
static int
job_clear(FlJob *job)
{
    drop_call(job);
    return 0;
}

static void
job_dealloc(FlJob *job)
{
    PyTypeObject *type = Py_TYPE(job);
    PyObject_GC_UnTrack(job); /* before dropping references may start a GC */
    drop_call(job);
    Py_DECREF(job->future);
    Py_DECREF((PyObject *)job->loop);
    type->tp_free(job);
    Py_DECREF(type);
}

static const char run_doc[] =
    "run($self, /, *context)\n--\n\n"
    "Make the call and post its outcome to the loop; for a worker thread.\n\n"
    "From 3.14 on concurrent.futures passes a context, which is ignored.";

static PyObject *
job_run(FlJob *job, PyObject *const *Py_UNUSED(args),
        Py_ssize_t Py_UNUSED(nargs))
{
    int cancelled =
        fl_call_truth(job->future, job->loop->state->names.cancelled);
    if (cancelled < 0) {
        return NULL;
    }
    /* Invariant 2.  func is NULL if the executor has cancelled the job. */
    if (cancelled > 0 || job->func == NULL) {
        Py_RETURN_NONE;
    }
    size_t count = (size_t)(Py_SIZE(job) - 1);
    FlReadyOp op = fl_future_set_result;
    /* The function may run a GC, cancel the job or clear it: `running` keeps
       the function and the arguments alive until it returns. */
    job->running = true;
    int64_t began_ns = meter_begin(job);
    /* The spare slot args[0] lets vectorcall prepend `self` without a copy. */
    PyObject *outcome =
        PyObject_Vectorcall(job->func, job->args + 1,
                            count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    job->running = false;
    meter_end(job, began_ns);
    /* Every exception goes to the future, SystemExit and KeyboardInterrupt
       too, as in concurrent.futures. */
    if (outcome == NULL) {
        op = fl_future_set_exception;
        outcome = PyErr_GetRaisedException();
    }
    drop_call(job); /* before the outcome is posted: invariant 1 */
    fl_future_post_anythread(job->loop, op, job->future, outcome);
    Py_RETURN_NONE;
}

static const char cancel_doc[] =
    "cancel($self, /)\n--\n\n"
    "Drop the call, and have the loop cancel its future.";

static PyObject *
job_cancel(FlJob *job, PyObject *Py_UNUSED(ignored))
{
    drop_call(job);
    /* A future may be cancelled on its loop's thread only. */
    fl_future_post_anythread(job->loop, cancel_future, job->future, NULL);
    Py_RETURN_TRUE;
}

static const char set_exception_doc[] =
    "set_exception($self, exception, /)\n--\n\n"
    "Drop the call, and have the loop set this exception on its future.";

static PyObject *
job_set_exception(FlJob *job, PyObject *exc)
{
    drop_call(job);
    fl_future_post_anythread(job->loop, fl_future_set_exception, job->future,
                             Py_NewRef(exc));
    Py_RETURN_NONE;
}

/* concurrent.futures reads work_item.future to cancel or fail it. */
static PyObject *
future_get(FlJob *job, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)job);
}

static PyMethodDef job_methods[] = {
    {"run", (PyCFunction)(void (*)(void))job_run, METH_FASTCALL, run_doc},
    {"cancel", (PyCFunction)job_cancel, METH_NOARGS, cancel_doc},
    {"set_exception", (PyCFunction)job_set_exception, METH_O,
     set_exception_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef job_getset[] = {
    {"future", (getter)future_get, NULL,
     "The job itself: concurrent.futures cancels it or sets its exception.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static const char job_doc[] =
    "A call for an executor's worker thread; made by run_in_executor().";

static PyType_Slot job_slots[] = {
    {Py_tp_doc, (void *)job_doc},
    {Py_tp_dealloc, job_dealloc},
    {Py_tp_traverse, job_traverse},
    {Py_tp_clear, job_clear},
    {Py_tp_methods, job_methods},
    {Py_tp_getset, job_getset},
    {0, NULL},
};

/* A variable-size object: its arguments are stored in it, not in a tuple. */
static PyType_Spec job_spec = {
    .name = "fastloop._core.ExecutorJob",
    .basicsize = offsetof(FlJob, args),
    .itemsize = sizeof(PyObject *),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = job_slots,
};

int
fl_job_register(PyObject *module, FlState *state)
{
    state->job_type = fl_type_add(module, &job_spec, NULL);
    return state->job_type == NULL ? -1 : 0;
}
