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

#include "core/cork.h"
#include "py/compat.h"

#include <stdatomic.h>

extern atomic_bool fl_sender_idle; /* for sender.c and fl_sender_see alone */

/* Have the sender look at a loop: call this once, at the loop's first corked
   write.  Call fl_sender_unwatch before the loop is freed; it does nothing for
   a loop that is not watched. */
void fl_sender_watch(FlCork *cork);
void fl_sender_unwatch(FlCork *cork);

/* For fl_sender_see alone: wake the sender, or start it.  Where no thread can
   be made, flush, and cork no more in this run. */
void fl_sender_wake(FlCork *cork);

/* A watched loop has offered what it has corked. */
static inline void
fl_sender_see(FlCork *cork)
{
    if (FL_UNLIKELY(atomic_load(&fl_sender_idle))) {
        fl_sender_wake(cork);
    }
}

/* Offer what is corked: sender.c, invariant 2. */
static inline void
fl_cork_offer(FlCork *cork)
{
    uint64_t turn = atomic_load_explicit(&cork->turn, memory_order_relaxed);
    atomic_store(&cork->turn, (turn & ~FL_CORK_STATE) | FL_CORK_OFFERED);
    fl_sender_see(cork);
}

/* What a stream has queued is corked.  The caller has taken what was
   (fl_cork_take). */
static inline void
fl_cork_add(FlCork *cork, FlOutbox *out)
{
    if (fl_list_is_empty(&out->link)) {
        fl_list_append(&cork->streams, &out->link);
    }
    if (FL_UNLIKELY(!cork->watched)) {
        fl_sender_watch(cork);
    }
    fl_cork_offer(cork);
}

/* Take a corked stream out: no flush sends what its queue still has. */
void fl_cork_remove(FlCork *cork, FlOutbox *out);

/* End the thread, before a fork: os.fork() warns where there are other
   threads.  Later fl_sender_see starts it again. */
void fl_sender_stop(void);

/* After the fork, in the parent: start it again if a loop of another thread
   has corked bytes.  That loop may not write again for long. */
void fl_sender_resume(void);

#endif
