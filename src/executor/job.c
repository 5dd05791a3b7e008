/* Running a job on a worker's thread, and giving its outcome to its future.

   1. The function and its arguments are dropped before the outcome is posted:
      an object that was passed in is free when the awaiting task runs.
   2. Cancelling the asyncio future needs no message to the executor: the
      worker that takes its job looks, and does not run it.
   3. A future may be done before its outcome comes (cancelled while the job
      ran): then the outcome is dropped, and so it is by a closed loop. */
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
    PyObject *func;    /* NULL when the call was made or given up */
    int64_t queued_ns; /* 0: not counted, or not any more; see metrics.h */
    bool running;      /* a worker makes the call: it stays whole */
    PyObject *args[];
} FlJob;

/* --- on the loop's thread ------------------------------------------------ */

static int
report_unless(FlLoop *loop, PyObject *result)
{
    if (result == NULL) {
        return fl_loop_report_callback(loop, NULL);
    }
    Py_DECREF(result);
    return 0;
}

int
fl_future_give_result(FlLoop *loop, PyObject *future, PyObject *result)
{
    FlNames *names = &loop->state->names;
    int done = fl_call_truth(future, names->done);
    if (done != 0) {
        return done < 0 ? fl_loop_report_callback(loop, NULL) : 0;
    }
    return report_unless(
        loop, PyObject_CallMethodOneArg(future, names->set_result, result));
}

/* asyncio's own counterparts of concurrent.futures' exceptions; anything else
   is itself.  A new reference, NULL with an exception set. */
static PyObject *
converted(FlState *state, PyObject *exc)
{
    PyObject *type = (PyObject *)Py_TYPE(exc);
    PyObject *ours = NULL;
    if (type == state->concurrent_cancelled) {
        ours = state->asyncio_cancelled;
    }
    else if (type == state->concurrent_invalid) {
        ours = state->asyncio_invalid;
    }
    if (ours == NULL) {
        return Py_NewRef(exc);
    }
    PyObject *args = PyObject_GetAttr(exc, state->names.args);
    PyObject *made = args == NULL ? NULL : PyObject_Call(ours, args, NULL);
    Py_XDECREF(args);
    PyObject *traceback = PyException_GetTraceback(exc);
    if (made != NULL && traceback != NULL) {
        (void)PyException_SetTraceback(made, traceback);
    }
    Py_XDECREF(traceback);
    return made;
}

int
fl_future_give_exception(FlLoop *loop, PyObject *future, PyObject *exc)
{
    FlNames *names = &loop->state->names;
    int done = fl_call_truth(future, names->done);
    if (done != 0) {
        return done < 0 ? fl_loop_report_callback(loop, NULL) : 0;
    }
    PyObject *exposed = converted(loop->state, exc);
    PyObject *result =
        exposed == NULL
            ? NULL
            : PyObject_CallMethodOneArg(future, names->set_exception, exposed);
    Py_XDECREF(exposed);
    if (result == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        /* Before 3.12 a future refuses StopIteration: tell the awaiting task
           of that, which would wait for ever otherwise. */
        PyObject *refusal = PyErr_GetRaisedException();
        result =
            PyObject_CallMethodOneArg(future, names->set_exception, refusal);
        Py_DECREF(refusal);
    }
    return report_unless(loop, result);
}

static int
cancel_future(FlLoop *loop, PyObject *future, PyObject *Py_UNUSED(argument))
{
    return report_unless(
        loop, PyObject_CallMethodNoArgs(future, loop->state->names.cancel));
}

/* --- on any thread ------------------------------------------------------- */

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

/* A result that is lost leaves its task waiting for ever: where memory is
   short, wait for some, up to a second. */
void
fl_future_post_anythread(FlLoop *loop, FlReadyOp op, PyObject *future,
                         PyObject *value)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    int tries = 100;
    while (post(loop, op, future, Py_XNewRef(value)) < 0) {
        if (PyErr_ExceptionMatches(PyExc_RuntimeError)) {
            PyErr_Clear(); /* the loop is closed: nobody waits */
            break;
        }
        if (--tries == 0) {
            PyErr_WriteUnraisable((PyObject *)loop);
            break;
        }
        PyErr_Clear(); /* tried again, and reported in the end */
        PyThreadState *thread = PyEval_SaveThread();
        (void)nanosleep(&pause, NULL);
        PyEval_RestoreThread(thread);
    }
    Py_XDECREF(value);
}

/* --- metrics ------------------------------------------------------------- */

static void
meter_queued(FlJob *job)
{
    if (FL_UNLIKELY(job->loop->metrics != NULL)) {
        FL_METER(job->loop, jobs_queued, 1);
        job->queued_ns = fl_clock_ns();
    }
}

/* A worker has it, or it is given up. */
static void
meter_taken(FlJob *job)
{
    if (FL_UNLIKELY(job->queued_ns != 0)) {
        FL_METER(job->loop, jobs_taken, 1);
        job->queued_ns = 0;
    }
}

/* When the call began, or 0 if it is not counted. */
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
    job->args[0] = NULL; /* vectorcall's spare slot */
    for (Py_ssize_t at = 0; at < nargs; at++) {
        job->args[at + 1] = Py_NewRef(args[at]);
    }
    meter_queued(job);
    PyObject_GC_Track(job);
    return (PyObject *)job;
}

/* Not the spare slot: what a call puts there is borrowed. */
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

/* The loop and the future stay: a job is used without asking for them. */
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
    PyObject_GC_UnTrack(job);
    drop_call(job);
    Py_DECREF(job->future);
    Py_DECREF((PyObject *)job->loop);
    type->tp_free(job);
    Py_DECREF(type);
}

static const char run_doc[] =
    "run($self, /, *context)\n--\n\n"
    "Make the call and post its outcome; what a worker's thread does.\n\n"
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
    if (cancelled > 0 || job->func == NULL) {
        Py_RETURN_NONE;
    }
    size_t count = (size_t)(Py_SIZE(job) - 1);
    FlReadyOp op = fl_future_give_result;
    job->running = true;
    int64_t began_ns = meter_begin(job);
    PyObject *outcome =
        PyObject_Vectorcall(job->func, job->args + 1,
                            count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    job->running = false;
    meter_end(job, began_ns);
    if (outcome == NULL) {
        op = fl_future_give_exception;
        outcome = PyErr_GetRaisedException();
    }
    drop_call(job);
    fl_future_post_anythread(job->loop, op, job->future, outcome);
    Py_RETURN_NONE;
}

static const char cancel_doc[] =
    "cancel($self, /)\n--\n\n"
    "Do not make the call, and have the loop cancel its future.";

static PyObject *
job_cancel(FlJob *job, PyObject *Py_UNUSED(ignored))
{
    drop_call(job);
    fl_future_post_anythread(job->loop, cancel_future, job->future, NULL);
    Py_RETURN_TRUE;
}

static const char set_exception_doc[] =
    "set_exception($self, exception, /)\n--\n\n"
    "Do not make the call, and have the loop give its future this exception.";

static PyObject *
job_set_exception(FlJob *job, PyObject *exc)
{
    drop_call(job);
    fl_future_post_anythread(job->loop, fl_future_give_exception, job->future,
                             Py_NewRef(exc));
    Py_RETURN_NONE;
}

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
     "The job itself, which concurrent.futures cancels or fails.", NULL},
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
