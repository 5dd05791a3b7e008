/* Registrations of fds: see registration.h.

   1. The tag of what the set contains is its fd and a generation, which each
      change of the set renews.  An event with another generation is stale and
      is ignored; otherwise it would run the callback of another file.
   2. The kernel keeps a registration after its fd was closed as long as a
      duplicate, or another process, has the file open.  Its events become
      stale once the system refuses a call for the fd or the registration is
      closed.  So a registration is made again, with a system call, every
      MOST_REPEATS events: an fd that was closed is noticed then.  After
      MOST_STALE stale events the set is renewed, which is the only way to stop
      them.
   3. The set may contain more than is wanted, also for an fd whose
      registration was closed.  FlFd.interest says what.  After two unwanted
      events in a row it is taken out of the set.  Not after one: often the
      next iteration closes the fd, registers it for a transport, or wants the
      event again.
   4. What the system refuses is an error code and ends at most the one
      registration that the call was for. */
#include "core/registration.h"

#include "base/codes.h"
#include "base/list.h"
#include "core/fd_set.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "py/compat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Events of a registration until it is made again. */
#define MOST_REPEATS  64
/* Unwanted events in a row until they are taken out of the set. */
#define MOST_UNWANTED 2
/* Stale events until the set is renewed. */
#define MOST_STALE    256
#define FIRST_FDS     64

/* Looked up each time, because the table moves when it grows. */
static FlFd *
entry_of(const FlRegistration *reg)
{
    return &reg->poller->fds[reg->fd];
}

/* Append it to the list from which iteration.c queues an entry. */
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

/* --- the set ------------------------------------------------------------- */

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
invalidate(FlPoller *poller, int fd)
{
    poller->fds[fd].interest = 0;
    poller->fds[fd].generation = ++poller->last_generation;
}

/* Have the set report less, or nothing (0), under the fd.  An fd that refers
   to another file by now is not registered again. */
static void
narrow(FlPoller *poller, int fd, int interest)
{
    FlFd *entry = &poller->fds[fd];
    uint64_t tag = (uint64_t)entry->generation << 32 | (uint32_t)fd;
    int code = interest == 0
                   ? fl_fd_set_remove(&poller->set, fd)
                   : fl_fd_set_change(&poller->set, fd, interest, tag);
    entry->unwanted = 0;
    if (code == 0) {
        entry->interest = (uint8_t)interest;
    }
    else if (is_other_file(code)) {
        invalidate(poller, fd);
    }
}

/* Register the wanted events for the file that the fd refers to now; what is
   ready already is reported by the next poll.  Changing comes first, because
   it is one system call where adding would be two; then adding, if the fd
   turned out to be another file's.  0 or a negative errno. */
static int
add(FlRegistration *reg)
{
    FlFdSet *set = &reg->poller->set;
    FlFd *entry = entry_of(reg);
    int interest = reg->wanted;
    uint32_t generation = ++reg->poller->last_generation;
    uint64_t tag = (uint64_t)generation << 32 | (uint32_t)reg->fd;
    int code = -ENOENT;
    if (entry->interest != 0) {
        code = fl_fd_set_change(set, reg->fd, interest, tag);
    }
    if (is_other_file(code)) {
        entry->interest = 0;
        code = fl_fd_set_add(set, reg->fd, interest, tag);
    }
    if (code == -EEXIST) {
        /* The set has this file under this fd although we do not know it, for
           example from a duplicate that was moved back here with dup2. */
        code = fl_fd_set_change(set, reg->fd, interest, tag);
    }
    if (code == 0 || entry->interest == 0) {
        entry->generation = generation; /* else the previous one stays */
        entry->interest = code == 0 ? (uint8_t)interest : 0;
        entry->unwanted = 0;
    }
    reg->ready = FL_READABLE | FL_WRITABLE; /* nothing is known yet */
    reg->repeats = 0;
    return code;
}

/* add(), and what the system has no room for is tried again by a later
   fl_registrations_recheck.  A closed fd (EBADF), or one that cannot be
   registered (EPERM), is given up. */
static void
add_or_retry(FlRegistration *reg)
{
    int code = add(reg);
    if (code < 0 && code != -EBADF && code != -EPERM) {
        reg->recheck = reg->poller->recheck = true;
    }
}

/* --- opening, wanting, closing ------------------------------------------- */

/* Make the table large enough for fd, by doubling.  It never shrinks: the
   system reuses the lowest free fd, so it stays as small as the most fds that
   were open.  0 or FL_NO_MEMORY. */
static int
table_reserve(FlPoller *poller, int fd)
{
    size_t size = (size_t)poller->fds_size;
    size_t grown = size == 0 ? FIRST_FDS : size;
    while (grown <= (size_t)fd) {
        grown *= 2;
    }
    if (grown == size) {
        return 0;
    }
    /* An fd is less than INT_MAX, and so is a size that the system allows. */
    FlFd *fds = realloc(poller->fds, grown * sizeof(*fds));
    if (fds == NULL) {
        return FL_NO_MEMORY;
    }
    memset(fds + size, 0, (grown - size) * sizeof(*fds));
    poller->fds = fds;
    poller->fds_size = (int)grown;
    return 0;
}

int
fl_registration_open(FlPoller *poller, int fd, size_t size_bytes,
                     FlRegistration **out)
{
    FlRegistration *reg = calloc(1, size_bytes);
    if (reg == NULL) {
        return FL_NO_MEMORY;
    }
    fl_list_init(&reg->fired_link);
    reg->poller = poller;
    reg->fd = fd;
    fl_poller_lock_fds(poller);
    if (fd != poller->signal_fds[0]) { /* which every loop has */
        /* If there is no room for its fds, the first wait tries again. */
        (void)fl_poller_open_uv(poller);
    }
    int code = table_reserve(poller, fd);
    if (code == 0 && poller->fds[fd].reg != NULL) {
        code = -EEXIST;
    }
    if (code == 0) {
        poller->fds[fd].reg = reg;
    }
    fl_poller_unlock_fds(poller);
    if (code < 0) {
        free(reg);
        return code;
    }
    *out = reg;
    return 0;
}

FlRegistration *
fl_registration_at(FlPoller *poller, int fd)
{
    FlRegistration *reg = NULL;
    fl_poller_lock_fds(poller);
    if (fd < poller->fds_size) {
        reg = poller->fds[fd].reg;
    }
    fl_poller_unlock_fds(poller);
    return reg;
}

/* As fl_registration_set, within the lock. */
static int
set_wanted(FlRegistration *reg, int wanted)
{
    FlPoller *poller = reg->poller;
    int before = reg->wanted, added = wanted & ~before;
    reg->wanted = (uint8_t)wanted;
    int code = fl_poller_after_fork(poller);
    if (added != 0 && code == 0) {
        if (reg->transport == NULL && !reg->trusted) {
            /* It may be ready already: the next iteration must poll. */
            atomic_store_explicit(&poller->user_fd_changed, true,
                                  memory_order_relaxed);
        }
        reg->recheck |= reg->trusted;
        poller->recheck |= reg->trusted;
        if (!reg->trusted || (wanted & ~entry_of(reg)->interest)) {
            code = add(reg);
        }
    }
    if (code < 0 && added != 0) {
        reg->wanted = (uint8_t)before;
        return code;
    }
    /* An entry that is queued already stays queued and runs with what is
       left. */
    reg->fired &= reg->wanted;
    if (reg->fired == 0) {
        fl_list_remove(&reg->fired_link);
    }
    return 0;
}

int
fl_registration_set(FlRegistration *reg, int wanted)
{
    fl_poller_lock_fds(reg->poller);
    int code = set_wanted(reg, wanted);
    fl_poller_unlock_fds(reg->poller);
    return code;
}

void
fl_registration_unregister(FlRegistration *reg)
{
    FlPoller *poller = reg->poller;
    fl_poller_lock_fds(poller);
    /* In a forked child that could not get a set of its own, the parent's set
       must not change. */
    if (fl_poller_after_fork(poller) == 0 && entry_of(reg)->interest != 0) {
        narrow(poller, reg->fd, 0);
    }
    fl_poller_unlock_fds(poller);
}

void
fl_registration_drop_event(FlRegistration *reg)
{
    /* Without a GIL, while another thread iterates, the entry may be running
       there and its slot may be reused.  So leave it: run_event sees that the
       registration was closed. */
    if (reg->entry != NULL
        && (FL_HAVE_GIL || !fl_poller_iterates_elsewhere(reg->poller)))
    {
        reg->entry->kind = FL_READY_NONE;
        reg->entry = NULL;
    }
}

/* Take it out of the table and free it, within the lock.  Without a GIL the
   loop's thread may be using it: then it goes to the list `closed`, and that
   thread frees it before its next poll. */
static void
detach(FlRegistration *reg)
{
    fl_registration_drop_event(reg);
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
    detach(reg);
    fl_poller_unlock_fds(poller);
}

void
fl_registration_close_with_fd(FlRegistration *reg)
{
    FlPoller *poller = reg->poller;
    fl_poller_lock_fds(poller);
    invalidate(poller, reg->fd);
    detach(reg);
    fl_poller_unlock_fds(poller);
}

void
fl_registrations_close_all(FlPoller *poller)
{
    fl_registrations_free_closed(poller);
    for (int fd = 0; fd < poller->fds_size; fd++) {
        if (poller->fds[fd].reg != NULL) {
            fl_registration_close(poller->fds[fd].reg);
        }
    }
}

/* --- events -------------------------------------------------------------- */

/* Process one event that the last poll took.  Stale events end here. */
static void
note(FlPoller *poller, const FlFdEvent *event)
{
    int fd = (int)(uint32_t)event->tag;
    FlFd *entry = &poller->fds[fd]; /* the table never shrinks */
    if (entry->generation != (uint32_t)(event->tag >> 32)) {
        poller->stale_events++;
        return;
    }
    FlRegistration *reg = entry->reg;
    int wanted = reg == NULL ? 0 : reg->wanted;
    int fired = event->events & wanted;
    if (fired != 0 && !(event->events & entry->interest & ~wanted)) {
        entry->unwanted = 0;
    }
    else if (++entry->unwanted == MOST_UNWANTED) {
        narrow(poller, fd, wanted);
    }
    if (reg == NULL) {
        return;
    }
    reg->ready |= (uint8_t)event->events;
    if (fired == 0) {
        return;
    }
    fire(reg, fired);
    if (++reg->repeats == MOST_REPEATS) {
        reg->repeats = 0;
        narrow(poller, fd, wanted); /* see invariant 2 */
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
        fl_poller_replace_set(poller);
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

void
fl_registrations_free_closed(FlPoller *poller)
{
#if FL_HAVE_GIL
    (void)poller; /* detach() has freed them */
#else
    FlRegistration *reg;
    while ((reg = pop(poller, &poller->closed)) != NULL) {
        fl_registration_drop_event(reg);
        free(reg);
    }
#endif
}

/* --- registering again --------------------------------------------------- */

void
fl_registrations_recheck(FlPoller *poller)
{
    fl_poller_lock_fds(poller);
    poller->recheck = false;
    for (int fd = 0; fd < poller->fds_size; fd++) {
        FlRegistration *reg = poller->fds[fd].reg;
        if (reg == NULL || !reg->recheck) {
            continue;
        }
        reg->recheck = false;
        if (reg->wanted != 0) {
            add_or_retry(reg);
            if (reg->trusted) {
                fire(reg, reg->wanted);
            }
        }
    }
    fl_poller_unlock_fds(poller);
}

void
fl_registrations_register_all(FlPoller *poller, FlFdSet *old)
{
    for (int fd = 0; fd < poller->fds_size; fd++) {
        FlFd *entry = &poller->fds[fd];
        FlRegistration *reg = entry->reg;
        bool registered = entry->interest != 0;
        invalidate(poller, fd);
        if (!registered || reg == NULL || reg->wanted == 0) {
            continue;
        }
        if (old != NULL && is_other_file(fl_fd_set_remove(old, fd))) {
            /* The fd no longer refers to the registered file and must not be
               registered: its callback belongs to the file that was closed.
               A trusted one is rechecked, because its waiter gets the fd from
               its socket and so notices. */
            reg->recheck = reg->trusted;
            poller->recheck |= reg->trusted;
        }
        else {
            add_or_retry(reg);
        }
    }
}
