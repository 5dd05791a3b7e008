/* Timer handles in the loop's timer queue: put in and taken out.

   1. The queue owns a reference to each timer handle in it.
   2. Only the loop's thread changes the queue; another thread posts the change
      to the inbox. */
#include "core/timers.h"

#include "base/timer_queue.h"
#include "core/handle.h"
#include "core/thread_queue.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/report.h"
#include "py/compat.h"
#include "py/context.h"

#include <math.h>

/* So that what loop.time() told, a nanosecond rounded twice, comes out as that
   nanosecond and not as the next. */
#define NS_PER_SECOND (1e9 * (1 - 0x1p-51))

/* The nanosecond from which loop.time() >= when holds.  What is not a number
   is due at once, as in asyncio. */
int64_t
fl_timer_deadline_of(double when)
{
    double ns = ceil(when * NS_PER_SECOND);
    if (ns >= 9.2e18) {
        return FL_DEADLINE_NEVER - 1;
    }
    return ns > 0 ? (int64_t)ns : 0;
}

/* What no double holds counts as infinite.  0 or -1. */
static int
take_infinite(PyObject *value, PyObject *zero, double *seconds)
{
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
        return -1;
    }
    PyErr_Clear();
    int positive = PyObject_RichCompareBool(value, zero, Py_GT);
    *seconds = positive > 0 ? INFINITY : -INFINITY;
    return positive < 0 ? -1 : 0;
}

static int
check_when(const FlWhen *when)
{
    if (FL_REFUSES_NAN && FL_UNLIKELY(isnan(when->seconds))) {
        PyErr_SetString(PyExc_ValueError,
                        "a timer's time must not be NaN (not a number)");
        return -1;
    }
    return 0;
}

int
fl_timer_take_when(PyObject *value, FlWhen *when)
{
    when->object = value;
    if (FL_LIKELY(PyFloat_Check(value))) {
        when->seconds = PyFloat_AS_DOUBLE(value);
        return check_when(when);
    }
    PyObject *zero = PyFloat_FromDouble(0);
    if (zero == NULL) {
        return -1;
    }
    PyObject *reckoned = PyNumber_Subtract(value, zero);
    when->seconds = reckoned == NULL ? -1 : PyFloat_AsDouble(reckoned);
    Py_XDECREF(reckoned);
    int code = 0;
    if (PyErr_Occurred()) {
        code = take_infinite(value, zero, &when->seconds);
    }
    Py_DECREF(zero);
    return code < 0 ? -1 : check_when(when);
}

int64_t
fl_timer_deadline_now(FlLoop *loop)
{
    if (!loop->now_fresh
        || (loop->beyond_ns != FL_DEADLINE_NEVER
            && !fl_timers_bear_reading(loop, fl_clock_coarse_ns())))
    {
        loop->now_ns = fl_clock_ns();
        loop->now_fresh = true;
    }
    return loop->now_ns;
}

int
fl_timer_enqueue(FlLoop *loop, FlTimerHandle *timer, int64_t deadline_ns)
{
    if (fl_timer_queue_push(&loop->timers, &timer->node, deadline_ns) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (deadline_ns > loop->now_ns && deadline_ns < loop->beyond_ns) {
        loop->beyond_ns = deadline_ns;
    }
    Py_INCREF(timer); /* the queue's */
    return 0;
}

int
fl_timer_move(FlLoop *loop, FlTimerHandle *timer, const FlWhen *when)
{
    if (fl_loop_on_other_thread(loop)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Non-thread-safe operation invoked on an event loop "
                        "other than the current one");
        return -1;
    }
    int code = 0;
    PyObject *before = timer->when;
    timer->when = Py_XNewRef(when->object);
    timer->when_seconds = when->seconds;
    if (timer->node.place != 0) {
        fl_timer_queue_remove(&loop->timers, &timer->node);
        code =
            fl_timer_enqueue(loop, timer, fl_timer_deadline_of(when->seconds));
        Py_DECREF(timer); /* the queue's first reference; the caller has one */
    }
    Py_XDECREF(before);
    return code;
}

static int
enqueue_op(FlLoop *loop, PyObject *timer, PyObject *Py_UNUSED(argument))
{
    FlTimerHandle *self = (FlTimerHandle *)timer;
    if (fl_handle_is_cancelled((FlHandle *)self)
        || fl_timer_enqueue(loop, self,
                            fl_timer_deadline_of(self->when_seconds))
               == 0)
    {
        return 0;
    }
    return fl_loop_report_callback(loop, NULL);
}

static int
forget_op(FlLoop *loop, PyObject *timer, PyObject *Py_UNUSED(argument))
{
    FlTimerHandle *self = (FlTimerHandle *)timer;
    if (self->node.place != 0) {
        fl_timer_queue_remove(&loop->timers, &self->node);
        Py_DECREF(self);
    }
    return 0;
}

/* Have the loop's own thread do it. */
static int
post(FlTimerHandle *timer, FlReadyOp op)
{
    FlReady entry = {
        .kind = FL_READY_OP,
        .of.op = op,
        .callback = Py_NewRef((PyObject *)timer),
    };
    return fl_thread_queue_push_anythread(FL_LOOP(timer->loop), &entry);
}

int
fl_timer_enqueue_anythread(FlTimerHandle *timer)
{
    return post(timer, enqueue_op);
}

void
fl_timer_forget_anythread(FlTimerHandle *timer)
{
    if (post(timer, forget_op) < 0) {
        PyErr_Clear(); /* it stays until it is due, or the loop was closed */
    }
}

int
fl_timer_own_context(FlTimerHandle *self)
{
    if (FL_LIKELY(!self->shares_context) || self->context == NULL) {
        return 0;
    }
    PyObject *own = fl_context_copy(self->context);
    if (own == NULL) {
        return -1;
    }
    /* Making it may have run the collector, and that anything. */
    if (self->shares_context) {
        self->shares_context = false;
        Py_SETREF(self->context, own);
    }
    else {
        Py_DECREF(own);
    }
    return 0;
}
