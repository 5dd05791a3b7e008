/* What other threads hand to the loop.

   With the GIL a push goes straight into the ready queue: whoever holds the
   GIL owns it, and call_soon and call_soon_threadsafe stay in one order.
   Without it pushes wait behind a lock until the loop's next turn.

   1. The wake-up follows the push: a loop that is about to sleep either sees
      the entry or is woken (poller->sleeping is set before its last look).
   2. Whoever tells another loop something may go on to wait for it, and that
      for bytes which the caller's loop holds: these are sent first. */
#include "core/inbox.h"

#include "base/forks.h"
#include "core/loop.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "py/compat.h"

#include <stdlib.h>
#include <string.h>

/* The old ones are not destroyed: that waits, too. */
static void
leave_parent(FlInbox *inbox)
{
    unsigned forks = fl_forks_count();
    if (FL_UNLIKELY(inbox->forks != forks)) {
        inbox->forks = forks;
        (void)uv_mutex_init(&inbox->lock);
        (void)uv_cond_init(&inbox->over);
    }
}

void
fl_inbox_lock(FlInbox *inbox)
{
    leave_parent(inbox);
    uv_mutex_lock(&inbox->lock);
}

void
fl_inbox_unlock(FlInbox *inbox)
{
    uv_mutex_unlock(&inbox->lock);
}

int
fl_inbox_init(FlInbox *inbox)
{
    memset(inbox, 0, sizeof(*inbox));
    atomic_init(&inbox->filled, false);
    inbox->forks = fl_forks_count();
    if (uv_mutex_init(&inbox->lock) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (uv_cond_init(&inbox->over) < 0) {
        uv_mutex_destroy(&inbox->lock);
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

void
fl_inbox_free(FlInbox *inbox)
{
    for (size_t at = 0; at < inbox->count; at++) {
        fl_ready_clear(&inbox->entries[at]);
    }
    free(inbox->entries);
    inbox->entries = NULL;
    inbox->count = inbox->capacity = 0;
    leave_parent(inbox);
    uv_cond_destroy(&inbox->over);
    uv_mutex_destroy(&inbox->lock);
}

int
fl_inbox_traverse(const FlInbox *inbox, visitproc visit, void *arg)
{
    for (size_t at = 0; at < inbox->count; at++) {
        int result = fl_ready_visit(&inbox->entries[at], visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

void
fl_inbox_tell_anythread(FlLoop *loop)
{
    fl_loop_send_held_here(loop->state);
    if (loop->poller != NULL) {
        fl_poller_wake_anythread(loop->poller);
    }
}

#if FL_HAVE_GIL

int
fl_inbox_push_anythread(FlLoop *loop, FlReady *entry)
{
    if (fl_loop_check_open(loop) < 0 || fl_ready_push(&loop->ready, entry) < 0)
    {
        fl_ready_clear(entry);
        return -1;
    }
    fl_inbox_tell_anythread(loop);
    return 0;
}

void
fl_inbox_wake_anythread(FlLoop *loop)
{
    fl_loop_send_held_here(loop->state);
    if (loop->poller != NULL) {
        fl_poller_interrupt_anythread(loop->poller);
    }
}

int
fl_inbox_drain(FlLoop *Py_UNUSED(loop))
{
    return 0;
}

void
fl_inbox_close(FlLoop *loop)
{
    loop->closed = true;
}

#else

static int
append_locked(FlInbox *inbox, const FlReady *entry)
{
    if (inbox->count == inbox->capacity) {
        size_t capacity = inbox->capacity ? inbox->capacity * 2 : 64;
        FlReady *entries =
            realloc(inbox->entries, capacity * sizeof(*entries));
        if (entries == NULL) {
            return -1;
        }
        inbox->entries = entries;
        inbox->capacity = capacity;
    }
    inbox->entries[inbox->count++] = *entry;
    atomic_store(&inbox->filled, true);
    return 0;
}

int
fl_inbox_push_anythread(FlLoop *loop, FlReady *entry)
{
    FlInbox *inbox = &loop->inbox;
    int code = 0;
    bool closed;
    fl_loop_send_held_here(loop->state);
    fl_inbox_lock(inbox);
    /* close() takes the lock to take the poller away. */
    closed = loop->closed;
    if (!closed) {
        code = append_locked(inbox, entry);
        if (code == 0) {
            fl_poller_wake_anythread(loop->poller);
        }
    }
    fl_inbox_unlock(inbox);
    if (closed) {
        code = fl_loop_check_open(loop);
    }
    else if (code < 0) {
        PyErr_NoMemory();
    }
    if (code < 0) {
        fl_ready_clear(entry);
    }
    return code;
}

void
fl_inbox_wake_anythread(FlLoop *loop)
{
    fl_loop_send_held_here(loop->state);
    fl_inbox_lock(&loop->inbox);
    if (!loop->closed) {
        fl_poller_interrupt_anythread(loop->poller);
    }
    fl_inbox_unlock(&loop->inbox);
}

int
fl_inbox_drain(FlLoop *loop)
{
    FlInbox *inbox = &loop->inbox;
    if (!atomic_load(&inbox->filled)) {
        return 0;
    }
    int code = 0;
    size_t moved = 0;
    fl_inbox_lock(inbox);
    while (code == 0 && moved < inbox->count) {
        code = fl_ready_push(&loop->ready, &inbox->entries[moved]);
        moved += code == 0;
    }
    inbox->count -= moved;
    memmove(inbox->entries, inbox->entries + moved,
            inbox->count * sizeof(*inbox->entries));
    atomic_store(&inbox->filled, inbox->count > 0);
    fl_inbox_unlock(inbox);
    return code;
}

void
fl_inbox_close(FlLoop *loop)
{
    FlInbox *inbox = &loop->inbox;
    fl_inbox_lock(inbox);
    loop->closed = true;
    FlReady *entries = inbox->entries;
    size_t count = inbox->count;
    inbox->entries = NULL;
    inbox->count = inbox->capacity = 0;
    atomic_store(&inbox->filled, false);
    fl_inbox_unlock(inbox);
    for (size_t at = 0; at < count; at++) {
        fl_ready_clear(&entries[at]);
    }
    free(entries);
}

#endif
