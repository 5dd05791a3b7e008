/* One iteration of the loop, in the order of asyncio's _run_once(): poll,
   queue the events that fired, queue the due timers, run the batch.  Without a
   GIL, what other threads queued is moved before the events: asyncio has it in
   its queue before it polls.

   1. A poll may be skipped while callbacks are ready.  It is never skipped in
      the first iteration of a run, after a transport or a sock_* call sent
      something, after a transport resumed reading, after a user-owned fd wants
      an additional event, or while time() is overridden.
      - After a poll that found only events of transports, of listeners and of
        sock_* calls, EVENT_SKIPS polls are skipped.
        These iterations run connection_made and the tasks that the events
        wake, and these send, which ends the skipping.  Other user-owned fds
        may be written without our knowledge, so their events allow no skip.
      - After a poll that found nothing, the allowance doubles, up to
        MAX_SKIPS, if the previous empty poll was less than half of a limit
        ago.  It shrinks if that was more than a limit ago.  So an event waits
        at most about one limit behind busy callbacks.  The limit is POLL_SHARE
        times as long as the poll took, so that polls cost a small part of the
        time, but at most MOST_LIMIT_NS, so that events do not wait longer
        where system calls are slow.
      - The next tick of the coarse clock ends the skipping in any case.  This
        bounds the wait where callbacks suddenly become slow.
   2. A poll touches no Python object.  A poll that may block releases the GIL,
      and so does another one if that is due (py/gil.h).  Signal handlers run
      only between the bytecodes of callbacks.  A callback in C may have none.
      So after a poll that does not block, at a new tick of the coarse clock,
      a Python function that does nothing is called (safepoint).  It is also
      called if another thread raises an exception in this one
      (PyThreadState_SetAsyncExc, as dramatiq's limits of time do) during a
      poll that may wait, when that ends.  If it came just before, too: such an
      exception wakes no poll on asyncio either.  While a profiler is set, it
      is called after each poll that may wait: pyinstrument notices by it that
      a task waits.  And it is due at a new tick if a class of overrides.h has
      changed: then replaced methods are looked for again.
   3. If time() is overridden (overrides.h), timers follow that method alone:
      it is called each time the value matters.  Otherwise timers that are due
      by an earlier reading of the clock are queued without another one.  The
      clock is read for the rest, unless the next is due more than
      FL_COARSE_LAG_NS after the last poll's tick.  Where ticks come late, as
      in a virtual machine, such a timer is due by poll_timeout's reading, if
      nothing else is ready.
   4. A loop is quiet from a wait of more than LONG_WAIT_NS until QUIET_NS have
      passed without another one.  It corks nothing (cork.h): to wake the
      sender's thread costs more than a request, and more sends cost little
      where events are few.  A run begins busy.  The times are the coarse
      clock's: where that ticks each 10 ms, any wait across a tick is long.
      The beginning of a wait is read only if the last tick came so late that
      waits may be long, so the second long wait in a row makes a loop quiet.
      Rejected: a loop that is quiet until a poll finds an event without
      waiting.  uvicorn on one connection without pauses stayed quiet, and took
      31 us for each request in place of 17. */
#include "core/iteration.h"

#include "base/clock.h"
#include "base/timer_queue.h"
#include "core/dispatch.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/overrides.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "core/report.h"
#include "core/thread_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"

#include <math.h>

#define MAX_SKIPS      32
/* Iterations from a transport's event until the tasks that it wakes have sent
   their answers. */
#define EVENT_SKIPS    2
#define POLL_SHARE     16
#define LEAST_LIMIT_NS 10000
#define MOST_LIMIT_NS  50000

/* A wait of at most a second ends late if it is longer than it should be by
   more than Linux adds: 1 ms, or 5 ms after nice(). */
#define LATE_NS (6 * FL_NS_PER_MS)

/* See invariant 4. */
#define LONG_WAIT_NS (5 * FL_NS_PER_MS)
#define QUIET_NS     (50 * FL_NS_PER_MS)

/* How often registrations that need a recheck are registered again, and how
   long a wait is at most that shall tell whether it ends late. */
#define RECHECK_NS FL_NS_PER_S

/* The limit of a poll that may wait for ever. */
#define NO_LIMIT INT64_MAX

/* --- the time ------------------------------------------------------------ */

/* Call the overridden time().  0, or -1 with its exception. */
static int
call_time(FlLoop *loop, double *now_s)
{
    PyObject *now =
        PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->names.time);
    if (now == NULL) {
        return -1;
    }
    *now_s = PyFloat_AsDouble(now);
    Py_DECREF(now);
    return *now_s == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* --- polling ------------------------------------------------------------- */

/* What a poll found. */
typedef struct {
    bool any;   /* events of any kind */
    bool other; /* others than of transports, listeners and sock_* calls */
} Found;

/* Queue an EVENT entry for each registration that fired. */
FL_INLINE Found
queue_fired(FlLoop *loop)
{
    Found found = {false, false};
    for (;;) {
        /* Before the pop, so that the event stays recorded if memory runs
           out. */
        FlReady *entry = fl_ready_reserve(&loop->ready);
        if (entry == NULL) {
            /* The next poll tries again, when callbacks may have freed some.
               It ends within RECHECK_NS. */
            PyErr_Clear();
            loop->table->recheck_end = INT_MAX;
            return (Found){true, true};
        }
        FlRegistration *reg = fl_registrations_pop_fired(loop->table);
        if (reg == NULL) {
            return found;
        }
        found.any = true;
        found.other |= reg->transport == NULL && !reg->allows_skips;
        if (reg->entry != NULL) {
            continue; /* still queued: reg->fired has the new bits too */
        }
        entry->kind = FL_READY_EVENT;
        entry->nargs = 0;
        entry->of.reg = reg;
        reg->entry = entry;
        fl_ready_commit(&loop->ready);
    }
}

/* A poll that may wait: poll_timeout has prepared it.  Returns whether a
   safepoint is due. */
FL_INLINE bool
poll_blocking(FlLoop *loop, int64_t timeout_ns)
{
    FlFdTable *table = loop->table;
    bool times_waits = FL_UNLIKELY(loop->gil.times_waits);
    if (times_waits || table->recheck_end) {
        int64_t apart_ns = loop->polls.last_ns - loop->polls.rechecked_ns;
        int64_t left_ns = RECHECK_NS - apart_ns % RECHECK_NS;
        timeout_ns = timeout_ns < 0 ? left_ns : Py_MIN(timeout_ns, left_ns);
    }
    /* These are read while the GIL is ours. */
    bool metered = loop->metrics != NULL;
    bool contended = FL_HAVE_GIL && times_waits && fl_gil_has_others();
    int64_t end_ns = times_waits ? fl_clock_ns() + timeout_ns : 0;
    PyThreadState *thread = PyEval_SaveThread();
    fl_fd_table_poll(table, timeout_ns);
    if (times_waits && fl_clock_ns() - end_ns > LATE_NS) {
        loop->gil.late_ns = end_ns; /* for want of a processor */
    }
    if (FL_UNLIKELY(metered)) {
        fl_metrics_woke(loop);
    }
    if (FL_UNLIKELY(contended)) {
        fl_gil_retake_timed(&loop->gil, thread);
    }
    else {
        PyEval_RestoreThread(thread);
    }
    loop->gil.due_ns = 0;
    fl_poller_end_wait(&table->poller);
    /* Whether another thread has raised an exception in this one, or a
       profiler wants to see that the task which waits is not running. */
    return __atomic_load_n(&thread->async_exc, __ATOMIC_RELAXED) != NULL
           || thread->c_profilefunc != NULL;
}

/* A poll that does not wait, and offers the GIL. */
FL_NOINLINE static void
poll_offering_gil(FlLoop *loop, int64_t began_ns)
{
    bool metered = loop->metrics != NULL; /* read while the GIL is ours */
    FlGilOffer offer = fl_gil_release(began_ns);
    fl_fd_table_poll(loop->table, 0);
    if (FL_UNLIKELY(metered)) {
        fl_metrics_woke(loop);
    }
    fl_gil_retake(&loop->gil, &offer);
}

/* How many polls may be skipped after this one; see invariant 1.  began_ns is
   the time at which it began, 0 if it may have waited. */
FL_INLINE void
allow_skips(FlLoop *loop, Found found, int64_t began_ns)
{
    unsigned allowance = loop->polls.skip_allowance;
    int64_t last_ns = loop->polls.empty_ns;
    loop->polls.skip_allowance = 0;
    loop->polls.skips_left = 0;
    loop->polls.empty_ns = 0;
    if (loop->off & FL_OFF_POLL_SKIP) {
        return;
    }
    if (found.any || began_ns == 0) {
        loop->polls.skips_left = found.any && !found.other ? EVENT_SKIPS : 0;
        return;
    }
    /* The busy time between two empty polls: from the end of the first to the
       beginning of this one. */
    int64_t apart_ns = began_ns - last_ns;
    loop->polls.empty_ns = fl_clock_ns();
    int64_t limit_ns = POLL_SHARE * (loop->polls.empty_ns - began_ns);
    limit_ns = Py_MIN(Py_MAX(limit_ns, LEAST_LIMIT_NS), MOST_LIMIT_NS);
    if (apart_ns > limit_ns) {
        allowance = (unsigned)(allowance * limit_ns / apart_ns);
    }
    else if (apart_ns < limit_ns / 2) {
        allowance = allowance == 0 ? 1 : allowance * 2;
    }
    loop->polls.skip_allowance = allowance < MAX_SKIPS ? allowance : MAX_SKIPS;
    loop->polls.skips_left = loop->polls.skip_allowance;
}

/* The coarse clock has a new tick: decide whether the loop is quiet, see
   invariant 4.  `waited`: the last poll may have. */
FL_NOINLINE static void
note_tick(FlLoop *loop, int64_t now_ns, bool waited)
{
    FlPolls *polls = &loop->polls;
    bool timed = waited && polls->waits_are_long;
    polls->waits_are_long = now_ns - polls->last_ns > LONG_WAIT_NS;
    polls->last_ns = now_ns;
    if (timed && now_ns - polls->wait_ns > LONG_WAIT_NS) {
        polls->quiet_ns = now_ns;
        loop->cork.busy_thread = NULL;
    }
    else if (now_ns - polls->quiet_ns > QUIET_NS) {
        loop->cork.busy_thread = loop->cork.thread;
    }
}

/* Poll once.  Returns when that began, 0 if it may have waited.
   *safepoint_is_due: see invariant 2. */
FL_INLINE int64_t
poll(FlLoop *loop, int64_t timeout_ns, bool *safepoint_is_due)
{
    /* No callback is running, so no function on this thread's stack uses a
       registration. */
    fl_registrations_free_closed(loop->table);
    if (FL_UNLIKELY(loop->metrics != NULL)) {
        fl_metrics_callbacks_ended(loop, timeout_ns != 0 ? FL_TIME_SLEEPING
                                                         : FL_TIME_POLLING);
    }
    int64_t began_ns = 0;
    if (timeout_ns == 0) {
        *safepoint_is_due = false;
        /* Taken before the poll: in a sandbox or under a tracer the system
           call itself takes long, and is no busy time. */
        began_ns = fl_clock_ns();
        if (fl_gil_is_due(&loop->gil, began_ns)) {
            poll_offering_gil(loop, began_ns);
        }
        else {
            fl_fd_table_poll(loop->table, 0);
        }
    }
    else {
        if (FL_UNLIKELY(loop->polls.waits_are_long)) {
            loop->polls.wait_ns = fl_clock_coarse_ns();
        }
        *safepoint_is_due = poll_blocking(loop, timeout_ns);
    }
    if (FL_UNLIKELY(loop->metrics != NULL)) {
        fl_metrics_poll_ended(loop);
    }
    fl_registrations_collect(loop->table);
    int64_t now_ns = fl_clock_coarse_ns();
    if (now_ns != loop->polls.last_ns) {
        note_tick(loop, now_ns, timeout_ns != 0);
        *safepoint_is_due |= timeout_ns == 0 || fl_overrides_are_old(loop);
    }
    /* The wait is of the precise clock: without the lag that the coarse one
       may have, a recheck would now and then be a second late. */
    if (loop->table->recheck_end
        && loop->polls.last_ns - loop->polls.rechecked_ns
               >= RECHECK_NS - FL_COARSE_LAG_NS)
    {
        loop->polls.rechecked_ns = now_ns;
        fl_registrations_recheck(loop->table,
                                 fl_gil_was_late(&loop->gil, now_ns));
    }
    return began_ns;
}

/* Whether this iteration skips its poll; see invariant 1. */
FL_INLINE bool
may_skip_poll(FlLoop *loop)
{
    /* Read once: without a GIL another thread may set it to 0. */
    unsigned left = loop->polls.skips_left;
    if (left == 0 || fl_overrides(loop, FL_OVERRIDES_TIME)) {
        return false;
    }
    /* Something must be ready to run, or the loop would spin.  A timer that is
       due by the last reading of the clock is ready, too. */
    if (fl_ready_count(&loop->ready) == 0
        && fl_timer_queue_next_s(&loop->timers) > loop->now_s)
    {
        return false;
    }
    loop->polls.skips_left = left - 1;
    return fl_clock_coarse_ns() == loop->polls.last_ns;
}

/* --- time and timers ----------------------------------------------------- */

/* Whether the poll must not wait: callbacks are ready, or the run ends. */
static inline bool
must_not_wait(FlLoop *loop)
{
    return loop->stopping || fl_ready_count(&loop->ready) > 0
           || (!FL_HAVE_GIL && atomic_load(&loop->thread_queue.filled));
}

/* How long until the next timer is due; -1 in *timeout_ns means for ever.  0,
   or -1 with an exception of time(). */
FL_INLINE int
timer_timeout(FlLoop *loop, int64_t *timeout_ns)
{
    double next_s = fl_timer_queue_next_s(&loop->timers), now_s;
    *timeout_ns = -1;
    if (next_s == INFINITY) {
        return 0;
    }
    if (!fl_overrides(loop, FL_OVERRIDES_TIME)) {
        now_s = loop->now_s = fl_clock_s();
    }
    else if (call_time(loop, &now_s) < 0) {
        return -1;
    }
    *timeout_ns = 0;
    if (next_s > now_s) {
        double ns = ceil((next_s - now_s) * 1e9);
        *timeout_ns = (int64_t)(ns < 0x1p62 ? ns : 0x1p62);
    }
    return 0;
}

/* How long the poll may wait, at most limit_ns; -1 in *timeout_ns means for
   ever.  If it may, this also prepares the poller for it (fl_poller_let_wake).
   Python's handlers of signals that have arrived run first.  A signal that
   arrives between that and the poll itself, less than a microsecond, is
   handled after the poll, unless add_signal_handler has any handlers; as in
   asyncio, where that time is longer.  0, or -1 with an exception of time() or
   of a signal handler. */
FL_INLINE int
poll_timeout(FlLoop *loop, int64_t limit_ns, int64_t *timeout_ns)
{
    *timeout_ns = 0;
    if (limit_ns == 0 || must_not_wait(loop)) {
        return 0;
    }
    /* From here on a thread that queues something also wakes the poll. */
    fl_poller_let_wake(&loop->table->poller);
    /* Before the timers, because a handler may set some.  Twice, because a
       signal may arrive while a handler runs. */
    int code = PyErr_CheckSignals() < 0 || PyErr_CheckSignals() < 0 ? -1 : 0;
    /* After a fork in a handler the next iteration leaves the parent. */
    if (code == 0 && !must_not_wait(loop)
        && loop->reinit_forks == fl_forks_count())
    {
        code = timer_timeout(loop, timeout_ns);
    }
    if (limit_ns != NO_LIMIT && (*timeout_ns < 0 || *timeout_ns > limit_ns)) {
        *timeout_ns = limit_ns;
    }
    if (code < 0 || *timeout_ns == 0) {
        fl_poller_end_wait(&loop->table->poller);
    }
    return code;
}

/* Move the timers that are due at now_s to the ready queue.  The slot is
   reserved before a timer is popped, so that no timer is lost if memory runs
   out.  0, or -1 with MemoryError. */
static int
queue_due_at(FlLoop *loop, double now_s)
{
    /* asyncio adds the clock's resolution, one nanosecond.  At least one ulp,
       as asyncio from 3.15 on: a timer is due at its own time also where a
       nanosecond is lost in rounding (after 194 days of the clock). */
    double end_s = now_s + 1e-9;
    if (end_s == now_s) {
        end_s = nextafter(now_s, INFINITY);
    }
    while (fl_timer_queue_next_s(&loop->timers) < end_s) {
        FlReady *entry = fl_ready_reserve(&loop->ready);
        if (entry == NULL) {
            return -1;
        }
        FlTimerHandle *timer = fl_timer_of(fl_timer_queue_pop(&loop->timers));
        entry->kind = FL_READY_HANDLE;
        entry->nargs = 0;
        entry->context = NULL;
        entry->callback = (PyObject *)timer; /* takes the queue's reference */
        fl_ready_commit(&loop->ready);
    }
    return 0;
}

/* Move the due timers to the ready queue: see invariant 3.  0, or -1 with
   MemoryError or an exception of time(). */
FL_INLINE int
queue_due(FlLoop *loop)
{
    if (fl_timer_queue_next_s(&loop->timers) == INFINITY) {
        return 0;
    }
    if (fl_overrides(loop, FL_OVERRIDES_TIME)) {
        double now_s;
        return call_time(loop, &now_s) < 0 ? -1 : queue_due_at(loop, now_s);
    }
    if (queue_due_at(loop, loop->now_s) < 0) {
        return -1;
    }
    /* A new tick is always polled first (may_skip_poll), so the present is at
       most FL_COARSE_LAG_NS after the last poll's tick. */
    double latest_ns = (double)(loop->polls.last_ns + FL_COARSE_LAG_NS);
    return fl_timer_queue_next_s(&loop->timers) * 1e9 > latest_ns
               ? 0
               : queue_due_at(loop, fl_clock_s());
}

/* --- one iteration ------------------------------------------------------- */

/* Before the poll: fail if the poller's fd was closed.  In a forked child (a
   callback may have forked) replace what is shared with the parent.
   0, or -1 with OSError, or with what _reinit_after_fork() raised. */
FL_INLINE int
reinit_after_fork(FlLoop *loop)
{
    int code = fl_fd_table_after_fork(loop->table);
    if (FL_UNLIKELY(code < 0)) {
        return fl_raise_errno(code);
    }
    if (FL_LIKELY(loop->reinit_forks == fl_forks_count())) {
        return 0;
    }
    loop->reinit_forks = fl_forks_count();
    return fl_call_method((PyObject *)loop,
                          loop->state->names._reinit_after_fork, NULL);
}

/* Invariant 2.  0 or -1. */
FL_NOINLINE static int
reach_safepoint(FlLoop *loop)
{
    int code = fl_call_done(PyObject_CallNoArgs(loop->state->safepoint));
    return code < 0 || !fl_overrides_are_old(loop) ? code
                                                   : fl_overrides_check(loop);
}

/* Queue what runs next: poll, for at most limit_ns, and queue the events and
   the due timers.  0, or -1 with an exception that ends the run. */
FL_INLINE int
fill_batch(FlLoop *loop, int64_t limit_ns)
{
    if (reinit_after_fork(loop) < 0) {
        return -1;
    }
    bool polls = !may_skip_poll(loop);
    int64_t timeout_ns, began_ns = 0;
    if (polls) {
        if (poll_timeout(loop, limit_ns, &timeout_ns) < 0) {
            return -1;
        }
        bool safepoint_is_due;
        began_ns = poll(loop, timeout_ns, &safepoint_is_due);
        if (FL_UNLIKELY(safepoint_is_due) && reach_safepoint(loop) < 0) {
            return -1; /* what was raised there ends the run */
        }
    }
    if (!FL_HAVE_GIL && fl_thread_queue_drain(loop) < 0) {
        return -1;
    }
    if (polls) {
        allow_skips(loop, queue_fired(loop), began_ns);
    }
    return queue_due(loop);
}

int
fl_loop_iterate(FlLoop *loop)
{
    return fill_batch(loop, NO_LIMIT) < 0 ? -1 : fl_loop_run_batch(loop);
}

/* --- a shuffled iteration ------------------------------------------------ */

/* An event waits for the next iteration with a chance of one in so many. */
#define LATE_ONE_IN 3

/* A random number below `limit`, from a state of any bits (splitmix64). */
static uint64_t
random_below(uint64_t *state, uint64_t limit)
{
    uint64_t bits = *state += 0x9E3779B97F4A7C15u;
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
    return (bits ^ (bits >> 31)) % limit;
}

/* Entries with one key may change places, as asyncio leaves their order open:
   events, and timers with one deadline.  NAN, which equals nothing: others. */
static double
key_of(const FlLoop *loop, const FlReady *entry)
{
    bool is_timer = entry->kind == FL_READY_HANDLE
                    && Py_TYPE(entry->callback) == loop->state->timer_type;
    return is_timer ? ((const FlTimerHandle *)entry->callback)->when_s
           : entry->kind == FL_READY_EVENT ? -INFINITY
                                           : NAN;
}

static void
put(FlReady *entry, FlReady value)
{
    *entry = value;
    if (entry->kind == FL_READY_EVENT) {
        entry->of.reg->entry = entry;
    }
}

/* Record a queued event as fired again: the next iteration queues it behind
   the calls that are ready then.  Not if another thread has closed it. */
static void
fire_again(FlFdTable *table, FlReady *entry)
{
    FlRegistration *reg = entry->of.reg;
    fl_fd_table_lock(table);
    if (reg->on_events != NULL) {
        entry->kind = FL_READY_NONE;
        reg->entry = NULL;
        fl_list_remove(&reg->fired_link); /* there if memory has run out */
        fl_list_append(&table->fired, &reg->fired_link);
    }
    fl_fd_table_unlock(table);
}

static void
shuffle(FlLoop *loop, uint64_t bits)
{
    FlReadyQueue *ready = &loop->ready;
    uint64_t first = ready->head; /* of those that may change places */
    for (uint64_t at = first; at < ready->tail; at++) {
        FlReady *entry = fl_ready_find(ready, at);
        if (key_of(loop, fl_ready_find(ready, first)) != key_of(loop, entry)) {
            first = at;
        }
        uint64_t other_at = first + random_below(&bits, at - first + 1);
        FlReady *other = fl_ready_find(ready, other_at), copy = *entry;
        put(entry, *other);
        put(other, copy);
    }
    for (uint64_t at = ready->head; at < ready->tail; at++) {
        FlReady *entry = fl_ready_find(ready, at);
        if (entry->kind == FL_READY_EVENT
            && random_below(&bits, LATE_ONE_IN) == 0) {
            fire_again(loop->table, entry);
        }
    }
}

int
fl_loop_iterate_shuffled(FlLoop *loop, int64_t limit_ns, uint64_t bits)
{
    loop->polls.skips_left = 0; /* skipping depends on the clock */
    if (fill_batch(loop, limit_ns) < 0) {
        return -1;
    }
    bool found = fl_ready_count(&loop->ready) > 0;
    if (bits != 0) {
        shuffle(loop, bits);
    }
    return fl_loop_run_batch(loop) < 0 ? -1 : found;
}
