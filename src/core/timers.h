/* Timers: timer handles enter and leave the loop's timer queue.

   call_later(0, ...) is due at once, and reading the clock would cost as much
   as the rest of the call.  So loop->now_ns, the clock's last reading in this
   iteration or in the tick before it, serves as the present where that changes
   no order: no queued timer is due between that reading and the present.
   loop->quiet_until_ns is a lower bound of the first deadline after now_ns.

   Ownership: the queue owns a reference to each queued timer handle.

   Threads: the loop's thread only, except functions named _anythread.
   Failure: functions return 0, or -1 with an exception set. */
#ifndef FL_CORE_TIMERS_H
#define FL_CORE_TIMERS_H

#include "base/clock.h"
#include "core/handle.h"
#include "core/loop.h"

/* Parse a deadline of any numeric type.  The type must support what asyncio
   computes with it, when - time().  A Decimal or a string raises that
   subtraction's TypeError.  NaN raises ValueError on the versions where a run
   of asyncio's loop does (3.13 and later).  when->object borrows `value`. */
int fl_timer_parse_when(PyObject *value, FlWhen *when);

/* The first nanosecond at which loop.time() >= when_seconds.  NaN is due at
   once; infinity is the last deadline before FL_DEADLINE_NEVER. */
int64_t fl_timer_deadline_of(double when_seconds);

/* Whether the loop's last clock reading orders timers as the present time
   would.  The present is at most FL_COARSE_LAG_NS after coarse_ns. */
static inline bool
fl_timers_reading_is_current(const FlLoop *loop, int64_t coarse_ns)
{
    return loop->quiet_until_ns - FL_COARSE_LAG_NS > coarse_ns;
}

/* The deadline of a timer scheduled now without a delay, in a running loop:
   loop->now_ns, which is read again only where the order of timers needs it.
   Cannot fail. */
int64_t fl_timer_deadline_now(FlLoop *loop);

/* Queue a timer that is in no queue; the queue takes its own reference.
   MemoryError: nothing changed. */
int fl_timer_enqueue(FlLoop *loop, FlTimerHandle *timer, int64_t deadline_ns);

/* Give a timer a new deadline.  A queued timer moves to its new place; the
   caller owns a reference.  RuntimeError, without a GIL, in a thread other
   than the one that runs the loop.  MemoryError: the timer is no longer
   queued. */
int fl_timer_move(FlLoop *loop, FlTimerHandle *timer, const FlWhen *when);

/* From a thread that does not run the timer's loop: post an operation to the
   cross-thread queue, so that the loop's thread queues the timer or removes a
   cancelled one.  fl_timer_remove_anythread ignores a failure: the cancelled
   timer stays queued until it is due. */
int fl_timer_enqueue_anythread(FlTimerHandle *timer);
void fl_timer_remove_anythread(FlTimerHandle *timer);

/* Replace a shared context by the timer's own copy, before the context is
   entered or shown to the application.  0, or -1 with MemoryError. */
int fl_timer_unshare_context(FlTimerHandle *self);

#endif
