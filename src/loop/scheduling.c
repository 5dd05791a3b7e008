/* call_soon and the like: everything that queues a callback. */
#include "loop/scheduling.h"

#include "base/clock.h"
#include "core/debug.h"
#include "core/dispatch.h"
#include "core/flush.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/overrides.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "core/timers.h"
#include "py/args.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/state.h"

#include <math.h>

#define PARAMETERS(...)                            \
    {                                              \
        __VA_ARGS__, .more = true, .context = true \
    }

/* The parameters in front of *args, for fl_args_parse. */
static const FlParameters soon_parameters =
    PARAMETERS("call_soon", {"callback"});
static const FlParameters threadsafe_parameters =
    PARAMETERS("call_soon_threadsafe", {"callback"});
static const FlParameters later_parameters =
    PARAMETERS("call_later", {"delay", "callback"});
static const FlParameters at_parameters =
    PARAMETERS("call_at", {"when", "callback"});

/* --- call_soon ----------------------------------------------------------- */

/* Fill a reserved entry.  args[0] is the callback.  Steals context. */
static inline void
fill_entry(FlReady *entry, PyObject *const *args, Py_ssize_t nargs,
           PyObject *context)
{
    entry->kind = FL_READY_CALL;
    entry->of.handle = NULL;
    entry->nargs = (uint32_t)(nargs - 1);
    entry->context = context;
    entry->callback = Py_NewRef(args[0]);
    for (Py_ssize_t at = 1; at < nargs; at++) {
        entry->args[at - 1] = Py_NewRef(args[at]);
    }
}

/* Queue a call of is_from_asyncio without a handle.  The switch raw_steps
   turns it off. */
static inline PyObject *
push_bare(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
          PyObject *context)
{
    FlReady *entry = fl_ready_reserve(&loop->ready);
    if (entry == NULL) {
        return NULL;
    }
    fill_entry(entry, args, nargs, Py_NewRef(context));
    fl_ready_commit(&loop->ready);
    Py_RETURN_NONE;
}

/* Whether this is a call of asyncio's C code, for a task's step or a future's
   callbacks: it drops the handle.  Its tuple of keywords is one object
   (c_kwnames, found by state.c).  Other code can only pass a call of it on,
   and then the result goes to asyncio's C code all the same.  The keyword is
   ("context",), and its value a context; but None where a program has called
   add_done_callback(..., context=None) of a future.  A functools.partial
   around call_soon passes the tuple on, with more arguments. */
static inline bool
is_from_asyncio(const FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    return kwnames != NULL && FL_LIKELY(kwnames == loop->state->c_kwnames)
           && FL_LIKELY(nargs >= 1 && nargs <= 1 + FL_READY_ARGS)
           && FL_LIKELY(args[nargs] != Py_None);
}

/* Queue a filled handle.  Steals context. */
static PyObject *
push_filled(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
            PyObject *context)
{
    FlHandle *handle = fl_handle_new_filled(loop, args, nargs, context);
    Py_DECREF(context);
    if (handle != NULL && fl_loop_queue_handle(loop, handle) < 0) {
        Py_CLEAR(handle);
    }
    return (PyObject *)handle;
}

/* Queue a call whose entry owns everything; its handle only points there.
   Steals context. */
static inline PyObject *
push_call(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
          PyObject *context)
{
    PyObject *tuple = NULL;
    if (FL_UNLIKELY(nargs - 1 > FL_READY_ARGS)) {
        tuple = fl_args_tuple(args + 1, nargs - 1);
        if (tuple == NULL) {
            Py_DECREF(context);
            return NULL;
        }
    }
    /* First: it may run the GC, and a finalizer may call call_soon, which
       would fill the reserved slot. */
    FlHandle *handle = fl_handle_new(loop);
    FlReady *entry = handle == NULL ? NULL : fl_ready_reserve(&loop->ready);
    if (FL_UNLIKELY(entry == NULL)) {
        Py_XDECREF(handle);
        Py_XDECREF(tuple);
        Py_DECREF(context);
        return NULL;
    }
    if (FL_UNLIKELY(tuple != NULL)) {
        /* More arguments than an entry has room for: args[0] is a tuple of
           them, and nargs says so. */
        fill_entry(entry, args, 1, context);
        entry->nargs = (uint32_t)(nargs - 1);
        entry->args[0] = tuple;
    }
    else {
        fill_entry(entry, args, nargs, context);
    }
    /* Both pointers are borrowed: whichever of the two ends first clears the
       other's. */
    entry->of.handle = handle;
    handle->entry = entry;
    fl_ready_commit(&loop->ready);
    return (PyObject *)handle;
}

/* Queue a call with a handle.  The context may be NULL. */
static inline PyObject *
push(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    PyObject *owned = fl_context_resolve(context);
    if (FL_UNLIKELY(owned == NULL)) {
        return NULL;
    }
    return !FL_HAVE_GIL || FL_UNLIKELY(loop->debug)
               ? push_filled(loop, args, nargs, owned)
               : push_call(loop, args, nargs, owned);
}

const char fl_loop_call_soon_doc[] =
    "call_soon($self, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) in the loop's next iteration.\n\n"
    "context is the contextvars.Context to run in; a copy of the current\n"
    "one by default.  Returns an asyncio.Handle.  Raises RuntimeError when\n"
    "the loop is closed.  Implements asyncio's loop.call_soon(); the calls\n"
    "of asyncio's C code, which ignores the result, get None.";

PyObject *
fl_loop_call_soon(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    PyObject *context = NULL;
    bool bare = is_from_asyncio(loop, args, nargs, kwnames);
    FlArgs parsed;
    if (FL_UNLIKELY(loop->closed)) { /* tested inline, as this is a hot path */
        (void)fl_loop_check_open(loop);
        return NULL;
    }
    if (bare) {
        context = args[nargs]; /* the keyword's value */
    }
    else if (FL_UNLIKELY(nargs < 1) || kwnames != NULL) {
        if (fl_args_parse(&soon_parameters, args, nargs, kwnames, &parsed) < 0)
        {
            return NULL;
        }
        args = parsed.args;
        nargs = parsed.nargs;
        context = parsed.context;
    }
    if (FL_UNLIKELY(loop->debug)
        && fl_debug_check(loop, args[0], "call_soon", true) < 0)
    {
        return NULL;
    }
    int by_thread_queue = fl_loop_choose_queue(loop);
    if (by_thread_queue < 0) {
        return NULL;
    }
    if (bare && !by_thread_queue && !loop->debug
        && !(loop->off & FL_OFF_RAW_STEPS))
    {
        return push_bare(loop, args, nargs, context);
    }
    return push(loop, args, nargs, context);
}

const char fl_loop_call_soon_threadsafe_doc[] =
    "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) in the loop's next iteration, from any thread.\n\n"
    "Wakes the loop if it sleeps.  Returns an asyncio.Handle.  Raises\n"
    "RuntimeError when the loop is closed.  Implements asyncio's\n"
    "loop.call_soon_threadsafe().";

PyObject *
fl_loop_call_soon_threadsafe(FlLoop *loop, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *kwnames)
{
    FlArgs call;
    if (fl_loop_check_open(loop) < 0
        || fl_args_parse(&threadsafe_parameters, args, nargs, kwnames, &call)
               < 0)
    {
        return NULL;
    }
    if (loop->debug
        && fl_debug_check(loop, call.args[0], "call_soon_threadsafe", false)
               < 0)
    {
        return NULL;
    }
    PyObject *handle = push(loop, call.args, call.nargs, call.context);
    if (handle != NULL && FL_HAVE_GIL) {
        /* The entry is in the ready queue already; this wakes the loop. */
        fl_loop_flush_corked_here(loop->state);
        fl_fd_table_wake_anythread(loop->table);
    }
    return handle;
}

/* --- timers -------------------------------------------------------------- */

/* Create and queue a timer.  call->args[0] is the time, the callback and its
   arguments follow.  A new reference, or NULL with an exception set. */
static PyObject *
schedule(FlLoop *loop, double when_s, const FlArgs *call)
{
    PyObject *const *args = call->args + 1; /* callback, *args */
    Py_ssize_t nargs = call->nargs - 1;
    PyObject *owned = fl_context_resolve(call->context);
    PyObject *tuple = NULL;
    FlTimerHandle *timer = NULL;
    if (owned != NULL) {
        tuple = nargs == 1 ? Py_NewRef(loop->state->empty_tuple)
                           : fl_args_tuple(args + 1, nargs - 1);
    }
    if (tuple != NULL) {
        timer = fl_timer_new(loop, args[0], tuple, owned, when_s);
    }
    Py_XDECREF(tuple);
    Py_XDECREF(owned);
    if (timer == NULL) {
        return NULL;
    }
    if (FL_UNLIKELY(fl_timer_enqueue_anythread(timer) < 0)) {
        Py_CLEAR(timer);
    }
    return (PyObject *)timer;
}

/* A number of seconds, of any type with a float's value.  0, or -1 with
   TypeError, OverflowError or, for NaN, ValueError. */
static inline int
parse_seconds(PyObject *value, double *seconds)
{
    if (FL_LIKELY(PyFloat_CheckExact(value))) {
        *seconds = PyFloat_AS_DOUBLE(value);
    }
    else {
        *seconds = PyFloat_AsDouble(value);
        if (*seconds == -1.0 && PyErr_Occurred()) {
            return -1;
        }
    }
    if (FL_UNLIKELY(isnan(*seconds))) {
        PyErr_SetString(PyExc_ValueError,
                        "a timer's time must not be NaN (not a number)");
        return -1;
    }
    return 0;
}

/* Check that the loop is open and, in debug mode, thread and callback.  0 or
   -1. */
static int
check_timer(FlLoop *loop, const FlArgs *call)
{
    if (fl_loop_check_open(loop) < 0) {
        return -1;
    }
    /* asyncio's call_later() calls call_at(), so its messages name that. */
    return loop->debug ? fl_debug_check(loop, call->args[1], "call_at", true)
                       : 0;
}

/* call_later by fastloop.Loop._call_later(), which calls time() and call_at()
   as asyncio does: the application has replaced one of them. */
static PyObject *
call_later_in_python(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    PyObject *method =
        PyObject_GetAttr((PyObject *)loop, loop->state->names._call_later);
    PyObject *timer = method == NULL
                          ? NULL
                          : PyObject_Vectorcall(method, args, nargs, kwnames);
    Py_XDECREF(method);
    return timer;
}

const char fl_loop_call_later_doc[] =
    "call_later($self, delay, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) after delay seconds; never earlier.\n\n"
    "Returns an asyncio.TimerHandle.  Raises TypeError when delay is not a\n"
    "number, ValueError when it is NaN, OverflowError when it is beyond a\n"
    "float, RuntimeError when the loop is closed.  Implements asyncio's\n"
    "loop.call_later().";

PyObject *
fl_loop_call_later(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames)
{
    double delay_s;
    FlArgs call = {.args = args, .nargs = nargs};
    if ((FL_UNLIKELY(nargs < 2) || kwnames != NULL)
        && fl_args_parse(&later_parameters, args, nargs, kwnames, &call) < 0)
    {
        return NULL;
    }
    if (fl_overrides(loop, FL_OVERRIDES_TIME)
        || fl_overrides(loop, FL_OVERRIDES_CALL_AT))
    {
        return call_later_in_python(loop, args, nargs, kwnames);
    }
    if (parse_seconds(call.args[0], &delay_s) < 0
        || check_timer(loop, &call) < 0) {
        return NULL;
    }
    double now_s = fl_clock_s();
    if (!fl_loop_needs_lock(loop)) {
        /* So that call_later(0) may run without a poll: may_skip_poll compares
           deadlines with it. */
        loop->now_s = now_s;
    }
    return schedule(loop, now_s + delay_s, &call);
}

const char fl_loop_call_at_doc[] =
    "call_at($self, when, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) when loop.time() reaches `when` seconds.\n\n"
    "Returns an asyncio.TimerHandle.  Raises TypeError when `when` is not a\n"
    "number, ValueError when it is NaN, OverflowError when it is beyond a\n"
    "float, RuntimeError when the loop is closed.  Implements asyncio's\n"
    "loop.call_at().";

PyObject *
fl_loop_call_at(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    FlArgs call = {.args = args, .nargs = nargs};
    if ((FL_UNLIKELY(nargs < 2) || kwnames != NULL)
        && fl_args_parse(&at_parameters, args, nargs, kwnames, &call) < 0)
    {
        return NULL;
    }
    double when_s;
    return check_timer(loop, &call) < 0
                   || parse_seconds(call.args[0], &when_s) < 0
               ? NULL
               : schedule(loop, when_s, &call);
}

const char fl_loop_time_doc[] =
    "time($self, /)\n--\n\n"
    "Return the loop's time in seconds: time.monotonic().\n\n"
    "Implements asyncio's loop.time().";

PyObject *
fl_loop_time(FlLoop *Py_UNUSED(loop), PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble(fl_clock_s());
}
