/* The sender: a thread that sends corked bytes when a callback does not return
   for some milliseconds.  sender.c says when.

   It is one thread a process, made by the first corked write.  It needs no
   GIL, so a callback that computes, blocks, or keeps the GIL in C does not
   stop it.  Python's threading module does not list it.

   Threads: these functions are for any thread that has the loop's GIL.

   Rejected: a timer's signal (it interrupts system calls of the application),
   and io_uring (containers forbid it). */
#ifndef FL_CORE_SENDER_H
#define FL_CORE_SENDER_H

#include "py/compat.h"

#include <stdatomic.h>

struct FlCork;

extern atomic_bool fl_sender_idle; /* for sender.c and fl_sender_see alone */

/* Have the sender look at a loop: call this once, at the loop's first corked
   write.  Call fl_sender_unwatch before the loop is freed; it does nothing for
   a loop that is not watched. */
void fl_sender_watch(struct FlCork *cork);
void fl_sender_unwatch(struct FlCork *cork);

/* For fl_sender_see alone: wake the sender, or start it.  Where no thread can
   be made, flush, and cork no more in this run. */
void fl_sender_wake(struct FlCork *cork);

/* A watched loop has offered what it has corked. */
static inline void
fl_sender_see(struct FlCork *cork)
{
    if (FL_UNLIKELY(atomic_load(&fl_sender_idle))) {
        fl_sender_wake(cork);
    }
}

/* End the thread, before a fork: os.fork() warns where there are other
   threads.  Later fl_sender_see starts it again. */
void fl_sender_stop(void);

/* After the fork, in the parent: start it again if a loop of another thread
   has corked bytes.  That loop may not write again for long. */
void fl_sender_resume(void);

#endif
