/* Metrics: see metrics.h for what is measured.

   1. The times that readers get never decrease, and together they never lack a
      part of the elapsed time: otherwise a monitor would compute negative
      differences.  So the loop's thread reads the clock for a change of state,
      and a reader for the time of the state so far, under one lock.
   2. Numbers that the loop has anyway (ready queue, timers, polls, callbacks)
      are copied into the metrics when a poll begins, and other threads read
      the copies.  Without a GIL the originals must not be read from another
      thread. */
#include "core/metrics.h"

#include "base/clock.h"
#include "core/ready_queue.h"
#include "core/thread_queue.h"
#include "py/compat.h"

#include <stdlib.h>
#include <string.h>

/* --- times --------------------------------------------------------------- */

/* End the current state and enter the next one.  Returns the present. */
static int64_t
enter(FlLoop *loop, FlTimeOf next)
{
    FlMetrics *metrics = loop->metrics;
    fl_fd_table_lock_now(loop->table);
    int64_t now_ns = fl_clock_ns(); /* invariant 1 */
    metrics->spent_ns[metrics->time_state] += now_ns - metrics->since_ns;
    metrics->time_state = next;
    metrics->since_ns = now_ns;
    fl_fd_table_unlock_now(loop->table);
    return now_ns;
}

/* --- lag ----------------------------------------------------------------- */

/* Record the lag of a batch of callbacks that ends now. */
static void
record_lag(FlMetrics *metrics, int64_t now_ns)
{
    int64_t lag_ns = now_ns - metrics->lag_from_ns;
    uint64_t lag = lag_ns > 0 ? (uint64_t)lag_ns : 0;
    int bucket = 0; /* metrics.h has the bounds */
    while (bucket < FL_LAG_BUCKETS - 1
           && lag > (uint64_t)1 << (FL_LAG_FIRST_SHIFT + bucket))
    {
        bucket++;
    }
    fl_count_add(&metrics->lag[bucket], 1);
    fl_count_add(&metrics->lag_sum_ns, lag);
    if (lag > fl_count_get(&metrics->lag_max_ns)) {
        fl_count_set(&metrics->lag_max_ns, lag);
    }
}

/* --- polls and runs ------------------------------------------------------ */

/* Set a value and raise its high-water mark. */
static void
set_high_water(FlCount *most, FlCount *now, uint64_t value)
{
    fl_count_set(now, value);
    if (value > fl_count_get(most)) {
        fl_count_set(most, value);
    }
}

/* The part of invariant 2 that fl_metrics_read also copies, on the loop's own
   thread: a callback that reads metrics gets present values. */
static void
copy_progress(const FlLoop *loop, FlMetrics *metrics)
{
    fl_count_set(&metrics->callbacks,
                 loop->callback_count - metrics->callbacks_at_start);
    fl_count_set(&metrics->polls,
                 loop->table->polls - metrics->polls_at_start);
}

void
fl_metrics_callbacks_ended(FlLoop *loop, FlTimeOf next)
{
    FlMetrics *metrics = loop->metrics;
    /* Another state means that no batch ran, so there is no lag to record. */
    bool ran = metrics->time_state == FL_TIME_CALLBACKS;
    copy_progress(loop, metrics);
    fl_count_set(&metrics->ready, fl_ready_count(&loop->ready));
    set_high_water(&metrics->timers_most, &metrics->timers,
                   fl_timer_queue_count(&loop->timers));
    int64_t now_ns = enter(loop, next);
    if (ran) {
        record_lag(metrics, now_ns);
    }
}

void
fl_metrics_woke(FlLoop *loop)
{
    /* The wait for the GIL is part of the lag. */
    loop->metrics->lag_from_ns = enter(loop, FL_TIME_GIL);
}

void
fl_metrics_poll_ended(FlLoop *loop)
{
    FlMetrics *metrics = loop->metrics;
    bool waited = metrics->time_state == FL_TIME_GIL;
    int64_t now_ns = enter(loop, FL_TIME_CALLBACKS);
    if (!waited) {
        metrics->lag_from_ns = now_ns;
    }
}

void
fl_metrics_batch_begins(FlLoop *loop)
{
    FlMetrics *metrics = loop->metrics;
    fl_count_add(&metrics->iterations, 1);
    set_high_water(&metrics->ready_most, &metrics->ready,
                   fl_ready_count(&loop->ready));
}

void
fl_metrics_run_begins(FlLoop *loop)
{
    if (loop->metrics != NULL) {
        /* No poll came before the first batch, so its lag begins here. */
        loop->metrics->lag_from_ns = enter(loop, FL_TIME_CALLBACKS);
    }
}

void
fl_metrics_run_ends(FlLoop *loop)
{
    if (loop->metrics != NULL) {
        fl_metrics_callbacks_ended(loop, FL_TIME_OUTSIDE);
    }
}

/* --- creation and end ---------------------------------------------------- */

/* As fl_metrics_enable, of a loop that has none. */
static int
metrics_new(FlLoop *loop)
{
    FlMetrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    /* Counters of the loop go on from before, so their values are
       subtracted. */
    metrics->enabled_ns = fl_clock_ns();
    metrics->since_ns = metrics->lag_from_ns = metrics->enabled_ns;
    /* Another thread may enable metrics while the loop runs. */
    metrics->callbacks_at_start = loop->callback_count;
    metrics->polls_at_start = loop->table->polls;
    metrics->time_state = !fl_loop_is_running(loop) ? FL_TIME_OUTSIDE
                          : atomic_load(&loop->table->poller.sleeping)
                              ? FL_TIME_SLEEPING
                              : FL_TIME_CALLBACKS;
    loop->metrics = metrics; /* last: other threads may read it now */
    return 0;
}

int
fl_metrics_enable(FlLoop *loop)
{
    int code;
    /* Two threads may enable metrics at once: the first one does. */
    Py_BEGIN_CRITICAL_SECTION(loop);
    code = loop->metrics == NULL ? metrics_new(loop) : 0;
    Py_END_CRITICAL_SECTION();
    return code;
}

/* It belongs to the loop object, not to an open loop: metrics() also works on
   a closed loop. */
void
fl_metrics_closed(FlMetrics *metrics)
{
    fl_count_set(&metrics->bytes_waiting, 0);
    fl_count_set(&metrics->ready, 0);
    fl_count_set(&metrics->timers, 0);
}

/* --- reading ------------------------------------------------------------- */

/* The counters: all fields from `iterations` to the end. */
#define FIRST_COUNTER offsetof(FlMetrics, iterations)
#define COUNTERS      ((sizeof(FlMetrics) - FIRST_COUNTER) / sizeof(FlCount))

/* Copy the times, with the current state's time so far, to values[0] to
   values[FL_TIMES + 1], as fl_metrics_read returns them. */
static void
read_times(FlLoop *loop, uint64_t *values)
{
    FlMetrics *metrics = loop->metrics;
    uint64_t *spent_ns = values + 2;
    fl_fd_table_lock_now(loop->table);
    int64_t now_ns = fl_clock_ns(); /* invariant 1 */
    uint64_t state_ns = (uint64_t)(now_ns - metrics->since_ns);
    FlTimeOf state = metrics->time_state;
    memcpy(spent_ns, metrics->spent_ns, sizeof(metrics->spent_ns));
    fl_fd_table_unlock_now(loop->table);
    bool away = state == FL_TIME_CALLBACKS || state == FL_TIME_GIL;
    values[0] = (uint64_t)(now_ns - metrics->enabled_ns);
    values[1] = away ? state_ns : 0;
    spent_ns[state] += state_ns;
}

PyObject *
fl_metrics_read(FlLoop *loop)
{
    uint64_t values[2 + FL_TIMES + COUNTERS];
    /* In a callback: what ran before it shall count (invariant 2). */
    if (fl_loop_on_own_thread(loop)) {
        copy_progress(loop, loop->metrics);
    }
    fl_count_set(&loop->metrics->connections_open,
                 fl_count_get(&loop->open_connections));
    read_times(loop, values);
    const char *place = (const char *)loop->metrics + FIRST_COUNTER;
    const size_t count = sizeof(values) / sizeof(*values);
    for (size_t at = 2 + FL_TIMES; at < count; at++) {
        /* Through void *: the compiler would warn of the alignment. */
        values[at] = fl_count_get((const FlCount *)(const void *)place);
        place += sizeof(FlCount);
    }
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t at = 0; list != NULL && at < count; at++) {
        PyObject *integer = PyLong_FromUnsignedLongLong(values[at]);
        if (integer == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)at, integer);
    }
    return list;
}
