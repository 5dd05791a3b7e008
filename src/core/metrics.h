/* Metrics: counters of a loop's work, once the application enables them.

   loop->metrics is NULL until enable_metrics().  Everything that costs time is
   behind a test of that pointer.  Once set, it stays until the loop is freed,
   so that a thread which reads metrics never accesses freed memory.

   What is measured:

   - Time.  The loop is always in one state (FlTimeOf), and its time counts for
     that state.  The precise clock is read when a poll begins and when it
     ends; an iteration without a poll does not read it.
   - Lag: how long the loop did not poll, from the end of a poll, before the
     GIL is taken again, to the beginning of the next one.  An event in between
     was queued at most that much later.  Rejected: a time stamp for each
     queued callback.  Reading the clock costs a third of a call.
   - Slow callbacks.  The duration of a callback is only compared with
     slow_callback_duration.  It is measured with the coarse clock, which an
     iteration without a poll reads anyway, or with the precise one if that
     limit is below a few ticks of the coarse one (is_precise in dispatch.c).

   Threads: the loop's thread writes; executor workers write the job counters;
   any thread may call fl_metrics_read.  With a GIL all of them hold it, except
   that woke_ns is written without it.  Without a GIL each counter is atomic,
   and `version` tells a reader of the times that they changed meanwhile.

   Functions cannot fail unless they say so. */
#ifndef FL_CORE_METRICS_H
#define FL_CORE_METRICS_H

#include "core/loop.h"
#include "py/compat.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A counter that one thread at a time changes and others read. */
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

/* Several threads may add at once. */
static inline void
fl_count_add(FlCount *count, uint64_t more)
{
    (void)atomic_fetch_add_explicit(count, more, memory_order_relaxed);
}
#endif

/* The state that a loop's time counts for. */
typedef enum {
    FL_TIME_OUTSIDE,   /* the loop does not run */
    FL_TIME_CALLBACKS, /* and all else between two polls */
    FL_TIME_POLLING,   /* in a poll that does not wait */
    FL_TIME_SLEEPING,  /* in a poll that may wait */
    FL_TIME_GIL,       /* after such a poll, until the GIL is taken */
    FL_TIMES,          /* the number of states */
} FlTimeOf;

/* The histogram of lags.  Bucket 0 has those up to 1024 ns, and the bound of
   each next bucket is twice as high, up to 34 s.  The last bucket has all
   longer lags. */
#define FL_LAG_BUCKETS     27
#define FL_LAG_FIRST_SHIFT 10

typedef struct FlMetrics {
    /* The times; written by fl_metrics_enter except where noted. */
    FlCount version; /* odd while the times change */
    FlCount spent_ns[FL_TIMES];
    FlCount time_state;      /* FlTimeOf: the current state */
    FlCount since_ns;        /* when it began */
    _Atomic int64_t woke_ns; /* see fl_metrics_woke; 0: not in a wait's end */
    _Atomic int64_t reported_ns; /* readers have reported time up to here */

    int64_t enabled_ns;
    int64_t lag_from_ns; /* when the last poll ended or the run began */
    int64_t tick_ns;     /* the coarse clock when the last batch ended */
    int64_t slow_ns;     /* for this batch: see fl_metrics_slow_ns */
    bool measures;       /* in a batch that began with metrics enabled */
    uint64_t dispatch_at_start; /* loop->dispatch when metrics were enabled */
    uint64_t polls_at_start;    /* poller->polls then */
    PyObject *event_subject;    /* see fl_metrics_set_subject; else NULL */

    FlCount turns; /* iterations */
    FlCount polls;
    FlCount callbacks;
    FlCount lag[FL_LAG_BUCKETS];
    FlCount lag_sum_ns;
    FlCount lag_max_ns;
    FlCount slow_callbacks;
    FlCount ready;      /* length of the ready queue, */
    FlCount ready_most; /* and its high-water mark */
    FlCount timers;
    FlCount timers_most;

    FlCount connections_open;
    FlCount connections_made; /* includes accepted ones */
    FlCount connections_accepted;
    FlCount connections_refused;
    FlCount connections_lost;
    FlCount bytes_in;
    FlCount bytes_out;
    FlCount bytes_waiting; /* in write buffers */

    FlCount jobs_queued;
    FlCount jobs_taken; /* started by a worker, or cancelled */
    FlCount jobs_running;
    FlCount jobs_done;
    FlCount job_wait_ns;
    FlCount job_run_ns;
} FlMetrics;

/* Add to a counter if metrics are enabled. */
#define FL_METER(loop, counter, more)                 \
    do {                                              \
        FlMetrics *metered_ = (loop)->metrics;        \
        if (FL_UNLIKELY(metered_ != NULL)) {          \
            fl_count_add(&metered_->counter, (more)); \
        }                                             \
    } while (0)

/* Enable metrics; does nothing if they are enabled.  Any thread that may use
   the loop.  0, or -1 with MemoryError. */
int fl_metrics_enable(FlLoop *loop);

/* Free the metrics: only when the loop itself is freed. */
void fl_metrics_free(FlLoop *loop);

/* The loop was closed: reset the counters of what is open or queued. */
void fl_metrics_closed(FlMetrics *metrics);

/* End the current state at now_ns and enter the next one.  Only the loop's
   thread may call. */
void fl_metrics_enter(FlMetrics *metrics, FlTimeOf next, int64_t now_ns);

/* Around a run, or around an iteration outside a run. */
void fl_metrics_run_begins(FlLoop *loop);
void fl_metrics_run_ends(FlLoop *loop);

/* slow_callback_duration in nanoseconds, 0 to INT64_MAX. */
int64_t fl_metrics_slow_ns(const FlLoop *loop);

/* Around a poll. */
void fl_metrics_poll_begins(FlLoop *loop, bool may_wait);
void fl_metrics_poll_ended(FlLoop *loop);

/* A poll that may wait has ended; called without holding the GIL.  In a build
   with a GIL this only sets woke_ns: fl_metrics_poll_ended changes the state
   later, and readers use woke_ns until then.  In a build without one the state
   changes at once.  Otherwise a reader that computed the GIL's time from
   woke_ns could be ahead of the loop's thread, which read the clock before
   it. */
void fl_metrics_woke(FlMetrics *metrics, int64_t now_ns);

/* Set a value and raise its high-water mark. */
static inline void
fl_metrics_set_high_water(FlCount *most, FlCount *now, uint64_t value)
{
    fl_count_set(now, value);
    if (value > fl_count_get(most)) {
        fl_count_set(most, value);
    }
}

/* The object that names a handle in a report: its callback, or the handle if
   it has none any more.  So call it before the handle runs.  A new
   reference. */
PyObject *fl_metrics_subject_of(FlHandle *handle);

/* An fd event runs this handle, so the handle's callback names the event. */
static inline void
fl_metrics_set_subject(FlLoop *loop, FlHandle *handle)
{
    FlMetrics *metrics = loop->metrics;
    if (FL_UNLIKELY(metrics != NULL) && metrics->measures) {
        Py_XSETREF(metrics->event_subject, fl_metrics_subject_of(handle));
    }
}

/* All metrics of a loop that has them: a dict of ints, except that
   "lag_counts" is a list of ints.  Any thread.  NULL with MemoryError. */
PyObject *fl_metrics_read(const FlLoop *loop);

#endif
