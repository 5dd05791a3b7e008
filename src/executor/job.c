/* Runs a job on a worker thread and gives its outcome to its future. */
#include "executor/job.h"

#include "base/clock.h"
#include "core/loop.h"
#include "core/meter.h"
#include "core/overrides.h"
#include "core/ready_queue.h"
#include "core/report.h"
#include "core/thread_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"

typedef struct {
    PyObject_HEAD
    FlLoop *loop;
    PyObject *future;  /* asyncio's, which gets the outcome */
    PyObject *func;    /* NULL once the call was made or dropped */
    PyObject *args;    /* its arguments, a tuple */
    int64_t queued_ns; /* time of queueing; 0: metrics do not count the job */
} FlJob;

/* --- on the loop's thread ------------------------------------------------ */

/* Settle the future, unless it was cancelled while the job ran.  One that
   rejects the value gets that error instead, or the awaiting task would wait
   for ever: before 3.12 a future rejects StopIteration.  0, or -1 with an
   exception that must leave the loop. */
static int
settle(FlLoop *loop, PyObject *future, PyObject *method, PyObject *value)
{
    FlNames *names = &loop->state->names;
    int code = value == NULL
                   ? -1
                   : fl_call_unless_done(future, names->done, method, value);
    if (code < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *refusal = PyErr_GetRaisedException();
        code = fl_call_unless_done(future, names->done, names->set_exception,
                                   refusal);
        Py_DECREF(refusal);
    }
    return code < 0 ? fl_loop_report_callback(loop, NULL) : 0;
}

/* An FlReadyOp. */
static int
set_result(FlLoop *loop, PyObject *future, PyObject *result)
{
    return settle(loop, future, loop->state->names.set_result, result);
}

/* An FlReadyOp.  asyncio's own function converts concurrent.futures'
   exceptions to asyncio's of the same names. */
static int
set_exception(FlLoop *loop, PyObject *future, PyObject *exc)
{
    FlState *state = loop->state;
    PyObject *converted = PyObject_CallOneArg(state->convert_exception, exc);
    int code = settle(loop, future, state->names.set_exception, converted);
    Py_XDECREF(converted);
    return code;
}

/* An FlReadyOp.  cancel() of a future that is done does nothing. */
static int
cancel_future(FlLoop *loop, PyObject *future, PyObject *Py_UNUSED(argument))
{
    int code = fl_call_method(future, loop->state->names.cancel, NULL);
    return code < 0 ? fl_loop_report_callback(loop, NULL) : 0;
}

/* --- on any thread ------------------------------------------------------- */

/* Queue op(future, value) to the job's loop; steals value, which may be NULL.
   A closed loop drops it: no task can wait.  Without memory the outcome is
   lost, and reported. */
static void
post_outcome(FlJob *job, FlReadyOp op, PyObject *value)
{
    int code = fl_thread_queue_push_op_anythread(job->loop, op, job->future,
                                                 value, NULL);
    if (code < 0 && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        PyErr_Clear(); /* "Event loop is closed": nothing awaits the future */
    }
    else if (code < 0) {
        PyErr_WriteUnraisable((PyObject *)job->loop);
    }
    Py_XDECREF(value);
}

/* --- metrics ------------------------------------------------------------- */

/* A worker took the job, or it was dropped.  A job counts only if metrics were
   on when it was queued; otherwise jobs_taken could exceed jobs_queued. */
static void
meter_taken(FlJob *job)
{
    if (FL_UNLIKELY(job->queued_ns != 0)) {
        FL_METER(job->loop, jobs_taken, 1);
        job->queued_ns = 0; /* each job counts once */
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

/* An application's call_soon_threadsafe() must see each outcome, and a job
   posts its outcome without it. */
static PyObject *
executor_job(PyObject *module, PyObject *call)
{
    FlState *state = fl_state_get(module);
    FlLoop *loop;
    PyObject *func, *args;
    if (!PyArg_ParseTuple(call, "O!OO!", state->loop_type, &loop, &func,
                          &PyTuple_Type, &args))
    {
        return NULL;
    }
    if (loop->off & FL_OFF_NATIVE_EXECUTOR
        || fl_overrides(loop, FL_OVERRIDES_CALL_SOON_THREADSAFE))
    {
        Py_RETURN_NONE;
    }
    PyObject *future = PyObject_CallMethodNoArgs((PyObject *)loop,
                                                 state->names.create_future);
    PyTypeObject *type = state->job_type;
    FlJob *job = future == NULL ? NULL : (FlJob *)type->tp_alloc(type, 0);
    if (job == NULL) {
        Py_XDECREF(future);
        return NULL;
    }
    job->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    job->future = future;
    job->func = Py_NewRef(func);
    job->args = Py_NewRef(args);
    if (FL_UNLIKELY(loop->metrics != NULL)) {
        FL_METER(loop, jobs_queued, 1);
        job->queued_ns = fl_clock_ns();
    }
    return (PyObject *)job;
}

static int
job_traverse(FlJob *job, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(job));
    Py_VISIT((PyObject *)job->loop);
    Py_VISIT(job->future);
    Py_VISIT(job->func);
    Py_VISIT(job->args);
    return 0;
}

/* Drop the function and the arguments; serves as tp_clear.  The loop and the
   future stay: a finalizer may call a method of a job that the GC has cleared,
   and the methods do not check for NULL. */
static int
drop_call(FlJob *job)
{
    meter_taken(job);
    Py_CLEAR(job->func);
    Py_CLEAR(job->args);
    return 0;
}

static void
job_dealloc(FlJob *job)
{
    PyObject_GC_UnTrack(job); /* before dropping references may start a GC */
    drop_call(job);
    Py_DECREF(job->future);
    Py_DECREF((PyObject *)job->loop);
    fl_object_free(job);
}

static const char run_doc[] =
    "run($self, /, *context)\n--\n\n"
    "Make the call and post its outcome to the loop; for a worker thread.\n\n"
    "From 3.14 on concurrent.futures passes a worker context, an object that\n"
    "makes the calls of work items; a job makes its own.";

static PyObject *
job_run(FlJob *job, PyObject *const *Py_UNUSED(ignored),
        Py_ssize_t Py_UNUSED(count))
{
    int cancelled =
        fl_call_truth(job->future, job->loop->state->names.cancelled);
    if (cancelled < 0) {
        /* An application's own future.  The worker goes on, and the future
           gets the outcome. */
        PyErr_Clear();
    }
    /* func is NULL if the executor has cancelled the job. */
    if (cancelled > 0 || job->func == NULL) {
        Py_RETURN_NONE;
    }
    FlReadyOp op = set_result;
    int64_t began_ns = meter_begin(job);
    /* Taken out of the job: the function may run a GC or cancel the job, which
       would drop them. */
    PyObject *func = job->func;
    PyObject *args = job->args;
    job->func = job->args = NULL;
    PyObject *outcome = fl_call_args(func, args);
    meter_end(job, began_ns);
    /* Every exception goes to the future, SystemExit and KeyboardInterrupt
       too, as in concurrent.futures. */
    if (outcome == NULL) {
        op = set_exception;
        outcome = PyErr_GetRaisedException();
    }
    /* Before the outcome is posted: what was passed in shall not be alive when
       the awaiting task continues. */
    Py_DECREF(func);
    Py_DECREF(args);
    post_outcome(job, op, outcome);
    Py_RETURN_NONE;
}

static PyObject *
job_cancel(FlJob *job, PyObject *Py_UNUSED(ignored))
{
    drop_call(job);
    /* A future may be cancelled on its loop's thread only. */
    post_outcome(job, cancel_future, NULL);
    Py_RETURN_TRUE;
}

static PyObject *
job_set_exception(FlJob *job, PyObject *exc)
{
    drop_call(job);
    post_outcome(job, set_exception, Py_NewRef(exc));
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
    {"cancel", (PyCFunction)job_cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\n"
     "Drop the call, and have the loop cancel its future."},
    {"set_exception", (PyCFunction)job_set_exception, METH_O,
     "set_exception($self, exception, /)\n--\n\n"
     "Drop the call, and have the loop set this exception on its future."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef job_getset[] = {
    {"future", (getter)future_get, NULL,
     "The job itself: concurrent.futures cancels it or sets its exception.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef job_members[] = {
    {"asyncio_future", Py_T_OBJECT_EX, offsetof(FlJob, future), Py_READONLY,
     "The asyncio future that gets the outcome."},
    {NULL, 0, 0, 0, NULL},
};

static const char job_doc[] =
    "A call for an executor's worker thread; made by executor_job().";

static PyType_Slot job_slots[] = {
    {Py_tp_doc, (void *)job_doc},   {Py_tp_dealloc, job_dealloc},
    {Py_tp_traverse, job_traverse}, {Py_tp_clear, drop_call},
    {Py_tp_methods, job_methods},   {Py_tp_members, job_members},
    {Py_tp_getset, job_getset},     {0, NULL},
};

static PyMethodDef functions[] = {
    {"executor_job", executor_job, METH_VARARGS,
     "executor_job(loop, func, args, /)\n--\n\n"
     "Return an ExecutorJob that calls func(*args) for a new future of the\n"
     "loop; None if outcomes must go through call_soon_threadsafe()."},
    {NULL, NULL, 0, NULL},
};

int
fl_job_register(PyObject *module, FlState *state)
{
    PyType_Spec spec = {"fastloop._core.ExecutorJob", sizeof(FlJob), 0,
                        FL_TYPE_FLAGS | Py_TPFLAGS_IMMUTABLETYPE, job_slots};
    state->job_type = fl_type_add(module, &spec, NULL);
    return state->job_type == NULL ? -1
                                   : PyModule_AddFunctions(module, functions);
}
