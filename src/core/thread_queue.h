/* The inbox: what other threads hand to the loop.

   With a GIL a push goes straight into the ready queue, so call_soon and
   call_soon_threadsafe keep one order.  Without a GIL an entry waits in the
   inbox, behind a lock, until the loop's next turn.

   Rejected: an inbox with a GIL as well.  It costs a copy for each entry and
   loses that order.

   Functions named _anythread are for any thread that may run Python. */
#ifndef FL_CORE_THREAD_QUEUE_H
#define FL_CORE_THREAD_QUEUE_H

#include "core/loop.h"
#include "core/ready_queue.h"
#include "py/compat.h"

/* Take the lock, and give it back.  In a forked child it is made anew first,
   with its condition: threads of the parent may have held or waited for them,
   and glibc to 2.40 would wait for these to wake.  Any thread. */
void fl_thread_queue_lock(FlThreadQueue *thread_queue);
void fl_thread_queue_unlock(FlThreadQueue *thread_queue);

int fl_thread_queue_init(FlThreadQueue *thread_queue);
void fl_thread_queue_free(FlThreadQueue *thread_queue);

/* Mark the loop closed: when this returns no other thread is pushing or waking
   it, nor will; what was pushed is dropped. */
void fl_thread_queue_close(FlLoop *loop);

/* Push an entry from any thread that may run Python, and wake the loop if it
   sleeps.  Steals what the entry owns, also on failure.  0, or -1 with
   MemoryError or RuntimeError (closed) set. */
int fl_thread_queue_push_anythread(FlLoop *loop, FlReady *entry);

/* With the GIL: an entry was put into the ready queue; the rest of a push. */
void fl_thread_queue_notify_anythread(FlLoop *loop);

/* End the loop's wait, or its next; nothing happens when it is closed. */
void fl_thread_queue_wake_anythread(FlLoop *loop);

/* Move the inbox's entries into the ready queue. */
int fl_thread_queue_drain(FlLoop *loop);

/* For the collector, which has stopped the other threads. */
int fl_thread_queue_traverse(const FlThreadQueue *thread_queue,
                             visitproc visit, void *arg);

/* The thread that pushes to the queue calls this before: what it pushed to the
   inbox earlier goes first, as in asyncio's one queue. */
static inline int
fl_thread_queue_keep_order(FlLoop *loop)
{
#if FL_HAVE_GIL
    (void)loop;
    return 0;
#else
    return fl_thread_queue_drain(loop);
#endif
}

#endif
