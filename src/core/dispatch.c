/* Running the entries of the ready queue, and queueing the loop's own
   operations.

   A call whose handle somebody has kept runs as that handle.  In debug mode
   every call runs as a handle.  Where the application replaced
   asyncio.Handle._run, every call does too, and every handle runs through that
   function.  Three kinds of entry have no handle: the loop's own operations,
   the events of a transport, and the tries of a waiting sock_* call. */
#include "core/dispatch.h"

#include "base/clock.h"
#include "core/cork.h"
#include "core/flush.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "core/report.h"
#include "core/thread_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/errors.h"
#include "py/field.h"

/* After so many entries the GIL is offered, if that is due: an event of a
   native protocol is C alone, and may take 100 us or more.  Not after the last
   ones of a batch: a poll follows. */
#define GIL_ENTRIES 16

/* --- handles ------------------------------------------------------------- */

static PyObject *
call_in_context(PyObject *callback, PyObject *args, PyObject *context)
{
    if (PyContext_Enter(context) < 0) {
        return NULL;
    }
    PyObject *result = fl_call_args(callback, args);
    fl_context_leave(context, result == NULL);
    return result;
}

/* Set loop->current_handle, which other threads may read, and its callback.
   What they replace is released last: a destructor may run Python. */
static void
set_current(FlLoop *loop, PyObject *handle, PyObject *callback)
{
    PyObject *before = loop->timing.callback;
    loop->timing.callback = Py_XNewRef(callback);
    fl_field_set(loop, &loop->current_handle, handle);
    Py_XDECREF(before);
}

/* While an entry is timed, keep the handle and its callback, for the report
   that the entry was slow.  Both, because a callback that cancels its own
   handle removes itself from it.  Not those that the callback runs itself. */
static inline void
note_current(FlLoop *loop, FlHandle *self, PyObject *callback)
{
    if (FL_UNLIKELY(loop->timing.since_ns != 0)
        && loop->current_handle == NULL) {
        set_current(loop, (PyObject *)self, callback);
    }
}

bool
fl_loop_must_put_off(const FlLoop *loop, PyObject *context)
{
    if (!fl_loop_is_nested(loop) || context == NULL) {
        return false;
    }
    PyObject *exc = PyErr_GetRaisedException();
    bool entered = PyContext_Enter(context) < 0;
    if (!entered) {
        fl_context_leave(context, false);
    }
    PyErr_Clear();
    fl_error_restore(exc);
    return entered;
}

/* A handle's call has failed: report that.  If its context cannot be entered
   in a nested run, the callback has not run: keep the handle for the end of
   that run.  handle: NULL if no memory was left.  0, or -1 with an exception
   that ends the run. */
static int
end_failed(FlLoop *loop, FlHandle *handle, bool must_put_off)
{
    if (FL_UNLIKELY(must_put_off) && handle != NULL) {
        PyErr_Clear();
        return PyList_Append(loop->put_off, (PyObject *)handle);
    }
    return fl_loop_report_callback(loop, (PyObject *)handle);
}

/* Run a handle through the function that replaced asyncio.Handle._run.  What
   that raises ends the run, as in asyncio: a _run() reports its callback's
   exceptions itself. */
static int
run_patched(FlLoop *loop, FlHandle *self)
{
    if (fl_handle_is_cancelled(self)) {
        return 0;
    }
    /* Own it for the call: the loop's reference may change meanwhile. */
    PyObject *run = Py_NewRef(loop->patched_run);
    note_current(loop, self, (PyObject *)self);
    PyObject *result = PyObject_CallOneArg(run, (PyObject *)self);
    Py_DECREF(run);
    return fl_call_done(result);
}

/* The references are taken in the critical section and kept for the call: the
   callback, or another thread, may cancel the handle and clear its slots. */
int
fl_handle_run(FlLoop *loop, FlHandle *self)
{
    if (FL_UNLIKELY(loop->patched_run != NULL)) {
        return run_patched(loop, self);
    }
    PyObject *callback = NULL, *args = NULL, *context = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (!fl_handle_is_cancelled(self) && self->args != NULL
        && self->context != NULL)
    {
        callback = Py_XNewRef(self->callback);
        args = Py_XNewRef(self->args);
        context = Py_XNewRef(self->context);
    }
    Py_END_CRITICAL_SECTION();
    if (callback == NULL) {
        return 0; /* cancelled */
    }
    note_current(loop, self, callback);
    if (FL_UNLIKELY(!PyTuple_CheckExact(args))) {
        Py_SETREF(args, PySequence_Tuple(args)); /* set by the application */
    }
    int code = args == NULL
                   ? -1
                   : fl_call_done(call_in_context(callback, args, context));
    if (FL_UNLIKELY(code < 0)) {
        code = end_failed(loop, self, fl_loop_must_put_off(loop, context));
    }
    Py_DECREF(callback);
    Py_XDECREF(args);
    Py_DECREF(context);
    return code;
}

/* A handle that takes over the call of an entry, to run it or to name it in a
   report: its own if the caller still has it, or a new one.  A new reference:
   of.handle is borrowed, and the callback may drop the last owner.  The entry
   is emptied also on failure: NULL with MemoryError. */
static FlHandle *
handle_from_entry(FlLoop *loop, FlReady *entry)
{
    FlHandle *handle = fl_handle_of_entry(entry);
    handle =
        handle == NULL ? fl_handle_new(loop) : (FlHandle *)Py_NewRef(handle);
    if (handle == NULL) {
        fl_ready_clear(entry);
    }
    else if (fl_handle_fill_from(handle, entry) < 0) {
        Py_CLEAR(handle);
    }
    return handle;
}

/* Run a call by a handle. */
static int
run_as_handle(FlLoop *loop, FlReady *entry)
{
    FlHandle *handle = handle_from_entry(loop, entry);
    if (handle == NULL) {
        return fl_loop_report_callback(loop, NULL); /* MemoryError */
    }
    int code = fl_handle_run(loop, handle);
    Py_DECREF(handle);
    return code;
}

/* --- entries ------------------------------------------------------------- */

/* Report the exception that an entry's callback raised.  asyncio's reports
   name a handle, so make one now.  Without memory the report names none. */
static int
call_failed(FlLoop *loop, FlReady *entry)
{
    bool must_put_off = fl_loop_must_put_off(loop, entry->context);
    /* Set aside: making the handle must not run with an exception set. */
    PyObject *exc = PyErr_GetRaisedException();
    FlHandle *handle = handle_from_entry(loop, entry);
    if (handle == NULL) {
        PyErr_WriteUnraisable(NULL);
    }
    PyErr_SetRaisedException(exc);
    int code = end_failed(loop, handle, must_put_off);
    Py_XDECREF(handle);
    return code;
}

/* callback(*args) in the entry's context.  One to FL_READY_ARGS arguments are
   passed by vectorcall from the entry's array, without making a tuple. */
static inline int
run_call(FlLoop *loop, FlReady *entry)
{
    PyObject *callback = entry->callback;
    if (FL_UNLIKELY(PyContext_Enter(entry->context) < 0)) {
        return call_failed(loop, entry);
    }
    PyObject *result;
    if (entry->nargs == 0) {
        /* A C task's step has no vectorcall: CPython would look up the empty
           tuple for a call by array. */
        result = fl_call_args(callback, loop->state->empty_tuple);
    }
    else if (FL_LIKELY(entry->nargs <= FL_READY_ARGS)) {
        result =
            PyObject_Vectorcall(callback, entry->args,
                                entry->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                NULL);
    }
    else {
        result = fl_call_args(callback, entry->args[0]);
    }
    fl_context_leave(entry->context, result == NULL);
    if (FL_UNLIKELY(result == NULL)) {
        return call_failed(loop, entry);
    }
    Py_DECREF(result);
    fl_ready_clear(entry);
    return 0;
}

/* Without a GIL every call is queued as a filled handle.  If only its entry
   refers to it, no thread can read or cancel it any more.  Then take the call
   out of it, so that it runs as a bare one.  False: it must run as a
   handle. */
static inline bool
take_from_handle(FlLoop *loop, FlReady *entry)
{
#if FL_HAVE_GIL
    return false;
#else
    FlHandle *self = (FlHandle *)entry->callback;
    bool is_ours = PyUnstable_Object_IsUniquelyReferenced(entry->callback);
    /* Acquires what a thread did before it let go of the handle. */
    (void)__atomic_load_n(&entry->callback->ob_ref_shared, __ATOMIC_ACQUIRE);
    if (!is_ours || !Py_IS_TYPE(entry->callback, loop->state->handle_type)
        || self->cancelled != Py_False || self->callback == NULL
        || self->args == NULL || !PyTuple_CheckExact(self->args)
        || self->context == NULL || !PyContext_CheckExact(self->context)
        || loop->patched_run != NULL || loop->timing.since_ns != 0)
    {
        return false;
    }
    *entry = (FlReady){.kind = FL_READY_CALL,
                       .nargs = FL_READY_ARGS + 1, /* a tuple of them */
                       .callback = self->callback,
                       .context = self->context,
                       .args = {self->args}};
    self->callback = self->context = self->args = NULL;
    Py_DECREF((PyObject *)self);
    return true;
#endif
}

/* Run an operation of the loop itself.  It has no handle, and reports its own
   errors. */
static int
run_op(FlLoop *loop, FlReady *entry)
{
    PyObject *context = entry->context;
    int code = context == NULL ? 0 : PyContext_Enter(context);
    if (code < 0 && fl_loop_is_nested(loop)) {
        /* A callback around the nested run has entered it.  The operation then
           runs in the current context, as a rule the same one. */
        PyErr_Clear();
        context = NULL;
        code = 0;
    }
    if (code < 0) {
        /* RuntimeError: a caller of this run has entered the context. */
        code = fl_loop_report_callback(loop, NULL);
    }
    else {
        code = entry->of.op(loop, entry->callback,
                            entry->nargs ? entry->args[0] : NULL);
        if (context != NULL) {
            fl_context_leave(context, PyErr_Occurred() != NULL);
        }
    }
    fl_ready_clear(entry);
    return code;
}

/* The events of a registration.  They are taken before on_events runs: it may
   close the registration, and events that fire meanwhile get a new entry. */
static int
run_event(FlLoop *loop, FlRegistration *reg)
{
    FlFdTable *table = reg->table;
    fl_fd_table_lock(table);
    int events = reg->fired;
    int (*on_events)(FlLoop *, FlRegistration *, int) = reg->on_events;
    reg->fired = 0;
    reg->entry = NULL;
    fl_fd_table_unlock(table);
    /* Another thread may have closed it while this one iterates: then
       fl_registrations_free_closed frees it. */
    return on_events == NULL ? 0 : on_events(loop, reg, events);
}

/* Run one entry, a copy, and release what it owns.  0, or -1 with an exception
   that ends the run. */
static inline int
run_entry(FlLoop *loop, FlReady *entry)
{
    int code;
    switch (entry->kind) {
    case FL_READY_CALL:
        if (fl_handle_of_entry(entry) != NULL || FL_UNLIKELY(loop->debug)
            || FL_UNLIKELY(loop->patched_run != NULL))
        {
            return run_as_handle(loop, entry);
        }
        return run_call(loop, entry);
    case FL_READY_HANDLE:
        if (take_from_handle(loop, entry)) {
            return run_call(loop, entry);
        }
        code = fl_handle_run(loop, (FlHandle *)entry->callback);
        break;
    case FL_READY_EVENT:
        return run_event(loop, entry->of.reg);
    case FL_READY_OP:
        return run_op(loop, entry);
    default:
        return 0;
    }
    fl_ready_clear(entry);
    return code;
}

/* --- batches ------------------------------------------------------------- */

/* The object that a report of a slow entry names: a new reference.  NULL if
   there is none.  If a handle runs, the report names that instead
   (note_current).  Taken before the entry runs, because running releases what
   it owns. */
static PyObject *
subject_of(FlLoop *loop, const FlReady *entry)
{
    PyObject *subject = NULL;
    if (entry->kind == FL_READY_EVENT) {
        const FlRegistration *reg = entry->of.reg;
        fl_fd_table_lock(reg->table);
        if (reg->on_events != NULL && reg->transport != NULL) {
            subject = Py_NewRef(fl_open_transport_object(reg->transport));
        }
        fl_fd_table_unlock(reg->table);
    }
    else if (entry->kind != FL_READY_HANDLE && entry->kind != FL_READY_NONE) {
        subject = Py_NewRef(entry->callback);
    }
    return subject;
}

/* Clock for timing callbacks: the coarse one, unless debug mode is on or
   slow_callback_duration is under four ticks, where its error of one tick
   would matter. */
static int64_t
timing_ns(const FlLoop *loop)
{
    double slow_ns = loop->timing.slow_s * 1e9;
    return !loop->debug && slow_ns >= 4.0 * FL_COARSE_LAG_NS
               ? fl_clock_coarse_ns()
               : fl_clock_ns();
}

/* Report a timed callback that returned `code`, if it was slow.  Returns
   `code`, or -1. */
static int
end_timed(FlLoop *loop, PyObject *subject, int code)
{
    int64_t took_ns = timing_ns(loop) - loop->timing.since_ns;
    code = fl_loop_report_slow(loop, subject, took_ns, code);
    set_current(loop, NULL, NULL);
    return code;
}

int
fl_loop_time_rest(FlLoop *loop, PyObject *subject, int code)
{
    if (FL_UNLIKELY(loop->timing.since_ns != 0)) {
        code = end_timed(loop, subject, code);
        loop->timing.since_ns = timing_ns(loop);
    }
    return code;
}

/* Run one entry and report it if it was slow. */
static int
run_timed(FlLoop *loop, FlReady *entry)
{
    FlMetrics *metrics = loop->metrics; /* the callback may enable them */
    PyObject *subject = subject_of(loop, entry);
    int64_t began_ns = timing_ns(loop);
    if (metrics != NULL) {
        fl_count_set(&metrics->callback_began_ns, (uint64_t)began_ns);
    }
    loop->timing.since_ns = began_ns;
    int code = run_entry(loop, entry);
    code = end_timed(loop, subject, code);
    loop->timing.since_ns = 0;
    if (metrics != NULL) {
        /* Not before the report, which asks for this callback's number. */
        fl_count_set(&metrics->callback_began_ns, 0);
    }
    Py_XDECREF(subject);
    return code;
}

/* Flush what is corked.  One stream, the usual case, needs no count. */
static inline void
dispatch_flush(FlLoop *loop)
{
    const FlList *streams = &loop->cork.streams;
    if (FL_LIKELY(streams->next == streams->prev)) {
        fl_loop_flush_corked_now(loop);
    }
    else {
        fl_loop_flush_corked_batch(loop);
    }
}

/* Run the entries up to `end`.  0, or -1 with an exception that ends the
   run. */
FL_INLINE int
run_until(FlLoop *loop, uint64_t end)
{
    FlReadyQueue *queue = &loop->ready;
    int code = 0;
    while (queue->head < end && code == 0) {
        FlReady entry = *fl_ready_pop(queue);
        fl_field_count_up(&loop->callback_count);
        bool is_event = entry.kind == FL_READY_EVENT;
        code = FL_UNLIKELY(loop->debug || loop->metrics != NULL)
                   ? run_timed(loop, &entry)
                   : run_entry(loop, &entry);
        if (is_event && !fl_list_is_empty(&loop->cork.streams)) {
            dispatch_flush(loop);
        }
    }
    return code;
}

int
fl_loop_run_batch(FlLoop *loop)
{
    uint64_t end = loop->ready.tail;
    FL_CHECK(fl_loop_is_claimed_here(loop), "no other thread runs it");
    loop->cork.writer = loop->cork.busy_thread;
    if (FL_UNLIKELY(loop->metrics != NULL)) {
        fl_metrics_batch_begins(loop);
    }
    int code = 0;
    while (FL_UNLIKELY(loop->ready.head + GIL_ENTRIES < end) && code == 0) {
        code = run_until(loop, loop->ready.head + GIL_ENTRIES);
        if (code == 0) {
            fl_gil_offer(&loop->gil);
        }
    }
    if (code == 0) {
        code = run_until(loop, end);
    }
    loop->cork.writer = NULL;
    if (!fl_list_is_empty(&loop->cork.streams)) {
        dispatch_flush(loop);
    }
    FL_CHECK((code < 0) == (PyErr_Occurred() != NULL), "-1 has an exception");
    return code;
}

/* --- queueing ------------------------------------------------------------ */

/* Queue an entry; steals what it owns.  0 or -1. */
static int
queue_entry(FlLoop *loop, FlReady *entry)
{
    int code = fl_loop_choose_queue(loop);
    if (code > 0) {
        return fl_thread_queue_push_anythread(loop, entry);
    }
    code = code < 0 ? -1 : fl_ready_push(&loop->ready, entry);
    if (code < 0) {
        fl_ready_clear(entry);
    }
    return code;
}

int
fl_loop_queue_op(FlLoop *loop, FlReadyOp op, PyObject *subject,
                 PyObject *argument, PyObject *context)
{
    if (loop->closed) {
        return 0; /* it would never run */
    }
    PyObject *owned = fl_context_resolve(context);
    if (owned == NULL) {
        return -1;
    }
    /* Complete before a slot is reserved: copying the context may run GC, and
       GC may run Python that schedules. */
    FlReady call = {
        .kind = FL_READY_OP,
        .of.op = op,
        .context = owned,
        .callback = Py_NewRef(subject),
        .nargs = argument != NULL,
        .args = {Py_XNewRef(argument)},
    };
    int code = queue_entry(loop, &call);
    if (FL_HAVE_GIL && code == 0) {
        /* This may be another thread, in which GC ran a transport's destructor
           while the loop sleeps. */
        fl_fd_table_wake_anythread(loop->table);
    }
    return code;
}

int
fl_loop_queue_handle(FlLoop *loop, FlHandle *handle)
{
    FlReady entry = {.kind = FL_READY_HANDLE,
                     .callback = Py_NewRef((PyObject *)handle)};
    return queue_entry(loop, &entry);
}
