/* What other threads hand to the loop.

   With the GIL a push goes straight into the ready queue: whoever holds the
   GIL owns it, and call_soon and call_soon_threadsafe stay in one order.
   Without it pushes wait behind a lock until the loop's next turn.

   1. The wake-up follows the push: a loop that is about to sleep either sees
      the entry or is woken (poller->sleeping is set before its last look).
   2. Whoever tells another loop something may go on to wait for it, and that
      for bytes which the caller's loop holds: these are sent first. */
#include "core/thread_queue.h"

#include "base/forks.h"
#include "core/loop.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "py/compat.h"

#include <stdlib.h>
#include <string.h>

/* The old ones are not destroyed: that waits, too. */
static void
leave_parent(FlThreadQueue *thread_queue)
{
    unsigned forks = fl_forks_count();
    if (FL_UNLIKELY(thread_queue->forks != forks)) {
        thread_queue->forks = forks;
        (void)uv_mutex_init(&thread_queue->lock);
        (void)uv_cond_init(&thread_queue->over);
    }
}

void
fl_thread_queue_lock(FlThreadQueue *thread_queue)
{
    leave_parent(thread_queue);
    uv_mutex_lock(&thread_queue->lock);
}

void
fl_thread_queue_unlock(FlThreadQueue *thread_queue)
{
    uv_mutex_unlock(&thread_queue->lock);
}

int
fl_thread_queue_init(FlThreadQueue *thread_queue)
{
    memset(thread_queue, 0, sizeof(*thread_queue));
    atomic_init(&thread_queue->filled, false);
    thread_queue->forks = fl_forks_count();
    if (uv_mutex_init(&thread_queue->lock) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (uv_cond_init(&thread_queue->over) < 0) {
        uv_mutex_destroy(&thread_queue->lock);
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

void
fl_thread_queue_free(FlThreadQueue *thread_queue)
{
    for (size_t at = 0; at < thread_queue->count; at++) {
        fl_ready_clear(&thread_queue->entries[at]);
    }
    free(thread_queue->entries);
    thread_queue->entries = NULL;
    thread_queue->count = thread_queue->capacity = 0;
    leave_parent(thread_queue);
    uv_cond_destroy(&thread_queue->over);
    uv_mutex_destroy(&thread_queue->lock);
}

int
fl_thread_queue_traverse(const FlThreadQueue *thread_queue, visitproc visit,
                         void *arg)
{
    for (size_t at = 0; at < thread_queue->count; at++) {
        int result = fl_ready_visit(&thread_queue->entries[at], visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

void
fl_thread_queue_notify_anythread(FlLoop *loop)
{
    fl_loop_flush_corked_here(loop->state);
    if (loop->poller != NULL) {
        fl_poller_wake_anythread(loop->poller);
    }
}

#if FL_HAVE_GIL

int
fl_thread_queue_push_anythread(FlLoop *loop, FlReady *entry)
{
    if (fl_loop_check_open(loop) < 0 || fl_ready_push(&loop->ready, entry) < 0)
    {
        fl_ready_clear(entry);
        return -1;
    }
    fl_thread_queue_notify_anythread(loop);
    return 0;
}

void
fl_thread_queue_wake_anythread(FlLoop *loop)
{
    fl_loop_flush_corked_here(loop->state);
    if (loop->poller != NULL) {
        fl_poller_interrupt_anythread(loop->poller);
    }
}

int
fl_thread_queue_drain(FlLoop *Py_UNUSED(loop))
{
    return 0;
}

void
fl_thread_queue_close(FlLoop *loop)
{
    loop->closed = true;
}

#else

static int
append_locked(FlThreadQueue *thread_queue, const FlReady *entry)
{
    if (thread_queue->count == thread_queue->capacity) {
        size_t capacity =
            thread_queue->capacity ? thread_queue->capacity * 2 : 64;
        FlReady *entries =
            realloc(thread_queue->entries, capacity * sizeof(*entries));
        if (entries == NULL) {
            return -1;
        }
        thread_queue->entries = entries;
        thread_queue->capacity = capacity;
    }
    thread_queue->entries[thread_queue->count++] = *entry;
    atomic_store(&thread_queue->filled, true);
    return 0;
}

int
fl_thread_queue_push_anythread(FlLoop *loop, FlReady *entry)
{
    FlThreadQueue *thread_queue = &loop->thread_queue;
    int code = 0;
    bool closed;
    fl_loop_flush_corked_here(loop->state);
    fl_thread_queue_lock(thread_queue);
    /* close() takes the lock to take the poller away. */
    closed = loop->closed;
    if (!closed) {
        code = append_locked(thread_queue, entry);
        if (code == 0) {
            fl_poller_wake_anythread(loop->poller);
        }
    }
    fl_thread_queue_unlock(thread_queue);
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
fl_thread_queue_wake_anythread(FlLoop *loop)
{
    fl_loop_flush_corked_here(loop->state);
    fl_thread_queue_lock(&loop->thread_queue);
    if (!loop->closed) {
        fl_poller_interrupt_anythread(loop->poller);
    }
    fl_thread_queue_unlock(&loop->thread_queue);
}

int
fl_thread_queue_drain(FlLoop *loop)
{
    FlThreadQueue *thread_queue = &loop->thread_queue;
    if (!atomic_load(&thread_queue->filled)) {
        return 0;
    }
    int code = 0;
    size_t moved = 0;
    fl_thread_queue_lock(thread_queue);
    while (code == 0 && moved < thread_queue->count) {
        code = fl_ready_push(&loop->ready, &thread_queue->entries[moved]);
        moved += code == 0;
    }
    thread_queue->count -= moved;
    memmove(thread_queue->entries, thread_queue->entries + moved,
            thread_queue->count * sizeof(*thread_queue->entries));
    atomic_store(&thread_queue->filled, thread_queue->count > 0);
    fl_thread_queue_unlock(thread_queue);
    return code;
}

void
fl_thread_queue_close(FlLoop *loop)
{
    FlThreadQueue *thread_queue = &loop->thread_queue;
    fl_thread_queue_lock(thread_queue);
    loop->closed = true;
    FlReady *entries = thread_queue->entries;
    size_t count = thread_queue->count;
    thread_queue->entries = NULL;
    thread_queue->count = thread_queue->capacity = 0;
    atomic_store(&thread_queue->filled, false);
    fl_thread_queue_unlock(thread_queue);
    for (size_t at = 0; at < count; at++) {
        fl_ready_clear(&entries[at]);
    }
    free(entries);
}

#endif
