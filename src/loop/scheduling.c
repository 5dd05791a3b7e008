/* call_soon and its kin: everything that puts a callback in a queue.

   1. A C task's own steps need no handle: asyncio drops the one call_soon
      returns, and no Python code can reach those callables except through a
      handle or a call_soon of its own (overrides.h).  They are known by what
      fastloop._task_probe saw (state.c).
   2. A handle is made before its entry is reserved: making one may run the
      collector, and that may schedule.
   3. Without a GIL, and in debug mode, a handle is filled from the start, so
      that another thread never has to look into the queue. */
#include "loop/scheduling.h"

#include "base/clock.h"
#include "base/timer_queue.h"
#include "core/debug.h"
#include "core/dispatch.h"
#include "core/handle.h"
#include "core/thread_queue.h"
#include "core/loop.h"
#include "core/overrides.h"
#include "core/ready_queue.h"
#include "core/shared_context.h"
#include "core/timers.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"

#include <math.h>

#define PARAMETERS(...)                            \
    {                                              \
        __VA_ARGS__, .more = true, .context = true \
    }

static const FlParameters soon_parameters =
    PARAMETERS("call_soon", {"callback"});
static const FlParameters threadsafe_parameters =
    PARAMETERS("call_soon_threadsafe", {"callback"});
static const FlParameters later_parameters =
    PARAMETERS("call_later", {"delay", "callback"});
static const FlParameters at_parameters =
    PARAMETERS("call_at", {"when", "callback"});

/* Whether a callback is to run in what is no contextvars.Context, which only
   handles can do. */
static inline bool
is_foreign(PyObject *context)
{
    return context != NULL && !PyContext_CheckExact(context);
}

static inline PyObject *
own_context(PyObject *context)
{
    return context == NULL ? PyContext_CopyCurrent() : Py_NewRef(context);
}

/* --- call_soon ----------------------------------------------------------- */

static inline bool
is_task_step(const FlState *state, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs == 1) {
        return Py_TYPE(args[0]) == state->step_type;
    }
    return nargs == 2 && PyCFunction_CheckExact(args[0])
           && PyCFunction_GET_FUNCTION(args[0]) == state->wakeup_function;
}

static inline void
fill_entry(FlReady *entry, FlReadyKind kind, PyObject *const *args,
           Py_ssize_t nargs, PyObject *context)
{
    entry->kind = kind;
    entry->nargs = (uint32_t)(nargs - 1);
    entry->context = context;
    entry->callback = Py_NewRef(args[0]);
    for (Py_ssize_t at = 1; at < nargs; at++) {
        entry->args[at - 1] = Py_NewRef(args[at]);
    }
}

static inline PyObject *
push_step(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
          PyObject *context)
{
    FlReady *entry = fl_ready_reserve(&loop->ready);
    if (entry == NULL) {
        return NULL;
    }
    fill_entry(entry, FL_READY_STEP, args, nargs, Py_NewRef(context));
    fl_ready_commit(&loop->ready);
    Py_RETURN_NONE;
}

/* A C task gives the same tuple of names each time, whose one string is not
   interned: the loop keeps it, to know it by its address. */
static inline bool
is_as_from_a_task(const FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    return kwnames != NULL && FL_LIKELY(kwnames == loop->step_kwnames)
           && FL_LIKELY(nargs >= 1)
           && FL_LIKELY(PyContext_CheckExact(args[nargs]));
}

/* Steals context. */
static PyObject *
push_filled(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
            PyObject *context, bool anythread)
{
    PyObject *tuple = fl_args_tuple(args + 1, nargs - 1);
    FlHandle *handle =
        tuple == NULL ? NULL
                      : fl_handle_new_filled(loop, args[0], tuple, context);
    Py_XDECREF(tuple);
    Py_DECREF(context);
    if (handle == NULL) {
        return NULL;
    }
    handle->threadsafe = anythread;
    int code = loop->debug ? fl_debug_note_source(loop, handle) : 0;
    if (code == 0 && anythread) {
        FlReady entry = {.kind = FL_READY_HANDLE,
                         .callback = Py_NewRef((PyObject *)handle)};
        code = fl_thread_queue_push_anythread(loop, &entry);
    }
    else if (code == 0) {
        code = fl_loop_call_handle(loop, (PyObject *)handle);
    }
    if (code < 0) {
        Py_CLEAR(handle);
    }
    return (PyObject *)handle;
}

/* Steals context, which is a copy of the current one or the caller's. */
static inline PyObject *
push_call(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
          PyObject *context, bool is_copy)
{
    PyObject *tuple = NULL;
    FlReadyKind kind = FL_READY_CALL;
    if (FL_UNLIKELY(fl_ready_count(&loop->ready) >= FL_SHARE_FROM) && is_copy)
    {
        fl_shared_context_take(loop, &context);
        kind = FL_READY_SHARED;
    }
    if (FL_UNLIKELY(nargs - 1 > FL_READY_ARGS)) {
        tuple = fl_args_tuple(args + 1, nargs - 1);
        if (tuple == NULL) {
            Py_DECREF(context);
            return NULL;
        }
    }
    FlHandle *handle = fl_handle_new(loop);
    FlReady *entry = handle == NULL ? NULL : fl_ready_reserve(&loop->ready);
    if (FL_UNLIKELY(entry == NULL)) {
        Py_XDECREF(handle);
        Py_XDECREF(tuple);
        Py_DECREF(context);
        return NULL;
    }
    if (FL_UNLIKELY(tuple != NULL)) {
        fill_entry(entry, kind, args, 1, context);
        entry->nargs = (uint32_t)(nargs - 1);
        entry->args[0] = tuple;
    }
    else {
        fill_entry(entry, kind, args, nargs, context);
    }
    entry->of.handle = handle;
    handle->entry = entry;
    fl_ready_commit(&loop->ready);
    return (PyObject *)handle;
}

const char fl_loop_call_soon_doc[] =
    "call_soon($self, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) in the loop's next iteration.\n\n"
    "context is the contextvars.Context to run in; a copy of the current\n"
    "one by default.  Returns an asyncio.Handle.  Raises RuntimeError when\n"
    "the loop is closed.  Implements asyncio's loop.call_soon(); a C task's\n"
    "own steps get None, which asyncio drops unseen.";

PyObject *
fl_loop_call_soon(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    PyObject *context = NULL;
    bool filled = !FL_HAVE_GIL || FL_UNLIKELY(loop->debug);
    FlArgs parsed;
    if (FL_UNLIKELY(loop->closed)) {
        (void)fl_loop_check_open(loop);
        return NULL;
    }
    if (is_as_from_a_task(loop, args, nargs, kwnames)) {
        context = args[nargs];
    }
    else if (FL_UNLIKELY(nargs < 1) || kwnames != NULL) {
        if (fl_args_parse(&soon_parameters, args, nargs, kwnames, &parsed) < 0)
        {
            return NULL;
        }
        args = parsed.args;
        nargs = parsed.nargs;
        context = parsed.context;
        filled |= is_foreign(context);
    }
    if (FL_UNLIKELY(loop->debug)
        && fl_debug_check(loop, args[0], "call_soon", true) < 0)
    {
        return NULL;
    }
    bool elsewhere = fl_loop_on_other_thread(loop);
    if (!elsewhere && fl_thread_queue_keep_order(loop) < 0) {
        return NULL;
    }
    if (context != NULL && !elsewhere && !loop->debug && !is_foreign(context)
        && !(loop->off & FL_OFF_RAW_STEPS)
        && is_task_step(loop->state, args, nargs)
        && !fl_overrides_call_soon(loop))
    {
        if (FL_UNLIKELY(kwnames != loop->step_kwnames)) {
            Py_XSETREF(loop->step_kwnames, Py_NewRef(kwnames));
        }
        return push_step(loop, args, nargs, context);
    }
    PyObject *owned = own_context(context);
    if (FL_UNLIKELY(owned == NULL)) {
        return NULL;
    }
    if (filled) {
        return push_filled(loop, args, nargs, owned, elsewhere);
    }
    return push_call(loop, args, nargs, owned, context == NULL);
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
    PyObject *owned = own_context(call.context);
    if (owned == NULL) {
        return NULL;
    }
    if (!FL_HAVE_GIL || FL_UNLIKELY(loop->debug) || is_foreign(call.context)) {
        return push_filled(loop, call.args, call.nargs, owned, true);
    }
    PyObject *handle =
        push_call(loop, call.args, call.nargs, owned, call.context == NULL);
    if (handle != NULL) {
        ((FlHandle *)handle)->threadsafe = true;
        fl_thread_queue_notify_anythread(loop);
    }
    return handle;
}

const char fl_loop_add_callback_doc[] =
    "_add_callback($self, handle)\n--\n\n"
    "Queue an asyncio.Handle that was not cancelled; asyncio's own private\n"
    "name for it.";

PyObject *
fl_loop_add_callback(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    PyObject *handle =
        fl_parse_one("_add_callback", "handle", args, nargs, kwnames);
    int cancelled = handle == NULL || fl_loop_check_open(loop) < 0
                        ? -1
                        : fl_call_truth(handle, loop->state->names.cancelled);
    if (cancelled < 0
        || (cancelled == 0 && fl_loop_call_handle(loop, handle) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- timers -------------------------------------------------------------- */

static PyObject *
schedule(FlLoop *loop, FlWhen when, int64_t deadline_ns, const FlArgs *call)
{
    PyObject *const *args = call->args + 1; /* the callback and its own */
    Py_ssize_t nargs = call->nargs - 1;
    PyObject *owned = own_context(call->context);
    PyObject *tuple = NULL;
    FlTimerHandle *timer = NULL;
    bool shares = FL_HAVE_GIL && owned != NULL && call->context == NULL
                  && fl_timer_queue_count(&loop->timers) >= FL_SHARE_FROM;
    if (shares) {
        fl_shared_context_take(loop, &owned);
    }
    if (owned != NULL) {
        tuple = nargs == 1 ? Py_NewRef(loop->state->empty_tuple)
                           : fl_args_tuple(args + 1, nargs - 1);
    }
    if (tuple != NULL) {
        timer = fl_timer_new(loop, args[0], tuple, owned, when);
    }
    if (timer != NULL && shares) {
        fl_timer_share_context(timer);
    }
    Py_XDECREF(tuple);
    Py_XDECREF(owned);
    if (timer == NULL) {
        return NULL;
    }
    if (FL_UNLIKELY(loop->debug)
        && fl_debug_note_source(loop, (FlHandle *)timer) < 0)
    {
        Py_DECREF(timer);
        return NULL;
    }
    int code = FL_UNLIKELY(fl_loop_on_other_thread(loop))
                   ? fl_timer_enqueue_anythread(timer)
                   : fl_timer_enqueue(loop, timer, deadline_ns);
    if (FL_UNLIKELY(code < 0)) {
        Py_CLEAR(timer);
    }
    return (PyObject *)timer;
}

/* Say in the TypeError of a sum which argument is no number; its own text
   follows, and the error is the cause. */
static void
name_argument(const char *name, PyObject *value)
{
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
        return;
    }
    PyObject *cause = PyErr_GetRaisedException();
    PyErr_Format(PyExc_TypeError,
                 "%s must be a number of seconds, not %.100s: %S", name,
                 Py_TYPE(value)->tp_name, cause);
    PyObject *said = PyErr_GetRaisedException();
    PyException_SetCause(said, cause);
    PyErr_SetRaisedException(said);
}

/* Whether the loop takes a timer.  0 or -1. */
static int
check_timer(FlLoop *loop, const FlArgs *call)
{
    if (fl_loop_check_open(loop) < 0) {
        return -1;
    }
    /* asyncio's call_later() calls call_at(), whose name its texts have. */
    return loop->debug ? fl_debug_check(loop, call->args[1], "call_at", true)
                       : 0;
}

static PyObject *
schedule_at(FlLoop *loop, PyObject *value, const FlArgs *call)
{
    FlWhen when;
    if (fl_timer_take_when(value, &when) < 0) {
        name_argument("when", value);
        return NULL;
    }
    if (check_timer(loop, call) < 0) {
        return NULL;
    }
    return schedule(loop, when, fl_timer_deadline_of(when.seconds), call);
}

/* The application's call_at(), with what call_later() was given. */
static PyObject *
call_overridden(FlLoop *loop, PyObject *when, const FlArgs *call)
{
    FlState *state = loop->state;
    PyObject *names = PyTuple_Pack(1, state->names.context);
    PyObject **args = PyMem_New(PyObject *, (size_t)call->nargs + 2);
    PyObject *timer = NULL;
    if (args == NULL) {
        PyErr_NoMemory();
    }
    else if (names != NULL) {
        args[0] = (PyObject *)loop;
        args[1] = when;
        for (Py_ssize_t at = 1; at < call->nargs; at++) {
            args[1 + at] = call->args[at];
        }
        args[1 + call->nargs] =
            call->context == NULL ? Py_None : call->context;
        timer = PyObject_VectorcallMethod(state->names.call_at, args,
                                          (size_t)call->nargs + 1, names);
    }
    PyMem_Free(args);
    Py_XDECREF(names);
    return timer;
}

/* asyncio's call_later, for a delay of any kind or methods of the
   application's: self.call_at(self.time() + delay). */
static PyObject *
call_later_at(FlLoop *loop, const FlArgs *call)
{
    PyObject *now =
        PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->names.time);
    PyObject *when = now == NULL ? NULL : PyNumber_Add(now, call->args[0]);
    if (now != NULL && when == NULL) {
        name_argument("delay", call->args[0]);
    }
    PyObject *timer = NULL;
    if (when != NULL) {
        timer = fl_overrides_call_at(loop) ? call_overridden(loop, when, call)
                                           : schedule_at(loop, when, call);
    }
    Py_XDECREF(now);
    Py_XDECREF(when);
    return timer;
}

/* Whether a delay is one that may be reckoned with in C. */
static bool
is_plain_delay(PyObject *object, double *delay)
{
    if (FL_LIKELY(PyFloat_CheckExact(object))) {
        *delay = PyFloat_AS_DOUBLE(object);
        return !isnan(*delay);
    }
    if (!PyLong_CheckExact(object)) {
        return false;
    }
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    *delay = (double)value;
    return overflow == 0;
}

const char fl_loop_call_later_doc[] =
    "call_later($self, delay, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) after delay seconds; never earlier.\n\n"
    "Returns an asyncio.TimerHandle.  Raises TypeError when delay is None or\n"
    "not a number, RuntimeError when the loop is closed.  Implements\n"
    "asyncio's loop.call_later().";

PyObject *
fl_loop_call_later(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames)
{
    double delay = 0;
    FlArgs call = {.args = args, .nargs = nargs};
    if ((FL_UNLIKELY(nargs < 2) || kwnames != NULL)
        && fl_args_parse(&later_parameters, args, nargs, kwnames, &call) < 0)
    {
        return NULL;
    }
    if (FL_UNLIKELY(call.args[0] == Py_None)) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    if (!is_plain_delay(call.args[0], &delay) || fl_overrides_time(loop)
        || fl_overrides_call_at(loop))
    {
        return call_later_at(loop, &call);
    }
    if (check_timer(loop, &call) < 0) {
        return NULL;
    }
    FlWhen when = {0};
    if (delay == 0 && fl_loop_is_running(loop)
        && !fl_loop_on_other_thread(loop)) {
        int64_t now_ns = fl_timer_deadline_now(loop);
        when.seconds = (double)now_ns / 1e9;
        return schedule(loop, when, now_ns, &call);
    }
    when.seconds = (double)fl_clock_ns() / 1e9 + delay;
    return schedule(loop, when, fl_timer_deadline_of(when.seconds), &call);
}

const char fl_loop_call_at_doc[] =
    "call_at($self, when, callback, *args, context=None)\n--\n\n"
    "Call callback(*args) when loop.time() reaches `when` seconds.\n\n"
    "Returns an asyncio.TimerHandle.  Raises TypeError when `when` is None\n"
    "or not a number, RuntimeError when the loop is closed.  Implements\n"
    "asyncio's loop.call_at().";

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
    if (FL_UNLIKELY(call.args[0] == Py_None)) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    return schedule_at(loop, call.args[0], &call);
}

const char fl_loop_time_doc[] =
    "time($self, /)\n--\n\n"
    "Return the loop's time in seconds: time.monotonic().\n\n"
    "Implements asyncio's loop.time().";

PyObject *
fl_loop_time(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    int64_t now_ns = fl_clock_ns();
    if (FL_HAVE_GIL || fl_loop_on_own_thread(loop)) {
        /* A timer without a delay is due after one for the time told here. */
        loop->now_ns = now_ns;
        loop->now_fresh = false;
    }
    return PyFloat_FromDouble((double)now_ns / 1e9);
}
