/* Running: one turn of the loop, and run_forever and its kin around it.

   A turn is one iteration of asyncio's: poll, queue what fired, queue the
   timers now due, run what is in the queue.

   1. The poll may be skipped while callbacks keep coming, but never in the
      first turn of a run, nor after a poll that found something, nor after a
      stream sent something or a watch began; the allowance doubles with every
      empty poll up to MAX_SKIPS, and ends with the tick of the coarse clock.
   2. The GIL is given up only around a poll that may block; libuv's callbacks
      touch no Python.
   3. thread_id is set exactly while a run is on; every way out of a run undoes
      all that its beginning did.
   4. A program may make a run of its own out of asyncio's private parts: it
      sets _thread_id, calls _run_once() and puts _thread_id back to None. */
#include "base/clock.h"
#include "loop/methods.h"
#include "py/call.h"
#include "py/errors.h"

#include <unistd.h>

#define MAX_SKIPS   32
/* Turns in a row that timers already due may do without a clock reading: by
   how many of them another timer may be noticed late. */
#define CLOCK_TURNS 8

/* --- one turn ------------------------------------------------------------ */

/* Queue an entry for each watch that fired; the number of them. */
static unsigned
queue_fired(FlLoop *loop)
{
    unsigned count = 0;
    FlWatch *watch;
    while ((watch = fl_poller_pop_fired(loop->poller)) != NULL) {
        count++;
        if (watch->position != FL_NOT_READY) {
            continue; /* still queued from before: its bits are merged */
        }
        FlReady *entry = fl_ready_reserve(&loop->ready);
        if (entry == NULL) {
            /* No memory for one entry: it stays noted and the next turn
               tries again, with whatever memory the callbacks gave back. */
            PyErr_Clear();
            fl_list_append(&loop->poller->fired, &watch->fired_link);
            break;
        }
        entry->kind = FL_READY_EVENT;
        entry->nargs = 0;
        entry->of.watch = watch;
        watch->position = fl_ready_commit(&loop->ready);
    }
    return count;
}

static void
poll_blocking(FlLoop *loop, int64_t timeout_ns)
{
    FlPoller *poller = loop->poller;
    fl_ready_shrink(&loop->ready);
    atomic_store(&poller->sleeping, 1);
    if (atomic_load(&loop->inbox.filled)) {
        timeout_ns = 0;
    }
    PyThreadState *thread = PyEval_SaveThread();
    fl_poller_run(poller, timeout_ns);
    PyEval_RestoreThread(thread);
    atomic_store(&poller->sleeping, 0);
}

/* Poll and queue what fired; see invariant 1. */
static void
poll(FlLoop *loop, int64_t timeout_ns)
{
    if (timeout_ns == 0) {
        fl_poller_run(loop->poller, 0);
    }
    else {
        poll_blocking(loop, timeout_ns);
    }
    unsigned fired = queue_fired(loop);
    if (fired > 0 || timeout_ns != 0 || (loop->off & FL_OFF_POLL_SKIP)) {
        loop->skip_allowance = 0;
    }
    else if (loop->skip_allowance < MAX_SKIPS) {
        loop->skip_allowance =
            loop->skip_allowance == 0 ? 1 : loop->skip_allowance * 2;
    }
    loop->skips_left = loop->skip_allowance;
    loop->polled_ns = fl_clock_coarse_ns();
}

static bool
may_skip_poll(FlLoop *loop)
{
    if (loop->skips_left == 0 || !fl_list_is_empty(&loop->poller->fresh)) {
        return false;
    }
    /* A timer that was due by the last clock reading is as good as ready. */
    if (fl_ready_count(&loop->ready) == 0
        && fl_deadlines_next_ns(&loop->timers) > loop->now_ns)
    {
        return false;
    }
    loop->skips_left--;
    return fl_clock_coarse_ns() == loop->polled_ns;
}

static int64_t
poll_timeout_ns(FlLoop *loop)
{
    if (loop->stopping || fl_ready_count(&loop->ready) > 0) {
        return 0;
    }
    int64_t next_ns = fl_deadlines_next_ns(&loop->timers);
    if (next_ns == FL_DEADLINE_NEVER) {
        return -1;
    }
    int64_t left_ns = next_ns - fl_clock_ns();
    return left_ns > 0 ? left_ns : 0;
}

/* Move the timers now due to the ready queue. */
static int
queue_due(FlLoop *loop)
{
    int64_t next_ns = fl_deadlines_next_ns(&loop->timers);
    loop->now_fresh = false;
    if (next_ns == FL_DEADLINE_NEVER) {
        loop->clock_turns_left = 1; /* the last reading will be an old one */
        return 0;
    }
    if (next_ns > loop->now_ns || --loop->clock_turns_left == 0) {
        if (next_ns > fl_clock_coarse_ns() + FL_COARSE_LAG_NS) {
            loop->clock_turns_left = 1;
            return 0;
        }
        loop->now_ns = fl_clock_ns();
        loop->clock_turns_left = CLOCK_TURNS;
    }
    loop->now_fresh = true;
    /* One nanosecond is the clock's resolution, which asyncio allows for. */
    int64_t due_ns = loop->now_ns + 1;
    while (fl_deadlines_next_ns(&loop->timers) <= due_ns) {
        FlReady *entry = fl_ready_reserve(&loop->ready);
        if (entry == NULL) {
            return -1;
        }
        FlTimerHandle *timer =
            fl_timer_of(fl_deadlines_pop_due(&loop->timers, due_ns));
        entry->kind = FL_READY_HANDLE;
        entry->nargs = 0;
        entry->context = NULL;
        entry->callback = (PyObject *)timer; /* the queue's reference */
        (void)fl_ready_commit(&loop->ready);
    }
    return 0;
}

static int
make_turn(FlLoop *loop)
{
    /* Held by what ran outside a callback: a signal's handler, say. */
    if (FL_UNLIKELY(fl_loop_has_deferred(loop))
        && fl_loop_run_deferred(loop) < 0) {
        return -1;
    }
    if (!may_skip_poll(loop)) {
        poll(loop, poll_timeout_ns(loop));
    }
    if (fl_inbox_drain(loop) < 0 || queue_due(loop) < 0) {
        return -1;
    }
    return fl_loop_run_batch(loop);
}

/* One turn, never inside another: the outer one's streams and events would
   end under it. */
static int
turn(FlLoop *loop)
{
    if (FL_UNLIKELY(loop->in_turn)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "This event loop is already running");
        return -1;
    }
    loop->in_turn = true;
    int code = make_turn(loop);
    loop->in_turn = false;
    return code;
}

/* --- a run --------------------------------------------------------------- */

/* A function of asyncio.events, as the module has it now: it may have been
   replaced by one that does more. */
static PyObject *
events_function(const FlLoop *loop, PyObject *name)
{
    return PyObject_GetItem(loop->state->asyncio_events, name);
}

static int
set_running_loop(const FlLoop *loop, PyObject *running)
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

/* Open, and made in this process. */
static int
check_usable(FlLoop *loop)
{
    if (fl_loop_check_open(loop) < 0) {
        return -1;
    }
    if (loop->poller->pid != (int)getpid()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "This event loop belongs to the parent process: "
                        "make a new one after a fork");
        return -1;
    }
    return 0;
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
set_origin_tracking(FlLoop *loop, PyObject *on)
{
    return call_and_drop(PyObject_CallMethodOneArg(
        (PyObject *)loop, loop->state->names._set_coroutine_origin_tracking,
        on));
}

static void
report_failure(FlLoop *loop, int code)
{
    if (code < 0) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
}

/* What a run is to the core alone; fl_signals_begin is the rest. */
static int
turns_begin(FlLoop *loop)
{
    loop->thread_id = PyThread_get_thread_ident();
    loop->skip_allowance = loop->skips_left = 0;
    loop->now_fresh = false;
    loop->now_ns = fl_clock_ns();
    loop->clock_turns_left = CLOCK_TURNS;
    int plain = fl_tasks_are_plain(loop);
    loop->plain_tasks = plain > 0;
    return plain < 0 ? -1 : 0;
}

static void
turns_end(FlLoop *loop)
{
    fl_signals_end(loop);
    loop->thread_id = 0;
}

/* Undo everything run_begin may have done.  Keeps a raised exception. */
static void
run_end(FlLoop *loop, PyObject *old_hooks)
{
    FlState *state = loop->state;
    PyObject *exc = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
    turns_end(loop);
    loop->stopping = false;
    /* A thread that counted as running for ever could run no loop again: where
       memory was short, try once more. */
    if (set_running_loop(loop, Py_None) < 0) {
        PyErr_WriteUnraisable((PyObject *)loop);
        report_failure(loop, set_running_loop(loop, Py_None));
    }
    if (old_hooks != NULL) {
        report_failure(loop,
                       call_and_drop(PyObject_Call(state->set_asyncgen_hooks,
                                                   old_hooks, NULL)));
        Py_DECREF(old_hooks);
    }
    if (loop->tracks_origin || loop->debug) {
        loop->tracks_origin = false;
        report_failure(loop, set_origin_tracking(loop, Py_False));
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

static int
run_begin(FlLoop *loop, PyObject **old_hooks)
{
    if (turns_begin(loop) < 0) {
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
turns_by_method(FlLoop *loop)
{
    PyObject *method =
        PyObject_GetAttr((PyObject *)loop, loop->state->names._run_once);
    if (method == NULL) {
        return -1;
    }
    int ours = PyCFunction_Check(method)
               && PyCFunction_GET_FUNCTION(method)
                      == (PyCFunction)(void (*)(void))fl_loop_run_once;
    Py_DECREF(method);
    return !ours;
}

/* Turns until stop(), or until an exception leaves one. */
static int
run_turns(FlLoop *loop)
{
    int by_method = turns_by_method(loop);
    int code = by_method < 0 ? -1 : 0;
    while (code == 0 && by_method) {
        code = call_and_drop(PyObject_CallMethodNoArgs(
            (PyObject *)loop, loop->state->names._run_once));
        if (loop->stopping) {
            return code;
        }
    }
    while (code == 0) {
        code = turn(loop);
        if (loop->stopping) {
            break;
        }
    }
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
        fl_loop_give_back(loop);
        return -1;
    }
    PyObject *old_hooks = NULL;
    Py_INCREF(loop);
    int code = run_begin(loop, &old_hooks);
    if (code == 0) {
        code = run_turns(loop);
    }
    run_end(loop, old_hooks);
    fl_loop_give_back(loop);
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
    if (fl_loop_is_here(loop)) {
        code = turn(loop);
    }
    else if (!fl_loop_claim(loop)) {
        (void)refuse_to_run();
    }
    else {
        code = fl_loop_check_open(loop) < 0 ? -1 : turn(loop);
        fl_loop_give_back(loop);
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
fl_loop_end_lent_run(FlLoop *loop)
{
    loop->lent = false;
    turns_end(loop);
    fl_loop_give_back(loop);
}

static int
begin_lent_run(FlLoop *loop)
{
    if (!fl_loop_claim(loop)) {
        return refuse_to_run();
    }
    int code = check_usable(loop);
    if (code == 0) {
        loop->lent = true;
        code = turns_begin(loop) < 0 ? -1 : fl_signals_begin(loop);
        if (code == 0) {
            return 0;
        }
        turns_end(loop);
        loop->lent = false;
    }
    fl_loop_give_back(loop);
    return -1;
}

/* asyncio's attribute, which _run_forever_setup() and its kin set: this
   thread's number begins a run, None ends it. */
int
fl_loop_thread_id_set(FlLoop *loop, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == Py_None) {
        if (loop->lent) {
            fl_loop_end_lent_run(loop);
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
    return fl_loop_is_here(loop) ? 0 : begin_lent_run(loop);
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
        future =
            PyObject_CallMethodOneArg((PyObject *)loop,
                                      state->names.create_task, awaitable);
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
    if (exc != NULL) {
        if (removed == NULL) {
            PyErr_WriteUnraisable(future);
        }
        Py_XDECREF(removed);
        PyErr_SetRaisedException(exc);
        return NULL;
    }
    if (call_and_drop(removed) < 0) {
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
