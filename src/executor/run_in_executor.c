/* run_in_executor: a call handed to a thread pool, or to any executor.

   1. A standard ThreadPoolExecutor gets a job (job.h) in its own queue, which
      holds the asyncio future.
   2. Any other executor's submit() gives a concurrent future.  Two C callbacks
      tie it to the asyncio one, as asyncio.wrap_future would: cancelling
      either cancels the other, and the outcome crosses by the ready queue.
   3. The executor's flag and messages are asyncio's, which shares this loop's
      attributes: its shutdown_default_executor works unchanged. */
#include "executor/run_in_executor.h"

#include "core/loop.h"
#include "core/overrides.h"
#include "core/report.h"
#include "executor/job.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"

/* --- two futures tied together ------------------------------------------- */

/* Copy a done concurrent future's outcome; on the loop's thread. */
static int
copy_outcome(FlLoop *loop, PyObject *future, PyObject *concurrent)
{
    FlNames *names = &loop->state->names;
    PyObject *outcome = NULL;
    int cancelled = fl_call_truth(concurrent, names->cancelled);
    if (cancelled > 0) {
        outcome = PyObject_CallMethodNoArgs(future, names->cancel);
    }
    else if (cancelled == 0) {
        outcome = PyObject_CallMethodNoArgs(concurrent, names->exception);
    }
    if (outcome == NULL) {
        return fl_loop_report_callback(loop, NULL);
    }
    int code = 0;
    if (cancelled == 0 && outcome != Py_None) {
        code = fl_future_give_exception(loop, future, outcome);
    }
    else if (cancelled == 0) {
        PyObject *result =
            PyObject_CallMethodNoArgs(concurrent, names->result);
        code = result == NULL ? fl_loop_report_callback(loop, NULL)
                              : fl_future_give_result(loop, future, result);
        Py_XDECREF(result);
    }
    Py_DECREF(outcome);
    return code;
}

static const char set_state_doc[] =
    "_concurrent_done(concurrent, /)\n--\n\n"
    "The executor's future is done: tell the asyncio future of it.";

/* self is (loop, asyncio future); runs in whatever thread is done. */
static PyObject *
concurrent_done(PyObject *self, PyObject *concurrent)
{
    FlLoop *loop = FL_LOOP(PyTuple_GET_ITEM(self, 0));
    PyObject *future = PyTuple_GET_ITEM(self, 1);
    if (FL_FUTURES_SET_AT_ONCE && fl_loop_on_own_thread(loop)) {
        if (copy_outcome(loop, future, concurrent) < 0) {
            return NULL;
        }
    }
    else {
        fl_future_post_anythread(loop, copy_outcome, future,
                                 Py_NewRef(concurrent));
    }
    Py_RETURN_NONE;
}

static const char check_cancel_doc[] =
    "_future_done(future, /)\n--\n\n"
    "The asyncio future is done: if cancelled, cancel the executor's.";

/* self is (loop, concurrent future). */
static PyObject *
future_done(PyObject *self, PyObject *future)
{
    FlNames *names = &FL_LOOP(PyTuple_GET_ITEM(self, 0))->state->names;
    int cancelled = fl_call_truth(future, names->cancelled);
    if (cancelled < 0) {
        return NULL;
    }
    if (cancelled) {
        return PyObject_CallMethodNoArgs(PyTuple_GET_ITEM(self, 1),
                                         names->cancel);
    }
    Py_RETURN_NONE;
}

static PyMethodDef callback_methods[] = {
    {"_concurrent_done", concurrent_done, METH_O, set_state_doc},
    {"_future_done", future_done, METH_O, check_cancel_doc},
};

/* object.add_done_callback(method of (loop, other)).  0 or -1. */
static int
add_callback(FlLoop *loop, PyObject *object, PyMethodDef *method,
             PyObject *other)
{
    PyObject *self = PyTuple_Pack(2, (PyObject *)loop, other);
    PyObject *callback = self == NULL ? NULL : PyCFunction_New(method, self);
    PyObject *result =
        callback == NULL
            ? NULL
            : PyObject_CallMethodOneArg(object,
                                        loop->state->names.add_done_callback,
                                        callback);
    Py_XDECREF(self);
    Py_XDECREF(callback);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
create_future(FlLoop *loop)
{
    return PyObject_CallMethodNoArgs((PyObject *)loop,
                                     loop->state->names.create_future);
}

/* The asyncio future of a concurrent one, or what is one already. */
static PyObject *
wrap_future(FlLoop *loop, PyObject *concurrent)
{
    FlState *state = loop->state;
    PyObject *is_future = PyObject_CallOneArg(state->isfuture, concurrent);
    if (is_future == NULL) {
        return NULL;
    }
    Py_DECREF(is_future);
    if (is_future == Py_True) {
        return Py_NewRef(concurrent);
    }
    int known = PyObject_IsInstance(concurrent, state->concurrent_future);
    if (known <= 0) {
        if (known == 0) {
            PyErr_Format(PyExc_AssertionError,
                         "concurrent.futures.Future is expected, got %R",
                         concurrent);
        }
        return NULL;
    }
    PyObject *future = create_future(loop);
    if (future != NULL
        && (add_callback(loop, future, &callback_methods[1], concurrent) < 0
            || add_callback(loop, concurrent, &callback_methods[0], future)
                   < 0))
    {
        Py_CLEAR(future);
    }
    return future;
}

static PyObject *
submit_foreign(FlLoop *loop, PyObject *executor, PyObject *func,
               PyObject *const *args, Py_ssize_t nargs)
{
    PyObject **call = PyMem_New(PyObject *, (size_t)nargs + 2);
    if (call == NULL) {
        return PyErr_NoMemory();
    }
    call[0] = executor;
    call[1] = func;
    for (Py_ssize_t at = 0; at < nargs; at++) {
        call[at + 2] = args[at];
    }
    PyObject *concurrent = PyObject_VectorcallMethod(
        loop->state->names.submit, call,
        ((size_t)nargs + 2) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    PyMem_Free(call);
    if (concurrent == NULL) {
        return NULL;
    }
    PyObject *future = wrap_future(loop, concurrent);
    Py_DECREF(concurrent);
    return future;
}

/* --- a standard thread pool ---------------------------------------------- */

/* Whether submit() of this executor is known to do what submit_job() does: it
   is a ThreadPoolExecutor, not a subclass, and the method is CPython's own, so
   that nobody misses a call of it.  Who replaces a method writes it in another
   module, and so a function's globals tell whose it is.  1, 0 or -1. */
static int
is_standard_pool(FlState *state, PyObject *executor)
{
    if ((PyObject *)Py_TYPE(executor) != state->thread_pool_type) {
        return 0;
    }
    PyObject *method = PyObject_GetAttr(executor, state->names.submit);
    if (method == NULL) {
        return -1;
    }
    PyObject *function =
        PyMethod_Check(method) ? PyMethod_GET_FUNCTION(method) : NULL;
    int same = function != NULL && PyFunction_Check(function)
               && PyFunction_GET_GLOBALS(function) == state->submit_globals;
    Py_DECREF(method);
    return same;
}

static PyObject *
submit_job(FlLoop *loop, PyObject *executor, PyObject *func,
           PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *future = create_future(loop);
    PyObject *job =
        future == NULL ? NULL : fl_job_new(loop, future, func, args, nargs);
    PyObject *done =
        job == NULL ? NULL
                    : PyObject_CallFunctionObjArgs(loop->state->submit_job,
                                                   executor, job, NULL);
    if (done == NULL) {
        Py_CLEAR(future);
    }
    Py_XDECREF(done);
    Py_XDECREF(job);
    return future;
}

/* --- run_in_executor ----------------------------------------------------- */

/* The loop's default executor, made on first use.  A new reference. */
static PyObject *
default_executor(FlLoop *loop)
{
    FlState *state = loop->state;
    PyObject *called =
        PyObject_GetAttr((PyObject *)loop,
                         state->names._executor_shutdown_called);
    int refused = called == NULL ? -1 : PyObject_IsTrue(called);
    Py_XDECREF(called);
    if (refused != 0) {
        if (refused > 0) {
            PyErr_SetString(PyExc_RuntimeError,
                            "Executor shutdown has been called");
        }
        return NULL;
    }
    if (loop->default_executor != NULL && loop->default_executor != Py_None) {
        return Py_NewRef(loop->default_executor);
    }
    PyObject *executor = PyObject_CallNoArgs(state->make_default);
    if (executor != NULL) {
        Py_XSETREF(loop->default_executor, Py_NewRef(executor));
    }
    return executor;
}

typedef struct {
    PyObject *executor;
    PyObject *func;
    PyObject *const *args;
    Py_ssize_t nargs;
} Request;

/* The two parameters may be given by name, as to asyncio's own method. */
static int
parse_names(Request *request, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames)
{
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(kwnames); at++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, at);
        bool is_func = PyUnicode_CompareWithASCIIString(name, "func") == 0;
        if (!is_func
            && PyUnicode_CompareWithASCIIString(name, "executor") != 0) {
            PyErr_Format(PyExc_TypeError,
                         "run_in_executor() got an unexpected keyword "
                         "argument '%U'",
                         name);
            return -1;
        }
        PyObject **slot = is_func ? &request->func : &request->executor;
        if (*slot != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "run_in_executor() got multiple values for argument "
                         "'%U'",
                         name);
            return -1;
        }
        *slot = args[nargs + at];
    }
    return 0;
}

static int
parse(Request *request, PyObject *const *args, Py_ssize_t nargs,
      PyObject *kwnames)
{
    request->executor = nargs > 0 ? args[0] : NULL;
    request->func = nargs > 1 ? args[1] : NULL;
    request->args = args + 2;
    request->nargs = nargs > 2 ? nargs - 2 : 0;
    if (kwnames != NULL && parse_names(request, args, nargs, kwnames) < 0) {
        return -1;
    }
    if (request->executor == NULL || request->func == NULL) {
        PyErr_Format(PyExc_TypeError,
                     "run_in_executor() missing required positional "
                     "argument: '%s'",
                     request->executor == NULL ? "executor" : "func");
        return -1;
    }
    return 0;
}

/* asyncio's check of debug mode: no coroutine functions.  0 or -1. */
static int
check_func(FlLoop *loop, PyObject *func)
{
    PyObject *method = PyUnicode_FromString("run_in_executor");
    PyObject *checked =
        method == NULL
            ? NULL
            : PyObject_CallMethodObjArgs((PyObject *)loop,
                                         loop->state->names._check_callback,
                                         func, method, NULL);
    Py_XDECREF(method);
    Py_XDECREF(checked);
    return checked == NULL ? -1 : 0;
}

static PyObject *
run_as_asyncio(FlLoop *loop, const Request *request)
{
    PyObject *rest = fl_args_tuple(request->args, request->nargs);
    PyObject *head =
        PyTuple_Pack(3, (PyObject *)loop, request->executor, request->func);
    PyObject *all =
        rest == NULL || head == NULL ? NULL : PySequence_Concat(head, rest);
    Py_XDECREF(rest);
    Py_XDECREF(head);
    if (all == NULL) {
        return NULL;
    }
    PyObject *future =
        PyObject_Call(loop->state->base_run_in_executor, all, NULL);
    Py_DECREF(all);
    return future;
}

static PyObject *
run_in_executor(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    Request request;
    if (parse(&request, args, nargs, kwnames) < 0) {
        return NULL;
    }
    fl_loop_flush_corked_here(loop->state); /* the job may rely on it */
    if (FL_UNLIKELY(loop->off & FL_OFF_NATIVE_EXECUTOR)
        || fl_overrides_call_soon_threadsafe(loop))
    {
        return run_as_asyncio(loop, &request);
    }
    if (fl_loop_check_open(loop) < 0
        || (loop->debug && check_func(loop, request.func) < 0))
    {
        return NULL;
    }
    PyObject *executor = request.executor == Py_None
                             ? default_executor(loop)
                             : Py_NewRef(request.executor);
    if (executor == NULL) {
        return NULL;
    }
    int standard = is_standard_pool(loop->state, executor);
    PyObject *future = NULL;
    if (standard >= 0) {
        future = (standard ? submit_job
                           : submit_foreign)(loop, executor, request.func,
                                             request.args, request.nargs);
    }
    Py_DECREF(executor);
    return future;
}

/* --- registration -------------------------------------------------------- */

/* 0, or -1 when the module or the attribute is not there. */
static int
take(PyObject *module, const char *name, PyObject **slot)
{
    *slot = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    return *slot == NULL ? -1 : 0;
}

int
fl_run_in_executor_register(PyObject *module, FlState *state)
{
    PyObject *futures = PyImport_ImportModule("concurrent.futures");
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    PyObject *ours = PyImport_ImportModule("fastloop.executor");
    PyObject *base = NULL;
    int code = -1;
    if (take(futures, "Future", &state->concurrent_future) == 0
        && take(futures, "CancelledError", &state->concurrent_cancelled) == 0
        && take(futures, "InvalidStateError", &state->concurrent_invalid) == 0
        && take(asyncio, "CancelledError", &state->asyncio_cancelled) == 0
        && take(asyncio, "InvalidStateError", &state->asyncio_invalid) == 0
        && take(asyncio, "BaseEventLoop", &base) == 0
        && take(base, "run_in_executor", &state->base_run_in_executor) == 0
        && take(ours, "thread_pool_type", &state->thread_pool_type) == 0
        && take(ours, "submit_globals", &state->submit_globals) == 0
        && take(ours, "submit_job", &state->submit_job) == 0
        && take(ours, "make_default", &state->make_default) == 0)
    {
        code = fl_job_register(module, state);
    }
    Py_XDECREF(futures);
    Py_XDECREF(asyncio);
    Py_XDECREF(ours);
    Py_XDECREF(base);
    state->run_in_executor = run_in_executor;
    return code;
}
