/* The poller: what the loop waits with, one uv_loop_t and one FlFdSet.

   It runs one poll, ends a poll at a timeout, and lets another thread wake it.
   Fds are registered with registration.h.  Nothing here touches Python, so a
   poll may run without the GIL: fl_poller_run only takes events from the set.
   Afterwards, with the GIL, the loop processes them
   (fl_registrations_collect) and runs them as entries of its ready queue.
   fl_poller_run creates and changes no registration, because the GIL guards
   their table.

   Ownership: the loop owns its poller and frees it when it closes.  The poller
   owns libuv's loop and handles, the set, the registrations, the timerfd and
   the signal pipe.

   Failures: functions return negative errnos, or FL_NO_MEMORY.  If the
   poller's own fds were closed, failure_code keeps the error, and every later
   run of the loop fails with it (fl_loop_after_fork).

   Rejected: keeping a clean poller for the thread's next loop.  It saved 40 us
   per loop, and everything that a loop leaves in it had to be undone.

   Loop's thread only, except functions named _anythread. */
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

/* One entry of the table of fds. */
typedef struct {
    FlRegistration *reg; /* or NULL */
    /* What the set contains under this fd, as far as we know: its tag, and the
       interest, 0 for nothing.  The fd may have been closed since, and reg may
       be NULL: see registration.c, invariant 3. */
    uint32_t generation;
    uint8_t interest;
    uint8_t unwanted; /* unwanted events in a row */
} FlFd;

struct FlPoller {
    uv_loop_t uv;
    uv_async_t async; /* uv, and these three: valid if has_uv */
    uv_timer_t timer;
    uv_poll_t set_poll; /* polls the set's own fd */
    FlFdSet set;        /* contains every other fd of the loop */
    uint64_t polls;     /* number of polls so far */
    /* Without a GIL: guards `fds` and the lists `fired` and `closed`. */
    uv_mutex_t fds_lock;
    FlFd *fds; /* indexed by fd */
    int fds_size;
    uint32_t last_generation;
    bool set_fired;    /* libuv reported that the set has events */
    bool has_uv;       /* libuv's loop and handles are open */
    bool wait_checked; /* in this run libuv's fds were found to be open */
    bool set_polled;   /* set_poll is started */
    bool busy;         /* the last poll took several events */
    /* A user-owned fd was registered or changed since the last poll. */
    atomic_bool user_fd_changed;
    bool recheck;          /* some registration has `recheck` set */
    unsigned stale_events; /* since the set was last renewed */
    FlList fired;  /* registrations with events that are not queued yet */
    FlList closed; /* see fl_registrations_free_closed */
    atomic_uintptr_t iterating_thread; /* pthread_self(); 0: none */
    int timerfd;                       /* -1 until a run begins */
    FlRegistration *signal_reg; /* of the signal pipe's read end, or NULL */
    int signal_fds[2];          /* read and write end; -1 until requested */
    atomic_int sleeping;        /* a blocking poll runs or is about to */
    atomic_bool interrupted;    /* the next poll must not block */
    unsigned forks; /* fl_forks_count() of the process that owns uv and set */
    int failure_code;  /* why uv or the set is unusable: an error code, or 0 */
    bool needs_repair; /* failure_code, or the parent's timerfd and pipe */
    int event_count;   /* events taken and not yet processed */
    /* Last, so that fl_poller_open need not clear it. */
    FlFdEvent events[FL_FD_SET_EVENTS];
};

/* Open a poller; *out is set only on success. */
int fl_poller_open(FlPoller **out);

/* Open libuv's loop with its handles, unless that was done.  0 or a negative
   errno, and nothing is left. */
int fl_poller_open_uv(FlPoller *poller);

/* Close the poller and the registrations that are left, and free them.  If
   libuv's fds were closed, libuv's part leaks: closing it would abort. */
void fl_poller_free(FlPoller *poller);

/* In a forked child: replace libuv's backend fd and the set by new ones.  The
   inherited ones are shared with the parent, so removing an fd here would
   remove it there.  Called before any registration changes.  The timerfd and
   the signal pipe stay shared until fl_poller_close_own.  0 or a negative
   errno. */
int fl_poller_after_fork_now(FlPoller *poller);

/* True in a forked child while the poller still has its parent's fds. */
static inline bool
fl_poller_is_inherited(const FlPoller *poller)
{
    return poller->forks != fl_forks_count();
}

/* The same, and nothing where no fork happened.  0 or a negative errno. */
static inline int
fl_poller_after_fork(FlPoller *poller)
{
    return fl_poller_is_inherited(poller) ? fl_poller_after_fork_now(poller)
                                          : 0;
}

/* Replace the set by a new one, which has no stale registrations.  On failure
   the old one stays.  Loop's thread, not during a poll; the caller holds
   fds_lock. */
void fl_poller_replace_set(FlPoller *poller);

/* Close the timerfd and the signal pipe; they are made again when needed. */
void fl_poller_close_own(FlPoller *poller);

/* A run begins: libuv's loop and the timerfd are opened, if there is room for
   their fds, and before the first wait the poller checks that libuv's are
   still open. */
void fl_poller_begin_run(FlPoller *poller);

/* An iteration of the loop begins, and ends, on this thread. */
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

/* True if another thread runs an iteration: it may be using any registration
   or stream, so this thread must not free one. */
static inline bool
fl_poller_iterates_elsewhere(FlPoller *poller)
{
    uintptr_t thread =
        atomic_load_explicit(&poller->iterating_thread, memory_order_relaxed);
    return thread != 0 && thread != (uintptr_t)pthread_self();
}

/* Without a GIL another thread may register an fd at the same time and
   reallocate the table.  The lock is not recursive, and no Python code may run
   while it is held. */
static inline void
fl_poller_lock_fds(FlPoller *poller)
{
#if FL_HAVE_GIL
    (void)poller;
#else
    /* First: in a forked child this makes a new lock.  A thread of the
       parent may have held the old one. */
    (void)fl_poller_after_fork(poller);
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

/* Prepare a poll that may block, while the caller has the GIL.  From then on
   another thread can wake the poll. */
void fl_poller_prepare_wait(FlPoller *poller);

/* Poll once: without blocking (timeout_ns 0), up to a timeout, or until an
   event or a wake-up (negative).  Timeouts of a millisecond or more are
   rounded up to whole milliseconds; one day is the longest. */
void fl_poller_run(FlPoller *poller, int64_t timeout_ns);

/* Make a blocking poll return, if one runs or is about to.  Any thread; the
   caller ensures that the poller is not freed meanwhile. */
static inline void
fl_poller_wake_anythread(FlPoller *poller)
{
    if (atomic_exchange(&poller->sleeping, 0)
        && !fl_poller_is_inherited(poller)) {
        (void)uv_async_send(&poller->async);
    }
}

/* The same; if no poll runs, the next one does not block. */
static inline void
fl_poller_interrupt_anythread(FlPoller *poller)
{
    atomic_store(&poller->interrupted, true);
    fl_poller_wake_anythread(poller);
}

/* Make the signal pipe and register its read end, unless that was done.
   on_signal runs when the pipe is readable.  0 or a negative errno. */
int fl_poller_signal_pipe(FlPoller *poller,
                          int (*on_signal)(struct FlLoop *loop,
                                           FlRegistration *reg, int events));

#endif
