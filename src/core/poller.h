/* The poller: what the loop waits with.

   Run one poll; wake a poll from another thread; end a poll at a timeout.
   Watching descriptors is registration.h's.  Nothing in here touches Python, so a
   poll may run without the GIL: it takes events from the set, and the loop
   collects them afterwards (registration.h) and runs them as entries of its own
   queue.  It makes and changes no watch: the GIL guards their table.

   Rejected: keeping a clean poller for the thread's next loop.  It saved 40
   us a loop, and everything that a loop leaves behind had to be undone.

   Errors are negative errnos.  Loop's thread only, except what is named
   _anythread. */
#ifndef FL_CORE_POLLER_H
#define FL_CORE_POLLER_H

#include "base/forks.h"
#include "base/list.h"
#include "core/registration.h"
#include "py/compat.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

typedef struct FlPoller FlPoller;

/* What is known of a descriptor's number. */
typedef struct {
    FlRegistration *reg; /* or NULL */
    bool registered;     /* the set was given a file under this number */
} FlFdEntry;

struct FlPoller {
    uv_loop_t uv;
    uv_async_t async; /* this and the next two: see has_handles */
    uv_timer_t timer;
    uv_poll_t set_poll;  /* of the set's own descriptor */
    FlFdSet set;         /* of everything else that is watched */
    uint64_t polls;      /* how many were made */
    uv_mutex_t fds_lock; /* without a GIL: of `numbers` and the lists */
    FlFdEntry *fds;      /* by descriptor number */
    int fds_size;
    uint32_t last_generation;
    bool set_fired;   /* the set has events to take */
    bool has_handles; /* libuv's were made, for the first wait */
    bool may_wait;    /* that, and they were there in this run */
    bool polled;      /* libuv polls the set */
    bool busy;        /* the last poll took several events */
    atomic_bool
        user_fd_changed; /* an application's was set since the last poll */
    bool recheck;        /* a watch is */
    unsigned stale;      /* events of stale registrations */
    FlList fired;        /* watches with events that were not queued yet */
    FlList closed;       /* see fl_registrations_pop_closed */
    atomic_uintptr_t iterating_thread; /* makes a turn; 0: none does */
    FlRegistration *timerfd_reg;       /* NULL until it is first needed */
    int timerfd;
    FlRegistration
        *signal_reg;         /* on the read end of the signal pipe, or NULL */
    int signal_fds[2];       /* read and write end, -1 until asked for */
    atomic_int sleeping;     /* a blocking poll is on, or about to be */
    atomic_bool interrupted; /* the next poll does not wait */
    unsigned forks; /* fl_forks_count() of the process that has the backend */
    int lost_by;    /* why there is no backend or set: a code, or 0 */
    bool unsettled; /* that, or timerfd and signal pipe are the parent's */
    bool use_timerfd;
    int taken;                          /* how many events wait to be noted */
    FlFdEvent events[FL_FD_SET_EVENTS]; /* last: it is not cleared */
};

/* Open a poller; *out is set only on success. */
int fl_poller_open(FlPoller **out, bool use_timerfd);

/* Close and free it, with every watch that is left. */
void fl_poller_free(FlPoller *poller);

/* In the child of a fork, get a backend and a set of the poller's own: it
   shares the parent's, and to stop a watch here would unregister it there.
   This is called before a watch is changed.  The timerfd and the signal pipe
   stay shared until fl_poller_close_own.  0 or a negative errno. */
int fl_poller_leave_parent_now(FlPoller *poller);

/* True in the child of a fork while the poller has its parent's backend. */
static inline bool
fl_poller_is_parents(const FlPoller *poller)
{
    return poller->forks != fl_forks_count();
}

static inline int
fl_poller_leave_parent(FlPoller *poller)
{
    return fl_poller_is_parents(poller) ? fl_poller_leave_parent_now(poller)
                                        : 0;
}

/* Be rid of stale registrations in the set: have a new set.
   Where that fails the old one stays.  For the loop's thread, not inside a
   poll; the caller holds the lock of the numbers. */
void fl_poller_renew_set(FlPoller *poller);

/* Close the timerfd and the signal pipe, which are made again when needed. */
void fl_poller_close_own(FlPoller *poller);

/* A run begins: its first wait looks whether libuv's descriptors are there. */
static inline void
fl_poller_begin_run(FlPoller *poller)
{
    poller->may_wait = false;
}

/* A turn of the loop begins and ends. */
static inline void
fl_poller_begin_iteration(FlPoller *poller)
{
    atomic_store_explicit(&poller->iterating_thread, (uintptr_t)pthread_self(),
                          memory_order_relaxed);
}

static inline void
fl_poller_end_iteration(FlPoller *poller)
{
    atomic_store_explicit(&poller->iterating_thread, 0, memory_order_relaxed);
}

/* True in a thread while another one makes a turn, and may be looking at any
   watch or stream. */
static inline bool
fl_poller_is_elsewhere(FlPoller *poller)
{
    uintptr_t thread =
        atomic_load_explicit(&poller->iterating_thread, memory_order_relaxed);
    return thread != 0 && thread != (uintptr_t)pthread_self();
}

/* Without a GIL another thread may watch a number meanwhile, and have the
   table grow.  What these two are around calls neither Python nor them. */
static inline void
fl_poller_lock_fds(FlPoller *poller)
{
#if FL_HAVE_GIL
    (void)poller;
#else
    (void)fl_poller_leave_parent(poller); /* it makes the lock anew */
    uv_mutex_lock(&poller->fds_lock);
#endif
}

static inline void
fl_poller_unlock_fds(FlPoller *poller)
{
#if FL_HAVE_GIL
    (void)poller;
#else
    uv_mutex_unlock(&poller->fds_lock);
#endif
}

/* Before a poll that may wait so long, while the caller has the GIL: from here
   on another thread can end it. */
void fl_poller_expect_wake(FlPoller *poller, int64_t timeout_ns);

/* Poll once: without waiting (timeout_ns 0), up to a timeout,
   or until something happens (negative).  Never returns early on purpose, and
   may return late by what the system's clock gives. */
void fl_poller_run(FlPoller *poller, int64_t timeout_ns);

/* Make a poll that is on, or about to be, return.  Any thread; the caller
   keeps the poller from being freed meanwhile. */
static inline void
fl_poller_wake_anythread(FlPoller *poller)
{
    if (atomic_exchange(&poller->sleeping, 0) && !fl_poller_is_parents(poller))
    {
        (void)uv_async_send(&poller->async);
    }
}

/* The same, and if no poll is on, the next one returns at once. */
static inline void
fl_poller_interrupt_anythread(FlPoller *poller)
{
    atomic_store(&poller->interrupted, true);
    fl_poller_wake_anythread(poller);
}

/* Make the signal pipe and watch its read end, on first use; on_signal runs
   when bytes have come.  0 or a negative errno. */
int fl_poller_signal_pipe(FlPoller *poller,
                          int (*on_signal)(void *loop, FlRegistration *reg,
                                           int events));

#endif
