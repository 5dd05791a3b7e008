/* The cross-thread queue: pushes and wake-ups by other threads.

   With a GIL a push goes straight into the ready queue, which belongs to the
   thread that has the GIL.  Without one, pushes wait behind a lock until the
   loop's next iteration.

   1. The wake-up follows the push, and the loop sets poller->sleeping before
      it looks for entries a last time.  So it either sees the entry or is
      woken.  In any other order it could sleep with an entry queued.
   2. A push first flushes what the calling thread's own loop has corked.  The
      caller may wait for the other loop's answer, and that loop for those
      bytes: both would wait for ever.
   3. Without a GIL `closed` changes under the lock, before the poller is
      freed.  A push that has seen an open loop may use the poller until it
      releases the lock. */
#include "core/thread_queue.h"

#include "base/forks.h"
#include "core/loop.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "py/compat.h"

#include <stdlib.h>
#include <string.h>

/* After a fork, initialise lock and condition again.  The old ones are not
   destroyed first: uv_cond_destroy also waits for threads that slept on the
   condition, and the child has none of them. */
static void
leave_parent(FlThreadQueue *thread_queue)
{
    /* The count changes only in a child, which has one thread at first. */
    unsigned forks = fl_forks_count();
    if (FL_UNLIKELY(thread_queue->forks != forks)) {
        thread_queue->forks = forks;
        (void)uv_mutex_init(&thread_queue->lock);
        (void)uv_cond_init(&thread_queue->finished);
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
    if (uv_cond_init(&thread_queue->finished) < 0) {
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
    leave_parent(thread_queue); /* the two calls below would wait */
    uv_cond_destroy(&thread_queue->finished);
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

/* A closed loop has no poller: nothing to wake. */
void
fl_thread_queue_notify_anythread(FlLoop *loop)
{
    fl_loop_flush_corked_here(loop->state);
    if (loop->poller != NULL) {
        fl_poller_wake_anythread(loop->poller);
    }
}

#if FL_HAVE_GIL

/* --- with a GIL: the ready queue itself ---------------------------------- */

/* A closed loop would keep the entry, and what it owns, until it is freed. */
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

/* Nothing waits: pushes went to the ready queue. */
int
fl_thread_queue_drain(FlLoop *Py_UNUSED(loop))
{
    return 0;
}

/* A push by another thread needs the GIL, and finds the loop closed from now
   on. */
void
fl_thread_queue_close(FlLoop *loop)
{
    loop->closed = true;
}

#else

/* --- without a GIL: an array behind a lock ------------------------------- */

/* The caller has the lock.  0, or -1 with no exception set: the caller raises
   MemoryError after it has released the lock. */
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
    fl_loop_flush_corked_here(loop->state); /* invariant 2 */
    fl_thread_queue_lock(thread_queue);
    /* Invariant 3. */
    closed = loop->closed;
    if (!closed) {
        code = append_locked(thread_queue, entry);
        if (code == 0) { /* invariant 1: after the push */
            fl_poller_wake_anythread(loop->poller);
        }
    }
    fl_thread_queue_unlock(thread_queue);
    if (closed) {
        code = fl_loop_check_open(loop); /* raises RuntimeError */
    }
    else if (code < 0) {
        PyErr_NoMemory();
    }
    if (code < 0) {
        fl_ready_clear(entry);
    }
    return code;
}

/* Under the lock, so that close() does not free the poller meanwhile. */
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
    /* Tested without the lock, because most iterations find nothing.  A push
       that this misses wakes the loop (invariant 1), so the next iteration
       finds it. */
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
    /* Only without memory is an entry left.  It stays first. */
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
    /* Take the array: nothing can be appended once `closed` is set. */
    FlReady *entries = thread_queue->entries;
    size_t count = thread_queue->count;
    thread_queue->entries = NULL;
    thread_queue->count = thread_queue->capacity = 0;
    atomic_store(&thread_queue->filled, false);
    fl_thread_queue_unlock(thread_queue);
    /* Outside of the lock: a destructor may run Python that pushes. */
    for (size_t at = 0; at < count; at++) {
        fl_ready_clear(&entries[at]);
    }
    free(entries);
}

#endif
