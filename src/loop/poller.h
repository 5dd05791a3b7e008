/* The poller: libuv behind the five things the loop asks of it.

   watch, change and stop a descriptor; run one poll; wake a poll from another
   thread; be asked for a deadline.  Nothing in here touches Python, so a poll
   may run without the GIL: libuv's callbacks only note which watches fired.
   The loop collects those afterwards (fl_poller_pop_fired) and runs them as
   entries of its own queue.

   Ownership: a watch is the poller's memory from open to close; its owner
   keeps only a pointer and must close it before it dies.  close stops the
   watch at once (the descriptor may be closed next) and the memory goes when
   libuv lets go of it.

   Errors are negative errnos.  Loop's thread only, except what is named
   _anythread. */
#ifndef FL_LOOP_POLLER_H
#define FL_LOOP_POLLER_H

#include "base/list.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define FL_READABLE   1
#define FL_WRITABLE   2
#define FL_POLL_ERROR 4 /* added to both others: make the call, see errno */

typedef struct FlPoller FlPoller;
typedef struct FlWatch FlWatch;

struct FlWatch {
    uv_poll_t uv;
    FlList fired_link; /* in poller->fired while events await collection */
    FlList fresh_link; /* in poller->fresh from a start to the next poll */
    FlPoller *poller;
    void *owner; /* NULL once closed */
    /* The loop's: run the events; see FlReadyKind.  Returns 0 or -1. */
    int (*on_events)(void *loop, FlWatch *watch, int events);
    int fd;
    uint8_t wanted;       /* FL_READABLE | FL_WRITABLE: what was asked for */
    uint8_t fired;        /* what has fired and was not run yet */
    bool foreign;         /* others may close the descriptor under us */
    bool owner_is_object; /* owner is a PyObject: debug mode names it */
    bool held;            /* see hold_number in poller.c */
    uint64_t position;    /* of its entry in the ready ring, or UINT64_MAX */
};

struct FlPoller {
    uv_loop_t uv;
    uv_async_t async;
    uv_timer_t timer;
    FlList fired;
    FlList fresh; /* watches whose start libuv has not given to the system */
    FlWatch *timerfd_watch; /* NULL: none, deadlines are rounded up to ms */
    int64_t timerfd_ns;     /* what the timerfd is armed for, 0: it is not */
    int timerfd;
    FlWatch *signal_watch; /* on the read end of the signal pipe, or NULL */
    int signal_fds[2];     /* read and write end, -1 until asked for */
    atomic_int sleeping;   /* a blocking poll is on, or about to be */
    atomic_int owed;       /* wake-ups claimed and not paid yet */
    unsigned watch_count;
    int pid;      /* of the process whose backend it has */
    bool suspect; /* a descriptor was closed while watched */
    bool use_timerfd;
};

/* Open a poller; *out is set only on success. */
int fl_poller_open(FlPoller **out, bool use_timerfd);

/* Close and free it, with every watch that is left. */
void fl_poller_free(FlPoller *poller);

/* In the child of a fork, get a backend of the poller's own: it shares the
   parent's, and what is closed here would be taken out of that.  Nothing
   happens in the process that opened it.  0 or a negative errno. */
int fl_poller_leave_parent(FlPoller *poller);

/* Close the timerfd and the signal pipe, which are made again when needed. */
void fl_poller_close_own(FlPoller *poller);

/* True when no watch but its own is open or closing: it can serve another
   loop.  Runs libuv once to let go of what was closed. */
bool fl_poller_settle(FlPoller *poller);

/* Poll once: not at all past what is ready (timeout_ns 0), up to a timeout,
   or until something happens (negative).  Never returns early on purpose, and
   may return late by what the system's clock gives. */
void fl_poller_run(FlPoller *poller, int64_t timeout_ns);

/* Make a poll that is on, or about to be, return.  Any thread; the caller
   keeps the poller from being freed meanwhile. */
static inline void
fl_poller_wake_anythread(FlPoller *poller)
{
    if (atomic_exchange(&poller->sleeping, 0)) {
        (void)uv_async_send(&poller->async);
    }
}

/* The same, and if no poll is on, the next one returns at once. */
static inline void
fl_poller_interrupt_anythread(FlPoller *poller)
{
    atomic_store(&poller->sleeping, 0);
    (void)uv_async_send(&poller->async);
}

/* Claim the wake-up of a poller that sleeps: true when it is the caller's to
   pay, from any thread; freeing the poller waits for that. */
static inline bool
fl_poller_claim_wake_anythread(FlPoller *poller)
{
    if (!atomic_exchange(&poller->sleeping, 0)) {
        return false;
    }
    atomic_fetch_add(&poller->owed, 1);
    return true;
}

static inline void
fl_poller_pay_wake_anythread(FlPoller *poller)
{
    (void)uv_async_send(&poller->async);
    atomic_fetch_sub(&poller->owed, 1);
}

/* The next watch that fired, its events in watch->fired; NULL: no more. */
FlWatch *fl_poller_pop_fired(FlPoller *poller);

/* Watch fd for nothing yet.  A watch of the same number that its owner left
   behind must have been closed before.  keep_flags: leave O_NONBLOCK as it is
   (libuv sets it), for descriptors that are not ours. */
int fl_watch_open(FlPoller *poller, int fd, bool keep_flags, FlWatch **out);

/* From now on others may close the descriptor under the watch. */
void fl_watch_share(FlWatch *watch);

/* Change what is watched; 0 stops.  Always reaches the system for a change,
   and drops events that fired and were not run. */
int fl_watch_set(FlWatch *watch, int wanted);

/* After events were run: libuv stops a watch that reported an error. */
int fl_watch_rearm(FlWatch *watch);

void fl_watch_close(FlWatch *watch);

/* Make the signal pipe and watch its read end, on first use; on_signal runs
   when bytes have come.  0 or a negative errno. */
int fl_poller_signal_pipe(FlPoller *poller,
                          int (*on_signal)(void *loop, FlWatch *watch,
                                           int events));

#endif
