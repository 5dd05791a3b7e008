/* One turn of the loop: an iteration of asyncio's.

   Poll, queue what fired, queue the timers now due, run what is in the queue.

   1. The poll may be skipped while callbacks keep coming, but never in the
      first turn of a run, nor after a stream sent something or a watch began.
      After a poll that found events of transports alone EVENT_SKIPS are
      skipped: these turns run the tasks that the events wake, and which send.
      Descriptors of the program's own mean sends that we do not see.  After an
      empty poll the allowance doubles up to MAX_SKIPS, while two polls stay
      less than MAX_SKIPPED_NS apart: that is how long an event may wait
      behind busy callbacks.  Where they become slow at once, and after an
      event, the tick of the coarse clock ends it.
   2. The GIL is given up only around a poll that may block, which touches no
      Python.
   3. A program may give the loop a time() of its own (overrides.h): timers
      then go by what that method says, each time it matters, and by no clock
      of ours; nothing that it said is kept.
   4. Else an iteration with timers queued reads the clock, unless the next
      one is later than the end of the coarse clock's tick, or is due by a
      reading of that tick and no other is due until its end. */
#include "core/iteration.h"

#include "base/clock.h"
#include "base/timer_queue.h"
#include "core/dispatch.h"
#include "core/handle.h"
#include "core/thread_queue.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/overrides.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "core/signals.h"
#include "core/timers.h"
#include "core/registration.h"
#include "py/compat.h"
#include "py/errors.h"

#include <math.h>
#include <stdlib.h>

#define MAX_SKIPS      32
/* Turns from a transport's event to the answer of the tasks that it wakes. */
#define EVENT_SKIPS    2
#define MAX_SKIPPED_NS 50000

/* How often unsure watches that wait are armed anew: each once. */
#define RECHECK_NS FL_NS_PER_S

/* --- the time ------------------------------------------------------------ */

/* What the program's time() says.  0 or -1. */
static int
call_time(FlLoop *loop, int64_t *now_ns)
{
    PyObject *now =
        PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->names.time);
    if (now == NULL) {
        return -1;
    }
    double seconds = PyFloat_AsDouble(now);
    Py_DECREF(now);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    double ns = floor(seconds * 1e9);
    *now_ns = ns >= 9.2e18 ? FL_DEADLINE_NEVER - 2 : ns > 0 ? (int64_t)ns : 0;
    return 0;
}

/* --- one turn ------------------------------------------------------------ */

/* Free the watches that other threads have closed: nothing that runs has one
   now. */
static void
free_closed(FlLoop *loop)
{
#if !FL_HAVE_GIL
    FlRegistration *reg;
    Py_BEGIN_CRITICAL_SECTION(loop);
    while ((reg = fl_registrations_pop_closed(loop->poller)) != NULL) {
        fl_loop_drop_event(loop, reg);
        free(reg);
    }
    Py_END_CRITICAL_SECTION();
#else
    (void)loop;
#endif
}

/* What a poll has found. */
typedef struct {
    bool any;     /* events of any kind */
    bool foreign; /* of others than transports */
} Found;

/* Queue an entry for each watch that fired. */
static Found
queue_fired(FlLoop *loop)
{
    Found found = {false, false};
    FlRegistration *reg;
    while ((reg = fl_registrations_pop_fired(loop->poller)) != NULL) {
        found.any = true;
        found.foreign |= !reg->owner_is_object;
        if (reg->anew) {
            /* An entry that a callback which left the run has left queued,
               for an event that was dropped: it keeps no place for others. */
            fl_loop_drop_event(loop, reg);
        }
        if (reg->entry != NULL) {
            continue; /* still queued from before: its bits are merged */
        }
        FlReady *entry = fl_ready_reserve(&loop->ready);
        if (entry == NULL) {
            /* No memory for one entry: it stays noted and the next turn
               tries again, with whatever memory the callbacks gave back. */
            PyErr_Clear();
            fl_registration_fire_again(reg);
            break;
        }
        entry->kind = FL_READY_EVENT;
        entry->nargs = 0;
        entry->of.reg = reg;
        reg->entry = entry;
        fl_ready_commit(&loop->ready);
    }
    return found;
}

static void
poll_blocking(FlLoop *loop, int64_t timeout_ns)
{
    FlPoller *poller = loop->poller;
    if (poller->recheck && (timeout_ns < 0 || timeout_ns > RECHECK_NS)) {
        timeout_ns = RECHECK_NS;
    }
    fl_poller_expect_wake(poller, timeout_ns);
    /* A time() of the program's may have let another thread push. */
    if (fl_ready_count(&loop->ready) > 0
        || atomic_load(&loop->thread_queue.filled)
        || fl_registrations_fired(poller) || atomic_load(&poller->interrupted))
    {
        timeout_ns = 0;
    }
    FlMetrics *metrics = loop->metrics;
    PyThreadState *thread = PyEval_SaveThread();
    fl_poller_run(poller, timeout_ns);
    if (FL_UNLIKELY(metrics != NULL)) {
        fl_metrics_woke(metrics, fl_clock_ns());
    }
    PyEval_RestoreThread(thread);
    atomic_store(&poller->sleeping, 0);
    if (FL_UNLIKELY(atomic_load(&poller->interrupted))) {
        atomic_store(&poller->interrupted, false);
    }
}

/* After a poll, whose beginning is known if the one before was empty: see
   invariant 1. */
static void
allow_skips(FlLoop *loop, Found found, int64_t timeout_ns, int64_t began_ns)
{
    if (loop->off & FL_OFF_POLL_SKIP) {
        loop->skips_left = 0;
        return;
    }
    if (found.any || timeout_ns != 0) {
        loop->skip_allowance = 0;
        loop->skips_left = found.any && !found.foreign ? EVENT_SKIPS : 0;
        loop->empty_poll_ns = 0;
        return;
    }
    unsigned allowance = loop->skip_allowance;
    int64_t last_ns = loop->empty_poll_ns;
    int64_t apart_ns = last_ns == 0 ? 0 : began_ns - last_ns;
    loop->empty_poll_ns = fl_clock_ns();
    if (apart_ns > MAX_SKIPPED_NS) {
        allowance = (unsigned)(allowance * MAX_SKIPPED_NS / apart_ns);
    }
    else if (apart_ns < MAX_SKIPPED_NS / 2) {
        allowance = allowance == 0 ? 1 : allowance * 2;
    }
    if (allowance > MAX_SKIPS) {
        allowance = MAX_SKIPS;
    }
    loop->skip_allowance = loop->skips_left = allowance;
}

/* Poll and queue what fired; see invariant 1. */
static void
poll(FlLoop *loop, int64_t timeout_ns)
{
    free_closed(loop);
    if (FL_UNLIKELY(loop->metrics != NULL)) {
        fl_metrics_poll_begins(loop, timeout_ns != 0);
    }
    int64_t began_ns = 0;
    if (timeout_ns == 0) {
        /* The poll itself may take long: in a sandbox, or under a tracer. */
        began_ns = loop->empty_poll_ns == 0 ? 0 : fl_clock_ns();
        fl_poller_run(loop->poller, 0);
    }
    else {
        poll_blocking(loop, timeout_ns);
    }
    if (FL_UNLIKELY(loop->metrics != NULL)) {
        fl_metrics_poll_ended(loop);
    }
    Found found;
    Py_BEGIN_CRITICAL_SECTION(loop);
    fl_registrations_collect(loop->poller);
    found = queue_fired(loop);
    Py_END_CRITICAL_SECTION();
    allow_skips(loop, found, timeout_ns, began_ns);
    loop->polled_ns = fl_clock_coarse_ns();
    if (loop->poller->recheck
        && loop->polled_ns - loop->checked_ns >= RECHECK_NS) {
        loop->checked_ns = loop->polled_ns;
        fl_registrations_recheck(loop->poller);
    }
}

static bool
may_skip_poll(FlLoop *loop)
{
    if (loop->skips_left == 0 || fl_overrides_time(loop)
        || atomic_load_explicit(&loop->poller->user_fd_changed,
                                memory_order_relaxed))
    {
        return false;
    }
    /* A timer that was due by the last clock reading is as good as ready. */
    if (fl_ready_count(&loop->ready) == 0
        && fl_timer_queue_next_ns(&loop->timers) > loop->now_ns)
    {
        return false;
    }
    loop->skips_left--;
    const FlMetrics *metrics = loop->metrics;
    int64_t tick_ns =
        FL_UNLIKELY(metrics != NULL) ? metrics->tick_ns : fl_clock_coarse_ns();
    return tick_ns == loop->polled_ns;
}

/* How long to wait; -1 in *timeout_ns is for ever.  0 or -1. */
static int
poll_timeout(FlLoop *loop, int64_t *timeout_ns)
{
    int64_t next_ns = fl_timer_queue_next_ns(&loop->timers), now_ns;
    *timeout_ns = 0;
    if (loop->stopping || fl_ready_count(&loop->ready) > 0) {
        return 0;
    }
    if (next_ns == FL_DEADLINE_NEVER) {
        *timeout_ns = -1;
        return fl_signals_before_wait(loop, timeout_ns);
    }
    if (!fl_overrides_time(loop)) {
        now_ns = loop->now_ns = fl_clock_ns();
    }
    else if (call_time(loop, &now_ns) < 0) {
        return -1;
    }
    if (next_ns > now_ns) {
        *timeout_ns = next_ns - now_ns;
    }
    return *timeout_ns == 0 ? 0 : fl_signals_before_wait(loop, timeout_ns);
}

/* The time by which timers are due in this turn; see invariants 3 and 4.
   0 or -1. */
static int
iteration_time(FlLoop *loop, int64_t next_ns, int64_t *now_ns)
{
    loop->now_fresh = false;
    *now_ns = 0;
    if (next_ns == FL_DEADLINE_NEVER) {
        return 0;
    }
    if (fl_overrides_time(loop)) {
        return call_time(loop, now_ns);
    }
    if (next_ns > loop->now_ns && next_ns > loop->polled_ns + FL_COARSE_LAG_NS)
    {
        return 0;
    }
    if (next_ns > loop->now_ns || loop->now_tick_ns != loop->polled_ns
        || !fl_timers_bear_reading(loop, loop->polled_ns))
    {
        loop->now_ns = fl_clock_ns();
        loop->now_tick_ns = loop->polled_ns; /* a poll follows each tick */
    }
    loop->now_fresh = true;
    *now_ns = loop->now_ns;
    return 0;
}

/* Move the timers now due to the ready queue. */
static int
queue_due(FlLoop *loop)
{
    int64_t now_ns;
    if (iteration_time(loop, fl_timer_queue_next_ns(&loop->timers), &now_ns)
        < 0) {
        return -1;
    }
    /* One nanosecond is the clock's resolution, which asyncio allows for. */
    int64_t due_ns = now_ns + 1;
    while (fl_timer_queue_next_ns(&loop->timers) <= due_ns) {
        FlReady *entry = fl_ready_reserve(&loop->ready);
        if (entry == NULL) {
            return -1;
        }
        FlTimerHandle *timer =
            fl_timer_of(fl_timer_queue_pop_due(&loop->timers, due_ns));
        entry->kind = FL_READY_HANDLE;
        entry->nargs = 0;
        entry->context = NULL;
        entry->callback = (PyObject *)timer; /* the queue's reference */
        fl_ready_commit(&loop->ready);
        if (FL_UNLIKELY(timer->scheduled != NULL)) {
            Py_CLEAR(timer->scheduled);
        }
    }
    loop->beyond_ns = fl_timer_queue_next_ns(&loop->timers);
    return 0;
}

/* A callback may have forked, and this be the child.  0, or -1 with
   OSError. */
static inline int
leave_parent(FlLoop *loop)
{
    FlPoller *poller = loop->poller;
    if (FL_LIKELY(!fl_poller_is_parents(poller) && !poller->unsettled)) {
        return 0;
    }
    int code = fl_loop_leave_parent(loop);
    return code < 0 ? fl_raise_errno(code) : fl_signals_begin(loop);
}

static int
run_iteration(FlLoop *loop)
{
    if (leave_parent(loop) < 0) {
        return -1;
    }
    if (!may_skip_poll(loop)) {
        int64_t timeout_ns;
        if (poll_timeout(loop, &timeout_ns) < 0) {
            return -1;
        }
        poll(loop, timeout_ns);
    }
    if (fl_thread_queue_drain(loop) < 0 || queue_due(loop) < 0) {
        return -1;
    }
    return fl_loop_run_batch(loop);
}

int
fl_loop_iterate(FlLoop *loop)
{
    if (FL_UNLIKELY(loop->in_iteration)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "This event loop is already running");
        return -1;
    }
    loop->in_iteration = true;
    Py_BEGIN_CRITICAL_SECTION(loop);
    fl_poller_begin_iteration(loop->poller);
    Py_END_CRITICAL_SECTION();
    int code = run_iteration(loop);
    fl_poller_end_iteration(loop->poller);
    loop->in_iteration = false;
    return code;
}

void
fl_loop_reset_iterations(FlLoop *loop)
{
    loop->skip_allowance = loop->skips_left = 0;
    loop->empty_poll_ns = 0;
    loop->now_fresh = false;
    loop->now_ns = 0;
    loop->beyond_ns = fl_timer_queue_next_ns(&loop->timers);
}
