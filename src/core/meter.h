/* The counters of a loop's metrics, and the macro that counts.  metrics.h says
   what is measured, who owns the counters and which threads use them. */
#ifndef FL_CORE_METER_H
#define FL_CORE_METER_H

#include "py/compat.h"

#include <stdatomic.h>
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
    /* the times: under the lock of loop->table */
    int64_t spent_ns[FL_TIMES];
    FlTimeOf time_state; /* the current state */
    int64_t since_ns;    /* when it began */

    int64_t enabled_ns;
    int64_t lag_from_ns; /* when the last poll ended or the run began */
    uint64_t callbacks_at_start; /* loop->callback_count at enabled_ns */
    uint64_t polls_at_start;     /* table->polls at enabled_ns */
    FlCount callback_began_ns;   /* when the running callback began, or 0 */

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

#endif
