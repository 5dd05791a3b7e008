/* Corked bytes: the write queues that wait for the end of a callback or of the
   iteration.  Those of stream sockets alone are corked.

   `turn` says who may touch them: the list `streams`, the queues of the
   streams in it, and ahead_bytes.  It has a number, one more for each flush,
   and a state:

     EMPTY    nothing is corked: a thread with the GIL corks the first write
     HELD     a thread with the GIL may touch them, also during a flush
     OFFERED  the first thread that takes them may: the callback may run long
     TAKEN    fl_cork_send_ahead may, in a thread that needs no GIL

   The loop takes them before it touches them (fl_cork_take), and offers them
   after each corked write (fl_cork_add).  fl_cork_send_ahead takes what is
   offered, sends it, and notes in each queue how much.  It frees nothing and
   changes no reference count: the loop's own flush does the rest.

   Threads: those with the loop's GIL, except for fl_cork_send_ahead. */
#ifndef FL_CORE_TURN_H
#define FL_CORE_TURN_H

#include "base/list.h"
#include "core/write_queue.h"
#include "py/compat.h"

#include <stdatomic.h>

#define FL_CORK_EMPTY   ((uint64_t)0)
#define FL_CORK_HELD    ((uint64_t)1)
#define FL_CORK_OFFERED ((uint64_t)2)
#define FL_CORK_TAKEN   ((uint64_t)3)
#define FL_CORK_STATE   ((uint64_t)3) /* the bits of the state */
#define FL_CORK_NUMBER  ((uint64_t)4) /* one in the number */

/* What a stream has written and not sent; a member of the stream. */
typedef struct {
    FlList link;        /* in FlCork.streams while corked */
    FlWriteQueue queue; /* corked, or refused by the kernel */
    int fd;             /* of a socket: its own, until it is lost */
    uint8_t send_errno; /* of a failed send of the corked queue; or 0 */
} FlOutbox;

static inline void
fl_outbox_init(FlOutbox *out)
{
    fl_list_init(&out->link);
    fl_write_queue_init(&out->queue);
    out->fd = -1;
}

typedef struct {
    FlList streams; /* FlOutbox.link: those whose queues are corked, in the
                       order of their first corked writes */
    /* The run's thread, if the run corks writes; else NULL. */
    PyThreadState *thread;
    /* The same while the running callback corks.  A write of another thread is
       not corked: the loop may be asleep, or wait for that thread. */
    PyThreadState *writer;
    _Atomic uint64_t turn;
    /* The number of a turn whose bytes have waited for too long: the loop
       sends them when the running callback returns, or at its next write. */
    _Atomic uint64_t overdue_turn;
    atomic_bool wanted; /* the loop waits for what is TAKEN */
    bool watched;       /* watch_link is in the sender's list */
    size_t ahead_bytes; /* sent ahead since the last flush, for the metrics */
    FlList watch_link;
    /* For sender.c alone: the turn at its last look, and the number of the
       last turn whose bytes it has all sent. */
    uint64_t seen_turn;
    uint64_t sent_turn;
} FlCork;

static inline void
fl_cork_init(FlCork *cork)
{
    fl_list_init(&cork->streams);
    atomic_init(&cork->turn, FL_CORK_NUMBER); /* not the overdue one */
}

static inline bool
fl_cork_is_overdue(const FlCork *cork)
{
    uint64_t turn = atomic_load_explicit(&cork->turn, memory_order_relaxed);
    return (turn & ~FL_CORK_STATE)
           == atomic_load_explicit(&cork->overdue_turn, memory_order_relaxed);
}

/* Take what is corked: what is OFFERED becomes HELD; EMPTY and HELD stay as
   they are.  Returns false if it is TAKEN.  For cork.[ch] alone. */
static inline bool
fl_cork_try_take(FlCork *cork)
{
    uint64_t turn = atomic_load_explicit(&cork->turn, memory_order_relaxed);
    uint64_t number = turn & ~FL_CORK_STATE;
    uint64_t offered = number | FL_CORK_OFFERED;
    return turn < offered
           || atomic_compare_exchange_strong(&cork->turn, &offered,
                                             number | FL_CORK_HELD);
}

/* After a corked write: offer what is corked.  The order is
   memory_order_release.  For the first write since a flush it is
   memory_order_seq_cst, and fl_sender_see follows: sender.c, invariant 3. */
static inline void
fl_cork_offer(FlCork *cork, memory_order order)
{
    uint64_t turn = atomic_load_explicit(&cork->turn, memory_order_relaxed);
    atomic_store_explicit(&cork->turn,
                          (turn & ~FL_CORK_STATE) | FL_CORK_OFFERED, order);
}

/* They are HELD, and none is left: begin the next turn, EMPTY. */
static inline void
fl_cork_end_turn(FlCork *cork)
{
    uint64_t turn = atomic_load_explicit(&cork->turn, memory_order_relaxed);
    atomic_store_explicit(&cork->turn,
                          (turn & ~FL_CORK_STATE) + FL_CORK_NUMBER,
                          memory_order_relaxed);
}

#endif
