/* Counting what a loop does; metrics.h says what is measured.

   1. Time is never lost and never goes back: whatever reads in the midst of a
      state adds what it has taken so far, and the state adds at least as much
      when it ends.
   2. What the loop keeps anyway (its queue, timers, polls, callbacks) is
      copied when a poll begins, and other threads read the copies. */
#include "core/metrics.h"

#include "base/clock.h"
#include "base/list.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "py/compat.h"

#include <stdlib.h>

/* --- times --------------------------------------------------------------- */

static int64_t
not_before(int64_t ns, int64_t least_ns)
{
    return ns < least_ns ? least_ns : ns;
}

/* What a reader has counted already stays counted: the loop's thread may have
   looked at the clock before it, and says so later.  Without a GIL both write
   here, so that one of them sees what the other wrote before; a fence would do
   too, but ThreadSanitizer knows none. */
static int64_t
counted_until(FlMetrics *metrics)
{
    return FL_HAVE_GIL
               ? atomic_load_explicit(&metrics->read_ns, memory_order_relaxed)
               : atomic_fetch_add(&metrics->read_ns, 0);
}

static void
count_until(FlMetrics *metrics, int64_t now_ns)
{
    int64_t before =
        atomic_load_explicit(&metrics->read_ns, memory_order_relaxed);
    while (
        before < now_ns
        && !atomic_compare_exchange_weak(&metrics->read_ns, &before, now_ns))
    {
        /* Another reader was faster. */
    }
    (void)counted_until(metrics);
}

void
fl_metrics_enter(FlMetrics *metrics, FlTimeOf next, int64_t now_ns)
{
    FlTimeOf now_of = (FlTimeOf)fl_count_get(&metrics->time_of);
    uint64_t version = fl_count_get(&metrics->version);
    fl_count_set(&metrics->version, version + 1);
    now_ns = not_before(now_ns, counted_until(metrics));
    int64_t spent_ns = now_ns - (int64_t)fl_count_get(&metrics->since_ns);
    fl_count_set(&metrics->spent_ns[now_of],
                 fl_count_get(&metrics->spent_ns[now_of])
                     + (uint64_t)(spent_ns > 0 ? spent_ns : 0));
    fl_count_set(&metrics->time_of, next);
    fl_count_set(&metrics->since_ns, (uint64_t)now_ns);
    atomic_store_explicit(&metrics->woke_ns, 0, memory_order_release);
    fl_count_set(&metrics->version, version + 2);
}

/* What a reader gets of the times. */
typedef struct {
    uint64_t spent_ns[FL_TIMES];
    int64_t now_ns;
    int64_t since_ns;
    int64_t woke_ns;
    FlTimeOf time_of;
} Times;

/* One try: false if they changed meanwhile. */
static bool
try_times(FlMetrics *metrics, Times *times)
{
    uint64_t version = fl_count_get(&metrics->version);
    for (int at = 0; at < FL_TIMES; at++) {
        times->spent_ns[at] = fl_count_get(&metrics->spent_ns[at]);
    }
    times->time_of = (FlTimeOf)fl_count_get(&metrics->time_of);
    times->since_ns = (int64_t)fl_count_get(&metrics->since_ns);
    times->woke_ns =
        atomic_load_explicit(&metrics->woke_ns, memory_order_acquire);
    times->now_ns = fl_clock_ns();
    if (times->woke_ns != 0) {
        times->woke_ns = not_before(times->woke_ns, counted_until(metrics));
    }
    else {
        count_until(metrics, times->now_ns);
    }
    return version % 2 == 0 && fl_count_get(&metrics->version) == version;
}

/* What goes on now counts, too: invariant 1. */
static void
read_times(FlMetrics *metrics, Times *times)
{
    while (!try_times(metrics, times)) {
        /* The writer is between two of a dozen stores. */
    }
    int64_t since_ns = times->since_ns;
    if (times->woke_ns != 0) {
        times->spent_ns[times->time_of] +=
            (uint64_t)(times->woke_ns - since_ns);
        times->time_of = FL_TIME_GIL;
        since_ns = times->woke_ns;
    }
    if (times->now_ns > since_ns) {
        times->spent_ns[times->time_of] +=
            (uint64_t)(times->now_ns - since_ns);
    }
    times->since_ns = since_ns;
}

/* --- lag ----------------------------------------------------------------- */

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

static void
note_lag(FlMetrics *metrics, int64_t now_ns)
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

/* See invariant 2. */
static void
copy_progress(const FlLoop *loop, FlMetrics *metrics)
{
    fl_count_set(&metrics->callbacks,
                 loop->dispatch - metrics->dispatch_before);
    if (loop->poller != NULL) {
        fl_count_set(&metrics->polls,
                     loop->poller->polls - metrics->polls_before);
    }
}

static void
copy_counts(const FlLoop *loop, FlMetrics *metrics)
{
    copy_progress(loop, metrics);
    fl_count_set(&metrics->ready, fl_ready_count(&loop->ready));
    fl_metrics_note_most(&metrics->timers_most, &metrics->timers,
                         fl_timer_queue_count(&loop->timers));
}

/* The loop has looked away until now. */
static void
callbacks_end(FlLoop *loop, FlMetrics *metrics, FlTimeOf next)
{
    int64_t now_ns = fl_clock_ns();
    if (fl_count_get(&metrics->time_of) == FL_TIME_CALLBACKS) {
        note_lag(metrics, now_ns);
    }
    copy_counts(loop, metrics);
    fl_metrics_enter(metrics, next, now_ns);
}

void
fl_metrics_poll_begins(FlLoop *loop, bool may_wait)
{
    callbacks_end(loop, loop->metrics,
                  may_wait ? FL_TIME_SLEEPING : FL_TIME_POLLING);
}

void
fl_metrics_woke(FlMetrics *metrics, int64_t now_ns)
{
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
        fl_metrics_enter(metrics, FL_TIME_GIL, woke_ns);
    }
    metrics->lag_from_ns = fl_count_get(&metrics->time_of) == FL_TIME_GIL
                               ? (int64_t)fl_count_get(&metrics->since_ns)
                               : now_ns;
    fl_metrics_enter(metrics, FL_TIME_CALLBACKS, now_ns);
}

void
fl_metrics_run_begins(FlLoop *loop)
{
    FlMetrics *metrics = loop->metrics;
    if (metrics != NULL) {
        metrics->lag_from_ns = fl_clock_ns();
        fl_metrics_enter(metrics, FL_TIME_CALLBACKS, metrics->lag_from_ns);
    }
}

void
fl_metrics_run_ends(FlLoop *loop)
{
    if (loop->metrics != NULL) {
        callbacks_end(loop, loop->metrics, FL_TIME_OUTSIDE);
    }
}

int64_t
fl_metrics_slow_ns(const FlLoop *loop)
{
    double ns = loop->slow_callback_duration * 1e9;
    if (ns <= 0) {
        return 0;
    }
    return ns < 9.2e18 ? (int64_t)ns : INT64_MAX; /* NaN: never */
}

/* --- birth and end ------------------------------------------------------- */

static uint64_t
count_open(const FlLoop *loop)
{
    uint64_t count = 0;
    const FlList *list = &loop->streams;
    for (const FlList *link = list->next; link != list; link = link->next) {
        const FlOwned *owned = FL_LIST_ENTRY((FlList *)link, FlOwned, link);
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
    metrics->enabled_ns = metrics->lag_from_ns = fl_clock_ns();
    metrics->dispatch_before = loop->dispatch;
    metrics->polls_before = loop->poller->polls;
    fl_count_set(&metrics->since_ns, (uint64_t)metrics->enabled_ns);
    fl_count_set(&metrics->time_of, !fl_loop_is_running(loop) ? FL_TIME_OUTSIDE
                                    : atomic_load(&loop->poller->sleeping)
                                        ? FL_TIME_SLEEPING
                                        : FL_TIME_CALLBACKS);
    fl_count_set(&metrics->connections_open, count_open(loop));
    loop->metrics = metrics;
    return 0;
}

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
    /* A callback that cancels its own handle takes itself out of it. */
    subject = Py_NewRef(handle->callback == NULL ? (PyObject *)handle
                                                 : handle->callback);
    Py_END_CRITICAL_SECTION();
    return subject;
}

/* --- reading ------------------------------------------------------------- */

/* dict[name] = value.  0 or -1. */
static int
put(PyObject *dict, const char *name, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int code = number == NULL ? -1 : PyDict_SetItemString(dict, name, number);
    Py_XDECREF(number);
    return code;
}

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

static int
put_counters(PyObject *dict, const FlMetrics *metrics)
{
    int code = 0;
    size_t count = sizeof(counters) / sizeof(*counters);
    for (size_t at = 0; code == 0 && at < count; at++) {
        const char *place = (const char *)metrics + counters[at].offset;
        code = put(dict, counters[at].name,
                   fl_count_get((const FlCount *)(const void *)place));
    }
    return code;
}

static int
put_times(PyObject *dict, FlMetrics *metrics)
{
    static const char *const names[FL_TIMES] = {
        "outside_time_ns", "callback_time_ns", "poll_time_ns",
        "sleep_time_ns",   "gil_wait_time_ns",
    };
    Times times;
    read_times(metrics, &times);
    bool away =
        times.time_of == FL_TIME_CALLBACKS || times.time_of == FL_TIME_GIL;
    int code = put(dict, "elapsed_ns",
                   (uint64_t)(times.now_ns - metrics->enabled_ns));
    if (code == 0) {
        code = put(dict, "away_ns",
                   away ? (uint64_t)(times.now_ns - times.since_ns) : 0);
    }
    for (int at = 0; code == 0 && at < FL_TIMES; at++) {
        code = put(dict, names[at], times.spent_ns[at]);
    }
    return code;
}

static int
put_lag(PyObject *dict, const FlMetrics *metrics)
{
    PyObject *list = PyList_New(FL_LAG_BUCKETS);
    for (int at = 0; list != NULL && at < FL_LAG_BUCKETS; at++) {
        PyObject *number =
            PyLong_FromUnsignedLongLong(fl_count_get(&metrics->lag[at]));
        if (number == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, at, number);
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
    if (fl_loop_on_own_thread(loop)) {
        copy_progress(loop, metrics);
    }
    PyObject *dict = PyDict_New();
    if (dict != NULL
        && (put_times(dict, metrics) < 0 || put_counters(dict, metrics) < 0
            || put_lag(dict, metrics) < 0))
    {
        Py_CLEAR(dict);
    }
    return dict;
}
