/* loop.run_in_executor(): see run_in_executor.h.

   1. A standard ThreadPoolExecutor gets an ExecutorJob (job.h) in its own
      queue.  The job holds the asyncio future, so no concurrent future exists.
   2. Any other executor's submit() returns a concurrent future.  Two C
      callbacks chain it to an asyncio future, as asyncio.wrap_future() does.
      Cancelling either future cancels the other.  The outcome is copied on the
      loop's thread, since an asyncio future is not thread-safe.
   3. The default executor and _executor_shutdown_called are asyncio's own
      attributes of the loop, and the error messages are asyncio's.  So the
      inherited shutdown_default_executor() works unchanged. */
#include "executor/run_in_executor.h"

#include "core/loop.h"
#include "core/overrides.h"
#include "core/report.h"
#include "executor/job.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"

/* --- chaining two futures ------------------------------------------------ */

/* Copy the outcome of a concurrent future that is done to the asyncio future.
   An FlReadyOp, for the loop's thread.  0, or -1 with an exception that must
   leave the loop. */
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
        /* The future's class may be the application's and raise anything. */
        return fl_loop_report_callback(loop, NULL);
    }
    int code = 0;
    if (cancelled == 0 && outcome != Py_None) {
        code = fl_future_set_exception(loop, future, outcome);
    }
    else if (cancelled == 0) {
        PyObject *result =
            PyObject_CallMethodNoArgs(concurrent, names->result);
        code = result == NULL ? fl_loop_report_callback(loop, NULL)
                              : fl_future_set_result(loop, future, result);
        Py_XDECREF(result);
    }
    Py_DECREF(outcome);
    return code;
}

static const char concurrent_done_doc[] =
    "_concurrent_done(concurrent, /)\n--\n\n"
    "The executor's future is done: copy its outcome to the asyncio future.";

/* self is (loop, asyncio future).  Runs in the thread that completes the
   concurrent future. */
static PyObject *
concurrent_done(PyObject *self, PyObject *concurrent)
{
    FlLoop *loop = FL_LOOP(PyTuple_GET_ITEM(self, 0));
    PyObject *future = PyTuple_GET_ITEM(self, 1);
    /* From 3.14 on asyncio copies at once if this is the loop's thread. */
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

static const char future_done_doc[] =
    "_future_done(future, /)\n--\n\n"
    "The asyncio future is done: if cancelled, cancel the executor's future.";

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
    {"_concurrent_done", concurrent_done, METH_O, concurrent_done_doc},
    {"_future_done", future_done, METH_O, future_done_doc},
};

/* Add to a future a done callback: the C function `method`, whose self is the
   tuple (loop, other).  0, or -1 with an exception set. */
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
    return fl_call_done(result);
}

static PyObject *
create_future(FlLoop *loop)
{
    return PyObject_CallMethodNoArgs((PyObject *)loop,
                                     loop->state->names.create_future);
}

/* asyncio.wrap_future(): an asyncio future is returned as it is, a concurrent
   one is chained to a new asyncio future.  A new reference, or NULL with an
   exception set; AssertionError for any other object, as in asyncio. */
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
    int is_concurrent =
        PyObject_IsInstance(concurrent, state->concurrent_future);
    if (is_concurrent <= 0) {
        if (is_concurrent == 0) {
            PyErr_Format(PyExc_AssertionError,
                         "concurrent.futures.Future is expected, got %R",
                         concurrent);
        }
        return NULL;
    }
    PyObject *future = create_future(loop);
    /* In asyncio's order.  The second callback runs at once if the concurrent
       future is done already. */
    if (future != NULL
        && (add_callback(loop, future, &callback_methods[1], concurrent) < 0
            || add_callback(loop, concurrent, &callback_methods[0], future)
                   < 0))
    {
        Py_CLEAR(future);
    }
    return future;
}

/* executor.submit(func, *args), and the asyncio future of what it returns. */
static PyObject *
submit_foreign(FlLoop *loop, PyObject *executor, PyObject *func,
               PyObject *const *args, Py_ssize_t nargs)
{
    /* (executor, func, *args): self and the arguments of submit(). */
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

/* Whether submit_job() may replace this executor's submit().  The executor
   must be a ThreadPoolExecutor, no subclass, and submit() must be CPython's
   own: an application that replaces it expects to be called.  A replacement is
   defined in another module, so the function's globals identify it.
   1, 0, or -1 with an exception set. */
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
    /* A function set on the instance is no bound method: not standard. */
    PyObject *function =
        PyMethod_Check(method) ? PyMethod_GET_FUNCTION(method) : NULL;
    int is_same = function != NULL && PyFunction_Check(function)
                  && PyFunction_GET_GLOBALS(function) == state->submit_globals;
    Py_DECREF(method);
    return is_same;
}

/* Put an ExecutorJob into a standard pool's queue.  A new future, or NULL with
   an exception set. */
static PyObject *
submit_job(FlLoop *loop, PyObject *executor, PyObject *func,
           PyObject *const *args, Py_ssize_t nargs)
{
    /* submit_job() of fastloop/executor.py puts the job into the queue and
       starts a thread if necessary.  If it raises, the future is dropped. */
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

/* The loop's default executor, made on first use.  A new reference; NULL with
   RuntimeError after shutdown_default_executor(). */
static PyObject *
default_executor(FlLoop *loop)
{
    FlState *state = loop->state;
    /* asyncio's shutdown_default_executor() sets this attribute of the loop;
       its message is asyncio's. */
    PyObject *shutdown_called =
        PyObject_GetAttr((PyObject *)loop,
                         state->names._executor_shutdown_called);
    int is_shut_down =
        shutdown_called == NULL ? -1 : PyObject_IsTrue(shutdown_called);
    Py_XDECREF(shutdown_called);
    if (is_shut_down != 0) {
        if (is_shut_down > 0) {
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

/* The arguments of one call of run_in_executor(), all borrowed. */
typedef struct {
    PyObject *executor;
    PyObject *func;
    PyObject *const *args;
    Py_ssize_t nargs;
} Request;

/* asyncio's method is Python, so callers may pass `executor` and `func` as
   keywords; this accepts them, with CPython's messages.  0 or -1. */
static int
parse_keywords(Request *request, PyObject *const *args, Py_ssize_t nargs,
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

/* The request borrows everything from the caller's arguments.  0 or -1. */
static int
parse(Request *request, PyObject *const *args, Py_ssize_t nargs,
      PyObject *kwnames)
{
    request->executor = nargs > 0 ? args[0] : NULL;
    request->func = nargs > 1 ? args[1] : NULL;
    request->args = args + 2;
    request->nargs = nargs > 2 ? nargs - 2 : 0;
    if (kwnames != NULL && parse_keywords(request, args, nargs, kwnames) < 0) {
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

/* asyncio's check in debug mode: TypeError for a coroutine function.
   0 or -1. */
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
    return fl_call_done(checked);
}

/* Call asyncio's BaseEventLoop.run_in_executor(), unbound. */
static PyObject *
run_as_asyncio(FlLoop *loop, const Request *request)
{
    PyObject *rest = fl_args_tuple(request->args, request->nargs);
    PyObject *head =
        PyTuple_Pack(3, (PyObject *)loop, request->executor, request->func);
    PyObject *call =
        rest == NULL || head == NULL ? NULL : PySequence_Concat(head, rest);
    Py_XDECREF(rest);
    Py_XDECREF(head);
    if (call == NULL) {
        return NULL;
    }
    PyObject *future =
        PyObject_Call(loop->state->base_run_in_executor, call, NULL);
    Py_DECREF(call);
    return future;
}

/* loop.run_in_executor(executor, func, *args): a new asyncio future, or NULL
   with an exception set. */
static PyObject *
run_in_executor(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    Request request;
    if (parse(&request, args, nargs, kwnames) < 0) {
        return NULL;
    }
    /* The job may wait for the peer's answer to bytes that are corked now. */
    fl_loop_flush_corked_here(loop->state);
    /* An application's call_soon_threadsafe() must see each outcome; the
       native path posts outcomes without it. */
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
    /* The default executor is checked too: a program may have set it. */
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

/* Store a module's attribute in a state slot.  0, or -1 with an exception set;
   the slot is NULL then.  A NULL module is an import that failed. */
static int
import_attribute(PyObject *module, const char *name, PyObject **slot)
{
    *slot = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    return *slot == NULL ? -1 : 0;
}

int
fl_run_in_executor_register(PyObject *module, FlState *state)
{
    PyObject *futures = PyImport_ImportModule("concurrent.futures");
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    PyObject *executor_module = PyImport_ImportModule("fastloop.executor");
    PyObject *base = NULL;
    int code = -1;
    if (import_attribute(futures, "Future", &state->concurrent_future) == 0
        && import_attribute(futures, "CancelledError",
                            &state->concurrent_cancelled)
               == 0
        && import_attribute(futures, "InvalidStateError",
                            &state->concurrent_invalid)
               == 0
        && import_attribute(asyncio, "CancelledError",
                            &state->asyncio_cancelled)
               == 0
        && import_attribute(asyncio, "InvalidStateError",
                            &state->asyncio_invalid)
               == 0
        && import_attribute(asyncio, "BaseEventLoop", &base) == 0
        && import_attribute(base, "run_in_executor",
                            &state->base_run_in_executor)
               == 0
        && import_attribute(executor_module, "thread_pool_type",
                            &state->thread_pool_type)
               == 0
        && import_attribute(executor_module, "submit_globals",
                            &state->submit_globals)
               == 0
        && import_attribute(executor_module, "submit_job", &state->submit_job)
               == 0
        && import_attribute(executor_module, "make_default",
                            &state->make_default)
               == 0)
    {
        code = fl_job_register(module, state);
    }
    Py_XDECREF(futures);
    Py_XDECREF(asyncio);
    Py_XDECREF(executor_module);
    Py_XDECREF(base);
    state->run_in_executor = run_in_executor; /* for BaseLoop's method */
    return code;
}
