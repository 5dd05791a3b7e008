/* Watches of both kinds; see watch.h.

   1. Between polls no libuv callback runs, so nothing here is re-entered by
      Python code.
   2. `fired` is changed by the loop's thread in a poll, without the GIL;
      `shared_fired` only outside of one.  Bits that an owner no longer wants
      are dropped where they would be run.
   3. A closed watch of libuv's stays, idle and stopped, with the number it was
      made for, and the number's next watch is made of it: uv_poll_init, which
      tries the descriptor in the epoll, takes it out and makes it
      non-blocking, costs three system calls a connection.
   4. Where the system has no room for a registration libuv aborts; it reports
      that at a trial only.  So a number that is new is always tried, and every
      number once the poller has met a refusal.  What is left is whatever takes
      the last room after a trial, or after a descriptor was taken out: that
      libuv does at each change of what is wanted, at each use of an idle watch
      before the first refusal, and in the child of a fork. */
#include "core/watch.h"

#include "base/codes.h"
#include "base/list.h"
#include "core/fd_set.h"
#include "core/poller.h"
#include "core/shared_watch.h"
#include "py/compat.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* After many connections at once not all their memory is kept. */
#define MOST_IDLE 4096

static void
on_poll(uv_poll_t *uv, int status, int uv_events)
{
    FlWatch *watch = uv->data;
    int events = 0;
    if (status < 0) {
        events = FL_READABLE | FL_WRITABLE | FL_POLL_ERROR;
        watch->armed = false; /* libuv stopped it */
    }
    else {
        if (uv_events & UV_READABLE) {
            events |= FL_READABLE;
        }
        if (uv_events & UV_WRITABLE) {
            events |= FL_WRITABLE;
        }
    }
    if (watch->fired == 0) {
        fl_list_append(&watch->poller->fired, &watch->fired_link);
    }
    watch->fired |= (uint8_t)events;
}

/* --- libuv's ------------------------------------------------------------- */

/* The one gate to libuv: true if the calling thread may change it now, else
   the change is noted for the loop's thread. */
static bool
may_change_uv(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    (void)fl_poller_leave_parent(poller); /* where it fails nothing helps */
    if (!fl_poller_is_elsewhere(poller)) {
        return true;
    }
    uv_mutex_lock(&poller->lock);
    if (fl_list_is_empty(&watch->change_link)) {
        fl_list_append(&poller->changed, &watch->change_link);
    }
    atomic_store(&poller->has_changed, true);
    uv_mutex_unlock(&poller->lock);
    fl_poller_wake_anythread(poller);
    return false;
}

static void
forget_change(FlWatch *watch)
{
    if (!fl_list_is_empty(&watch->change_link)) {
        uv_mutex_lock(&watch->poller->lock);
        fl_list_remove(&watch->change_link);
        uv_mutex_unlock(&watch->poller->lock);
    }
}

static int
uv_open(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    FL_CHECK(!fl_poller_is_elsewhere(poller), "libuv is the loop's thread's");
    int code = fl_poller_leave_parent(poller);
    if (code < 0) {
        return code;
    }
    code = fl_poller_met(poller,
                         uv_poll_init(&poller->uv, &watch->uv, watch->fd));
    if (code == 0) {
        watch->uv.data = watch;
        watch->uv_open = true;
    }
    return code;
}

/* Each stop is a system call, so none is made twice. */
static int
uv_stop_watch(FlWatch *watch)
{
    bool started = watch->uv_started;
    watch->armed = watch->uv_started = false;
    return started ? uv_poll_stop(&watch->uv) : 0;
}

/* Have libuv watch for what is wanted now. */
static int
uv_apply(FlWatch *watch)
{
    FL_CHECK(!fl_poller_is_elsewhere(watch->poller),
             "libuv is the loop's thread's");
    int uv_events = (watch->wanted & FL_READABLE ? UV_READABLE : 0)
                    | (watch->wanted & FL_WRITABLE ? UV_WRITABLE : 0);
    watch->fired &= watch->wanted;
    if (watch->fired == 0) {
        fl_list_remove(&watch->fired_link);
    }
    if (uv_events == 0) {
        return uv_stop_watch(watch);
    }
    int code = uv_poll_start(&watch->uv, uv_events, on_poll);
    watch->armed = code == 0;
    watch->uv_started |= code == 0;
    return code;
}

static void
on_uv_closed(uv_handle_t *handle)
{
    free(handle->data);
}

/* Free a watch as soon as libuv lets go of it. */
static void
uv_end(FlWatch *watch)
{
    if (!uv_is_closing((uv_handle_t *)&watch->uv)) {
        uv_close((uv_handle_t *)&watch->uv, on_uv_closed);
    }
}

/* --- opening ------------------------------------------------------------- */

/* Everything but what libuv has. */
static void
watch_init(FlWatch *watch, FlPoller *poller, int fd)
{
    size_t ours = offsetof(FlWatch, fired_link);
    memset((char *)watch + ours, 0, sizeof(*watch) - ours);
    fl_list_init(&watch->fired_link);
    fl_list_init(&watch->change_link);
    watch->poller = poller;
    watch->fd = fd;
    watch->entry = NULL;
}

/* A stopped watch of libuv's for the number's next.  The number is about to be
   closed, and with it what the set has under it.  False: not kept. */
static bool
keep_idle(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    bool kept = false;
    fl_poller_lock_numbers(poller);
    if (poller->idle_count < MOST_IDLE
        && fl_number_reserve(poller, watch->fd) == 0)
    {
        FlNumber *number = fl_number_of(watch);
        number->registered = number->watch != NULL && number->registered;
        kept = number->idle == NULL;
        if (kept) {
            number->idle = watch;
            poller->idle_count++;
        }
    }
    fl_poller_unlock_numbers(poller);
    return kept;
}

/* The number's idle watch, as good as new, or NULL. */
static FlWatch *
take_idle(FlPoller *poller, int fd)
{
    FlWatch *watch = NULL;
    if (poller->met_refusal || fl_poller_leave_parent(poller) < 0) {
        return NULL;
    }
    fl_poller_lock_numbers(poller);
    if (fd < poller->numbers_size && poller->numbers[fd].idle != NULL) {
        watch = poller->numbers[fd].idle;
        poller->numbers[fd].idle = NULL;
        poller->idle_count--;
    }
    fl_poller_unlock_numbers(poller);
    if (watch != NULL) {
        watch_init(watch, poller, fd);
        watch->uv_open = true;
    }
    return watch;
}

int
fl_watch_open(FlPoller *poller, int fd, bool shared, FlWatch **out)
{
    FlWatch *watch = shared ? NULL : take_idle(poller, fd);
    if (watch != NULL) {
        *out = watch;
        return 0;
    }
    watch = malloc(sizeof(*watch));
    if (watch == NULL) {
        return FL_NO_MEMORY;
    }
    watch_init(watch, poller, fd);
    int code;
    if (shared) {
        fl_poller_lock_numbers(poller);
        code = fl_shared_open(watch);
        fl_poller_unlock_numbers(poller);
    }
    else {
        code = uv_open(watch);
    }
    if (code < 0) {
        free(watch);
        return code;
    }
    *out = watch;
    return 0;
}

/* --- both kinds ---------------------------------------------------------- */

int
fl_watch_set(FlWatch *watch, int wanted)
{
    watch->wanted = (uint8_t)wanted;
    if (watch->shared) {
        fl_poller_lock_numbers(watch->poller);
        int code = fl_shared_apply(watch);
        fl_poller_unlock_numbers(watch->poller);
        return code;
    }
    return may_change_uv(watch) ? uv_apply(watch) : 0;
}

int
fl_watch_keep(FlWatch *watch)
{
    fl_poller_lock_numbers(watch->poller);
    int code = fl_shared_keep(watch);
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

void
fl_watch_arm_again(FlWatch *watch)
{
    if (!watch->shared) {
        (void)uv_apply(watch); /* libuv asks the system later */
        return;
    }
    fl_poller_lock_numbers(watch->poller);
    fl_shared_arm_again(watch);
    fl_poller_unlock_numbers(watch->poller);
}

/* Move a watch of libuv's to the set; where the set refuses it stays. */
static int
move_to_set(FlWatch *watch)
{
    watch->to_share = false;
    if (watch->shared) {
        return 0;
    }
    fl_poller_lock_numbers(watch->poller);
    int code = fl_shared_open(watch);
    if (code == 0 && watch->wanted != 0) {
        /* What libuv reported and was not run is reported anew. */
        code = fl_shared_apply(watch);
        if (code < 0) {
            fl_number_of(watch)->watch = NULL;
            watch->shared = false;
        }
    }
    fl_poller_unlock_numbers(watch->poller);
    if (code == 0 && watch->uv_started) {
        watch->uv_started = false;
        (void)uv_poll_stop(&watch->uv);
    }
    return code;
}

int
fl_watch_share(FlWatch *watch)
{
    watch->to_share = true;
    return watch->shared || !may_change_uv(watch) ? 0 : move_to_set(watch);
}

void
fl_watch_apply(FlWatch *watch)
{
    if (watch->to_share) {
        (void)move_to_set(watch);
    }
    if (!watch->shared) {
        (void)uv_apply(watch);
    }
}

void
fl_watch_close(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    if (watch->shared) {
        fl_poller_lock_numbers(poller);
        if (fl_number_of(watch)->watch == watch) {
            watch->wanted = 0;
            (void)fl_shared_apply(watch);
            fl_number_of(watch)->watch = NULL;
        }
        fl_poller_unlock_numbers(poller);
    }
    watch->owner = NULL;
    watch->wanted = 0;
    /* Without a GIL the loop's thread may be looking at any watch. */
    if ((watch->uv_open || !FL_HAVE_GIL) && !may_change_uv(watch)) {
        return;
    }
    forget_change(watch);
    watch->fired = 0;
    fl_list_remove(&watch->fired_link);
    if (!watch->uv_open) {
        free(watch);
        return;
    }
    (void)uv_stop_watch(watch);
    if (!keep_idle(watch)) {
        uv_end(watch);
    }
}

/* --- for the loop's thread ----------------------------------------------- */

FlWatch *
fl_watch_pop_changed(FlPoller *poller)
{
    uv_mutex_lock(&poller->lock);
    FlList *link = fl_list_pop(&poller->changed);
    if (link == NULL) {
        atomic_store(&poller->has_changed, false);
    }
    uv_mutex_unlock(&poller->lock);
    return link == NULL ? NULL : FL_LIST_ENTRY(link, FlWatch, change_link);
}

bool
fl_watch_is_noted(const FlPoller *poller)
{
    return !fl_list_is_empty(&poller->fired)
           || !fl_list_is_empty(&poller->shared_fired);
}

void
fl_watch_fire_again(FlWatch *watch)
{
    FlPoller *poller = watch->poller;
    fl_list_append(watch->shared ? &poller->shared_fired : &poller->fired,
                   &watch->fired_link);
}

FlWatch *
fl_watch_pop_fired(FlPoller *poller)
{
    FlList *link = fl_list_pop(&poller->fired);
    if (link == NULL) {
        link = fl_list_pop(&poller->shared_fired);
    }
    return link == NULL ? NULL : FL_LIST_ENTRY(link, FlWatch, fired_link);
}

static void
close_any(uv_handle_t *handle, void *arg)
{
    FlPoller *poller = arg;
    if (!uv_is_closing(handle) && handle->type == UV_POLL
        && handle != (uv_handle_t *)&poller->set_poll)
    {
        fl_watch_close(handle->data);
    }
}

void
fl_watch_close_all(FlPoller *poller)
{
    FlWatch *watch;
    while ((watch = fl_watch_pop_changed(poller)) != NULL) {
        fl_watch_close(watch);
    }
    poller->idle_count = MOST_IDLE; /* none is kept any more */
    for (int fd = 0; fd < poller->numbers_size; fd++) {
        if (poller->numbers[fd].watch != NULL) {
            fl_watch_close(poller->numbers[fd].watch);
        }
        if (poller->numbers[fd].idle != NULL) {
            uv_end(poller->numbers[fd].idle);
        }
    }
    uv_walk(&poller->uv, close_any, poller);
}
