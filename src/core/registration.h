/* Registrations of fds: how the loop learns that an fd is ready.

   Each fd is registered in the poller's FlFdSet under a tag: its fd and a
   generation.  libuv polls the set and knows nothing about its contents.
   Other code may close, duplicate or replace an fd without our knowledge.
   Then the system either refuses our next call, which is an error code, or
   leaves an old registration behind.  Its events carry an old generation, so
   registration.c recognizes them as stale and ignores them.

   A registration is level-triggered.  A wanted event is added at once, for the
   file that the fd refers to now: one system call, or two if that is another
   file.  It is removed lazily: when it was reported twice in a row unwanted.
   So a pause during which nothing arrives is free.

   A trusted registration saves the first call, too, while the set contains the
   wanted events: its owner knows the file otherwise (loop/fd_wait.h).  In
   return each wait is rechecked once within about a second: the fd is
   registered again and the waiter is called.  This covers an fd that now
   refers to another file.

   Threads: any thread may call while it holds the GIL.  Without a GIL the
   poller's fds_lock guards the table of fds and the two lists.

   Ownership: the poller frees a registration when it is closed.  The owner
   closes it before the owner dies, and before it closes the fd.

   Errors are negative errnos, or FL_NO_MEMORY.  No function here touches
   Python. */
#ifndef FL_CORE_REGISTRATION_H
#define FL_CORE_REGISTRATION_H

#include "base/list.h"
#include "core/fd_set.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct FlLoop;
struct FlOpenTransport;
struct FlPoller;
typedef struct FlRegistration FlRegistration;

struct FlRegistration {
    FlList fired_link; /* in poller->fired, or in poller->closed */
    struct FlPoller *poller;
    void *owner; /* borrowed; NULL once closed */
    /* The owner as a transport (borrowed), or NULL: it is another kind. */
    struct FlOpenTransport *transport;
    /* Run by the loop's thread with the events; see FL_READY_EVENT.  Returns
       0, or -1 with an exception that ends the run. */
    int (*on_events)(struct FlLoop *loop, FlRegistration *reg, int events);
    struct FlReady *entry; /* queued in the ready queue, or NULL */
    int fd;
    uint8_t wanted; /* FL_READABLE | FL_WRITABLE: events requested */
    uint8_t fired;  /* events reported and not yet run */
    /* Events that a call may find; the others were disproved by a call, and
       the set has not reported them since. */
    uint8_t ready;
    uint8_t repeats; /* events since it was registered */
    bool trusted;    /* see above */
    bool recheck;    /* fl_registrations_recheck visits it */
    /* reg->fired was 0 when the registration was appended to poller->fired.
       An entry that is queued already then belongs to earlier events, which
       were dropped since. */
    bool newly_fired;
};

/* Create a registration for fd that wants nothing yet.  It makes no system
   call.  It is the first member of a struct of `size_bytes`, zeroed otherwise.
   -EEXIST: the fd already has one, which must be closed first. */
int fl_registration_open(struct FlPoller *poller, int fd, size_t size_bytes,
                         FlRegistration **out);

/* The open registration of an fd, or NULL. */
FlRegistration *fl_registration_at(struct FlPoller *poller, int fd);

/* Change the wanted events.  Reported events that are no longer wanted are
   dropped.  If one is added, this registers the file that the fd refers to
   now, whatever was registered before, unless the registration is trusted.
   -EBADF, -EPERM and others: the system refused, and nothing has changed. */
int fl_registration_set(FlRegistration *reg, int wanted);

/* Take it out of the set at once, although the fd stays open. */
void fl_registration_unregister(FlRegistration *reg);

/* Drop its queued event and free it.  Without a system call: the set drops it
   with the file, or after two more events. */
void fl_registration_close(FlRegistration *reg);

/* The same for a caller that closes the fd next.  If a duplicate of the fd
   keeps the file open, its events are stale. */
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

/* Forget the queued event: its entry runs as nothing. */
void fl_registration_drop_event(FlRegistration *reg);

/* Without a GIL: free the registrations that other threads closed during this
   thread's iteration.  No callback may be running. */
void fl_registrations_free_closed(struct FlPoller *poller);

/* Register again, and fire, each trusted registration that began to wait since
   the last call.  Also register what a renewed set had no room for. */
void fl_registrations_recheck(struct FlPoller *poller);

/* The poller's set was replaced by an empty one: register everything there.
   `old` is the previous set; NULL in a forked child, which must not change its
   parent's set.  What the new set has no room for is retried by
   fl_registrations_recheck.  An fd that was closed, or that refers to another
   file, reports nothing more.  The caller holds the lock. */
void fl_registrations_register_all(struct FlPoller *poller, FlFdSet *old);

/* Close every registration that is left; the poller is being freed. */
void fl_registrations_close_all(struct FlPoller *poller);

#endif
