/* The poller: one FlFdSet with the registrations in it, and whether it sleeps.

   It runs one poll, ends a poll at a timeout, and lets another thread wake it.
   Nothing here touches Python, so a poll may run without the GIL:
   fl_poller_run only takes events from the set.  Afterwards, with the GIL, the
   loop processes them (fl_poller_collect) and runs them as entries of its
   ready queue.  fl_poller_run creates and changes no registration, because the
   GIL guards their table.

   Ownership: the loop owns its poller, closes it when it closes, and frees it
   when it is freed itself: until then another thread may look up an fd.

   Failures: functions return negative errnos, or FL_NO_MEMORY.  If the set's
   fd was closed, table.failure_code keeps the error.  The next iteration and
   every later run of the loop fail with it (fl_poller_after_fork).

   Rejected: keeping a clean poller for the thread's next loop.  Everything
   that a loop leaves in it had to be undone.

   Loop's thread only, except functions named _anythread, and
   fl_poller_after_fork, closing and freeing, which a GC may run in any
   thread. */
#ifndef FL_CORE_POLLER_H
#define FL_CORE_POLLER_H

#include "base/forks.h"
#include "core/fd_set.h"
#include "core/registration.h"
#include "py/compat.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct FlPoller FlPoller;

struct FlPoller {
    FL_ATOMIC uint64_t polls; /* number of polls so far */
    atomic_int sleeping;      /* a blocking poll runs or is about to */
    unsigned forks;  /* fl_forks_count() of the process that last ran it */
    FlFdTable table; /* every fd of the loop; last: it is large */
};

/* Open a poller; *out is set only on success. */
int fl_poller_open(FlPoller **out);

/* Close the poller's fds, and close and free the registrations that are left.
   Does nothing the second time. */
void fl_poller_close(FlPoller *poller);

/* Free a closed poller. */
void fl_poller_free(FlPoller *poller);

/* In a forked child: replace the set by a new one.  A run must work there: if
   a callback forks and the child raises out of the run, asyncio's
   Runner.close() runs the loop three times more.  0 or a negative errno. */
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

/* Prepare a poll that may block, before the caller looks at its queues: a
   thread that pushes later sees this and wakes the poll. */
static inline void
fl_poller_prepare_wait(FlPoller *poller)
{
    atomic_store(&poller->sleeping, 1);
}

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
        fl_fd_set_wake_anythread(&poller->table.set);
    }
}

#endif
