/* Registrations of fds: see registration.h.

   1. The tag of a registration is its fd and a generation.  A new
      registration, and a new file under the same fd, get a new generation.
      An event with an old generation is stale and is ignored; otherwise it
      would run the callback of another file.
   2. The kernel keeps a registration after its fd was closed as long as a
      duplicate, or another process, has the file open.  Its events become
      stale once the system refuses a call for the fd or the registration is
      closed.  So a level-triggered one is armed again, with a system call,
      every MOST_REPEATS events: an fd that was closed is noticed then.  After
      MOST_STALE stale events the set is renewed, which is the only way to
      stop them.
   3. A one-shot registration that has fired stays in the set, disarmed, when
      it is closed: closing it costs no system call, and the next registration
      of that fd arms it with one.
   4. What the system refuses is an error code and ends at most the one
      registration that the call was for. */
#include "core/registration.h"

#include "base/codes.h"
#include "base/list.h"
#include "base/table.h"
#include "core/fd_set.h"
#include "core/poller.h"
#include "py/compat.h"

#include <errno.h>
#include <stdlib.h>

/* Events of a persistent registration in a row while nobody waits: then it is
   unregistered, because each one wakes the loop for nothing. */
#define MOST_UNWANTED 16
/* Events of a level-triggered registration until it is armed again. */
#define MOST_REPEATS  64
/* Stale events until the set is renewed. */
#define MOST_STALE    256

/* Looked up each time, because the table moves when it grows. */
static FlFdEntry *
entry_of(const FlRegistration *reg)
{
    return &reg->poller->fds[reg->fd];
}

static uint64_t
tag_of(const FlRegistration *reg)
{
    return (uint64_t)reg->generation << 32 | (uint32_t)reg->fd;
}

static int
interest_of(const FlRegistration *reg, bool level)
{
    return reg->wanted | (level ? FL_LEVEL : 0);
}

/* Append it to the list from which iteration.c queues an entry.  With 0 events
   on_events runs all the same, to arm it again. */
static void
fire(FlRegistration *reg, int events)
{
    bool newly_fired = reg->fired == 0;
    reg->fired |= (uint8_t)events;
    if (fl_list_is_empty(&reg->fired_link)) {
        reg->newly_fired = newly_fired;
        fl_list_append(&reg->poller->fired, &reg->fired_link);
    }
}

/* Drop reported events that are no longer wanted.  An entry that is queued
   already stays queued and runs with what is left. */
static void
drop_unwanted(FlRegistration *reg)
{
    reg->fired &= reg->wanted;
    if (reg->fired == 0) {
        fl_list_remove(&reg->fired_link);
    }
}

/* --- opening ------------------------------------------------------------- */

/* Enter it in the table of fds.  0, -EEXIST or FL_NO_MEMORY. */
static int
claim_fd(FlRegistration *reg)
{
    FlPoller *poller = reg->poller;
    if (reg->fd >= poller->fds_size) {
        FlFdEntry *fds = fl_table_grow(poller->fds, &poller->fds_size, reg->fd,
                                       sizeof(*fds));
        if (fds == NULL) {
            return FL_NO_MEMORY;
        }
        poller->fds = fds;
    }
    if (entry_of(reg)->reg != NULL) {
        return -EEXIST;
    }
    entry_of(reg)->reg = reg;
    reg->generation = ++poller->last_generation;
    return 0;
}

int
fl_registration_open(FlPoller *poller, int fd, bool always_level,
                     FlRegistration **out)
{
    FlRegistration *reg = calloc(1, sizeof(*reg));
    if (reg == NULL) {
        return FL_NO_MEMORY;
    }
    fl_list_init(&reg->fired_link);
    reg->poller = poller;
    reg->fd = fd;
    reg->always_level = always_level;
    fl_poller_lock_fds(poller);
    int code = claim_fd(reg);
    fl_poller_unlock_fds(poller);
    if (code < 0) {
        free(reg);
        return code;
    }
    *out = reg;
    return 0;
}

/* --- registering --------------------------------------------------------- */

/* Whether an error means that the fd no longer refers to the registered file:
   it is closed (EBADF), refers to an unregistered file (ENOENT), or to one
   that cannot be registered, such as a regular file (EPERM). */
static bool
is_other_file(int code)
{
    return code == -ENOENT || code == -EBADF || code == -EPERM;
}

/* Treat as stale what the set may still contain under the fd. */
static void
invalidate(FlRegistration *reg)
{
    entry_of(reg)->registered = reg->armed = reg->level = false;
    reg->generation = ++reg->poller->last_generation;
}

/* Remove the fd from the set.  Any error is ignored, because the events are
   stale from now on in any case. */
static void
unregister(FlRegistration *reg)
{
    /* In a forked child that could not get a set of its own, the parent's set
       must not change. */
    if (fl_poller_after_fork(reg->poller) == 0) {
        /* This fails if the fd was closed.  Then the kernel has removed the
           registration, or a duplicate keeps it and its events are stale. */
        (void)fl_fd_set_remove(&reg->poller->set, reg->fd);
    }
    invalidate(reg);
}

/* Register the wanted events for the file that the fd refers to now; what is
   ready already is reported by the next poll.  Changing comes first, because
   it is one system call where adding would be two; then adding, if the fd
   turned out to be another file's.  0 or a negative errno. */
static int
arm(FlRegistration *reg)
{
    FlFdSet *set = &reg->poller->set;
    FlFdEntry *entry = entry_of(reg);
    int interest = interest_of(reg, reg->always_level);
    int code = fl_poller_after_fork(reg->poller);
    if (code < 0) {
        return code;
    }
    code = -ENOENT;
    if (entry->registered) {
        code = fl_fd_set_change(set, reg->fd, interest, tag_of(reg));
        if (code < 0 && !is_other_file(code)) {
            return code; /* the previous registration stays */
        }
    }
    if (code < 0) {
        invalidate(reg);
        code = fl_fd_set_add(set, reg->fd, interest, tag_of(reg));
    }
    if (code == -EEXIST) {
        /* The set has this file under this fd although we do not know it, for
           example from a duplicate that was moved back here with dup2. */
        code = fl_fd_set_change(set, reg->fd, interest, tag_of(reg));
    }
    entry->registered = reg->armed = code == 0;
    reg->level = code == 0 && reg->always_level;
    reg->repeats = 0;
    return code;
}

/* Arm it after an event.  It has proved to want more than one event, so it
   becomes level-triggered.  Without support for that (ENOTSUP) it stays
   one-shot.  0 or a negative errno. */
static int
arm_level(FlRegistration *reg)
{
    FlFdSet *set = &reg->poller->set;
    uint64_t tag = tag_of(reg);
    int code = fl_fd_set_change(set, reg->fd, interest_of(reg, true), tag);
    reg->level = code == 0;
    if (code == -ENOTSUP) {
        code = fl_fd_set_change(set, reg->fd, interest_of(reg, false), tag);
    }
    reg->armed = code == 0;
    reg->repeats = 0;
    return code;
}

/* As fl_registration_arm_again, within the lock. */
static void
arm_again(FlRegistration *reg)
{
    int code = fl_poller_after_fork(reg->poller);
    if (code == 0 && !entry_of(reg)->registered) {
        /* The fd was closed, or leaving the parent's set could not move it:
           as in asyncio it reports nothing more. */
        return;
    }
    if (code == 0) {
        code = arm_level(reg);
    }
    if (is_other_file(code)) {
        invalidate(reg);
    }
    else if (code < 0) {
        fire(reg, 0); /* out of memory: on_events tries again */
    }
}

/* Make the set report what is wanted now.  A persistent registration ends.
   0 or a negative errno. */
static int
apply(FlRegistration *reg)
{
    reg->persistent = reg->recheck = reg->rechecking = false;
    drop_unwanted(reg);
    if (reg->wanted != 0) {
        return arm(reg);
    }
    /* A one-shot registration that has fired is silent already: invariant 3.
       One that is level-triggered from the start stays registered, so that
       pausing costs no system call; the next event unregisters it. */
    if (!reg->always_level && entry_of(reg)->registered
        && (reg->armed || reg->level))
    {
        unregister(reg);
    }
    return 0;
}

int
fl_registration_set(FlRegistration *reg, int wanted)
{
    FlPoller *poller = reg->poller;
    reg->wanted = (uint8_t)wanted;
    if (wanted != 0 && !reg->always_level) {
        /* It may be ready already: the next iteration must poll. */
        atomic_store_explicit(&poller->user_fd_changed, true,
                              memory_order_relaxed);
    }
    fl_poller_lock_fds(poller);
    int code = apply(reg);
    fl_poller_unlock_fds(poller);
    return code;
}

void
fl_registration_arm_again(FlRegistration *reg)
{
    fl_poller_lock_fds(reg->poller);
    arm_again(reg);
    fl_poller_unlock_fds(reg->poller);
}

/* --- persistent ---------------------------------------------------------- */

/* As fl_registration_persist, within the lock.  `ready` starts with both
   events: nothing is known yet, so both calls are worth trying. */
static int
add_persistent(FlRegistration *reg)
{
    int code = fl_poller_after_fork(reg->poller);
    if (code < 0) {
        return code;
    }
    uint32_t generation = reg->generation;
    reg->generation = ++reg->poller->last_generation;
    code = fl_fd_set_add_persistent(&reg->poller->set, reg->fd, tag_of(reg));
    if (code < 0 && reg->persistent && entry_of(reg)->registered) {
        reg->generation = generation; /* the previous registration stays */
        return code;
    }
    entry_of(reg)->registered = reg->armed = reg->persistent = code == 0;
    reg->ready = FL_READABLE | FL_WRITABLE;
    reg->lasting = reg->recheck = reg->rechecking = reg->level = false;
    reg->unwanted = 0;
    return code;
}

int
fl_registration_persist(FlRegistration *reg)
{
    fl_poller_lock_fds(reg->poller);
    int code = add_persistent(reg);
    fl_poller_unlock_fds(reg->poller);
    return code;
}

void
fl_registration_want(FlRegistration *reg, int wanted)
{
    FlPoller *poller = reg->poller;
    reg->wanted = (uint8_t)wanted;
    if (wanted != 0) {
        /* A new wait: it gets one recheck within about a second. */
        reg->unwanted = 0;
        reg->recheck = poller->recheck = true;
        reg->rechecking = false;
        atomic_store_explicit(&poller->user_fd_changed, true,
                              memory_order_relaxed);
    }
}

void
fl_registration_not_ready(FlRegistration *reg, int event)
{
    reg->ready &= (uint8_t)~event;
    /* If the event came from a recheck, the waiter has had its recheck.
       Another one would wake the loop each second for as long as it waits. */
    if (!reg->rechecking) {
        reg->recheck = reg->poller->recheck = true;
    }
    reg->rechecking = false;
}

/* --- closing ------------------------------------------------------------- */

/* Take it out of the table and free it.  Without a GIL the loop's thread may
   be using it: then it goes to the list `closed`, and that thread frees it
   before its next poll. */
static void
detach(FlRegistration *reg)
{
    entry_of(reg)->reg = NULL;
    reg->owner = NULL;
    reg->fired = 0;
    fl_list_remove(&reg->fired_link);
    if (!FL_HAVE_GIL && fl_poller_iterates_elsewhere(reg->poller)) {
        fl_list_append(&reg->poller->closed, &reg->fired_link);
        return;
    }
    free(reg);
}

void
fl_registration_close(FlRegistration *reg)
{
    FlPoller *poller = reg->poller;
    fl_poller_lock_fds(poller);
    reg->wanted = 0;
    /* So that apply() unregisters it now, not at the next event. */
    reg->always_level = false;
    (void)apply(reg);
    detach(reg);
    fl_poller_unlock_fds(poller);
}

void
fl_registration_close_with_fd(FlRegistration *reg)
{
    FlPoller *poller = reg->poller;
    fl_poller_lock_fds(poller);
    reg->wanted = 0;
    /* The kernel removes it with the fd.  If a duplicate prevents that, the
       next registration of this fd gets a new generation. */
    entry_of(reg)->registered = false;
    detach(reg);
    fl_poller_unlock_fds(poller);
}

void
fl_registrations_close_all(FlPoller *poller)
{
#if !FL_HAVE_GIL
    FlRegistration *reg;
    while ((reg = fl_registrations_pop_closed(poller)) != NULL) {
        free(reg);
    }
#endif
    for (int fd = 0; fd < poller->fds_size; fd++) {
        if (poller->fds[fd].reg != NULL) {
            /* Without a system call: the set itself is closed next. */
            fl_registration_close_with_fd(poller->fds[fd].reg);
        }
    }
}

/* --- events -------------------------------------------------------------- */

/* Update a persistent registration with an event of the set. */
static void
note_persistent(FlRegistration *reg, int events)
{
    reg->ready |= (uint8_t)(events & (FL_READABLE | FL_WRITABLE));
    reg->lasting |= (events & FL_LASTING) != 0;
    reg->rechecking &= (events & reg->wanted) == 0;
    if (reg->wanted == 0 && ++reg->unwanted == MOST_UNWANTED) {
        /* No wait began during these events: unregister it. */
        (void)apply(reg);
    }
}

/* Update any other registration with an event of the set.  `wanted` may have
   changed since it was armed. */
static void
note_ordinary(FlRegistration *reg, int events)
{
    reg->armed = reg->level && ++reg->repeats < MOST_REPEATS;
    if (reg->wanted == 0) {
        unregister(reg);
    }
    else if ((events & reg->wanted) == 0) {
        /* The other event is wanted by now, and a one-shot registration was
           disarmed by this one. */
        arm_again(reg);
    }
}

/* Process one event that the last poll took.  Stale events end here. */
static void
note(FlPoller *poller, const FlFdEvent *event)
{
    uint32_t fd = (uint32_t)event->tag;
    FlRegistration *reg =
        fd < (uint32_t)poller->fds_size ? poller->fds[fd].reg : NULL;
    if (reg == NULL || reg->generation != (uint32_t)(event->tag >> 32)) {
        poller->stale_events++;
        return;
    }
    int fired = event->events & reg->wanted;
    if (reg->persistent) {
        note_persistent(reg, event->events);
    }
    else {
        note_ordinary(reg, event->events);
    }
    if (fired != 0) {
        fire(reg, fired);
    }
}

void
fl_registrations_collect(FlPoller *poller)
{
    fl_poller_lock_fds(poller);
    for (int at = 0; at < poller->event_count; at++) {
        note(poller, &poller->events[at]);
    }
    poller->event_count = 0;
    /* See invariant 2.  After the events, because renewing reports everything
       that is ready again. */
    if (FL_UNLIKELY(poller->stale_events > MOST_STALE)) {
        poller->stale_events = 0;
        fl_poller_renew_set(poller);
    }
    fl_poller_unlock_fds(poller);
}

bool
fl_registrations_fired(const FlPoller *poller)
{
    return !fl_list_is_empty(&poller->fired);
}

void
fl_registration_fire_again(FlRegistration *reg)
{
    fl_poller_lock_fds(reg->poller);
    fire(reg, 0);
    fl_poller_unlock_fds(reg->poller);
}

static FlRegistration *
pop(FlPoller *poller, FlList *list)
{
    fl_poller_lock_fds(poller);
    FlList *link = fl_list_pop(list);
    fl_poller_unlock_fds(poller);
    return link == NULL ? NULL
                        : FL_LIST_ENTRY(link, FlRegistration, fired_link);
}

FlRegistration *
fl_registrations_pop_fired(FlPoller *poller)
{
    return pop(poller, &poller->fired);
}

FlRegistration *
fl_registrations_pop_closed(FlPoller *poller)
{
    return pop(poller, &poller->closed);
}

/* --- registering again --------------------------------------------------- */

/* Register it as what it is.  If the system has no room, have a later
   fl_registrations_recheck try again; a closed fd (EBADF), or one that cannot
   be registered (EPERM), is given up. */
static void
reregister(FlRegistration *reg)
{
    int code = reg->persistent ? add_persistent(reg) : arm(reg);
    if (code < 0 && code != -EBADF && code != -EPERM) {
        reg->recheck = reg->poller->recheck = true;
    }
}

/* Register it again, and have a persistent one call its waiter: the call finds
   out whether the event is ready. */
static void
recheck_one(FlRegistration *reg)
{
    /* Before reregister(), which clears it on failure. */
    bool persistent = reg->persistent;
    reg->recheck = false;
    if (reg->wanted == 0) {
        return;
    }
    reregister(reg);
    if (!persistent) {
        return; /* registering reports what is ready already */
    }
    reg->rechecking = true;
    fire(reg, reg->wanted);
}

void
fl_registrations_recheck(FlPoller *poller)
{
    fl_poller_lock_fds(poller);
    poller->recheck = false;
    for (int fd = 0; fd < poller->fds_size; fd++) {
        FlRegistration *reg = poller->fds[fd].reg;
        if (reg != NULL && reg->recheck) {
            recheck_one(reg);
        }
    }
    fl_poller_unlock_fds(poller);
}

/* Move a registration to the new set.  If removing it from `old` fails, the fd
   no longer refers to the registered file and must not be registered: its
   callback belongs to the file that was closed.  A persistent one is rechecked
   instead, because its waiter gets the fd from its socket and so notices. */
static void
move_registration(FlRegistration *reg, FlFdSet *old)
{
    if (old != NULL && is_other_file(fl_fd_set_remove(old, reg->fd))) {
        invalidate(reg);
        reg->recheck = reg->persistent;
        reg->poller->recheck |= reg->persistent;
        return;
    }
    entry_of(reg)->registered = false;
    reregister(reg);
}

void
fl_registrations_renew(FlPoller *poller, FlFdSet *old)
{
    for (int fd = 0; fd < poller->fds_size; fd++) {
        FlFdEntry *entry = &poller->fds[fd];
        FlRegistration *reg = entry->reg;
        if (entry->registered && reg != NULL
            && (reg->persistent || reg->wanted != 0)) {
            move_registration(reg, old);
        }
        else {
            entry->registered = false; /* a leftover of invariant 3 */
        }
    }
}
