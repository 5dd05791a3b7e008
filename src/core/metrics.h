/* Metrics: what a loop has done, counted once the program asks for it.

   loop->metrics is NULL until enable_metrics(), and what costs something is
   behind a test of that pointer.  From then on it stays until the loop is
   freed, so that a thread that reads never meets freed memory.

   What is measured, and what is not:

   - Time goes to one state after the other (FlTimeOf); the precise clock is
     read when a poll begins and when it ends, and not in a turn without one.
   - A lag is how long the loop did not look: from the end of a poll, before
     the GIL is taken, to the beginning of the next.  What became ready in
     between was queued so much later, at most.  Rejected: the time at which
     each callback is queued, for to read the clock costs a third of a call.
   - A callback's own time is only compared with slow_callback_duration, by the
     coarse clock, which a turn without a poll reads anyway.

   Threads: the loop's thread writes, and executor workers write theirs;
   fl_metrics_read is for any thread.  With a GIL whoever writes or reads has
   it, but for woke_ns.  Without one each number is atomic, and `version` tells
   a reader of the times that they changed while it read.

   Functions do not fail unless they say so. */
#ifndef FL_CORE_METRICS_H
#define FL_CORE_METRICS_H

#include "core/loop.h"
#include "py/compat.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A number that one thread changes at a time and others read. */
#if FL_HAVE_GIL
typedef uint64_t FlCount;

static inline void
fl_count_set(FlCount *count, uint64_t value)
{
    *count = value;
}

static inline uint64_t
fl_count_get(const FlCount *count)
{
    return *count;
}

static inline void
fl_count_add(FlCount *count, uint64_t more)
{
    *count += more;
}
#else
typedef _Atomic uint64_t FlCount;

static inline void
fl_count_set(FlCount *count, uint64_t value)
{
    atomic_store_explicit(count, value, memory_order_release);
}

static inline uint64_t
fl_count_get(const FlCount *count)
{
    return atomic_load_explicit(count, memory_order_acquire);
}

/* Several threads may add. */
static inline void
fl_count_add(FlCount *count, uint64_t more)
{
    (void)atomic_fetch_add_explicit(count, more, memory_order_relaxed);
}
#endif

/* What a loop's time goes to. */
typedef enum {
    FL_TIME_OUTSIDE, /* it does not run */
    FL_TIME_CALLBACKS,
    FL_TIME_POLLING, /* a poll that does not wait */
    FL_TIME_SLEEPING,
    FL_TIME_GIL, /* after a wait, until the GIL is taken */
    FL_TIMES,
} FlTimeOf;

/* Bucket 0 is up to 1024 ns, each next one up to twice as much, the last one
   everything above: up to 34 s have a bucket of their own. */
#define FL_LAG_BUCKETS     27
#define FL_LAG_FIRST_SHIFT 10

typedef struct FlMetrics {
    /* see fl_metrics_enter */
    FlCount version; /* odd while the times change */
    FlCount spent_ns[FL_TIMES];
    FlCount time_of; /* FlTimeOf: what goes on now, */
    FlCount since_ns;
    _Atomic int64_t woke_ns; /* and, before the GIL is taken, since when */
    _Atomic int64_t read_ns; /* until when a reader has counted it */

    int64_t enabled_ns;
    int64_t lag_from_ns;
    int64_t tick_ns; /* the coarse clock when the last batch ended */
    int64_t slow_ns; /* of this batch: see fl_metrics_slow_ns */
    bool measures;   /* this batch is measured: it began with metrics on */
    uint64_t dispatch_before; /* loop->dispatch when metrics began */
    uint64_t polls_before;
    PyObject *event_subject; /* see fl_metrics_note_subject; NULL between */

    FlCount turns;
    FlCount polls;
    FlCount callbacks;
    FlCount lag[FL_LAG_BUCKETS];
    FlCount lag_sum_ns;
    FlCount lag_max_ns;
    FlCount slow_callbacks;
    FlCount ready;
    FlCount ready_most;
    FlCount timers;
    FlCount timers_most;

    FlCount connections_open;
    FlCount connections_made; /* accepted ones among them */
    FlCount connections_accepted;
    FlCount connections_refused;
    FlCount connections_lost;
    FlCount bytes_in;
    FlCount bytes_out;
    FlCount bytes_waiting;

    FlCount jobs_queued;
    FlCount jobs_taken; /* or cancelled */
    FlCount jobs_running;
    FlCount jobs_done;
    FlCount job_wait_ns;
    FlCount job_run_ns;
} FlMetrics;

/* Add to one of the counters, if there are any. */
#define FL_METER(loop, counter, more)                 \
    do {                                              \
        FlMetrics *metered_ = (loop)->metrics;        \
        if (FL_UNLIKELY(metered_ != NULL)) {          \
            fl_count_add(&metered_->counter, (more)); \
        }                                             \
    } while (0)

/* Begin to count; nothing happens if that was done.  Any thread that may use
   the loop.  0, or -1 with MemoryError. */
int fl_metrics_enable(FlLoop *loop);

/* With the loop itself: free what it counted. */
void fl_metrics_free(FlLoop *loop);

/* The loop is closed: nothing is open or waits any more. */
void fl_metrics_closed(FlMetrics *metrics);

/* From now on the time goes to something else. */
void fl_metrics_enter(FlMetrics *metrics, FlTimeOf next, int64_t now_ns);

/* A run, or a turn outside of one, begins and ends. */
void fl_metrics_run_begins(FlLoop *loop);
void fl_metrics_run_ends(FlLoop *loop);

/* slow_callback_duration in nanoseconds. */
int64_t fl_metrics_slow_ns(const FlLoop *loop);

/* Around a poll. */
void fl_metrics_poll_begins(FlLoop *loop, bool may_wait);
void fl_metrics_poll_ended(FlLoop *loop);

/* A poll that may wait woke; called without the GIL.  With one the times are
   left to fl_metrics_poll_ended, and readers look at woke_ns.  Without one the
   times change at once: a reader that took the GIL's time from woke_ns was
   ahead of the loop's thread, which had looked at the clock before it. */
void fl_metrics_woke(FlMetrics *metrics, int64_t now_ns);

static inline void
fl_metrics_note_most(FlCount *most, FlCount *now, uint64_t value)
{
    fl_count_set(now, value);
    if (value > fl_count_get(most)) {
        fl_count_set(most, value);
    }
}

/* What a slow handle is named by, now that it still has its callback: a new
   reference. */
PyObject *fl_metrics_subject_of(FlHandle *handle);

/* An event runs this handle, by which it is named. */
static inline void
fl_metrics_note_subject(FlLoop *loop, FlHandle *handle)
{
    FlMetrics *metrics = loop->metrics;
    if (FL_UNLIKELY(metrics != NULL) && metrics->measures) {
        Py_XSETREF(metrics->event_subject, fl_metrics_subject_of(handle));
    }
}

/* All of it, of a loop that has metrics: a dict of ints, and a list of ints
   for the lag.  Any thread.  NULL with MemoryError. */
PyObject *fl_metrics_read(const FlLoop *loop);

#endif
