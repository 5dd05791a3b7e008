/* Timer handles in the loop's timer queue: put in and taken out.

   Loop's thread only, except what is named _anythread.  Functions return 0,
   or -1 with an exception set. */
#ifndef FL_CORE_TIMERS_H
#define FL_CORE_TIMERS_H

#include "core/handle.h"
#include "core/loop.h"

/* The nanosecond from which loop.time() >= when_seconds holds. */
int64_t fl_timer_deadline_of(double when_seconds);

/* Queue a timer that is in no queue. */
int fl_timer_enqueue(FlLoop *loop, FlTimerHandle *timer, int64_t deadline_ns);

/* From a thread that does not run the timer's loop: have the loop's thread
   queue the timer, or take a cancelled one out. */
int fl_timer_enqueue_anythread(FlTimerHandle *timer);
void fl_timer_forget_anythread(FlTimerHandle *timer);

/* Give a timer that shares its context a copy.  0, or -1 with MemoryError. */
int fl_timer_own_context(FlTimerHandle *self);

#endif
