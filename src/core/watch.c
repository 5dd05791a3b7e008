/* Registrations of descriptors: see watch.h.

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
#include "core/watch.h"

#include "base/codes.h"
#include "base/list.h"
#include "base/table.h"
#include "core/fd_set.h"
#include "core/poller.h"
#include "py/compat.h"

#include <errno.h>
#include <stdlib.h>

/* Of a kept watch, in a row; then its registration ends. */
#define MOST_UNASKED 16
#define MOST_REPEATS 64
#define MOST_STALE   256

static FlNumber *
number_of(const FlWatch *watch)
{
    return &watch->poller->numbers[watch->fd];
}

static uint64_t
tag_of(const FlWatch *watch)
{
    return (uint64_t)watch->generation << 32 | (uint32_t)watch->fd;
}

static int
interest_of(const FlWatch *watch, bool level)
{
    return watch->wanted | (level ? FL_LEVEL : 0);
}

/* Have a watch run with the events that it fired. */
static void
fire(FlWatch *watch, int events)
{
    bool anew = watch->fired == 0;
    watch->fired |= (uint8_t)events;
    if (fl_list_is_empty(&watch->fired_link)) {
        watch->anew = anew;
        fl_list_append(&watch->poller->fired, &watch->fired_link);
    }
}

static void
drop_unwanted(FlWatch *watch)
{
    watch->fired &= watch->wanted;
    if (watch->fired == 0) {
        fl_list_remove(&watch->fired_link);
    }
}

/* --- opening ------------------------------------------------------------- */

/* Let a watch have its fd. */
static int
take_number(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    if (watch->fd >= poller->numbers_size) {
        FlNumber *numbers =
            fl_table_grow(poller->numbers, &poller->numbers_size, watch->fd,
                          sizeof(*numbers));
        if (numbers == NULL) {
            return FL_NO_MEMORY;
        }
        poller->numbers = numbers;
    }
    if (number_of(watch)->watch != NULL) {
        return -EEXIST;
    }
    number_of(watch)->watch = watch;
    watch->generation = ++poller->last_generation;
    return 0;
}

int
fl_watch_open(FlPoller *poller, int fd, bool always_level, FlWatch **out)
{
    FlWatch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        return FL_NO_MEMORY;
    }
    fl_list_init(&watch->fired_link);
    watch->poller = poller;
    watch->fd = fd;
    watch->always_level = always_level;
    fl_poller_lock_numbers(poller);
    int code = take_number(watch);
    fl_poller_unlock_numbers(poller);
    if (code < 0) {
        free(watch);
        return code;
    }
    *out = watch;
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
lose_registration(FlWatch *watch)
{
    number_of(watch)->registered = watch->armed = watch->level = false;
    watch->generation = ++watch->poller->last_generation;
}

static void
unregister(FlWatch *watch)
{
    /* The parent's set, where there is none of our own, is left alone. */
    if (fl_poller_leave_parent(watch->poller) == 0) {
        /* It fails where the fd was closed.  Then the registration is gone,
           or its events are stale. */
        (void)fl_fd_set_remove(&watch->poller->set, watch->fd);
    }
    lose_registration(watch);
}

/* Register what is wanted; what is ready already fires at once. */
static int
arm(FlWatch *watch)
{
    FlFdSet *set = &watch->poller->set;
    FlNumber *number = number_of(watch);
    int interest = interest_of(watch, watch->always_level);
    int code = fl_poller_leave_parent(watch->poller);
    if (code < 0) {
        return code;
    }
    code = -ENOENT;
    if (number->registered) {
        code = fl_fd_set_change(set, watch->fd, interest, tag_of(watch));
        if (code < 0 && !is_other_file(code)) {
            return code; /* it is registered as it was */
        }
    }
    if (code < 0) {
        lose_registration(watch);
        code = fl_fd_set_add(set, watch->fd, interest, tag_of(watch));
    }
    if (code == -EEXIST) {
        code = fl_fd_set_change(set, watch->fd, interest, tag_of(watch));
    }
    number->registered = watch->armed = code == 0;
    watch->level = code == 0 && watch->always_level;
    watch->repeats = 0;
    return code;
}

/* What is armed again wants more than one event. */
static int
arm_level(FlWatch *watch)
{
    FlFdSet *set = &watch->poller->set;
    uint64_t tag = tag_of(watch);
    int code = fl_fd_set_change(set, watch->fd, interest_of(watch, true), tag);
    watch->level = code == 0;
    if (code == -ENOTSUP) {
        code =
            fl_fd_set_change(set, watch->fd, interest_of(watch, false), tag);
    }
    watch->armed = code == 0;
    watch->repeats = 0;
    return code;
}

static void
arm_again(FlWatch *watch)
{
    int code = fl_poller_leave_parent(watch->poller);
    if (code == 0 && !number_of(watch)->registered) {
        return;
    }
    if (code == 0) {
        code = arm_level(watch);
    }
    if (is_other_file(code)) {
        lose_registration(watch);
    }
    else if (code < 0) {
        fire(watch, 0);
    }
}

/* Have the system tell of what is wanted now. */
static int
apply(FlWatch *watch)
{
    watch->kept = watch->unsure = watch->checking = false;
    drop_unwanted(watch);
    if (watch->wanted != 0) {
        return arm(watch);
    }
    /* One that has fired, and fires once, is silent already. */
    if (!watch->always_level && number_of(watch)->registered
        && (watch->armed || watch->level))
    {
        unregister(watch);
    }
    return 0;
}

int
fl_watch_set(FlWatch *watch, int wanted)
{
    FlPoller *poller = watch->poller;
    watch->wanted = (uint8_t)wanted;
    if (wanted != 0 && !watch->always_level) {
        atomic_store_explicit(&poller->watch_began, true,
                              memory_order_relaxed);
    }
    fl_poller_lock_numbers(poller);
    int code = apply(watch);
    fl_poller_unlock_numbers(poller);
    return code;
}

void
fl_watch_arm_again(FlWatch *watch)
{
    fl_poller_lock_numbers(watch->poller);
    arm_again(watch);
    fl_poller_unlock_numbers(watch->poller);
}

/* --- kept ---------------------------------------------------------------- */

static int
keep(FlWatch *watch)
{
    int code = fl_poller_leave_parent(watch->poller);
    if (code < 0) {
        return code;
    }
    uint32_t generation = watch->generation;
    watch->generation = ++watch->poller->last_generation;
    code = fl_fd_set_keep(&watch->poller->set, watch->fd, tag_of(watch));
    if (code < 0 && watch->kept && number_of(watch)->registered) {
        watch->generation = generation; /* it is registered as it was */
        return code;
    }
    number_of(watch)->registered = watch->armed = watch->kept = code == 0;
    watch->ready = FL_READABLE | FL_WRITABLE;
    watch->lasting = watch->unsure = watch->checking = watch->level = false;
    watch->unasked = 0;
    return code;
}

int
fl_watch_keep(FlWatch *watch)
{
    fl_poller_lock_numbers(watch->poller);
    int code = keep(watch);
    fl_poller_unlock_numbers(watch->poller);
    return code;
}

void
fl_watch_want(FlWatch *watch, int wanted)
{
    FlPoller *poller = watch->poller;
    watch->wanted = (uint8_t)wanted;
    if (wanted != 0) {
        watch->unasked = 0;
        watch->unsure = poller->unsure = true;
        watch->checking = false;
        atomic_store_explicit(&poller->watch_began, true,
                              memory_order_relaxed);
    }
}

void
fl_watch_not_ready(FlWatch *watch, int event)
{
    watch->ready &= (uint8_t)~event;
    if (!watch->checking) {
        watch->unsure = watch->poller->unsure = true;
    }
    watch->checking = false;
}

/* --- closing ------------------------------------------------------------- */

/* What is left of a watch is memory.  Without a GIL the loop's thread may be
   looking at it, and frees it when it is not. */
static void
end(FlWatch *watch)
{
    number_of(watch)->watch = NULL;
    watch->owner = NULL;
    watch->fired = 0;
    fl_list_remove(&watch->fired_link);
    if (!FL_HAVE_GIL && fl_poller_is_elsewhere(watch->poller)) {
        fl_list_append(&watch->poller->closed, &watch->fired_link);
        return;
    }
    free(watch);
}

void
fl_watch_close(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    fl_poller_lock_numbers(poller);
    watch->wanted = 0;
    watch->always_level = false;
    (void)apply(watch);
    end(watch);
    fl_poller_unlock_numbers(poller);
}

void
fl_watch_close_with_fd(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    fl_poller_lock_numbers(poller);
    watch->wanted = 0;
    number_of(watch)->registered = false;
    end(watch);
    fl_poller_unlock_numbers(poller);
}

void
fl_watch_close_all(FlPoller *poller)
{
#if !FL_HAVE_GIL
    FlWatch *watch;
    while ((watch = fl_watch_pop_closed(poller)) != NULL) {
        free(watch);
    }
#endif
    for (int fd = 0; fd < poller->numbers_size; fd++) {
        if (poller->numbers[fd].watch != NULL) {
            /* The set itself is closed next. */
            fl_watch_close_with_fd(poller->numbers[fd].watch);
        }
    }
}

/* --- events -------------------------------------------------------------- */

static void
note_kept(FlWatch *watch, int events)
{
    watch->ready |= (uint8_t)(events & (FL_READABLE | FL_WRITABLE));
    watch->lasting |= (events & FL_LASTING) != 0;
    watch->checking &= (events & watch->wanted) == 0;
    if (watch->wanted == 0 && ++watch->unasked == MOST_UNASKED) {
        /* The loop wakes for what nobody waits for: that ends. */
        (void)apply(watch);
    }
}

/* Of a registration that waits for something, or waited when it was armed. */
static void
note_wanted(FlWatch *watch, int events)
{
    watch->armed = watch->level && ++watch->repeats < MOST_REPEATS;
    if (watch->wanted == 0) {
        unregister(watch);
    }
    else if ((events & watch->wanted) == 0) {
        arm_again(watch); /* another kind is wanted by now */
    }
}

static void
note(FlPoller *poller, const FlFdEvent *event)
{
    uint32_t fd = (uint32_t)event->tag;
    FlWatch *watch =
        fd < (uint32_t)poller->numbers_size ? poller->numbers[fd].watch : NULL;
    if (watch == NULL || watch->generation != (uint32_t)(event->tag >> 32)) {
        poller->stale++;
        return;
    }
    int fired = event->events & watch->wanted;
    if (watch->kept) {
        note_kept(watch, event->events);
    }
    else {
        note_wanted(watch, event->events);
    }
    if (fired != 0) {
        fire(watch, fired);
    }
}

void
fl_watch_collect(FlPoller *poller)
{
    fl_poller_lock_numbers(poller);
    for (int at = 0; at < poller->taken; at++) {
        note(poller, &poller->events[at]);
    }
    poller->taken = 0;
    if (FL_UNLIKELY(poller->stale > MOST_STALE)) {
        poller->stale = 0;
        fl_poller_renew_set(poller);
    }
    fl_poller_unlock_numbers(poller);
}

bool
fl_watch_is_noted(const FlPoller *poller)
{
    return !fl_list_is_empty(&poller->fired);
}

void
fl_watch_fire_again(FlWatch *watch)
{
    fl_poller_lock_numbers(watch->poller);
    fire(watch, 0);
    fl_poller_unlock_numbers(watch->poller);
}

static FlWatch *
pop(FlPoller *poller, FlList *list)
{
    fl_poller_lock_numbers(poller);
    FlList *link = fl_list_pop(list);
    fl_poller_unlock_numbers(poller);
    return link == NULL ? NULL : FL_LIST_ENTRY(link, FlWatch, fired_link);
}

FlWatch *
fl_watch_pop_fired(FlPoller *poller)
{
    return pop(poller, &poller->fired);
}

FlWatch *
fl_watch_pop_closed(FlPoller *poller)
{
    return pop(poller, &poller->closed);
}

/* --- registering once more ----------------------------------------------- */

/* Where the system has no room, be unsure. */
static void
register_again(FlWatch *watch)
{
    int code = watch->kept ? keep(watch) : arm(watch);
    if (code < 0 && code != -EBADF && code != -EPERM) {
        watch->unsure = watch->poller->unsure = true;
    }
}

static void
check_unsure(FlWatch *watch)
{
    bool kept = watch->kept;
    watch->unsure = false;
    if (watch->wanted == 0) {
        return;
    }
    register_again(watch);
    if (!kept) {
        return; /* it fires if it is ready */
    }
    watch->checking = true;
    fire(watch, watch->wanted);
}

void
fl_watch_check_unsure(FlPoller *poller)
{
    fl_poller_lock_numbers(poller);
    poller->unsure = false;
    for (int fd = 0; fd < poller->numbers_size; fd++) {
        FlWatch *watch = poller->numbers[fd].watch;
        if (watch != NULL && watch->unsure) {
            check_unsure(watch);
        }
    }
    fl_poller_unlock_numbers(poller);
}

/* Move a registration to the new set, unless another file has the fd by now:
   `old` no longer finds it then. */
static void
move_registration(FlWatch *watch, FlFdSet *old)
{
    if (old != NULL && is_other_file(fl_fd_set_remove(old, watch->fd))) {
        lose_registration(watch);
        watch->unsure = watch->kept;
        watch->poller->unsure |= watch->kept;
        return;
    }
    number_of(watch)->registered = false;
    register_again(watch);
}

void
fl_watch_register_again(FlPoller *poller, FlFdSet *old)
{
    for (int fd = 0; fd < poller->numbers_size; fd++) {
        FlNumber *number = &poller->numbers[fd];
        FlWatch *watch = number->watch;
        if (number->registered && watch != NULL
            && (watch->kept || watch->wanted != 0)) {
            move_registration(watch, old);
        }
        else {
            number->registered = false;
        }
    }
}
