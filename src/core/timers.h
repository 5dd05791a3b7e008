/* Timers: timer handles enter and leave the loop's timer queue.  Those that
   are due leave it in iteration.c.

   Ownership: the queue owns a reference to each queued timer handle.

   Threads: the loop's thread only, except functions named _anythread.
   Failure: functions return 0, or -1 with an exception set. */
#ifndef FL_CORE_TIMERS_H
#define FL_CORE_TIMERS_H

#include "core/handle.h"
#include "core/loop.h"

/* Queue a timer that is in no queue; the queue takes its own reference.
   While another thread has claimed the loop, without a GIL, that one queues it
   in its next iteration.  MemoryError: nothing changed. */
int fl_timer_enqueue_anythread(FlTimerHandle *timer);

/* Take a timer out of the queue, or have the loop's thread do it.  The caller
   has a reference.  If that cannot be posted, the timer, which is cancelled,
   stays queued until it is due. */
void fl_timer_remove_anythread(FlTimerHandle *timer);

#endif
