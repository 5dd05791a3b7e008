/* Running: run_forever and its kin, around the turns of iteration.c.

   1. thread_id is set exactly while a run is on; every way out of a run undoes
      all that its beginning did.
   2. A program may make a run of its own out of asyncio's private parts: it
      sets _thread_id, calls _run_once() and puts _thread_id back to None. */
#include "loop/run.h"

#include "core/loop.h"
#include "core/metrics.h"
#include "core/overrides.h"
#include "core/signals.h"
#include "core/iteration.h"
#include "loop/tasks.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"

#include <unistd.h>

/* --- a run --------------------------------------------------------------- */

/* A function of asyncio.events, as the module has it now: it may have been
   replaced by one that does more. */
static PyObject *
events_function(const FlLoop *loop, PyObject *name)
{
    return PyObject_GetItem(loop->state->asyncio_events, name);
}

static int
set_running_loop(FlLoop *loop, PyObject *running)
{
    PyObject *set =
        events_function(loop, loop->state->names._set_running_loop);
    PyObject *done = set == NULL ? NULL : PyObject_CallOneArg(set, running);
    Py_XDECREF(set);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int
refuse_to_run(void)
{
    PyErr_SetString(PyExc_RuntimeError, "This event loop is already running");
    return -1;
}

/* Open, with its descriptors, and not shared with a parent process. */
static int
check_usable(FlLoop *loop)
{
    if (fl_loop_check_open(loop) < 0) {
        return -1;
    }
    int code = fl_loop_leave_parent(loop);
    return code < 0 ? fl_raise_errno(code) : 0;
}

/* What keeps a loop that is not busy from running. */
static int
check_idle(FlLoop *loop)
{
    if (fl_loop_check_open(loop) < 0) {
        return -1;
    }
    PyObject *get =
        events_function(loop, loop->state->names._get_running_loop);
    PyObject *other = get == NULL ? NULL : PyObject_CallNoArgs(get);
    Py_XDECREF(get);
    if (other == NULL) {
        return -1;
    }
    Py_DECREF(other);
    if (other != Py_None) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "Cannot run the event loop while another loop is running");
        return -1;
    }
    return check_usable(loop);
}

static int
check_can_run(FlLoop *loop)
{
    if (atomic_load(&loop->busy) && !loop->closed) {
        return refuse_to_run();
    }
    return check_idle(loop);
}

/* Install our async-generator hooks; returns the previous ones. */
static PyObject *
hooks_begin(FlLoop *loop)
{
    FlState *state = loop->state;
    PyObject *self = (PyObject *)loop;
    PyObject *old = PyObject_CallNoArgs(state->get_asyncgen_hooks);
    PyObject *hooks[2] = {NULL, NULL};
    PyObject *done = NULL;
    if (old != NULL) {
        hooks[0] =
            PyObject_GetAttr(self, state->names._asyncgen_firstiter_hook);
    }
    if (hooks[0] != NULL) {
        hooks[1] =
            PyObject_GetAttr(self, state->names._asyncgen_finalizer_hook);
    }
    if (hooks[1] != NULL) {
        done = PyObject_Vectorcall(state->set_asyncgen_hooks, hooks, 0,
                                   state->hooks_kwnames);
    }
    Py_XDECREF(hooks[0]);
    Py_XDECREF(hooks[1]);
    if (done == NULL) {
        Py_CLEAR(old);
    }
    Py_XDECREF(done);
    return old;
}

static int
call_and_drop(PyObject *result)
{
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
set_hooks(FlLoop *loop, PyObject *hooks)
{
    return call_and_drop(
        PyObject_Call(loop->state->set_asyncgen_hooks, hooks, NULL));
}

static int
set_origin_tracking(FlLoop *loop, PyObject *on)
{
    return call_and_drop(PyObject_CallMethodOneArg(
        (PyObject *)loop, loop->state->names._set_coroutine_origin_tracking,
        on));
}

/* Of what the end of a run raises the first is kept, too. */
static void
keep_failure(FlLoop *loop, PyObject **first, int code)
{
    if (code == 0) {
        return;
    }
    if (*first == NULL) {
        *first = PyErr_GetRaisedException();
    }
    else {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
}

/* Give the thread back what it had before the run.  What is not given back
   stays for ever: a thread that counts as running can run no loop again, and
   hooks keep their loop alive.  So where memory was short, try once more. */
static void
undo(FlLoop *loop, PyObject **first, int (*set)(FlLoop *, PyObject *),
     PyObject *value)
{
    int code = set(loop, value);
    if (code < 0 && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        keep_failure(loop, first, code);
        code = set(loop, value);
    }
    keep_failure(loop, first, code);
}

/* What a run is to the core alone; fl_signals_begin is the rest. */
static int
iterations_begin(FlLoop *loop)
{
    loop->thread_id = PyThread_get_thread_ident();
    fl_loop_reset_iterations(loop);
    fl_poller_begin_run(loop->poller);
    int plain = fl_tasks_are_plain(loop);
    loop->plain_tasks = plain > 0;
    fl_metrics_run_begins(loop);
    return plain < 0 ? -1 : fl_overrides_begin_run(loop);
}

static void
iterations_end(FlLoop *loop)
{
    fl_signals_end(loop);
    fl_metrics_run_ends(loop);
    loop->thread_id = 0;
}

/* Undo everything run_begin may have done, also past what that raises: a
   Ctrl-C may.  As the run, which ended with `code`: 0, or -1 with the first
   exception. */
static int
run_end(FlLoop *loop, PyObject *old_hooks, int code)
{
    PyObject *first = code < 0 ? PyErr_GetRaisedException() : NULL;
    iterations_end(loop);
    loop->stopping = false;
    undo(loop, &first, set_running_loop, Py_None);
    if (old_hooks != NULL) {
        undo(loop, &first, set_hooks, old_hooks);
        Py_DECREF(old_hooks);
    }
    if (loop->tracks_origin || loop->debug) {
        loop->tracks_origin = false;
        undo(loop, &first, set_origin_tracking, Py_False);
    }
    return fl_error_keep_first(first, 0, (PyObject *)loop);
}

static int
run_begin(FlLoop *loop, PyObject **old_hooks)
{
    if (iterations_begin(loop) < 0) {
        return -1;
    }
    if (loop->debug) {
        loop->tracks_origin = true;
        if (set_origin_tracking(loop, Py_True) < 0) {
            return -1;
        }
    }
    *old_hooks = hooks_begin(loop);
    if (*old_hooks == NULL) {
        return -1;
    }
    if (set_running_loop(loop, (PyObject *)loop) < 0) {
        return -1;
    }
    return fl_signals_begin(loop);
}

/* Whether a subclass, or the instance, has a _run_once of its own; or -1. */
static int
iterates_by_method(FlLoop *loop)
{
    PyObject *method =
        PyObject_GetAttr((PyObject *)loop, loop->state->names._run_once);
    if (method == NULL) {
        return -1;
    }
    bool ours =
        fl_call_is_ours(method, (PyCFunction)(void (*)(void))fl_loop_run_once);
    Py_DECREF(method);
    return !ours;
}

/* Turns until stop(), or until an exception leaves one. */
static int
run_iterations(FlLoop *loop)
{
    int by_method = iterates_by_method(loop);
    int code = by_method < 0 ? -1 : 0;
    while (code == 0 && by_method) {
        code = call_and_drop(PyObject_CallMethodNoArgs(
            (PyObject *)loop, loop->state->names._run_once));
        if (loop->stopping) {
            return code;
        }
    }
    while (code == 0) {
        code = fl_loop_iterate(loop);
        if (loop->stopping) {
            break;
        }
    }
    return code;
}

/* Be this thread's loop while the turns are made.  Where memory is short it is
   not, and holds nothing. */
static int
run_as_thread_loop(FlLoop *loop)
{
    Py_tss_t *running = &loop->state->running;
    void *outer = PyThread_tss_get(running);
    fl_loop_flush_corked_here(loop->state);
    (void)PyThread_tss_set(running, loop);
    int code = run_iterations(loop);
    (void)PyThread_tss_set(running, outer);
    return code;
}

/* 0 when stopped, -1 with the exception that ended the run. */
static int
run(FlLoop *loop)
{
    if (!fl_loop_claim(loop)) {
        return fl_loop_check_open(loop) < 0 ? -1 : refuse_to_run();
    }
    if (check_idle(loop) < 0) {
        fl_loop_unclaim(loop);
        return -1;
    }
    PyObject *old_hooks = NULL;
    Py_INCREF(loop);
    int code = run_begin(loop, &old_hooks);
    if (code == 0) {
        code = run_as_thread_loop(loop);
    }
    code = run_end(loop, old_hooks, code);
    fl_loop_unclaim(loop);
    Py_DECREF(loop);
    return code;
}

const char fl_loop_run_forever_doc[] =
    "run_forever($self, /)\n--\n\n"
    "Run until stop() is called.\n\n"
    "Raises RuntimeError when this or another loop is running in the\n"
    "thread, when the loop is closed, and in a forked child; a callback's\n"
    "KeyboardInterrupt or SystemExit leaves it.  Implements asyncio's\n"
    "loop.run_forever().";

PyObject *
fl_loop_run_forever(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    if (run(loop) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

const char fl_loop_run_once_doc[] =
    "_run_once($self, /)\n--\n\n"
    "Run one iteration; the name asyncio's own loop has for it.";

PyObject *
fl_loop_run_once(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    int code = -1;
    if (fl_loop_on_own_thread(loop)) {
        code = fl_loop_iterate(loop);
    }
    else if (!fl_loop_claim(loop)) {
        (void)refuse_to_run();
    }
    else {
        code = fl_loop_check_open(loop);
        if (code == 0) {
            fl_poller_begin_run(loop->poller);
            fl_metrics_run_begins(loop);
            code = fl_loop_iterate(loop);
            fl_metrics_run_ends(loop);
        }
        fl_loop_unclaim(loop);
    }
    if (code < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- a run that somebody else makes -------------------------------------- */

PyObject *
fl_loop_thread_id_get(FlLoop *loop, void *Py_UNUSED(closure))
{
    if (!fl_loop_is_running(loop)) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLong(loop->thread_id);
}

void
fl_loop_end_external_run(FlLoop *loop)
{
    loop->external_run = false;
    iterations_end(loop);
    fl_loop_unclaim(loop);
}

static int
begin_external_run(FlLoop *loop)
{
    if (!fl_loop_claim(loop)) {
        return refuse_to_run();
    }
    int code = check_usable(loop);
    if (code == 0) {
        loop->external_run = true;
        code = iterations_begin(loop) < 0 ? -1 : fl_signals_begin(loop);
        if (code == 0) {
            return 0;
        }
        iterations_end(loop);
        loop->external_run = false;
    }
    fl_loop_unclaim(loop);
    return -1;
}

/* asyncio's attribute, which _run_forever_setup() and its kin set: this
   thread's number begins a run, None ends it. */
int
fl_loop_thread_id_set(FlLoop *loop, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == Py_None) {
        if (loop->external_run) {
            fl_loop_end_external_run(loop);
            return 0;
        }
        return fl_loop_is_running(loop) ? refuse_to_run() : 0;
    }
    unsigned long ident = value == NULL ? 0 : PyLong_AsUnsignedLong(value);
    if (ident == (unsigned long)-1 && PyErr_Occurred()) {
        return -1;
    }
    if (ident != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_ValueError,
                        "_thread_id is None or the calling thread's ident");
        return -1;
    }
    return fl_loop_on_own_thread(loop) ? 0 : begin_external_run(loop);
}

const char fl_loop_stop_doc[] =
    "stop($self, /)\n--\n\n"
    "Make run_forever() return after the current iteration, or after one\n"
    "when it is not running.  Implements asyncio's loop.stop().";

PyObject *
fl_loop_stop(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    loop->stopping = true;
    Py_RETURN_NONE;
}

/* --- run_until_complete -------------------------------------------------- */

/* As asyncio.ensure_future(), without its Python frames: it closes a coroutine
   that the loop refuses. */
static PyObject *
task_for(FlLoop *loop, PyObject *coroutine)
{
    const FlNames *names = &loop->state->names;
    PyObject *task = PyObject_CallMethodOneArg((PyObject *)loop,
                                               names->create_task, coroutine);
    if (task == NULL && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        PyObject *exc = PyErr_GetRaisedException();
        PyObject *closed = PyObject_CallMethodNoArgs(coroutine, names->close);
        if (closed == NULL) {
            Py_DECREF(exc);
            return NULL;
        }
        Py_DECREF(closed);
        PyErr_SetRaisedException(exc);
    }
    return task;
}

/* The task or future to wait for, and whether we made it. */
static PyObject *
future_for(FlLoop *loop, PyObject *awaitable, bool *made)
{
    FlState *state = loop->state;
    PyObject *is_future = PyObject_CallOneArg(state->isfuture, awaitable);
    if (is_future == NULL) {
        return NULL;
    }
    *made = is_future != Py_True;
    Py_DECREF(is_future);
    PyObject *future;
    if (PyCoro_CheckExact(awaitable)) {
        future = task_for(loop, awaitable);
    }
    else {
        PyObject *call[2] = {awaitable, (PyObject *)loop};
        future = PyObject_Vectorcall(state->ensure_future, call, 1,
                                     state->loop_kwnames);
    }
    if (future != NULL && *made
        && PyObject_SetAttr(future, state->names._log_destroy_pending,
                            Py_False)
               < 0)
    {
        Py_CLEAR(future);
    }
    return future;
}

/* The run was left by an exception: the task we made must not complain that
   nobody asked for its own. */
static void
retrieve_exception(FlState *state, PyObject *future)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (fl_call_truth(future, state->names.done) > 0) {
        PyObject *cancelled =
            PyObject_CallMethodNoArgs(future, state->names.cancelled);
        if (cancelled == Py_False) {
            Py_XDECREF(
                PyObject_CallMethodNoArgs(future, state->names.exception));
        }
        Py_XDECREF(cancelled);
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(future);
    }
    PyErr_SetRaisedException(exc);
}

const char fl_loop_run_until_complete_doc[] =
    "run_until_complete($self, future)\n--\n\n"
    "Run until an awaitable is done; return its result or raise its\n"
    "exception.\n\n"
    "A coroutine becomes a task.  Raises RuntimeError when the loop cannot\n"
    "run (see run_forever) or is stopped first.  Implements asyncio's\n"
    "loop.run_until_complete().";

static PyObject *
run_future(FlLoop *loop, PyObject *future, bool made)
{
    FlState *state = loop->state;
    PyObject *callback = state->until_complete_cb;
    if (call_and_drop(PyObject_CallMethodOneArg(
            future, state->names.add_done_callback, callback))
        < 0)
    {
        return NULL;
    }
    int code = call_and_drop(
        PyObject_CallMethodNoArgs((PyObject *)loop, state->names.run_forever));
    if (code < 0 && made) {
        retrieve_exception(state, future);
    }
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    PyObject *removed =
        PyObject_CallMethodOneArg(future, state->names.remove_done_callback,
                                  callback);
    if (fl_error_keep_first(exc, call_and_drop(removed), future) < 0) {
        return NULL;
    }
    int done = fl_call_truth(future, state->names.done);
    if (done == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Event loop stopped before Future completed.");
    }
    if (done <= 0) {
        return NULL;
    }
    return PyObject_CallMethodNoArgs(future, state->names.result);
}

PyObject *
fl_loop_run_until_complete(FlLoop *loop, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames)
{
    bool made = false;
    PyObject *awaitable =
        fl_parse_one("run_until_complete", "future", args, nargs, kwnames);
    if (awaitable == NULL) {
        return NULL;
    }
    if (check_can_run(loop) < 0) {
        return NULL;
    }
    PyObject *future = future_for(loop, awaitable, &made);
    if (future == NULL) {
        return NULL;
    }
    PyObject *result = run_future(loop, future, made);
    Py_DECREF(future);
    return result;
}
