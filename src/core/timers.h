/* Timer handles in the loop's timer queue: put in and taken out.

   A timer without a delay is due when it is set, and a clock costs as much as
   the rest of it.  So loop->now_ns, a reading of this iteration or of the tick
   before, stands for the present where no timer can tell: none of those that
   are queued is due between the two.  loop->beyond_ns says when the next one
   after now_ns is due, or less.

   Loop's thread only, except what is named _anythread.  Functions return 0,
   or -1 with an exception set. */
#ifndef FL_CORE_TIMERS_H
#define FL_CORE_TIMERS_H

#include "base/clock.h"
#include "core/handle.h"
#include "core/loop.h"

/* The moment that a number of any kind names.  What asyncio can reckon with as
   it does, when - time(), and nothing else: a Decimal or a string raises the
   TypeError of that, and what is no number ValueError where asyncio's run
   would. */
int fl_timer_take_when(PyObject *value, FlWhen *when);

/* The nanosecond from which loop.time() >= when_seconds holds. */
int64_t fl_timer_deadline_of(double when_seconds);

/* Whether the loop's last reading orders timers as the present would, which is
   at most FL_COARSE_LAG_NS after coarse_ns. */
static inline bool
fl_timers_bear_reading(const FlLoop *loop, int64_t coarse_ns)
{
    return loop->beyond_ns - FL_COARSE_LAG_NS > coarse_ns;
}

/* The nanosecond from which a timer is due that is set now, without a delay,
   in a loop that runs. */
int64_t fl_timer_deadline_now(FlLoop *loop);

/* Queue a timer that is in no queue. */
int fl_timer_enqueue(FlLoop *loop, FlTimerHandle *timer, int64_t deadline_ns);

/* Give a timer another time, and if it is queued another place.  RuntimeError
   in a thread that must not; one for which memory is missing is queued no
   more. */
int fl_timer_move(FlLoop *loop, FlTimerHandle *timer, const FlWhen *when);

/* From a thread that does not run the timer's loop: have the loop's thread
   queue the timer, or take a cancelled one out. */
int fl_timer_enqueue_anythread(FlTimerHandle *timer);
void fl_timer_forget_anythread(FlTimerHandle *timer);

/* Give a timer that shares its context a copy.  0, or -1 with MemoryError. */
int fl_timer_own_context(FlTimerHandle *self);

#endif
