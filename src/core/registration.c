/* Registrations of descriptors: see registration.h.

   1. A watch's tag is its fd and generation.  A new watch, and a new file
      under the fd, get a new generation: events of an older registration are
      stale, and ignored.
   2. A registration can outlive its fd, where a duplicate, or another
      process, has the file still.  Its events are stale from when the system
      refuses a call, or the watch is closed.  A level-triggered one is asked
      for again after MOST_REPEATS events, so that is noticed; after MOST_STALE
      stale events the set is renewed, which ends them.
   3. A registration for one event stays, disarmed, when its watch is closed:
      the next watch of the fd arms it with one system call.
   4. What the system refuses is an error code here and ends no more than the
      registration that was asked for. */
#include "core/registration.h"

#include "base/codes.h"
#include "base/list.h"
#include "base/table.h"
#include "core/fd_set.h"
#include "core/poller.h"
#include "py/compat.h"

#include <errno.h>
#include <stdlib.h>

/* Of a kept watch, in a row; then its registration ends. */
#define MOST_UNWANTED 16
#define MOST_REPEATS  64
#define MOST_STALE    256

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

/* Have a watch run with the events that it fired. */
static void
fire(FlRegistration *reg, int events)
{
    bool anew = reg->fired == 0;
    reg->fired |= (uint8_t)events;
    if (fl_list_is_empty(&reg->fired_link)) {
        reg->anew = anew;
        fl_list_append(&reg->poller->fired, &reg->fired_link);
    }
}

static void
drop_unwanted(FlRegistration *reg)
{
    reg->fired &= reg->wanted;
    if (reg->fired == 0) {
        fl_list_remove(&reg->fired_link);
    }
}

/* --- opening ------------------------------------------------------------- */

/* Let a watch have its fd. */
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

/* Whether a call was refused because the fd is closed, or another file's that
   is not registered or cannot be. */
static bool
is_other_file(int code)
{
    return code == -ENOENT || code == -EBADF || code == -EPERM;
}

/* What the set may still have under the fd is stale from now on. */
static void
invalidate(FlRegistration *reg)
{
    entry_of(reg)->registered = reg->armed = reg->level = false;
    reg->generation = ++reg->poller->last_generation;
}

static void
unregister(FlRegistration *reg)
{
    /* The parent's set, where there is none of our own, is left alone. */
    if (fl_poller_leave_parent(reg->poller) == 0) {
        /* It fails where the fd was closed.  Then the registration is gone,
           or its events are stale. */
        (void)fl_fd_set_remove(&reg->poller->set, reg->fd);
    }
    invalidate(reg);
}

/* Register what is wanted; what is ready already fires at once. */
static int
arm(FlRegistration *reg)
{
    FlFdSet *set = &reg->poller->set;
    FlFdEntry *entry = entry_of(reg);
    int interest = interest_of(reg, reg->always_level);
    int code = fl_poller_leave_parent(reg->poller);
    if (code < 0) {
        return code;
    }
    code = -ENOENT;
    if (entry->registered) {
        code = fl_fd_set_change(set, reg->fd, interest, tag_of(reg));
        if (code < 0 && !is_other_file(code)) {
            return code; /* it is registered as it was */
        }
    }
    if (code < 0) {
        invalidate(reg);
        code = fl_fd_set_add(set, reg->fd, interest, tag_of(reg));
    }
    if (code == -EEXIST) {
        code = fl_fd_set_change(set, reg->fd, interest, tag_of(reg));
    }
    entry->registered = reg->armed = code == 0;
    reg->level = code == 0 && reg->always_level;
    reg->repeats = 0;
    return code;
}

/* What is armed again wants more than one event. */
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

static void
arm_again(FlRegistration *reg)
{
    int code = fl_poller_leave_parent(reg->poller);
    if (code == 0 && !entry_of(reg)->registered) {
        return;
    }
    if (code == 0) {
        code = arm_level(reg);
    }
    if (is_other_file(code)) {
        invalidate(reg);
    }
    else if (code < 0) {
        fire(reg, 0);
    }
}

/* Have the system tell of what is wanted now. */
static int
apply(FlRegistration *reg)
{
    reg->persistent = reg->recheck = reg->rechecking = false;
    drop_unwanted(reg);
    if (reg->wanted != 0) {
        return arm(reg);
    }
    /* One that has fired, and fires once, is silent already. */
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

/* --- kept ---------------------------------------------------------------- */

static int
persist(FlRegistration *reg)
{
    int code = fl_poller_leave_parent(reg->poller);
    if (code < 0) {
        return code;
    }
    uint32_t generation = reg->generation;
    reg->generation = ++reg->poller->last_generation;
    code = fl_fd_set_add_persistent(&reg->poller->set, reg->fd, tag_of(reg));
    if (code < 0 && reg->persistent && entry_of(reg)->registered) {
        reg->generation = generation; /* it is registered as it was */
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
    int code = persist(reg);
    fl_poller_unlock_fds(reg->poller);
    return code;
}

void
fl_registration_want(FlRegistration *reg, int wanted)
{
    FlPoller *poller = reg->poller;
    reg->wanted = (uint8_t)wanted;
    if (wanted != 0) {
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
    if (!reg->rechecking) {
        reg->recheck = reg->poller->recheck = true;
    }
    reg->rechecking = false;
}

/* --- closing ------------------------------------------------------------- */

/* What is left of a watch is memory.  Without a GIL the loop's thread may be
   looking at it, and frees it when it is not. */
static void
end(FlRegistration *reg)
{
    entry_of(reg)->reg = NULL;
    reg->owner = NULL;
    reg->fired = 0;
    fl_list_remove(&reg->fired_link);
    if (!FL_HAVE_GIL && fl_poller_is_elsewhere(reg->poller)) {
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
    reg->always_level = false;
    (void)apply(reg);
    end(reg);
    fl_poller_unlock_fds(poller);
}

void
fl_registration_close_with_fd(FlRegistration *reg)
{
    FlPoller *poller = reg->poller;
    fl_poller_lock_fds(poller);
    reg->wanted = 0;
    entry_of(reg)->registered = false;
    end(reg);
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
            /* The set itself is closed next. */
            fl_registration_close_with_fd(poller->fds[fd].reg);
        }
    }
}

/* --- events -------------------------------------------------------------- */

static void
note_persistent(FlRegistration *reg, int events)
{
    reg->ready |= (uint8_t)(events & (FL_READABLE | FL_WRITABLE));
    reg->lasting |= (events & FL_LASTING) != 0;
    reg->rechecking &= (events & reg->wanted) == 0;
    if (reg->wanted == 0 && ++reg->unwanted == MOST_UNWANTED) {
        /* The loop wakes for what nobody waits for: that ends. */
        (void)apply(reg);
    }
}

/* Of a registration that waits for something, or waited when it was armed. */
static void
note_wanted(FlRegistration *reg, int events)
{
    reg->armed = reg->level && ++reg->repeats < MOST_REPEATS;
    if (reg->wanted == 0) {
        unregister(reg);
    }
    else if ((events & reg->wanted) == 0) {
        arm_again(reg); /* another kind is wanted by now */
    }
}

static void
note(FlPoller *poller, const FlFdEvent *event)
{
    uint32_t fd = (uint32_t)event->tag;
    FlRegistration *reg =
        fd < (uint32_t)poller->fds_size ? poller->fds[fd].reg : NULL;
    if (reg == NULL || reg->generation != (uint32_t)(event->tag >> 32)) {
        poller->stale++;
        return;
    }
    int fired = event->events & reg->wanted;
    if (reg->persistent) {
        note_persistent(reg, event->events);
    }
    else {
        note_wanted(reg, event->events);
    }
    if (fired != 0) {
        fire(reg, fired);
    }
}

void
fl_registrations_collect(FlPoller *poller)
{
    fl_poller_lock_fds(poller);
    for (int at = 0; at < poller->taken; at++) {
        note(poller, &poller->events[at]);
    }
    poller->taken = 0;
    if (FL_UNLIKELY(poller->stale > MOST_STALE)) {
        poller->stale = 0;
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

/* --- registering once more ----------------------------------------------- */

/* Where the system has no room, be unsure. */
static void
register_again(FlRegistration *reg)
{
    int code = reg->persistent ? persist(reg) : arm(reg);
    if (code < 0 && code != -EBADF && code != -EPERM) {
        reg->recheck = reg->poller->recheck = true;
    }
}

static void
recheck_one(FlRegistration *reg)
{
    bool persistent = reg->persistent;
    reg->recheck = false;
    if (reg->wanted == 0) {
        return;
    }
    register_again(reg);
    if (!persistent) {
        return; /* it fires if it is ready */
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

/* Move a registration to the new set, unless another file has the fd by now:
   `old` no longer finds it then. */
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
    register_again(reg);
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
            entry->registered = false;
        }
    }
}
