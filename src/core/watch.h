/* Watches: being told when a descriptor is ready.

   There are two kinds.  A watch of a descriptor that only we can close is a
   uv_poll_t: the kind for busy connections.  A *shared* watch is for a
   descriptor that others may close, duplicate or replace: the program's, and a
   socket that was given or handed out.  It is a registration in the poller's
   FlFdSet, which libuv sees as one descriptor.

   The registration of a shared watch fires once.  Where it is armed again
   after its event, its next events cost no call: it is level-triggered.

   A shared watch may be *kept*: its registration is edge-triggered, stays as
   it is while nobody waits, and tells in `ready` what has come since that was
   cleared.  To wait costs no system call then.  What waits fires once after a
   second or so whatever happens, and is armed anew (shared_watch.h): the file
   that has the number may not be the one that was registered, and a read may
   tell less than it seems to.

   Threads: while a thread makes a turn it alone changes libuv.  A change from
   another thread (the collector runs destructors in any) is noted, the loop is
   woken, and the loop's thread makes it before it polls or runs anything else.
   A shared watch is changed at once by any thread; without a GIL the table of
   numbers has a lock.

   Ownership: a watch is the poller's memory from open to close.  Its owner
   closes it before it dies and before it closes the descriptor.

   Errors are negative errnos. */
#ifndef FL_CORE_WATCH_H
#define FL_CORE_WATCH_H

#include "base/list.h"
#include "core/fd_set.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* Set with both others: the next call gives the errno. */
#define FL_POLL_ERROR 4

struct FlPoller;
typedef struct FlWatch FlWatch;

struct FlWatch {
    uv_poll_t uv;
    FlList fired_link;  /* while events await collection */
    FlList change_link; /* while a change of another thread's waits */
    struct FlPoller *poller;
    void *owner; /* NULL once closed */
    /* The loop's: run the events; see FlReadyKind.  Returns 0 or -1. */
    int (*on_events)(void *loop, FlWatch *watch, int events);
    int fd;
    uint32_t generation;   /* of a shared watch: with fd, its tag */
    uint8_t wanted;        /* FL_READABLE | FL_WRITABLE: what was asked for */
    uint8_t fired;         /* what has fired and was not run yet */
    uint8_t ready;         /* kept: what may be so, as far as is known */
    uint8_t unasked;       /* kept: events in a row that nobody waited for */
    uint8_t repeats;       /* level: events since it was registered */
    bool level;            /* its registration is level-triggered */
    bool kept;             /* see above */
    bool lasting;          /* kept: FL_LASTING was told once */
    bool unsure;           /* to be checked if it waits */
    bool checking;         /* kept: it fires for that reason */
    bool shared;           /* others may close the descriptor */
    bool to_share;         /* a move to the set is asked for */
    bool uv_open;          /* the uv_poll_t was made */
    bool uv_started;       /* libuv may have it in its epoll */
    bool armed;            /* what is wanted will fire */
    bool owner_is_object;  /* owner is a PyObject: debug mode names it */
    struct FlReady *entry; /* in the ready queue, or NULL */
};

/* Watch fd for nothing yet.  -EEXIST: the number has a shared watch.  If
   another watch is left on the number, close it first. */
int fl_watch_open(struct FlPoller *poller, int fd, bool shared, FlWatch **out);

/* From now on others may close the descriptor: move the watch to the set. */
int fl_watch_share(FlWatch *watch);

/* Change what is watched; 0 stops.  Events that fired and are not wanted any
   more are dropped.  A change that another thread makes of a libuv watch is
   noted only. */
int fl_watch_set(FlWatch *watch, int wanted);

/* Keep the registration of a shared watch of this number's present file, which
   tells what is ready already.  -ENOTSUP where that cannot be.  Where it fails
   a kept watch has the registration that it had, another has none. */
int fl_watch_keep(FlWatch *watch);

/* Change what is wanted of a kept watch.  The caller knows that it is not
   ready: it has cleared its bit in `ready`. */
void fl_watch_want(FlWatch *watch, int wanted);

/* A call that a kept watch's `ready` allowed has met nothing. */
void fl_watch_not_ready(FlWatch *watch, int event);

/* After events were run: have the rest, and the next ones, reported.  What the
   system refuses is tried again after the next poll, by an event of nothing:
   on_events gets 0, and calls this. */
void fl_watch_arm_again(FlWatch *watch);

static inline void
fl_watch_rearm(FlWatch *watch)
{
    if (!watch->armed && watch->wanted != 0) {
        fl_watch_arm_again(watch);
    }
}

/* Stop.  A watch of libuv's is kept idle for the next one of its number; the
   others are freed. */
void fl_watch_close(FlWatch *watch);

/* --- for the loop's thread ----------------------------------------------- */

/* The next watch that another thread has changed; NULL: no more.  Its owner is
   NULL if it is to be closed; else give it to fl_watch_apply. */
FlWatch *fl_watch_pop_changed(struct FlPoller *poller);
void fl_watch_apply(FlWatch *watch);

/* The next watch that fired, its events in watch->fired; NULL: no more. */
FlWatch *fl_watch_pop_fired(struct FlPoller *poller);

/* Whether something is noted: the next poll shall not wait. */
bool fl_watch_is_noted(const struct FlPoller *poller);

/* Note once more what was taken by fl_watch_pop_fired and not run. */
void fl_watch_fire_again(FlWatch *watch);

/* Where the poller itself ends: close every watch that is left. */
void fl_watch_close_all(struct FlPoller *poller);

#endif
