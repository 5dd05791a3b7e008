/* Corking: what callbacks have written and not sent yet, and who may touch it.
   Only stream sockets cork, and transport/stream_send.c says which writes.

   FlCork is a member of the loop.  Its `turn` says who may touch the list
   `streams`, the queues of the streams in it, and ahead_bytes.  It has a
   number, one more for each flush, and a state:

     EMPTY    nothing is corked: a thread with the GIL corks the first write
     HELD     a thread with the GIL may touch them: during a flush, or because
              fl_cork_send_ahead has sent them all
     OFFERED  the first thread that takes them may: the callback may run long
     TAKEN    fl_cork_send_ahead may, in a thread that needs no GIL

   The loop takes them before it touches them (fl_cork_take), and offers them
   after each change (fl_cork_add, fl_cork_remove in sender.h), except a
   client's first write, which is flushed at once.
   fl_cork_send_ahead takes what is offered, sends it, and notes in each queue
   how much.  It frees nothing and changes no reference count: the loop's own
   flush does the rest.  When to flush is in flush.h.

   Owner: a stream owns its FlOutbox, and leaves the list before it dies.

   Threads: those with the loop's GIL, except for fl_cork_send_ahead. */
#ifndef FL_CORE_CORK_H
#define FL_CORE_CORK_H

#include "base/list.h"
#include "core/write_queue.h"
#include "py/compat.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

struct FlLoop;

#define FL_CORK_EMPTY   ((uint64_t)0)
#define FL_CORK_HELD    ((uint64_t)1)
#define FL_CORK_OFFERED ((uint64_t)2)
#define FL_CORK_TAKEN   ((uint64_t)3)
#define FL_CORK_STATE   ((uint64_t)3) /* the bits of the state */
#define FL_CORK_NUMBER  ((uint64_t)4) /* one in the number */

/* What a stream has written and not sent; a member of the stream. */
typedef struct FlOutbox {
    FlList link;         /* in FlCork.streams while corked */
    FlWriteQueue queue;  /* corked, or refused by the kernel */
    int fd;              /* a copy of the stream's; only a socket's is used */
    uint16_t send_errno; /* of a failed send of the corked queue; or 0 */
} FlOutbox;

static inline void
fl_outbox_init(FlOutbox *out)
{
    fl_list_init(&out->link);
    fl_write_queue_init(&out->queue);
    out->fd = -1;
}

typedef struct FlCork {
    FlList streams; /* FlOutbox.link: those whose queues are corked, in the
                       order of their first corked writes */
    /* The run's thread, if the run corks writes; else NULL. */
    PyThreadState *thread;
    /* The same while the loop is busy; NULL while it is quiet: iteration.c,
       invariant 4. */
    PyThreadState *busy_thread;
    /* The same during a batch; NULL once a callback of it has run another
       loop.  A write of another thread is not corked: the loop may be asleep,
       or wait for that thread. */
    PyThreadState *writer;
    _Atomic uint64_t turn;
    atomic_bool wanted;  /* the loop waits for what is TAKEN */
    bool watched;        /* watch_link is in the sender's list */
    size_t ahead_bytes;  /* sent ahead since the last flush, for the metrics */
    uint64_t early_head; /* ready.head of the callback that last sent its first
                            write immediately */
    FlList watch_link;
    uint64_t seen_turn; /* for sender.c alone: the turn at its last look */
} FlCork;

static inline void
fl_cork_init(FlCork *cork)
{
    fl_list_init(&cork->streams);
    atomic_init(&cork->turn, FL_CORK_EMPTY);
}

/* Take what is corked: what is OFFERED becomes HELD; EMPTY and HELD stay as
   they are.  Returns false if it is TAKEN.  For fl_cork_take and
   fl_cork_take_back alone. */
static inline bool
fl_cork_try_take(FlCork *cork)
{
    /* Acquire: fl_cork_send_ahead may have set HELD. */
    uint64_t turn = atomic_load_explicit(&cork->turn, memory_order_acquire);
    uint64_t number = turn & ~FL_CORK_STATE;
    uint64_t offered = number | FL_CORK_OFFERED;
    return turn < offered
           || atomic_compare_exchange_strong(&cork->turn, &offered,
                                             number | FL_CORK_HELD);
}

/* Wait for what is TAKEN; for fl_cork_take alone. */
void fl_cork_take_back(FlCork *cork);

/* Have what is corked to oneself, before it changes. */
static inline void
fl_cork_take(FlCork *cork)
{
    if (FL_UNLIKELY(!fl_cork_try_take(cork))) {
        fl_cork_take_back(cork);
    }
}

/* Begin the next turn, EMPTY. */
static inline void
fl_cork_end_turn(FlCork *cork)
{
    uint64_t turn = atomic_load_explicit(&cork->turn, memory_order_relaxed);
    FL_CHECK((turn & FL_CORK_STATE) <= FL_CORK_HELD, "it was taken");
    FL_CHECK(fl_list_is_empty(&cork->streams), "no stream is left");
    atomic_store_explicit(&cork->turn,
                          (turn & ~FL_CORK_STATE) + FL_CORK_NUMBER,
                          memory_order_relaxed);
}

#endif
