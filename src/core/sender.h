/* The sender: a thread that sends corked bytes when a callback does not return
   for more than a millisecond.

   It is one thread a process, made by the first corked write.  It needs no
   GIL, so a callback that computes, blocks, or keeps the GIL in C does not
   stop it.  Python does not see it.

   Threads: any that has the GIL of the loop.

   Rejected: a timer's signal (it interrupts system calls of the application),
   and io_uring (containers forbid it). */
#ifndef FL_CORE_SENDER_H
#define FL_CORE_SENDER_H

#include "py/compat.h"

#include <stdatomic.h>
#include <stdbool.h>

struct FlLoop;

extern atomic_bool fl_sender_idle; /* for sender.c and fl_sender_see alone */

/* Have the sender look at a loop, before its first corked write, until
   fl_sender_unwatch, before the loop is freed.  That does nothing if the loop
   is not watched. */
void fl_sender_watch(struct FlLoop *loop);
void fl_sender_unwatch(struct FlLoop *loop);

/* For fl_sender_see alone: wake the sender, or start it.  Where no thread can
   be made, flush, and cork no more in this run. */
void fl_sender_wake(struct FlLoop *loop);

/* A watched loop has corked its first write since a flush. */
static inline void
fl_sender_see(struct FlLoop *loop)
{
    if (FL_UNLIKELY(atomic_load(&fl_sender_idle))) {
        fl_sender_wake(loop);
    }
}

/* End the thread, before a fork: os.fork() warns where there are other
   threads.  The next first corked write makes it again. */
void fl_sender_stop(void);

/* After the fork, in the parent: make it again if a callback of another thread
   goes on and has corked bytes, as its next write is not its first. */
void fl_sender_resume(void);

#endif
