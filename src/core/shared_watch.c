/* Watches in the set: see shared_watch.h.

   1. A watch's tag is its number and generation.  A new watch and a new file
      under the number get a new generation: events of an older registration
      are ignored.
   2. A registration that has fired once stays, disarmed, when its watch is
      closed: the next watch of the number arms it with one system call. */
#include "core/shared_watch.h"

#include "base/codes.h"
#include "base/list.h"
#include "base/table.h"
#include "core/fd_set.h"
#include "core/poller.h"
#include "core/watch.h"
#include "py/compat.h"

#include <errno.h>

/* Of a kept watch, in a row; then its registration ends. */
#define MOST_UNASKED 16
/* Of a level-triggered registration; then the system is asked whether the
   number's file is still that one. */
#define MOST_REPEATS 64
/* Events of registrations that were left behind; then the set is renewed. */
#define MOST_STRAYS  256

/* --- registering --------------------------------------------------------- */

int
fl_number_reserve(FlPoller *poller, int fd)
{
    if (fd < poller->numbers_size) {
        return 0;
    }
    FlNumber *numbers = fl_table_grow(poller->numbers, &poller->numbers_size,
                                      fd, sizeof(*numbers));
    if (numbers == NULL) {
        return FL_NO_MEMORY;
    }
    poller->numbers = numbers;
    return 0;
}

int
fl_shared_open(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    int code = fl_number_reserve(poller, watch->fd);
    if (code < 0) {
        return code;
    }
    if (fl_number_of(watch)->watch != NULL) {
        return -EEXIST;
    }
    fl_number_of(watch)->watch = watch;
    watch->shared = true;
    watch->generation = ++poller->last_generation;
    return 0;
}

static uint64_t
tag_of(const FlWatch *watch)
{
    return (uint64_t)watch->generation << 32 | (uint32_t)watch->fd;
}

/* The number is closed, or another file's.  What is left behind in the set is
   a stray's from now on. */
static void
lose_registration(FlWatch *watch)
{
    fl_number_of(watch)->registered = watch->armed = watch->level = false;
    watch->generation = ++watch->poller->last_generation;
}

/* Who is armed again wants more than one event.  Without a GIL the set cannot
   be renewed, and what would be left behind in it may fire once at most. */
static int
arm_again(FlWatch *watch)
{
    FlFdSet *set = &watch->poller->set;
    uint64_t tag = tag_of(watch);
    int code = FL_HAVE_GIL
                   ? fl_fd_set_change_level(set, watch->fd, watch->wanted, tag)
                   : -ENOTSUP;
    if (code == 0) {
        watch->level = true;
        watch->repeats = 0;
    }
    if (code == -ENOTSUP) {
        code = fl_fd_set_change(set, watch->fd, watch->wanted, tag);
    }
    watch->armed = code == 0;
    return code;
}

void
fl_shared_arm_again(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    FlNumber *number = fl_number_of(watch);
    int code = fl_poller_leave_parent(poller);
    if (code == 0 && !number->registered) {
        return;
    }
    if (code == 0) {
        code = arm_again(watch);
    }
    if (code == -ENOENT || code == -EBADF) {
        lose_registration(watch);
    }
    else if (code < 0 && fl_list_is_empty(&watch->fired_link)) {
        fl_list_append(&poller->shared_fired, &watch->fired_link);
    }
}

/* Register what is wanted; what is ready already fires at once. */
static int
shared_arm(FlWatch *watch)
{
    FlFdSet *set = &watch->poller->set;
    FlNumber *number = fl_number_of(watch);
    int code = fl_poller_leave_parent(watch->poller);
    if (code < 0) {
        return code;
    }
    code = -ENOENT;
    if (number->registered) {
        code = fl_fd_set_change(set, watch->fd, watch->wanted, tag_of(watch));
        if (code < 0 && code != -ENOENT && code != -EBADF) {
            return code; /* it is registered as it was */
        }
    }
    if (code < 0) {
        /* Another file, maybe, than the one that was registered. */
        lose_registration(watch);
        code = fl_fd_set_add(set, watch->fd, watch->wanted, tag_of(watch));
    }
    if (code == -EEXIST) {
        code = fl_fd_set_change(set, watch->fd, watch->wanted, tag_of(watch));
    }
    number->registered = watch->armed = code == 0;
    watch->level = false;
    return fl_poller_met(watch->poller, code);
}

int
fl_shared_keep(FlWatch *watch)
{
    int code = fl_poller_leave_parent(watch->poller);
    if (code < 0) {
        return code;
    }
    uint32_t generation = watch->generation;
    watch->generation = ++watch->poller->last_generation;
    code = fl_fd_set_keep(&watch->poller->set, watch->fd, tag_of(watch));
    if (code < 0 && watch->kept && fl_number_of(watch)->registered) {
        watch->generation = generation; /* it is registered as it was */
        return fl_poller_met(watch->poller, code);
    }
    fl_number_of(watch)->registered = watch->armed = watch->kept = code == 0;
    watch->ready = FL_READABLE | FL_WRITABLE;
    watch->lasting = watch->unsure = watch->checking = watch->level = false;
    watch->unasked = 0;
    return fl_poller_met(watch->poller, code);
}

int
fl_shared_apply(FlWatch *watch)
{
    watch->kept = watch->unsure = watch->checking = false;
    watch->fired &= watch->wanted;
    if (watch->fired == 0) {
        fl_list_remove(&watch->fired_link);
    }
    FlNumber *number = fl_number_of(watch);
    if (watch->wanted != 0) {
        atomic_store_explicit(&watch->poller->watch_began, true,
                              memory_order_relaxed);
        return shared_arm(watch);
    }
    /* One that has fired, and fires once, is silent already. */
    if (number->registered && (watch->armed || watch->level)) {
        /* The parent's set, where there is none of our own, is left alone. */
        if (fl_poller_leave_parent(watch->poller) == 0) {
            fl_fd_set_remove(&watch->poller->set, watch->fd);
        }
        number->registered = false;
    }
    watch->armed = watch->level = false;
    return 0;
}

static void
note_kept(FlWatch *watch, int events)
{
    watch->ready |= (uint8_t)(events & (FL_READABLE | FL_WRITABLE));
    watch->lasting |= (events & FL_LASTING) != 0;
    watch->checking &= (events & watch->wanted) == 0;
    if (watch->wanted == 0 && ++watch->unasked == MOST_UNASKED) {
        /* The loop wakes for what nobody waits for: that ends. */
        watch->generation = ++watch->poller->last_generation;
        (void)fl_shared_apply(watch);
    }
}

static void
note_shared(FlPoller *poller, const FlFdEvent *event)
{
    uint32_t fd = (uint32_t)event->tag;
    FlWatch *watch =
        fd < (uint32_t)poller->numbers_size ? poller->numbers[fd].watch : NULL;
    if (watch == NULL || watch->generation != (uint32_t)(event->tag >> 32)
        || (watch->wanted == 0 && !watch->kept))
    {
        poller->strays++;
        return; /* of a registration that was left behind */
    }
    uint8_t fired = (uint8_t)event->events & watch->wanted;
    if (watch->kept) {
        note_kept(watch, event->events);
    }
    else {
        watch->armed = watch->level && ++watch->repeats < MOST_REPEATS;
        if (fired == 0 && watch->wanted != 0) {
            fl_shared_arm_again(watch); /* another kind is wanted by now */
        }
    }
    if (fired == 0) {
        return;
    }
    if (fl_list_is_empty(&watch->fired_link)) {
        fl_list_append(&poller->shared_fired, &watch->fired_link);
    }
    watch->fired |= fired;
}

void
fl_shared_collect(FlPoller *poller)
{
    FlFdEvent events[FL_FD_SET_EVENTS];
    int count = fl_fd_set_take(&poller->set, events);
    fl_poller_lock_numbers(poller);
    for (int at = 0; at < count; at++) {
        note_shared(poller, &events[at]);
    }
    fl_poller_unlock_numbers(poller);
    /* With more to come the set stays readable: the next poll sees it. */
    poller->set_fired = false;
    if (FL_HAVE_GIL && FL_UNLIKELY(poller->strays > MOST_STRAYS)) {
        poller->strays = 0;
        fl_poller_renew_set(poller);
    }
}

/* --- registering once more ----------------------------------------------- */

/* Register a watch of the set once more.  Where the system has no room, be
   unsure; a number that was closed, or is a plain file's by now, stays
   silent. */
static void
register_again(FlWatch *watch)
{
    int code = watch->kept ? fl_shared_keep(watch) : shared_arm(watch);
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
    watch->fired |= watch->wanted;
    if (fl_list_is_empty(&watch->fired_link)) {
        fl_list_append(&watch->poller->shared_fired, &watch->fired_link);
    }
}

void
fl_shared_check_unsure(FlPoller *poller)
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

void
fl_shared_register_again(FlPoller *poller)
{
    for (int fd = 0; fd < poller->numbers_size; fd++) {
        FlNumber *number = &poller->numbers[fd];
        FlWatch *watch = number->watch;
        bool registered = number->registered;
        number->registered = false;
        if (registered && watch != NULL && (watch->kept || watch->wanted != 0))
        {
            register_again(watch);
        }
    }
}
