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
   - Slow callbacks: see run_timed in dispatch.c.
   - The running callback: when it began, for a watchdog in another thread
     (fastloop/observe/watchdog.py).  That is one store before a callback and
     one after it, by run_timed.

   Threads: the loop's thread writes; executor workers write the job counters;
   any thread may call fl_metrics_read.  The lock of loop->thread_queue guards
   the times, of which one changes without the GIL (fl_metrics_woke).  Each
   counter is atomic.

   Functions cannot fail unless they say so. */
#ifndef FL_CORE_METRICS_H
#define FL_CORE_METRICS_H

#include "core/loop.h"
#include "py/compat.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A counter that some threads change and others read. */
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
    /* the times: under the lock of loop->thread_queue */
    int64_t spent_ns[FL_TIMES];
    FlTimeOf time_state; /* the current state */
    int64_t since_ns;    /* when it began */

    int64_t enabled_ns;
    int64_t lag_from_ns; /* when the last poll ended or the run began */
    uint64_t callbacks_at_start; /* loop->callback_count at enabled_ns */
    uint64_t polls_at_start;     /* table->polls at enabled_ns */
    uint64_t last_began_ns;      /* the greatest value of the next field */
    FlCount callback_began_ns;   /* when the running callback began, or 0; see
                                    fl_metrics_callback_begins */

    /* The counters, up to the end, in the order of fastloop/metrics.py. */
    FlCount iterations;
    FlCount polls;
    FlCount callbacks;
    FlCount lag_sum_ns;
    FlCount lag_max_ns;
    FlCount slow_callbacks;
    FlCount ready;      /* length of the ready queue, */
    FlCount ready_most; /* and its high-water mark */
    FlCount timers;
    FlCount timers_most;

    FlCount connections_open; /* as copied by fl_metrics_read */
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
    FlCount lag[FL_LAG_BUCKETS];
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

/* The loop was closed: reset the counters of what is open or queued. */
void fl_metrics_closed(FlMetrics *metrics);

/* Around a run, or around an iteration outside a run. */
void fl_metrics_run_begins(FlLoop *loop);
void fl_metrics_run_ends(FlLoop *loop);

/* A callback begins, at a time of either clock.  The time that is stored also
   identifies the callback: each is later than the one before, by a nanosecond
   where the clock has not moved. */
static inline void
fl_metrics_callback_begins(FlMetrics *metrics, int64_t now_ns)
{
    uint64_t began_ns = (uint64_t)now_ns;
    if (began_ns <= metrics->last_began_ns) {
        began_ns = metrics->last_began_ns + 1;
    }
    metrics->last_began_ns = began_ns;
    fl_count_set(&metrics->callback_began_ns, began_ns);
}

/* The number that identifies the running callback, and how long it has run, to
   a tick of the coarse clock.  0 if none runs.  Any thread. */
uint64_t fl_metrics_running(FlMetrics *metrics, int64_t *ran_ns);

/* Before a poll, with the state that its time counts for. */
void fl_metrics_callbacks_ended(FlLoop *loop, FlTimeOf next);

void fl_metrics_poll_ended(FlLoop *loop);

/* A poll that may wait has ended; call this before the GIL is taken.  The time
   from now on counts as FL_TIME_GIL. */
void fl_metrics_woke(FlLoop *loop);

/* Before the entries of an iteration run. */
void fl_metrics_batch_begins(FlLoop *loop);

/* All metrics of a loop that has them, as a list of ints: the time since they
   were enabled, how long the present state lasts if that is CALLBACKS or GIL,
   else 0, the time of each state, and all counters.  Any thread.  NULL with
   MemoryError. */
PyObject *fl_metrics_read(FlLoop *loop);

#endif
