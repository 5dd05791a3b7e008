/* Metrics: see metrics.h for what is measured.

   1. The times that readers get never decrease, and together they never lack a
      part of the elapsed time.  A reader adds the time of the current state so
      far; when that state ends it must add at least as much.  Otherwise a
      monitor would compute negative differences.
   2. Numbers that the loop has anyway (ready queue, timers, polls, callbacks)
      are copied into the metrics when a poll begins, and other threads read
      the copies.  Without a GIL the originals must not be read from another
      thread. */
#include "core/metrics.h"

#include "base/clock.h"
#include "base/list.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "py/compat.h"

#include <stdlib.h>

/* --- times --------------------------------------------------------------- */

/* The later of two times. */
static int64_t
at_least(int64_t ns, int64_t least_ns)
{
    return ns < least_ns ? least_ns : ns;
}

/* The time up to which a reader has reported a state's time.  The loop's
   thread may have read the clock before that reader, and end the state after
   it: then the state ends at the reader's time (invariant 1).

   Without a GIL this is a read-modify-write, also in the writer.  So of a
   writer and a reader that run at once, at least one sees the other's store.
   A fence would do too, but ThreadSanitizer does not support fences. */
static int64_t
reported_until(FlMetrics *metrics)
{
    return FL_HAVE_GIL ? atomic_load_explicit(&metrics->reported_ns,
                                              memory_order_relaxed)
                       : atomic_fetch_add(&metrics->reported_ns, 0);
}

/* Called by readers: time up to now_ns is reported. */
static void
advance_reported(FlMetrics *metrics, int64_t now_ns)
{
    int64_t before =
        atomic_load_explicit(&metrics->reported_ns, memory_order_relaxed);
    while (before < now_ns
           && !atomic_compare_exchange_weak(&metrics->reported_ns, &before,
                                            now_ns))
    {
        /* Another reader has changed it: `before` is the new value. */
    }
    (void)reported_until(metrics);
}

void
fl_metrics_enter(FlMetrics *metrics, FlTimeOf next, int64_t now_ns)
{
    FlTimeOf state = (FlTimeOf)fl_count_get(&metrics->time_state);
    uint64_t version = fl_count_get(&metrics->version);
    /* A sequence lock: readers retry while the version is odd or changes. */
    fl_count_set(&metrics->version, version + 1);
    now_ns = at_least(now_ns, reported_until(metrics));
    int64_t spent_ns = now_ns - (int64_t)fl_count_get(&metrics->since_ns);
    fl_count_set(&metrics->spent_ns[state],
                 fl_count_get(&metrics->spent_ns[state])
                     + (uint64_t)(spent_ns > 0 ? spent_ns : 0));
    fl_count_set(&metrics->time_state, next);
    fl_count_set(&metrics->since_ns, (uint64_t)now_ns);
    atomic_store_explicit(&metrics->woke_ns, 0, memory_order_release);
    fl_count_set(&metrics->version, version + 2);
}

/* A reader's copy of the times. */
typedef struct {
    uint64_t spent_ns[FL_TIMES];
    int64_t now_ns; /* when it was made; the rest as in FlMetrics */
    int64_t since_ns;
    int64_t woke_ns;
    FlTimeOf time_state;
} Times;

/* Copy the times once.  False if they changed meanwhile: the copy is useless
   then. */
static bool
try_read_times(FlMetrics *metrics, Times *times)
{
    uint64_t version = fl_count_get(&metrics->version);
    for (int at = 0; at < FL_TIMES; at++) {
        times->spent_ns[at] = fl_count_get(&metrics->spent_ns[at]);
    }
    times->time_state = (FlTimeOf)fl_count_get(&metrics->time_state);
    times->since_ns = (int64_t)fl_count_get(&metrics->since_ns);
    times->woke_ns =
        atomic_load_explicit(&metrics->woke_ns, memory_order_acquire);
    times->now_ns = fl_clock_ns();
    /* Invariant 1.  If the wake-up is recorded, it counts from no earlier than
       what was already reported.  If it is not, report up to now, so that a
       wake-up recorded later cannot take back a part of that time. */
    if (times->woke_ns != 0) {
        times->woke_ns = at_least(times->woke_ns, reported_until(metrics));
    }
    else {
        advance_reported(metrics, times->now_ns);
    }
    return version % 2 == 0 && fl_count_get(&metrics->version) == version;
}

/* Read the times, and add the current state's time so far: invariant 1. */
static void
read_times(FlMetrics *metrics, Times *times)
{
    while (!try_read_times(metrics, times)) {
        /* Retry: the writer needs only a dozen stores. */
    }
    int64_t since_ns = times->since_ns;
    /* The loop's thread woke up but waits for the GIL, which this thread
       has. */
    if (times->woke_ns != 0) {
        times->spent_ns[times->time_state] +=
            (uint64_t)(times->woke_ns - since_ns);
        times->time_state = FL_TIME_GIL;
        since_ns = times->woke_ns;
    }
    if (times->now_ns > since_ns) {
        times->spent_ns[times->time_state] +=
            (uint64_t)(times->now_ns - since_ns);
    }
    times->since_ns = since_ns;
}

/* --- lag ----------------------------------------------------------------- */

/* The bucket of a lag; metrics.h has the bounds. */
static int
lag_bucket(uint64_t lag_ns)
{
    int at = 0;
    while (at < FL_LAG_BUCKETS - 1
           && lag_ns > (uint64_t)1 << (FL_LAG_FIRST_SHIFT + at))
    {
        at++;
    }
    return at;
}

/* Record the lag of a batch of callbacks that ends now. */
static void
record_lag(FlMetrics *metrics, int64_t now_ns)
{
    int64_t lag_ns = now_ns - metrics->lag_from_ns;
    uint64_t lag = lag_ns > 0 ? (uint64_t)lag_ns : 0;
    fl_count_add(&metrics->lag[lag_bucket(lag)], 1);
    fl_count_add(&metrics->lag_sum_ns, lag);
    if (lag > fl_count_get(&metrics->lag_max_ns)) {
        fl_count_set(&metrics->lag_max_ns, lag);
    }
}

/* --- polls and runs ------------------------------------------------------ */

/* The part of invariant 2 that fl_metrics_read also copies, on the loop's own
   thread: a callback that reads metrics gets present values. */
static void
copy_progress(const FlLoop *loop, FlMetrics *metrics)
{
    fl_count_set(&metrics->callbacks,
                 loop->dispatch - metrics->dispatch_at_start);
    if (loop->poller != NULL) { /* else the loop is closed: keep the last */
        fl_count_set(&metrics->polls,
                     loop->poller->polls - metrics->polls_at_start);
    }
}

/* All numbers of invariant 2. */
static void
copy_counts(const FlLoop *loop, FlMetrics *metrics)
{
    copy_progress(loop, metrics);
    fl_count_set(&metrics->ready, fl_ready_count(&loop->ready));
    fl_metrics_set_high_water(&metrics->timers_most, &metrics->timers,
                              fl_timer_queue_count(&loop->timers));
}

/* Callbacks have ended: a poll follows, or the run ends. */
static void
end_callbacks(FlLoop *loop, FlMetrics *metrics, FlTimeOf next)
{
    int64_t now_ns = fl_clock_ns();
    /* Another state means that no batch ran, so there is no lag to record. */
    if (fl_count_get(&metrics->time_state) == FL_TIME_CALLBACKS) {
        record_lag(metrics, now_ns);
    }
    copy_counts(loop, metrics);
    fl_metrics_enter(metrics, next, now_ns);
}

void
fl_metrics_poll_begins(FlLoop *loop, bool may_wait)
{
    end_callbacks(loop, loop->metrics,
                  may_wait ? FL_TIME_SLEEPING : FL_TIME_POLLING);
}

void
fl_metrics_woke(FlMetrics *metrics, int64_t now_ns)
{
    /* Without holding the GIL only this one field may be written. */
    if (FL_HAVE_GIL) {
        atomic_store_explicit(&metrics->woke_ns, now_ns, memory_order_relaxed);
    }
    else {
        fl_metrics_enter(metrics, FL_TIME_GIL, now_ns);
    }
}

void
fl_metrics_poll_ended(FlLoop *loop)
{
    FlMetrics *metrics = loop->metrics;
    int64_t now_ns = fl_clock_ns();
    int64_t woke_ns =
        atomic_load_explicit(&metrics->woke_ns, memory_order_relaxed);
    if (woke_ns != 0) {
        /* Under a GIL the change to FL_TIME_GIL was left to this function. */
        fl_metrics_enter(metrics, FL_TIME_GIL, woke_ns);
    }
    /* The wait for the GIL is part of the lag. */
    metrics->lag_from_ns = fl_count_get(&metrics->time_state) == FL_TIME_GIL
                               ? (int64_t)fl_count_get(&metrics->since_ns)
                               : now_ns;
    fl_metrics_enter(metrics, FL_TIME_CALLBACKS, now_ns);
}

void
fl_metrics_run_begins(FlLoop *loop)
{
    FlMetrics *metrics = loop->metrics;
    if (metrics != NULL) {
        /* No poll came before the first batch, so its lag begins here. */
        metrics->lag_from_ns = fl_clock_ns();
        fl_metrics_enter(metrics, FL_TIME_CALLBACKS, metrics->lag_from_ns);
    }
}

void
fl_metrics_run_ends(FlLoop *loop)
{
    if (loop->metrics != NULL) {
        end_callbacks(loop, loop->metrics, FL_TIME_OUTSIDE);
    }
}

int64_t
fl_metrics_slow_ns(const FlLoop *loop)
{
    double ns = loop->slow_callback_duration * 1e9;
    if (ns <= 0) {
        return 0;
    }
    /* A NaN fails both comparisons: no callback is slow then. */
    return ns < 9.2e18 ? (int64_t)ns : INT64_MAX;
}

/* --- creation and end ---------------------------------------------------- */

/* The number of open stream transports: `streams` has datagram transports
   too. */
static uint64_t
count_open(const FlLoop *loop)
{
    uint64_t count = 0;
    const FlList *list = &loop->streams;
    for (const FlList *link = list->next; link != list; link = link->next) {
        const FlOwned *owned = FL_LIST_ENTRY((FlList *)link, FlOwned, link);
        /* The list has transports of each kind; compare the exact type. */
        count += Py_IS_TYPE(owned->object, loop->state->stream_type);
    }
    return count;
}

int
fl_metrics_enable(FlLoop *loop)
{
    if (loop->metrics != NULL) {
        return 0;
    }
    FlMetrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    /* Counters of the loop go on from before, so their values are
       subtracted. */
    metrics->enabled_ns = metrics->lag_from_ns = fl_clock_ns();
    metrics->dispatch_at_start = loop->dispatch;
    metrics->polls_at_start = loop->poller->polls;
    fl_count_set(&metrics->since_ns, (uint64_t)metrics->enabled_ns);
    /* Another thread may enable metrics while the loop runs. */
    fl_count_set(&metrics->time_state,
                 !fl_loop_is_running(loop)              ? FL_TIME_OUTSIDE
                 : atomic_load(&loop->poller->sleeping) ? FL_TIME_SLEEPING
                                                        : FL_TIME_CALLBACKS);
    fl_count_set(&metrics->connections_open, count_open(loop));
    loop->metrics = metrics; /* last: other threads may read it now */
    return 0;
}

/* It belongs to the loop object, not to an open loop: metrics() also works on
   a closed loop. */
void
fl_metrics_free(FlLoop *loop)
{
    FlMetrics *metrics = loop->metrics;
    loop->metrics = NULL;
    if (metrics != NULL) {
        Py_XDECREF(metrics->event_subject);
        free(metrics);
    }
}

void
fl_metrics_closed(FlMetrics *metrics)
{
    fl_count_set(&metrics->connections_open, 0);
    fl_count_set(&metrics->bytes_waiting, 0);
    fl_count_set(&metrics->ready, 0);
    fl_count_set(&metrics->timers, 0);
}

PyObject *
fl_metrics_subject_of(FlHandle *handle)
{
    PyObject *subject;
    Py_BEGIN_CRITICAL_SECTION(handle);
    /* A callback that cancels its own handle removes itself from it.  Then the
       handle stands for it. */
    subject = Py_NewRef(handle->callback == NULL ? (PyObject *)handle
                                                 : handle->callback);
    Py_END_CRITICAL_SECTION();
    return subject;
}

/* --- reading ------------------------------------------------------------- */

/* dict[name] = value.  0 or -1. */
static int
add_item(PyObject *dict, const char *name, uint64_t value)
{
    PyObject *integer = PyLong_FromUnsignedLongLong(value);
    int code =
        integer == NULL ? -1 : PyDict_SetItemString(dict, name, integer);
    Py_XDECREF(integer);
    return code;
}

/* The keys of the dict that are fields of FlMetrics.  fastloop/metrics.py
   reads them by these names. */
static const struct {
    const char *name;
    size_t offset;
} counters[] = {
#define COUNTER(name)                    \
    {                                    \
#name, offsetof(FlMetrics, name) \
    }
    COUNTER(turns),
    COUNTER(polls),
    COUNTER(callbacks),
    COUNTER(lag_sum_ns),
    COUNTER(lag_max_ns),
    COUNTER(slow_callbacks),
    COUNTER(ready),
    COUNTER(ready_most),
    COUNTER(timers),
    COUNTER(timers_most),
    COUNTER(connections_open),
    COUNTER(connections_made),
    COUNTER(connections_accepted),
    COUNTER(connections_refused),
    COUNTER(connections_lost),
    COUNTER(bytes_in),
    COUNTER(bytes_out),
    COUNTER(bytes_waiting),
    COUNTER(jobs_queued),
    COUNTER(jobs_taken),
    COUNTER(jobs_running),
    COUNTER(jobs_done),
    COUNTER(job_wait_ns),
    COUNTER(job_run_ns),
#undef COUNTER
};

/* 0 or -1. */
static int
add_counters(PyObject *dict, const FlMetrics *metrics)
{
    int code = 0;
    size_t count = sizeof(counters) / sizeof(*counters);
    for (size_t at = 0; code == 0 && at < count; at++) {
        /* Through void *: the compiler would warn of the field's alignment. */
        const char *place = (const char *)metrics + counters[at].offset;
        code = add_item(dict, counters[at].name,
                        fl_count_get((const FlCount *)(const void *)place));
    }
    return code;
}

/* The times of each state; "away_ns" is how long the loop has not polled now.
   0 or -1. */
static int
add_times(PyObject *dict, FlMetrics *metrics)
{
    static const char *const names[FL_TIMES] = {
        /* in FlTimeOf's order */
        "outside_time_ns", "callback_time_ns", "poll_time_ns",
        "sleep_time_ns",   "gil_wait_time_ns",
    };
    Times times;
    read_times(metrics, &times);
    bool busy = times.time_state == FL_TIME_CALLBACKS
                || times.time_state == FL_TIME_GIL;
    int code = add_item(dict, "elapsed_ns",
                        (uint64_t)(times.now_ns - metrics->enabled_ns));
    if (code == 0) {
        code = add_item(dict, "away_ns",
                        busy ? (uint64_t)(times.now_ns - times.since_ns) : 0);
    }
    for (int at = 0; code == 0 && at < FL_TIMES; at++) {
        code = add_item(dict, names[at], times.spent_ns[at]);
    }
    return code;
}

/* The histogram, as a list.  0 or -1. */
static int
add_lag(PyObject *dict, const FlMetrics *metrics)
{
    PyObject *list = PyList_New(FL_LAG_BUCKETS);
    for (int at = 0; list != NULL && at < FL_LAG_BUCKETS; at++) {
        PyObject *integer =
            PyLong_FromUnsignedLongLong(fl_count_get(&metrics->lag[at]));
        if (integer == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, at, integer);
    }
    int code =
        list == NULL ? -1 : PyDict_SetItemString(dict, "lag_counts", list);
    Py_XDECREF(list);
    return code;
}

PyObject *
fl_metrics_read(const FlLoop *loop)
{
    FlMetrics *metrics = loop->metrics;
    /* In a callback: what ran before it shall count (invariant 2). */
    if (fl_loop_on_own_thread(loop)) {
        copy_progress(loop, metrics);
    }
    PyObject *dict = PyDict_New();
    if (dict != NULL
        && (add_times(dict, metrics) < 0 || add_counters(dict, metrics) < 0
            || add_lag(dict, metrics) < 0))
    {
        Py_CLEAR(dict);
    }
    return dict;
}
