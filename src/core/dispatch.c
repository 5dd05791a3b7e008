/* Running the entries of the ready queue, and reporting their exceptions.

   1. An entry is popped and copied before it runs.  Its callback may schedule
      others, which reuse the slot.
   2. A batch is the entries that were queued when it began.  What they queue
      runs in the next iteration, after that one's poll and timers.
      KeyboardInterrupt and SystemExit end a batch early and leave the rest
      queued.
   3. Bytes that a callback corked (loop->cork) are sent when it returns, also
      when it raised.  Later callbacks, and their sends, come after them.
   4. In debug mode every callback runs as a handle and is timed.  Where the
      application replaced asyncio.Handle._run, every callback runs as a handle
      through that function.
   5. An exception of an overridden call_exception_handler leaves the run, as
      in asyncio. */
#include "core/dispatch.h"

#include "base/clock.h"
#include "base/prefetch.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "core/report.h"
#include "core/shared_context.h"
#include "core/thread_queue.h"
#include "core/threadsafe_handle.h"
#include "core/timers.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/context.h"

/* A handle is prefetched this many entries before it runs. */
#define PREFETCH_DISTANCE 4

/* --- handles ------------------------------------------------------------- */

/* context.run(callback, *args), as asyncio makes that call.  The context that
   the application passed, and the args that it set on a handle, may be of any
   class. */
static PyObject *
call_by_run(const FlState *state, PyObject *callback, PyObject *args,
            PyObject *context)
{
    PyObject *run = PyObject_GetAttr(context, state->names.run);
    PyObject *head = run == NULL ? NULL : PyTuple_Pack(1, callback);
    PyObject *rest = head == NULL ? NULL : PySequence_Tuple(args);
    PyObject *all = rest == NULL ? NULL : PySequence_Concat(head, rest);
    PyObject *result = all == NULL ? NULL : PyObject_Call(run, all, NULL);
    Py_XDECREF(all);
    Py_XDECREF(rest);
    Py_XDECREF(head);
    Py_XDECREF(run);
    return result;
}

static PyObject *
call_in_context(const FlState *state, PyObject *callback, PyObject *args,
                PyObject *context)
{
    /* The application may have set anything; see call_by_run. */
    if (FL_UNLIKELY(!PyContext_CheckExact(context)
                    || !PyTuple_CheckExact(args))) {
        return call_by_run(state, callback, args, context);
    }
    if (PyContext_Enter(context) < 0) {
        return NULL;
    }
    /* Without arguments by vectorcall: the common case, and the faster. */
    PyObject *result = PyTuple_GET_SIZE(args) == 0
                           ? PyObject_CallNoArgs(callback)
                           : PyObject_Call(callback, args, NULL);
    fl_context_leave(context, result == NULL);
    return result;
}

/* Run a handle through the function that replaced asyncio.Handle._run.  What
   that raises leaves the run, as in asyncio: a _run() reports its callback's
   exceptions itself. */
static int
run_patched(FlLoop *loop, FlHandle *self)
{
    if (fl_handle_is_cancelled(self)) {
        return 0;
    }
    /* Own it for the call: the loop's reference may change meanwhile. */
    PyObject *run = Py_NewRef(loop->patched_run);
    int64_t began_ns = 0;
    if (loop->debug) {
        Py_XSETREF(loop->current_handle, Py_NewRef((PyObject *)self));
        began_ns = fl_clock_ns();
    }
    PyObject *result = PyObject_CallOneArg(run, (PyObject *)self);
    int code = result == NULL ? -1 : 0;
    if (began_ns != 0) { /* loop->debug may have changed in the callback */
        code = fl_loop_report_slow(loop, (PyObject *)self, began_ns, code);
        Py_CLEAR(loop->current_handle);
    }
    Py_DECREF(run);
    Py_XDECREF(result);
    return code;
}

/* The references are taken in the critical section and kept for the call: the
   callback, or another thread, may cancel the handle and clear its slots. */
static int
run_handle(FlLoop *loop, FlHandle *self)
{
    if (FL_UNLIKELY(loop->patched_run != NULL)) {
        return run_patched(loop, self);
    }
    /* A shared context must not be entered. */
    if (Py_TYPE(self) == loop->state->timer_type
        && fl_timer_unshare_context((FlTimerHandle *)self) < 0)
    {
        return fl_loop_report_callback(loop, (PyObject *)self);
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
    int64_t began_ns = 0;
    if (FL_UNLIKELY(loop->debug)) {
        Py_XSETREF(loop->current_handle, Py_NewRef((PyObject *)self));
        began_ns = fl_clock_ns();
    }
    PyObject *result = call_in_context(loop->state, callback, args, context);
    int code = 0;
    if (FL_UNLIKELY(result == NULL)) {
        code = fl_loop_report_callback(loop, (PyObject *)self);
    }
    Py_XDECREF(result);
    if (FL_UNLIKELY(began_ns != 0)) {
        code = fl_loop_report_slow(loop, (PyObject *)self, began_ns, code);
    }
    if (FL_UNLIKELY(loop->current_handle != NULL)) {
        Py_CLEAR(loop->current_handle);
    }
    Py_DECREF(callback);
    Py_DECREF(args);
    Py_DECREF(context);
    return code;
}

/* A thread-safe handle is announced as running first, so that a cancel() of
   another thread waits for it; run_handle then checks `cancelled`. */
int
fl_handle_run(FlLoop *loop, FlHandle *self)
{
    if (!fl_handle_is_threadsafe(self)
        || !fl_threadsafe_handle_begin(loop, self)) {
        return run_handle(loop, self);
    }
    int code = run_handle(loop, self);
    fl_threadsafe_handle_end(loop);
    return code;
}

/* A new handle that takes over the call of an entry that has none, to run it
   or to name it in a report.  The entry is emptied also on failure: NULL with
   MemoryError. */
static FlHandle *
handle_from_entry(FlLoop *loop, FlReady *entry)
{
    FlHandle *handle = fl_handle_new(loop);
    if (handle == NULL) {
        fl_ready_clear(entry);
        return NULL;
    }
    if (fl_handle_fill_from(handle, entry) < 0) {
        Py_CLEAR(handle);
    }
    return handle;
}

/* Run a call or a step by a handle: its own if the caller still has it, or a
   new one. */
static int
run_as_handle(FlLoop *loop, FlReady *entry)
{
    FlHandle *handle = fl_ready_is_call(entry) ? entry->of.handle : NULL;
    if (handle == NULL) {
        handle = handle_from_entry(loop, entry);
    }
    else {
        /* of.handle is borrowed, and the callback may drop the last owner. */
        Py_INCREF(handle);
        if (fl_handle_fill_from(handle, entry) < 0) {
            Py_CLEAR(handle);
        }
    }
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
    /* Set aside: making the handle must not run with an exception set. */
    PyObject *exc = PyErr_GetRaisedException();
    FlHandle *handle = handle_from_entry(loop, entry);
    if (handle == NULL) {
        PyErr_WriteUnraisable(NULL);
    }
    PyErr_SetRaisedException(exc);
    int code = fl_loop_report_callback(loop, (PyObject *)handle);
    Py_XDECREF(handle);
    return code;
}

/* After a call in the entry's context: leave the context, then report or
   release.  Steals the result; NULL means that the callback raised. */
static inline int
call_done(FlLoop *loop, FlReady *entry, PyObject *result)
{
    fl_context_leave(entry->context, result == NULL);
    if (FL_UNLIKELY(result == NULL)) {
        return call_failed(loop, entry);
    }
    Py_DECREF(result);
    fl_ready_clear(entry);
    return 0;
}

/* callback(*args) in the entry's context, by vectorcall straight from the
   entry's array. */
static inline int
run_call(FlLoop *loop, FlReady *entry)
{
    PyObject *callback = entry->callback;
    if (FL_UNLIKELY(PyContext_Enter(entry->context) < 0)) {
        return call_failed(loop, entry);
    }
    PyObject *result;
    if (FL_LIKELY(entry->nargs <= FL_READY_ARGS)) {
        result =
            PyObject_Vectorcall(callback, entry->args,
                                entry->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                NULL);
    }
    else {
        result = PyObject_Call(callback, entry->args[0], NULL);
    }
    return call_done(loop, entry, result);
}

/* A step (no arguments) or a wake-up (one, the future) of a C task.  The step
   object has no vectorcall, so CPython would look up the empty tuple for a
   call by array: pass it at once. */
static inline int
run_step(FlLoop *loop, FlReady *entry)
{
    PyObject *callback = entry->callback;
    if (FL_UNLIKELY(PyContext_Enter(entry->context) < 0)) {
        return call_failed(loop, entry);
    }
    PyObject *result;
    if (entry->nargs == 0) {
        result = PyObject_Call(callback, loop->state->empty_tuple, NULL);
    }
    else {
        result = PyObject_Vectorcall(callback, entry->args,
                                     1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    return call_done(loop, entry, result);
}

/* A handle of another class, which _add_callback queued.  Its cancelled() and
   _run() are Python methods, called as asyncio does. */
static int
run_other(FlLoop *loop, PyObject *handle)
{
    int cancelled = fl_call_truth(handle, loop->state->names.cancelled);
    if (cancelled > 0) {
        return 0;
    }
    PyObject *result = NULL;
    if (cancelled == 0) {
        result = PyObject_CallMethodNoArgs(handle, loop->state->names._run);
    }
    if (result == NULL) {
        return fl_loop_report_callback(loop, handle);
    }
    Py_DECREF(result);
    return 0;
}

/* The loop's own operation: no handle.  What it reports, it reports itself. */
static int
run_op(FlLoop *loop, FlReady *entry)
{
    PyObject *context = entry->context;
    int code;
    if (context != NULL && PyContext_Enter(context) < 0) {
        /* RuntimeError: a caller of this run has entered the context. */
        code = fl_loop_report_callback(loop, NULL);
    }
    else {
        int64_t began_ns = loop->debug ? fl_clock_ns() : 0;
        code = entry->of.op(loop, entry->callback,
                            entry->nargs ? entry->args[0] : NULL);
        if (context != NULL) {
            fl_context_leave(context, PyErr_Occurred() != NULL);
        }
        if (FL_UNLIKELY(began_ns != 0)) {
            code = fl_loop_report_slow(loop, entry->callback, began_ns, code);
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
    int events;
    void *owner;
    PyObject *subject = NULL; /* debug mode's, for the report */
    Py_BEGIN_CRITICAL_SECTION(loop);
    events = reg->fired;
    owner = reg->owner;
    /* Here, for the call, or another thread, may close the registration. */
    if (FL_UNLIKELY(loop->debug) && owner != NULL && reg->owner_is_object) {
        subject = Py_NewRef((PyObject *)owner);
    }
    reg->fired = 0;
    reg->entry = NULL;
    Py_END_CRITICAL_SECTION();
    if (owner == NULL) {
        /* Another thread closed it while this one iterates; free_closed in
           iteration.c frees it. */
        return 0;
    }
    if (FL_LIKELY(subject == NULL)) {
        return reg->on_events(loop, reg, events);
    }
    int64_t began_ns = fl_clock_ns();
    int code = reg->on_events(loop, reg, events);
    code = fl_loop_report_slow(loop, subject, began_ns, code);
    Py_DECREF(subject);
    return code;
}

/* Prefetch a handle that runs soon.  Thousands of due timers are spread over
   memory, and each would be a cache miss.  It spans two cache lines. */
static inline void
prefetch_handle(const FlReadyQueue *queue)
{
    /* Look no further than the head's chunk. */
    if (fl_ready_count(queue) > PREFETCH_DISTANCE
        && queue->head_end - queue->head_at > PREFETCH_DISTANCE)
    {
        const FlReady *entry = queue->head_at + PREFETCH_DISTANCE;
        if (entry->kind == FL_READY_HANDLE) {
            fl_prefetch(entry->callback);
            fl_prefetch((const char *)entry->callback + 64);
        }
    }
}

/* Whether an entry without a handle must run as one; see invariant 4. */
static inline bool
needs_handles(const FlLoop *loop)
{
    return FL_UNLIKELY(loop->debug) || FL_UNLIKELY(loop->patched_run != NULL);
}

/* Run one entry, a copy, and release what it owns.  0, or -1 with an exception
   that must leave run_forever. */
static inline int
run_entry(FlLoop *loop, FlReady *entry)
{
    switch (entry->kind) {
    case FL_READY_STEP:
        if (needs_handles(loop)) {
            return run_as_handle(loop, entry);
        }
        return run_step(loop, entry);
    case FL_READY_CALL:
        if (entry->of.handle != NULL || needs_handles(loop)) {
            return run_as_handle(loop, entry);
        }
        return run_call(loop, entry);
    case FL_READY_SHARED:
        /* The handle's way copies the context too (fl_handle_fill_from). */
        if (entry->of.handle != NULL || needs_handles(loop)) {
            return run_as_handle(loop, entry);
        }
        if (fl_ready_unshare_context(entry) < 0) {
            return call_failed(loop, entry);
        }
        return run_call(loop, entry);
    case FL_READY_HANDLE: {
        prefetch_handle(&loop->ready);
        int code = fl_handle_run(loop, (FlHandle *)entry->callback);
        fl_ready_clear(entry);
        return code;
    }
    case FL_READY_EVENT:
        return run_event(loop, entry->of.reg);
    case FL_READY_OP:
        return run_op(loop, entry);
    case FL_READY_OTHER: {
        int code = run_other(loop, entry->callback);
        fl_ready_clear(entry);
        return code;
    }
    default:
        return 0;
    }
}

/* --- batches ------------------------------------------------------------- */

/* The object that names an entry to slow_callback_hook: a new reference, or
   NULL.  Taken before the entry runs, which releases what it owns. */
static PyObject *
subject_of(FlLoop *loop, const FlReady *entry)
{
    if (entry->kind == FL_READY_HANDLE) {
        return fl_metrics_subject_of((FlHandle *)entry->callback);
    }
    if (entry->kind != FL_READY_EVENT) {
        return Py_XNewRef(entry->kind == FL_READY_NONE ? NULL
                                                       : entry->callback);
    }
    PyObject *owner = NULL;
    Py_BEGIN_CRITICAL_SECTION(loop);
    if (entry->of.reg->owner_is_object) {
        owner = Py_XNewRef((PyObject *)entry->of.reg->owner);
    }
    Py_END_CRITICAL_SECTION();
    return owner;
}

/* Whether durations need the precise clock.  The coarse one is a tick late at
   most, which is too much for a limit of a few ticks. */
static bool
is_precise(const FlMetrics *metrics)
{
    return metrics->slow_ns < 4 * FL_COARSE_LAG_NS;
}

static int64_t
measuring_ns(const FlMetrics *metrics)
{
    return is_precise(metrics) ? fl_clock_ns() : fl_clock_coarse_ns();
}

/* After an entry that ended with `code`: call slow_callback_hook if it was too
   slow.  Steals subject.  Returns as run_entry.  *now_ns is the time at which
   the entry ended, and becomes the time at which the next one begins. */
static int
end_measured(FlLoop *loop, FlMetrics *metrics, PyObject *subject, int code,
             int64_t began_ns, int64_t *now_ns)
{
    int64_t took_ns = *now_ns - began_ns;
    if (FL_UNLIKELY(metrics->event_subject != NULL)) {
        /* The event ran this handle, which names it better than its fd. */
        Py_XSETREF(subject, metrics->event_subject);
        metrics->event_subject = NULL;
    }
    if (FL_UNLIKELY(took_ns >= metrics->slow_ns) && subject != NULL) {
        fl_count_add(&metrics->slow_callbacks, 1);
        code = fl_loop_notify_slow(loop, subject, took_ns, code);
        fl_loop_flush_corked(loop);
        /* The hook's own time must not count as the next entry's. */
        *now_ns = measuring_ns(metrics);
    }
    Py_XDECREF(subject);
    return code;
}

/* run_entries with metrics: counts, and measures each entry.  The first one
   begins at the poll's end, by the coarse clock, unless a short limit needs
   the precise one. */
static int
run_measured(FlLoop *loop, FlMetrics *metrics, uint64_t end)
{
    FlReadyQueue *queue = &loop->ready;
    metrics->slow_ns = fl_metrics_slow_ns(loop);
    bool precise = is_precise(metrics);
    int64_t began_ns = precise ? fl_clock_ns() : loop->polled_ns;
    int code = 0;
    metrics->measures = true;
    fl_count_add(&metrics->turns, 1);
    fl_metrics_set_high_water(&metrics->ready_most, &metrics->ready,
                              end - queue->head);
    while (queue->head < end && code == 0) {
        FlReady entry = *fl_ready_pop(queue); /* invariant 1 */
        PyObject *subject = subject_of(loop, &entry);
        loop->dispatch++;
        code = run_entry(loop, &entry);
        fl_loop_flush_corked(loop);
        int64_t now_ns = measuring_ns(metrics);
        code = end_measured(loop, metrics, subject, code, began_ns, &now_ns);
        began_ns = now_ns;
    }
    metrics->measures = false;
    /* may_skip_poll (iteration.c) uses this reading of the coarse clock. */
    metrics->tick_ns = precise ? fl_clock_coarse_ns() : began_ns;
    return code;
}

/* Run the entries before position `end`. */
static inline int
run_entries(FlLoop *loop, uint64_t end)
{
    FlReadyQueue *queue = &loop->ready;
    int code = 0;
    while (queue->head < end && code == 0) {
        FlReady entry = *fl_ready_pop(queue);
        loop->dispatch++;
        code = run_entry(loop, &entry);
        fl_loop_flush_corked(loop);
    }
    return code;
}

int
fl_loop_run_batch(FlLoop *loop)
{
    uint64_t end = loop->ready.tail; /* invariant 2 */
    FlMetrics *metrics = loop->metrics;
    loop->in_batch = true;
    int code = FL_UNLIKELY(metrics != NULL) ? run_measured(loop, metrics, end)
                                            : run_entries(loop, end);
    loop->in_batch = false;
    /* Its values must not outlive the calls that use them. */
    if (FL_UNLIKELY(loop->shared_context != NULL)) {
        fl_shared_context_drop(loop);
    }
    return code;
}

/* Without a GIL, while another thread iterates, the entry may be running there
   and its slot may be reused.  So leave it: run_event sees that the
   registration was closed. */
void
fl_loop_drop_event(FlLoop *loop, FlRegistration *reg)
{
    if (reg->entry != NULL
        && (FL_HAVE_GIL || !fl_poller_iterates_elsewhere(reg->poller)))
    {
        reg->entry->kind = FL_READY_NONE;
        reg->entry = NULL;
    }
}

void
fl_loop_close_registration(FlLoop *loop, FlRegistration *reg)
{
    fl_loop_drop_event(loop, reg);
    fl_registration_close(reg);
}

/* --- queueing ------------------------------------------------------------ */

int
fl_loop_call_op(FlLoop *loop, FlReadyOp op, PyObject *subject,
                PyObject *argument, PyObject *context)
{
    PyObject *owned =
        context == NULL ? PyContext_CopyCurrent() : Py_NewRef(context);
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
    if (fl_loop_on_other_thread(loop)) {
        return fl_thread_queue_push_anythread(loop, &call);
    }
    FlReady *entry = fl_ready_reserve(&loop->ready);
    if (entry == NULL) {
        fl_ready_clear(&call);
        return -1;
    }
    *entry = call;
    fl_ready_commit(&loop->ready);
    /* With a GIL this may be another thread, in which GC ran a transport's
       destructor while the loop sleeps. */
    if (loop->poller != NULL && atomic_load(&loop->poller->sleeping)) {
        fl_poller_wake_anythread(loop->poller);
    }
    return 0;
}

int
fl_loop_call_handle(FlLoop *loop, PyObject *handle)
{
    FlReady *entry = fl_ready_reserve(&loop->ready);
    if (entry == NULL) {
        return -1;
    }
    /* Our types cannot be subclassed: their fields say all that runs.  Any
       other class may have a _run() of its own. */
    bool ours = Py_TYPE(handle) == loop->state->handle_type
                || Py_TYPE(handle) == loop->state->timer_type;
    entry->kind = ours ? FL_READY_HANDLE : FL_READY_OTHER;
    entry->nargs = 0;
    entry->context = NULL;
    entry->callback = Py_NewRef(handle);
    fl_ready_commit(&loop->ready);
    return 0;
}
