/* Timer handles in the loop's timer queue: put in and taken out.

   1. The queue owns a reference to each timer handle in it.
   2. Only the loop's thread changes the queue; another thread posts the change
      to the inbox. */
#include "core/timers.h"

#include "base/timer_queue.h"
#include "core/handle.h"
#include "core/inbox.h"
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

int
fl_timer_enqueue(FlLoop *loop, FlTimerHandle *timer, int64_t deadline_ns)
{
    if (fl_timer_queue_push(&loop->timers, &timer->node, deadline_ns) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(timer); /* the queue's */
    return 0;
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
    return fl_inbox_push_anythread(FL_LOOP(timer->loop), &entry);
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
