/* Registrations of descriptors: how the loop learns that one is ready.

   Each descriptor is registered in the poller's FlFdSet, under a tag of its
   fd and a generation.  libuv polls the set and knows nothing of what is in
   it: whoever closes, duplicates or replaces a descriptor behind our back
   makes the system refuse a call of ours, which is an error code, or leaves a
   registration behind, whose events its tag tells (registration.c).

   There are three kinds:

   - Level-triggered from the start: what only has to be told when something
     comes, as a transport has.  While nothing is wanted of it, it stays
     registered; an event that comes then ends the registration.
   - At first for one event: what an application adds, and often removes after
     one event.  Where it is armed again after its event it is level-triggered
     from then on, and its next events cost no call.
   - *Kept*: edge-triggered, for both directions, while nobody waits too.
     `ready` tells what has come since that was cleared.  To wait costs no
     system call then.  What waits fires once after a second or so whatever
     happens, and is armed anew: the file that has the fd may not be the one
     that was registered, and a read may tell less than it seems to.

   Threads: any may call, with the GIL; without one the table of fds has a
   lock. 

   Ownership: a watch is the poller's memory from open to close.  Its owner
   closes it before it dies and before it closes the descriptor.

   Errors are negative errnos. */
#ifndef FL_CORE_REGISTRATION_H
#define FL_CORE_REGISTRATION_H

#include "base/list.h"
#include "core/fd_set.h"

#include <stdbool.h>
#include <stdint.h>

struct FlPoller;
typedef struct FlRegistration FlRegistration;

struct FlRegistration {
    FlList fired_link; /* while events await collection */
    struct FlPoller *poller;
    void *owner; /* NULL once closed */
    /* The loop's: run the events; see FlReadyKind.  Returns 0 or -1. */
    int (*on_events)(void *loop, FlRegistration *reg, int events);
    struct FlReady *entry; /* in the ready queue, or NULL */
    int fd;
    uint32_t generation;  /* with fd, the tag */
    uint8_t wanted;       /* FL_READABLE | FL_WRITABLE: what was asked for */
    uint8_t fired;        /* what has fired and was not run yet */
    uint8_t ready;        /* kept: what may be so, as far as is known */
    uint8_t unwanted;     /* kept: events in a row that nobody waited for */
    uint8_t repeats;      /* level: events since it was registered */
    bool always_level;    /* level-triggered from the start */
    bool level;           /* its registration is level-triggered now */
    bool persistent;      /* see above */
    bool lasting;         /* kept: FL_LASTING was told once */
    bool recheck;         /* to be checked if it waits */
    bool rechecking;      /* kept: it fires for that reason */
    bool armed;           /* what is wanted will fire */
    bool anew;            /* nothing was left to run when it fired */
    bool owner_is_object; /* owner is a PyObject: debug mode names it */
};

/* Watch fd for nothing yet; the system is not asked.  -EEXIST: the fd has a
   watch, which must be closed first. */
int fl_registration_open(struct FlPoller *poller, int fd, bool always_level,
                         FlRegistration **out);

/* Change what is watched; 0 stops.  Events that fired and are not wanted any
   more are dropped.  The fd's present file is registered, whatever was before:
   -EBADF, -EPERM and the like where the system does not watch it. */
int fl_registration_set(FlRegistration *reg, int wanted);

/* Keep the registration of this fd's present file, which tells what is ready
   already.  -ENOTSUP where that cannot be.  Where it fails a kept watch has
   the registration that it had, another has none. */
int fl_registration_persist(FlRegistration *reg);

/* Change what is wanted of a kept watch.  The caller knows that it is not
   ready: it has cleared its bit in `ready`. */
void fl_registration_want(FlRegistration *reg, int wanted);

/* A call that a kept watch's `ready` allowed has met nothing. */
void fl_registration_not_ready(FlRegistration *reg, int event);

/* After events were run: have the rest, and the next ones, reported.  What the
   system refuses is tried again after the next poll, by an event of nothing:
   on_events gets 0, and calls this.  An fd that is closed, or another file's
   by now, stays silent, as in asyncio. */
void fl_registration_arm_again(FlRegistration *reg);

static inline void
fl_registration_rearm(FlRegistration *reg)
{
    if (!reg->armed && reg->wanted != 0) {
        fl_registration_arm_again(reg);
    }
}

/* Stop, and free the watch. */
void fl_registration_close(FlRegistration *reg);

/* The same where the caller closes the descriptor next, which ends its
   registration.  If a duplicate that nobody should have lives on, what comes
   for it is a stale event. */
void fl_registration_close_with_fd(FlRegistration *reg);

/* --- for the loop's thread ----------------------------------------------- */

/* Note what the last poll has taken from the set. */
void fl_registrations_collect(struct FlPoller *poller);

/* The next watch that fired, its events in watch->fired; NULL: no more. */
FlRegistration *fl_registrations_pop_fired(struct FlPoller *poller);

/* Whether something is noted: the next poll shall not wait. */
bool fl_registrations_fired(const struct FlPoller *poller);

/* Note once more what was taken by fl_registrations_pop_fired and not run. */
void fl_registration_fire_again(FlRegistration *reg);

/* Without a GIL: the next watch that another thread closed while this one made
   an iteration, for the caller to forget and free; NULL: no more. */
FlRegistration *fl_registrations_pop_closed(struct FlPoller *poller);

/* Arm anew the kept watches that wait and were not armed since they began, and
   have them fire; register what a new set had no room for. */
void fl_registrations_recheck(struct FlPoller *poller);

/* Give the set, which is a new one, all that the old one had (NULL: it is the
   parent's, which a child leaves alone).  What it has no room for is unsure:
   fl_registrations_recheck tries again.  An fd that was closed, or is another
   file's by now, stays silent.  The caller holds the lock. */
void fl_registrations_renew(struct FlPoller *poller, FlFdSet *old);

/* Where the poller itself ends: close every watch that is left. */
void fl_registrations_close_all(struct FlPoller *poller);

#endif
