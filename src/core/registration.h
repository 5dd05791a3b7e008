/* Registrations of fds: how the loop learns that an fd is ready.

   Each fd is registered in an FlPoller with a generation.  core/README.md says
   what happens if other code closes, duplicates or replaces an fd, and what a
   registration costs.

   A persistent registration stays in the poller between two waits.  The next
   wait makes no system call while the poller contains the wanted events,
   because the owner knows the file by its socket object (loop/user_fd.h).  In
   return, such a wait is rechecked once within about a second: the fd is
   registered again and the waiter is called.

   An exclusive registration (FL_EXCLUSIVE among what is wanted) shares its
   file with pollers of other loops and processes.  Each time that it is wanted
   again it becomes the last of them to be woken.  The loop that was woken may
   never handle the event, because its process ends or is stopped; so each
   loop registers the file again once a second, which reports an event that is
   there.

   Threads: any thread may call while it holds the GIL.  Without a GIL the
   table's lock guards its fds, its two lists and its registrations.

   Ownership: the table frees a registration when it is closed.  The owner
   closes it before the owner dies, and before it closes the fd.

   Errors are negative errnos, or FL_NO_MEMORY.  If the poller's fd was closed,
   failure_code keeps the error: the next iteration and every later run of the
   loop fail with it.  No function here touches Python.

   Rejected: keeping a clean table for the thread's next loop.  Everything that
   a loop leaves in it had to be undone. */
#ifndef FL_CORE_REGISTRATION_H
#define FL_CORE_REGISTRATION_H

#include "base/forks.h"
#include "base/list.h"
#include "core/poller.h"
#include "py/compat.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct FlLoop;
struct FlOpenTransport;
typedef struct FlRegistration FlRegistration;

/* The registrations of a loop, and the poller that contains them. */
typedef struct {
    FlPoller poller;
    FL_ATOMIC uint64_t polls; /* number of polls so far */
    /* Those that have taken all events there were.  What another one did not
       take may be ready. */
    uint64_t whole_polls;
    uv_mutex_t lock; /* see fl_fd_table_lock_now */
    FlForkRenewal lock_renewal;
    FlRegistration **fds; /* indexed by fd; NULL: none */
    int fds_size;
    uint32_t last_generation;
    /* Greater than each fd whose registration has `recheck` set; INT_MAX if
       memory ran out for an event.  If it is not 0, no poll waits long. */
    FL_ATOMIC int recheck_end;
    unsigned stale_events; /* since the last attempt to replace the poller */
    FlList fired;  /* registrations with events that are not queued yet */
    FlList closed; /* see fl_registrations_free_closed */
    atomic_uintptr_t iterating_thread; /* pthread_self(); 0: none */
    /* fl_forks_count() of the process that owns the poller.  A thread that the
       child starts before its loop's next iteration reads it. */
    FL_ATOMIC unsigned forks;
    int failure_code; /* why the poller is unusable: an error code, or 0 */
    int event_count;  /* events taken and not yet processed */
    /* Last, so that fl_fd_table_open need not clear it. */
    FlPollerEvent events[FL_POLLER_EVENTS];
} FlFdTable;

struct FlRegistration {
    FlList fired_link; /* in table->fired, or in table->closed */
    FlFdTable *table;
    struct FlOpenTransport *transport; /* borrowed; NULL: of no transport */
    /* Run by the loop's thread with the events.  Returns 0, or -1 with an
       exception that ends the run.  NULL once closed. */
    int (*on_events)(struct FlLoop *loop, FlRegistration *reg, int events);
    struct FlReady *entry; /* queued in the ready queue, or NULL */
    int fd;
    /* What the poller contains under the fd, as far as we know: its
       generation, and the interest, 0 for nothing.  The fd may have been
       closed since. */
    uint32_t generation;
    uint8_t interest;
    uint8_t unwanted;         /* unwanted events in a row */
    FL_ATOMIC uint8_t wanted; /* FL_READABLE | FL_WRITABLE: events requested;
                                 and FL_EXCLUSIVE */
    uint8_t fired;            /* events reported and not yet run */
    /* The events for which the fd may be ready now.  EAGAIN or a short
       transfer clears a bit, the next such event sets it. */
    uint8_t may_be_ready;
    uint8_t repeats; /* events since it was added or checked */
    bool persistent; /* set by the owner: see above */
    bool keeps;      /* set by the owner: nobody else has the fd */
    bool recheck;    /* fl_registrations_recheck visits it */
    /* Set by the owner: the callback added last is a listener or a sock_* call
       (iteration.c, invariant 1). */
    FL_ATOMIC bool allows_skips;
};

/* Open an empty table with its poller, which may have to be `portable` (see
   poller.h); *out is set only on success.  0 or an error code. */
int fl_fd_table_open(FlFdTable **out, bool portable);

/* Close the poller, and close and free the registrations that are left.  Other
   threads may still look up fds, and find none.  Does nothing the second time.
   Any thread, because a GC may close the loop. */
void fl_fd_table_close(FlFdTable *table);

/* Free a closed table, of which no thread knows any more. */
void fl_fd_table_free(FlFdTable *table);

/* In a forked child: make a poller of the child's own.  A run must work there:
   if a callback forks and the child raises out of the run, asyncio's
   Runner.close() runs the loop three times more.  0 or a negative errno. */
int fl_fd_table_after_fork_now(FlFdTable *table);

/* The same if the process has forked.  0 or a negative errno, also where the
   poller's fds were lost earlier. */
static inline int
fl_fd_table_after_fork(FlFdTable *table)
{
    return FL_UNLIKELY(table->forks != fl_forks_count())
               ? fl_fd_table_after_fork_now(table)
               : table->failure_code;
}

/* Poll once: without blocking (timeout_ns 0), up to a timeout, or until an
   event, a wake-up or a signal (negative).  The longest is one day.  It takes
   events from the poller and changes no registration, because it may run
   without the GIL, which guards them: fl_registrations_collect follows. */
void fl_fd_table_poll(FlFdTable *table, int64_t timeout_ns);

/* Make a poll return that blocks, or is about to.  Any thread; the caller
   ensures that the table is not closed meanwhile. */
static inline void
fl_fd_table_wake_anythread(FlFdTable *table)
{
    if (table->forks == fl_forks_count()) {
        fl_poller_wake_anythread(&table->poller);
    } /* else its parent's poller, where nothing waits for this process */
}

/* The lock of the loop: of the times of metrics, and without a GIL of the
   table, its registrations and the thread queue.  It is recursive.  No Python
   code may run while it is held.  A forked child makes a new one first, as a
   thread of the parent may have held it.

   Rejected: a critical section of the loop.  Where threads wait for it,
   CPython's PyMutex passes it on to one that has not woken yet, and a fork in
   between leaves the child with the lock of a thread that it does not have. */
void fl_fd_table_lock_now(FlFdTable *table);

static inline void
fl_fd_table_unlock_now(FlFdTable *table)
{
    uv_mutex_unlock(&table->lock);
}

/* The same, for what the GIL guards if there is one. */
static inline void
fl_fd_table_lock(FlFdTable *table)
{
    if (!FL_HAVE_GIL) {
        fl_fd_table_lock_now(table);
    }
}

static inline void
fl_fd_table_unlock(FlFdTable *table)
{
    if (!FL_HAVE_GIL) {
        fl_fd_table_unlock_now(table);
    }
}

/* The loop's iterations begin, and end, on this thread.  They begin within the
   lock: a thread that closes a registration reads iterating_thread and frees
   the registration within the same lock. */
static inline void
fl_fd_table_begin_iterations(FlFdTable *table)
{
    fl_fd_table_lock(table);
    atomic_store_explicit(&table->iterating_thread, (uintptr_t)pthread_self(),
                          memory_order_relaxed);
    fl_fd_table_unlock(table);
}

static inline void
fl_fd_table_end_iterations(FlFdTable *table)
{
    /* Released: a thread that sees 0 frees what this one has read. */
    atomic_store_explicit(&table->iterating_thread, 0, memory_order_release);
}

/* True if another thread runs iterations: it may be using any registration or
   stream, so this thread must not free one. */
static inline bool
fl_fd_table_iterates_elsewhere(FlFdTable *table)
{
    uintptr_t thread =
        atomic_load_explicit(&table->iterating_thread, memory_order_acquire);
    return thread != 0 && thread != (uintptr_t)pthread_self();
}

/* True if this thread runs iterations, also that of a _run_once() outside a
   run. */
static inline bool
fl_fd_table_iterates_here(FlFdTable *table)
{
    return atomic_load_explicit(&table->iterating_thread, memory_order_relaxed)
           == (uintptr_t)pthread_self();
}

/* Create a registration for fd that wants nothing yet, without a system call.
   It is the first member of a new struct of `size_bytes`, whose other members
   are zero.  `init` has its transport and on_events: other threads may look
   the registration up as soon as it is in the table, so it is complete by
   then.  -EEXIST: the fd has a registration, to be closed first. */
int fl_registration_open(FlFdTable *table, int fd, size_t size_bytes,
                         const FlRegistration *init, FlRegistration **out);

/* The open registration of an fd, or NULL.  The caller has the table's lock:
   after that, without a GIL, another thread may free it. */
static inline FlRegistration *
fl_registration_at(const FlFdTable *table, int fd)
{
    return fd < table->fds_size ? table->fds[fd] : NULL;
}

/* Change the wanted events.  An event that is added, or `renewed`, registers
   the file that the fd refers to now, whatever was registered before, unless
   the registration is persistent or `keeps` what the poller contains.
   Reported events that are renewed, or no longer wanted, are dropped. 1: the
   wanted events that were not renewed, and `renewed` is not 0, were of another
   file, and are given up.  -EBADF, -EPERM and others: the system refused, and
   nothing has changed; not if fewer are wanted. */
int fl_registration_want(FlRegistration *reg, int wanted, int renewed);

/* Take the fd out of the poller, drop the queued event, and free the
   registration.  The fd should still be open: a duplicate, or a forked child,
   may have its file, and would keep it in the poller. */
void fl_registration_close(FlRegistration *reg);

/* --- for the loop's thread ----------------------------------------------- */

/* Put an event of an fd off: a callback on the stack, which runs the loop
   again, must return before it can be handled.  Each poll would report it, so
   it leaves the poller until fl_registrations_recheck, after that or within
   about a second. */
void fl_registration_put_off(FlFdTable *table, int fd, int event);

/* Process the events that the last poll took from the poller.  If too many
   were stale the poller is replaced by a new one, which has no stale
   registrations; if no fd is free for it the old one stays, and its next ones
   try again. */
void fl_registrations_collect(FlFdTable *table);

/* The next registration that fired, its events in reg->fired; NULL if there
   are no more. */
FlRegistration *fl_registrations_pop_fired(FlFdTable *table);

/* Without a GIL: free the registrations that other threads closed while this
   thread runs iterations.  No callback may be running. */
void fl_registrations_free_closed(FlFdTable *table);

/* About once a second, register again each registration that has `recheck`
   set, unless its fd has lost the file: a persistent one, which began to wait
   without a system call, and which fires; one for which the poller had no
   room; one of which an event was put off; an exclusive one, plainly if the
   loop is `late` to wake. */
void fl_registrations_recheck(FlFdTable *table, bool late);

#endif
