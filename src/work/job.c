/* Running a job on a worker's thread, and giving its outcome to its future.

   1. The function and its arguments are dropped before the outcome is posted:
      an object that was passed in is free when the awaiting task runs.
   2. Cancelling an asyncio future needs no message to the pool: whoever takes
      its job looks, and does not run it.
   3. A future may be done before its outcome comes (cancelled while the job
      ran): then the outcome is dropped, and so it is by a closed loop. */
#include "work/job.h"

#include "py/call.h"

#include <time.h>

FlCallJob *
fl_job_new(FlState *state, FlLoop *loop, PyObject *future, PyObject *func,
           PyObject *const *args, Py_ssize_t nargs, PyObject *kwargs)
{
    FlCallJob *job = PyMem_RawMalloc(
        sizeof(*job) + (size_t)(nargs + 1) * sizeof(PyObject *));
    if (job == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    job->state = state;
    job->loop = (FlLoop *)Py_XNewRef((PyObject *)loop);
    job->future = Py_NewRef(future);
    job->func = Py_NewRef(func);
    job->kwargs = Py_XNewRef(kwargs);
    job->nargs = nargs;
    job->args[0] = NULL;
    for (Py_ssize_t at = 0; at < nargs; at++) {
        job->args[at + 1] = Py_NewRef(args[at]);
    }
    return job;
}

static void
drop_call(FlCallJob *job)
{
    for (Py_ssize_t at = 0; at < job->nargs; at++) {
        Py_DECREF(job->args[at + 1]);
    }
    job->nargs = 0;
    Py_CLEAR(job->kwargs);
    Py_CLEAR(job->func);
}

void
fl_job_free(FlCallJob *job)
{
    drop_call(job);
    Py_XDECREF(job->future);
    Py_XDECREF((PyObject *)job->loop);
    PyMem_RawFree(job);
}

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
    PyObject *given = converted(loop->state, exc);
    PyObject *result =
        given == NULL
            ? NULL
            : PyObject_CallMethodOneArg(future, names->set_exception, given);
    Py_XDECREF(given);
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
post(FlLoop *loop, FlReadyOp op, PyObject *future, PyObject *value,
     FlPoller **owed)
{
    FlReady entry = {
        .kind = FL_READY_OP,
        .nargs = value != NULL,
        .of.op = op,
        .callback = Py_NewRef(future),
        .args = {value},
    };
    return owed == NULL ? fl_inbox_push_anythread(loop, &entry)
                        : fl_inbox_push_owing_anythread(loop, &entry, owed);
}

/* A result that is lost leaves its task waiting for ever: where memory is
   short, wait for some, up to a second. */
void
fl_future_post_anythread(FlLoop *loop, FlReadyOp op, PyObject *future,
                         PyObject *value, FlPoller **owed)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    int tries = 100;
    while (post(loop, op, future, Py_XNewRef(value), owed) < 0) {
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

static PyObject *
call(FlCallJob *job)
{
    size_t nargs = (size_t)job->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET;
    PyObject **args = job->args + 1;
    if (job->kwargs == NULL) {
        return PyObject_Vectorcall(job->func, args, nargs, NULL);
    }
    return PyObject_VectorcallDict(job->func, args, nargs, job->kwargs);
}

static void
run_for_loop(FlCallJob *job, FlPoller **owed)
{
    int cancelled = fl_call_truth(job->future, job->state->names.cancelled);
    if (cancelled != 0) {
        if (cancelled < 0) {
            PyErr_WriteUnraisable(job->future);
        }
        return;
    }
    FlReadyOp op = fl_future_give_result;
    PyObject *outcome = call(job);
    if (outcome == NULL) {
        op = fl_future_give_exception;
        outcome = PyErr_GetRaisedException();
    }
    drop_call(job);
    fl_future_post_anythread(job->loop, op, job->future, outcome, owed);
}

static void
run_concurrent(FlCallJob *job)
{
    FlNames *names = &job->state->names;
    int runs = fl_call_truth(job->future, names->set_running_or_notify_cancel);
    PyObject *done = NULL;
    if (runs > 0) {
        PyObject *name = names->set_result;
        PyObject *outcome = call(job);
        if (outcome == NULL) {
            name = names->set_exception;
            outcome = PyErr_GetRaisedException();
        }
        drop_call(job);
        done = PyObject_CallMethodOneArg(job->future, name, outcome);
        Py_DECREF(outcome);
    }
    if (runs < 0 || (runs > 0 && done == NULL)) {
        PyErr_WriteUnraisable(job->future);
    }
    Py_XDECREF(done);
}

void
fl_job_run_steal(FlCallJob *job, FlPoller **owed)
{
    if (job->loop != NULL) {
        run_for_loop(job, owed);
    }
    else {
        run_concurrent(job);
    }
    fl_job_free(job);
}

void
fl_job_cancel_steal(FlCallJob *job)
{
    if (job->loop != NULL) {
        fl_future_post_anythread(job->loop, cancel_future, job->future, NULL,
                                 NULL);
    }
    else {
        PyObject *done =
            PyObject_CallMethodNoArgs(job->future, job->state->names.cancel);
        if (done == NULL) {
            PyErr_WriteUnraisable(job->future);
        }
        Py_XDECREF(done);
    }
    fl_job_free(job);
}
