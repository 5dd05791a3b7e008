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
#include "core/loop.h"
#include "core/turn.h"
#include "py/compat.h"

#include <stdatomic.h>
#include <stdbool.h>

extern atomic_bool fl_sender_idle; /* for sender.c and fl_sender_see alone */

/* Have the sender look at a loop: call this once, at the loop's first corked
   write.  Call fl_sender_unwatch before the loop is freed; it does nothing for
   a loop that is not watched. */
void fl_sender_watch(FlLoop *loop);
void fl_sender_unwatch(FlLoop *loop);

/* For fl_sender_see alone: wake the sender, or start it.  Where no thread can
   be made, flush, and cork no more in this run. */
void fl_sender_wake(FlLoop *loop);

/* A watched loop has corked its first write since a flush. */
static inline void
fl_sender_see(FlLoop *loop)
{
    if (FL_UNLIKELY(atomic_load(&fl_sender_idle))) {
        fl_sender_wake(loop);
    }
}

/* What a stream has queued is corked.  No other stream is, so nothing is
   OFFERED or TAKEN (turn.h). */
static inline void
fl_cork_add_first(FlLoop *loop, FlOutbox *out)
{
    fl_list_append(&loop->cork.streams, &out->link);
    if (FL_UNLIKELY(!loop->cork.watched)) {
        fl_sender_watch(loop);
    }
    fl_cork_offer(&loop->cork, memory_order_seq_cst);
    fl_sender_see(loop);
}

/* The same where others may be.  The caller has taken them (fl_cork_take). */
static inline void
fl_cork_add(FlLoop *loop, FlOutbox *out)
{
    if (fl_list_is_empty(&loop->cork.streams)) {
        fl_cork_add_first(loop, out);
        return;
    }
    if (fl_list_is_empty(&out->link)) {
        fl_list_append(&loop->cork.streams, &out->link);
    }
    fl_cork_offer(&loop->cork, memory_order_release);
}

/* End the thread, before a fork: os.fork() warns where there are other
   threads.  Later fl_sender_see starts it again. */
void fl_sender_stop(void);

/* After the fork, in the parent: start it again if a loop of another thread
   has corked bytes.  That loop would not: its next write is not the first
   since a flush. */
void fl_sender_resume(void);

#endif
