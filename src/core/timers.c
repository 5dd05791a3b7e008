/* Timers: timer handles enter and leave the loop's timer queue. */
#include "core/timers.h"

#include "base/timer_queue.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/report.h"
#include "core/thread_queue.h"
#include "py/compat.h"

static int
enqueue(FlLoop *loop, FlTimerHandle *timer)
{
    if (fl_timer_queue_push(&loop->timers, &timer->node, timer->when_s) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(timer); /* the queue's reference */
    return 0;
}

/* Take a timer out of the queue.  Returns the queue's reference, or NULL if
   the timer has left the queue before. */
static PyObject *
dequeue(FlLoop *loop, FlTimerHandle *timer)
{
    if (!fl_timer_node_is_queued(&timer->node)) {
        return NULL;
    }
    fl_timer_queue_remove(&loop->timers, &timer->node);
    return (PyObject *)timer;
}

/* An FlReadyOp.  The timer may have been cancelled after the other thread
   posted it. */
static int
enqueue_op(FlLoop *loop, PyObject *timer, PyObject *Py_UNUSED(argument))
{
    FlTimerHandle *self = (FlTimerHandle *)timer;
    if (fl_handle_is_cancelled((FlHandle *)self) || enqueue(loop, self) == 0) {
        return 0;
    }
    return fl_loop_report_callback(loop, NULL);
}

/* An FlReadyOp. */
static int
dequeue_op(FlLoop *loop, PyObject *timer, PyObject *Py_UNUSED(argument))
{
    Py_XDECREF(dequeue(loop, (FlTimerHandle *)timer));
    return 0;
}

/* Without a GIL, in a thread that has not claimed the loop: take the lock if
   no thread has.  Until it is released none does (fl_loop_claim). */
static bool
lock_idle(FlLoop *loop)
{
    fl_fd_table_lock(loop->table);
    bool idle = !loop->closed && atomic_load(&loop->claim.thread) == 0;
    if (!idle) {
        fl_fd_table_unlock(loop->table);
    }
    return idle;
}

/* Else. */
static int
post(FlLoop *loop, FlReadyOp op, FlTimerHandle *timer)
{
    return fl_thread_queue_push_op_anythread(loop, op, (PyObject *)timer, NULL,
                                             NULL);
}

int
fl_timer_enqueue_anythread(FlTimerHandle *timer)
{
    FlLoop *loop = FL_LOOP(timer->loop);
    if (!FL_UNLIKELY(fl_loop_needs_lock(loop))) {
        return enqueue(loop, timer);
    }
    if (!lock_idle(loop)) {
        return post(loop, enqueue_op, timer);
    }
    int code = enqueue(loop, timer);
    fl_fd_table_unlock(loop->table);
    return code;
}

void
fl_timer_remove_anythread(FlTimerHandle *timer)
{
    FlLoop *loop = FL_LOOP(timer->loop);
    if (!fl_loop_needs_lock(loop)) {
        Py_XDECREF(dequeue(loop, timer));
    }
    else if (lock_idle(loop)) {
        PyObject *queued = dequeue(loop, timer);
        fl_fd_table_unlock(loop->table);
        Py_XDECREF(queued); /* may wait for another thread, without a GIL */
    }
    else if (post(loop, dequeue_op, timer) < 0) {
        /* No memory: the timer stays queued until it is due, and is skipped
           then.  Or the loop was closed, which emptied the queue. */
        PyErr_Clear();
    }
}
