/* Registrations of fds: how the loop learns that an fd is ready.

   Each fd is registered in the poller's FlFdSet under a tag: its fd and a
   generation.  libuv polls the set and knows nothing about its contents.
   Other code may close, duplicate or replace an fd without our knowledge.
   Then the system either refuses our next call, which is an error code, or
   leaves an old registration behind.  Its events carry an old generation, so
   registration.c recognizes them as stale and ignores them.

   There are three kinds:

   - Level-triggered from the start (always_level), for transports.  With no
     events wanted it stays registered; the next event then unregisters it.
   - One-shot at first, for add_reader and add_writer: applications often
     remove the callback after one event.  If it is armed again after its
     event, it becomes level-triggered, and later events need no system call.
   - Persistent: edge-triggered, for both directions, registered even while
     nobody waits.  `ready` accumulates the events that arrived until the
     caller clears them, so waiting costs no system call.  A caller that
     waits is also woken once within about a second, and its fd is registered
     again.  This is the recheck.  It covers an fd that now refers to another
     file, and a short read that did not mean "no more data".

   Threads: any thread may call while it holds the GIL.  Without a GIL the
   poller's fds_lock guards the table of fds and the two lists.  Persistent
   registrations of sockets exist only with a GIL (loop/fd_wait.h).

   Ownership: the poller frees a registration when it is closed.  The owner
   closes it before the owner dies, and before it closes the fd.

   Errors are negative errnos, or FL_NO_MEMORY.  No function here touches
   Python. */
#ifndef FL_CORE_REGISTRATION_H
#define FL_CORE_REGISTRATION_H

#include "base/list.h"
#include "core/fd_set.h"

#include <stdbool.h>
#include <stdint.h>

struct FlPoller;
typedef struct FlRegistration FlRegistration;

struct FlRegistration {
    FlList fired_link; /* in poller->fired, or in poller->closed */
    struct FlPoller *poller;
    void *owner; /* borrowed; NULL once closed */
    /* Run by the loop's thread with the events; see FL_READY_EVENT.  Returns
       0, or -1 with an exception that leaves the run. */
    int (*on_events)(void *loop, FlRegistration *reg, int events);
    struct FlReady *entry; /* queued in the ready queue, or NULL */
    int fd;
    uint32_t generation; /* together with fd: the tag */
    uint8_t wanted;      /* FL_READABLE | FL_WRITABLE: events requested */
    uint8_t fired;       /* events reported and not yet run */
    /* Persistent: events epoll reported and no call has disproved. */
    uint8_t ready;
    uint8_t unwanted;  /* persistent: events in a row while nobody waited */
    uint8_t repeats;   /* level-triggered: events since it was armed */
    bool always_level; /* level-triggered from the start */
    bool level;        /* currently registered as level-triggered */
    bool persistent;   /* currently registered as edge-triggered */
    bool lasting;      /* persistent: FL_LASTING was reported once */
    bool recheck;      /* fl_registrations_recheck should visit it */
    bool rechecking;   /* persistent: the last event came from a recheck */
    bool armed;        /* the set will report what is wanted */
    /* reg->fired was 0 when the registration was appended to poller->fired.
       An entry that is queued already then belongs to earlier events, which
       were dropped since. */
    bool newly_fired;
    /* The owner is a PyObject, which means a transport: debug mode can name
       it, and its events allow skipped polls (iteration.c). */
    bool owner_is_object;
};

/* Create a registration for fd that wants nothing yet.  It makes no system
   call.  -EEXIST: the fd already has one, which must be closed first. */
int fl_registration_open(struct FlPoller *poller, int fd, bool always_level,
                         FlRegistration **out);

/* Change the wanted events; 0 stops.  Reported events that are no longer
   wanted are dropped.  If any are wanted, this always registers the file that
   the fd refers to now, whatever was registered before.  A persistent
   registration becomes an ordinary one.  -EBADF, -EPERM and others: the system
   refused to register it. */
int fl_registration_set(FlRegistration *reg, int wanted);

/* Make the registration persistent, for the file that the fd refers to now.
   The set reports at once what is ready already.  -ENOTSUP where there is no
   epoll.  On failure a persistent registration stays as it was; any other
   kind is left unregistered. */
int fl_registration_persist(FlRegistration *reg);

/* Change the wanted events of a persistent registration.  Precondition: the
   caller has just seen that they are not ready and cleared their bits in
   `ready`.  Otherwise it would wait for an edge that has passed. */
void fl_registration_want(FlRegistration *reg, int wanted);

/* A persistent registration's `ready` had this event, but the call returned
   EAGAIN: clear it, and have the wait rechecked, unless this was its
   recheck. */
void fl_registration_not_ready(FlRegistration *reg, int event);

/* Called after events were run: report the remaining and the next ones.  If
   the system refuses, it is retried after the next poll: on_events is then
   called with 0 and calls this again.  An fd that was closed, or that refers
   to another file, reports nothing more, as in asyncio. */
void fl_registration_arm_again(FlRegistration *reg);

static inline void
fl_registration_rearm(FlRegistration *reg)
{
    if (!reg->armed && reg->wanted != 0) {
        fl_registration_arm_again(reg);
    }
}

/* Unregister and free it.  Call before the fd is closed. */
void fl_registration_close(FlRegistration *reg);

/* The same without a system call, for a caller that closes the fd next: that
   ends the registration in the kernel.  If a duplicate of the fd keeps the
   file open, its events are stale. */
void fl_registration_close_with_fd(FlRegistration *reg);

/* --- for the loop's thread ----------------------------------------------- */

/* Process the events that the last poll took from the set. */
void fl_registrations_collect(struct FlPoller *poller);

/* The next registration that fired, its events in reg->fired; NULL if there
   are no more. */
FlRegistration *fl_registrations_pop_fired(struct FlPoller *poller);

/* Whether one has fired and was not popped: the next poll must not wait. */
bool fl_registrations_fired(const struct FlPoller *poller);

/* Put back a registration that was popped but could not be queued. */
void fl_registration_fire_again(FlRegistration *reg);

/* Without a GIL: the next registration that another thread closed during this
   thread's iteration; NULL if there are no more.  The caller drops its queued
   event and frees it. */
FlRegistration *fl_registrations_pop_closed(struct FlPoller *poller);

/* Register again, and fire, each persistent registration whose waiter has not
   been rechecked since it began to wait.  Also register what a renewed set
   had no room for. */
void fl_registrations_recheck(struct FlPoller *poller);

/* The poller's set was replaced by an empty one: register everything there.
   `old` is the previous set; NULL in a forked child, which must not change its
   parent's set.  What the new set has no room for is retried by
   fl_registrations_recheck.  An fd that was closed, or that refers to another
   file, reports nothing more.  The caller holds the lock. */
void fl_registrations_renew(struct FlPoller *poller, FlFdSet *old);

/* Close every registration that is left; the poller is being freed. */
void fl_registrations_close_all(struct FlPoller *poller);

#endif
