/* The poller: what the loop waits with, one FlFdSet, which has libuv's epoll
   among its fds.

   It runs one poll, ends a poll at a timeout, and lets another thread wake it.
   Fds are registered by fl_poller_register; registration.h says how.  Nothing
   here touches Python, so a poll may run without the GIL: fl_poller_run only
   takes events from the set, and runs libuv, which has no callback of ours.
   Afterwards, with the GIL, the loop processes them (fl_poller_collect) and
   runs them as entries of its ready queue.
   fl_poller_run creates and changes no registration, because the GIL guards
   their table.

   Ownership: the loop owns its poller, closes it when it closes, and frees it
   when it is freed itself: until then another thread may look up an fd.  The
   poller owns libuv's loop and its handle, and the table of fds.

   Failures: functions return negative errnos, or FL_NO_MEMORY.  If the set's
   fd or one of libuv's was closed, table.failure_code keeps the error.  The
   next iteration and every later run of the loop fail with it
   (fl_poller_after_fork).

   Rejected: keeping a clean poller for the thread's next loop.  It saved 40 us
   per loop, and everything that a loop leaves in it had to be undone.

   Loop's thread only, except functions named _anythread; fl_poller_register
   (add_reader is for any thread, and the table's lock guards it); and
   fl_poller_after_fork, closing and freeing, which a GC may run in any
   thread. */
#ifndef FL_CORE_POLLER_H
#define FL_CORE_POLLER_H

#include "base/forks.h"
#include "core/registration.h"
#include "py/compat.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

typedef struct FlPoller FlPoller;

struct FlPoller {
    uv_loop_t uv;
    uv_async_t async;         /* uv and this: valid if has_uv */
    FL_ATOMIC uint64_t polls; /* number of polls so far */
    bool has_uv;              /* libuv's loop and handle are open */
    bool is_joined;      /* in this run the set was found to contain libuv's
                            epoll, with its fds open */
    atomic_int sleeping; /* a blocking poll runs or is about to */
    unsigned forks;      /* fl_forks_count() of the process that owns uv */
    FlFdTable table;     /* every fd of the loop; last: it is large */
};

/* Open a poller; *out is set only on success. */
int fl_poller_open(FlPoller **out);

/* fl_registration_open for an fd of the application or of a transport.  Opens
   libuv's loop first, if it is not open yet.  Otherwise libuv could get an fd
   that the application has closed while it is still registered: to remove it
   would take libuv out of the set.  Any thread. */
int fl_poller_register(FlPoller *poller, int fd, size_t size_bytes,
                       const FlRegistration *init, FlRegistration **out);

/* Close the poller's fds, and close and free the registrations that are left.
   If libuv's fds were closed, libuv's part leaks: closing it would abort.
   Does nothing the second time. */
void fl_poller_close(FlPoller *poller);

/* Free a closed poller. */
void fl_poller_free(FlPoller *poller);

/* In a forked child: replace the set and libuv's epoll by new ones.  A run
   must work there: if a callback forks and the child raises out of the run,
   asyncio's Runner.close() runs the loop three times more.  0 or a negative
   errno. */
int fl_poller_after_fork_now(FlPoller *poller);

/* True in a forked child while the poller still has its parent's fds. */
static inline bool
fl_poller_is_inherited(const FlPoller *poller)
{
    return poller->forks != fl_forks_count();
}

/* Call fl_poller_after_fork_now if the process has forked.  0 or a negative
   errno, also where the poller's fds were lost earlier. */
static inline int
fl_poller_after_fork(FlPoller *poller)
{
    return fl_poller_is_inherited(poller) ? fl_poller_after_fork_now(poller)
                                          : poller->table.failure_code;
}

/* A run begins: before its first wait the poller checks that libuv's fds are
   still open. */
static inline void
fl_poller_begin_run(FlPoller *poller)
{
    poller->is_joined = false;
}

/* Prepare a poll that may block, while the caller has the GIL.  From then on
   another thread can wake the poll.  If libuv has no room for its fds, nothing
   can, but the poll ends after a few milliseconds. */
void fl_poller_prepare_wait(FlPoller *poller);

/* The poll has ended, or will not block after all. */
static inline void
fl_poller_end_wait(FlPoller *poller)
{
    atomic_store(&poller->sleeping, 0);
}

/* Poll once: without blocking (timeout_ns 0), up to a timeout, or until an
   event, a wake-up or a signal (negative).  The longest is one day. */
void fl_poller_run(FlPoller *poller, int64_t timeout_ns);

/* Process the events that the poll took.  Loop's thread, with the GIL. */
void fl_poller_collect(FlPoller *poller);

/* Make a blocking poll return, if one runs or is about to.  Any thread; the
   caller ensures that the poller is not closed meanwhile. */
static inline void
fl_poller_wake_anythread(FlPoller *poller)
{
    if (atomic_load(&poller->sleeping) && atomic_exchange(&poller->sleeping, 0)
        && !fl_poller_is_inherited(poller))
    {
        (void)uv_async_send(&poller->async);
    }
}

#endif
