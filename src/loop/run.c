/* Running: run_forever and run_until_complete, around the iterations of
   iteration.c.

   1. thread_id is set exactly while a run lasts.  Every way out of a run
      undoes everything that its beginning did, also if a Ctrl-C interrupts
      that: otherwise the thread could never run a loop again.
   2. An application may drive a run itself with asyncio's private names: it
      sets _thread_id to its thread's ident, calls _run_once() and sets
      _thread_id to None again.  This is an external run.
   3. Functions of asyncio.events, and methods of the loop, are looked up by
      name when they are called: applications replace them. */
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

/* A function of asyncio.events, as the module has it now: see invariant 3. */
static PyObject *
events_function(const FlLoop *loop, PyObject *name)
{
    return PyObject_GetItem(loop->state->asyncio_events, name);
}

/* Set asyncio's running loop of this thread, which asyncio.get_running_loop()
   returns; None: none.  0 or -1. */
static int
set_running_loop(FlLoop *loop, PyObject *running)
{
    PyObject *set =
        events_function(loop, loop->state->names._set_running_loop);
    PyObject *done = set == NULL ? NULL : PyObject_CallOneArg(set, running);
    Py_XDECREF(set);
    return fl_call_done(done);
}

/* asyncio's error.  Returns -1. */
static int
raise_already_running(void)
{
    PyErr_SetString(PyExc_RuntimeError, "This event loop is already running");
    return -1;
}

/* Check that the loop is open and that its own fds are, and in a forked child
   stop sharing them with the parent.  0, or -1 with RuntimeError or
   OSError. */
static int
check_usable(FlLoop *loop)
{
    if (fl_loop_check_open(loop) < 0) {
        return -1;
    }
    int code = fl_loop_after_fork(loop);
    return code < 0 ? fl_raise_errno(code) : 0;
}

/* Check everything else that prevents a run, for a loop that no thread runs.
   0 or -1. */
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
    Py_DECREF(other); /* only the address is compared below */
    if (other != Py_None) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "Cannot run the event loop while another loop is running");
        return -1;
    }
    return check_usable(loop);
}

/* The same checks before run_until_complete makes a task: run_forever would
   repeat them too late, when the coroutine belongs to a task already. */
static int
check_can_run(FlLoop *loop)
{
    if (atomic_load(&loop->busy) && !loop->closed) {
        return raise_already_running();
    }
    return check_idle(loop);
}

/* Install our async-generator hooks.  Returns the previous ones, as a tuple
   that set_hooks takes, or NULL. */
static PyObject *
install_hooks(FlLoop *loop)
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
set_hooks(FlLoop *loop, PyObject *hooks)
{
    return fl_call_done(
        PyObject_Call(loop->state->set_asyncgen_hooks, hooks, NULL));
}

/* Coroutine origin tracking, a debug-mode setting of the thread. */
static int
set_origin_tracking(FlLoop *loop, PyObject *on)
{
    return fl_call_done(PyObject_CallMethodOneArg(
        (PyObject *)loop, loop->state->names._set_coroutine_origin_tracking,
        on));
}

/* After a step of run_end: keep the first exception for the caller and report
   any later one as unraisable. */
static void
record_failure(FlLoop *loop, PyObject **first, int code)
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

/* Restore one setting of the thread after the run.  A setting that is not
   restored stays for ever: a thread that counts as running can never run a
   loop again, and the hooks keep their loop alive.  So after a MemoryError try
   once more. */
static void
restore(FlLoop *loop, PyObject **first, int (*set)(FlLoop *, PyObject *),
        PyObject *value)
{
    int code = set(loop, value);
    if (code < 0 && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        record_failure(loop, first, code);
        code = set(loop, value);
    }
    record_failure(loop, first, code);
}

/* The part of a run's beginning that an external run has, too, without
   fl_signals_begin.  0, or -1 with an exception set. */
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

/* Undo iterations_begin and fl_signals_begin.  Accepts a loop for which only a
   part of them was done. */
static void
iterations_end(FlLoop *loop)
{
    fl_signals_end(loop);
    fl_metrics_run_ends(loop);
    loop->thread_id = 0;
}

/* Undo everything that run_begin may have done.  Each step is made even if the
   one before raised, as a Ctrl-C may make it.  `code` is how the run ended.
   Returns 0, or -1 with the first exception of all. */
static int
run_end(FlLoop *loop, PyObject *old_hooks, int code)
{
    PyObject *first = code < 0 ? PyErr_GetRaisedException() : NULL;
    /* These cannot fail, so they come first. */
    iterations_end(loop);
    loop->stopping = false;
    restore(loop, &first, set_running_loop, Py_None);
    if (old_hooks != NULL) {
        restore(loop, &first, set_hooks, old_hooks);
        Py_DECREF(old_hooks);
    }
    /* In debug mode also if this run did not turn tracking on: set_debug, from
       a callback, may have done so. */
    if (loop->tracks_origin || loop->debug) {
        loop->tracks_origin = false;
        restore(loop, &first, set_origin_tracking, Py_False);
    }
    return fl_error_keep_first(first, 0, (PyObject *)loop);
}

/* Begin a run.  If it fails, the caller calls run_end all the same. */
static int
run_begin(FlLoop *loop, PyObject **old_hooks)
{
    if (iterations_begin(loop) < 0) {
        return -1;
    }
    if (loop->debug) {
        /* Before the call, which may raise after it has taken effect. */
        loop->tracks_origin = true;
        if (set_origin_tracking(loop, Py_True) < 0) {
            return -1;
        }
    }
    *old_hooks = install_hooks(loop);
    if (*old_hooks == NULL) {
        return -1;
    }
    if (set_running_loop(loop, (PyObject *)loop) < 0) {
        return -1;
    }
    /* Last: it runs pending signal handlers, which find the loop set as
       running. */
    return fl_signals_begin(loop);
}

/* Whether a subclass or the instance overrides _run_once: 1, 0 or -1. */
static int
overrides_run_once(FlLoop *loop)
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

/* Iterate until stop() is called, or until an exception leaves an iteration.
   `stopping` is checked after the iteration, so a run after stop() still makes
   one, as in asyncio.  0 or -1. */
static int
run_iterations(FlLoop *loop)
{
    int overridden = overrides_run_once(loop);
    int code = overridden < 0 ? -1 : 0;
    while (code == 0 && overridden) {
        code = fl_call_done(PyObject_CallMethodNoArgs(
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

/* Run the iterations while fl_loop_of_thread() returns this loop.  If setting
   that fails without memory, this loop does not cork writes.  A loop that runs
   further out in this thread flushes its corked writes first, because no
   callback of it will return before this run ends. */
static int
run_as_thread_loop(FlLoop *loop)
{
    Py_tss_t *running = &loop->state->running;
    void *previous = PyThread_tss_get(running);
    fl_loop_flush_corked_here(loop->state);
    (void)PyThread_tss_set(running, loop);
    int code = run_iterations(loop);
    (void)PyThread_tss_set(running, previous);
    return code;
}

/* A whole run.  0 if stop() ended it, or -1 with the exception that did. */
static int
run(FlLoop *loop)
{
    if (!fl_loop_claim(loop)) {
        /* asyncio checks in this order: a closed loop first. */
        return fl_loop_check_open(loop) < 0 ? -1 : raise_already_running();
    }
    if (check_idle(loop) < 0) {
        fl_loop_unclaim(loop);
        return -1;
    }
    PyObject *old_hooks = NULL;
    Py_INCREF(loop); /* a callback may drop the last other reference */
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
    "Raises RuntimeError if this or another loop is running in the thread\n"
    "or the loop is closed, OSError if its own descriptors were closed.\n"
    "KeyboardInterrupt and SystemExit of a callback leave it.  Implements\n"
    "asyncio's loop.run_forever().";

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
    "Run one iteration.  asyncio's private name.";

PyObject *
fl_loop_run_once(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    int code = -1;
    /* Within a run, by run_iterations or in an external run, the loop is
       claimed already.  Outside one it is claimed for this iteration alone. */
    if (fl_loop_on_own_thread(loop)) {
        code = fl_loop_iterate(loop);
    }
    else if (!fl_loop_claim(loop)) {
        (void)raise_already_running();
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

/* --- external runs ------------------------------------------------------- */

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

/* Begin a run on this thread that the application drives.  The running loop
   and the hooks are set by asyncio's _run_forever_setup(), not here.  0 or
   -1. */
static int
begin_external_run(FlLoop *loop)
{
    if (!fl_loop_claim(loop)) {
        return raise_already_running();
    }
    int code = check_usable(loop);
    if (code == 0) {
        /* The claim lasts until fl_loop_end_external_run(). */
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

/* asyncio's attribute, which _run_forever_setup() and _run_forever_cleanup()
   set: this thread's ident begins a run, None ends it. */
int
fl_loop_thread_id_set(FlLoop *loop, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == Py_None) {
        if (loop->external_run) {
            fl_loop_end_external_run(loop);
            return 0;
        }
        /* A run of run_forever() cannot be ended this way. */
        return fl_loop_is_running(loop) ? raise_already_running() : 0;
    }
    /* NULL means "del loop._thread_id"; no thread has the ident 0. */
    unsigned long ident = value == NULL ? 0 : PyLong_AsUnsignedLong(value);
    if (ident == (unsigned long)-1 && PyErr_Occurred()) {
        return -1;
    }
    if (ident != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_ValueError,
                        "_thread_id must be None or the calling thread's "
                        "ident");
        return -1;
    }
    /* Setting what is set already changes nothing. */
    return fl_loop_on_own_thread(loop) ? 0 : begin_external_run(loop);
}

const char fl_loop_stop_doc[] =
    "stop($self, /)\n--\n\n"
    "Make run_forever() return after the current iteration, or after one\n"
    "when it is not running.  Implements asyncio's loop.stop().";

PyObject *
fl_loop_stop(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    /* Like asyncio's, it does not wake the loop: another thread has to use
       call_soon_threadsafe(loop.stop). */
    loop->stopping = true;
    Py_RETURN_NONE;
}

/* --- run_until_complete -------------------------------------------------- */

/* A task for a coroutine, as asyncio.ensure_future() makes it but without its
   Python frames.  Like that, it closes a coroutine that the loop refuses with
   RuntimeError, so that it does not warn that it was never awaited. */
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

/* The task or future to wait for; *created: it did not exist before. */
static PyObject *
future_for(FlLoop *loop, PyObject *awaitable, bool *created)
{
    FlState *state = loop->state;
    PyObject *is_future = PyObject_CallOneArg(state->isfuture, awaitable);
    if (is_future == NULL) {
        return NULL;
    }
    *created = is_future != Py_True;
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
    /* The run reports what ends it; the task need not complain that it was
       destroyed while pending. */
    if (future != NULL && *created
        && PyObject_SetAttr(future, state->names._log_destroy_pending,
                            Py_False)
               < 0)
    {
        Py_CLEAR(future);
    }
    return future;
}

/* An exception left the run.  Retrieve that of the task that we made, so that
   the task does not log that it was never retrieved. */
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

/* Run until the future is done.  Its result, or NULL with its exception or
   with the one that ended the run. */
static PyObject *
run_future(FlLoop *loop, PyObject *future, bool created)
{
    FlState *state = loop->state;
    PyObject *callback = state->until_complete_cb;
    if (fl_call_done(PyObject_CallMethodOneArg(
            future, state->names.add_done_callback, callback))
        < 0)
    {
        return NULL;
    }
    /* By name: a subclass may override run_forever. */
    int code = fl_call_done(
        PyObject_CallMethodNoArgs((PyObject *)loop, state->names.run_forever));
    if (code < 0 && created) {
        retrieve_exception(state, future);
    }
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    PyObject *removed =
        PyObject_CallMethodOneArg(future, state->names.remove_done_callback,
                                  callback);
    if (fl_error_keep_first(exc, fl_call_done(removed), future) < 0) {
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
    bool created = false;
    PyObject *awaitable = fl_args_parse_one("run_until_complete", "future",
                                            args, nargs, kwnames);
    if (awaitable == NULL) {
        return NULL;
    }
    if (check_can_run(loop) < 0) {
        return NULL;
    }
    PyObject *future = future_for(loop, awaitable, &created);
    if (future == NULL) {
        return NULL;
    }
    PyObject *result = run_future(loop, future, created);
    Py_DECREF(future);
    return result;
}
