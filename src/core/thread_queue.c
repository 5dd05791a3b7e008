/* The thread queue: pushes and wake-ups by other threads.

   With a GIL a push goes straight into the ready queue, which belongs to the
   thread that has the GIL.  Without one, pushes wait behind a lock until the
   loop's thread next queues something or looks for events.

   1. The wake-up follows the push, and the loop sets set.sleeping before
      it looks for entries a last time.  So it either sees the entry or is
      woken.  In any other order it could sleep with an entry queued.
   2. A push flushes what the calling thread's own loop has corked before it
      wakes this loop.  Otherwise the caller could wait for this loop's answer
      while this loop waits for those bytes.
   3. Without a GIL a push that has seen an open loop may use the table until
      it releases the lock: close_core takes the lock once after it has set
      `closed`, and closes the table later.
   4. Without a GIL the ready queue and the timers belong to the thread that
      claimed the loop.  While no thread has, they belong to the one that has
      the lock.  A claim takes the lock once: after that no thread uses them
      that found the loop idle.  Exceptions, not guarded: the copies
      _ready and _scheduled. */
#include "core/thread_queue.h"

#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "py/compat.h"
#include "py/errors.h"

#include <string.h>

/* After a fork, initialize the lock again.  The old one is not destroyed, as
   that is undefined while it is held. */
static void
renew_lock(FlThreadQueue *thread_queue)
{
    if (fl_fork_renewal_begin(&thread_queue->renewal)) {
        (void)uv_mutex_init(&thread_queue->lock);
        fl_fork_renewal_end(&thread_queue->renewal);
    }
}

void
fl_thread_queue_lock(FlThreadQueue *thread_queue)
{
    renew_lock(thread_queue);
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
    fl_fork_renewal_init(&thread_queue->renewal);
    if (uv_mutex_init(&thread_queue->lock) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (!FL_HAVE_GIL && fl_ready_init(&thread_queue->ready) < 0) {
        fl_thread_queue_free(thread_queue);
        return -1;
    }
    return 0;
}

/* Release the entries of a queue and its chunks. */
static void
drop_entries(FlReadyQueue *ready)
{
    while (fl_ready_count(ready) > 0) {
        FlReady entry = *fl_ready_pop(ready);
        fl_ready_clear(&entry);
    }
    fl_ready_free(ready);
}

void
fl_thread_queue_free(FlThreadQueue *thread_queue)
{
    drop_entries(&thread_queue->ready);
    renew_lock(thread_queue);
    uv_mutex_destroy(&thread_queue->lock);
}

bool
fl_thread_queue_lock_idle(FlLoop *loop)
{
    fl_thread_queue_lock(&loop->thread_queue);
    if (!loop->closed && atomic_load(&loop->claim.thread) == 0) {
        return true;
    }
    fl_thread_queue_unlock(&loop->thread_queue);
    return false;
}

bool
fl_loop_claim(FlLoop *loop)
{
    unsigned long nobody = 0;
    if (!atomic_compare_exchange_strong(&loop->claim.thread, &nobody,
                                        PyThread_get_thread_ident()))
    {
        return false;
    }
    if (!FL_HAVE_GIL) {
        /* Threads that found the loop idle use its queues until here. */
        fl_thread_queue_lock(&loop->thread_queue);
        fl_thread_queue_unlock(&loop->thread_queue);
    }
    loop->claim.last_thread = PyThread_get_thread_ident();
    return true;
}

bool
fl_loop_claim_again(FlLoop *loop)
{
    return loop->claim.last_thread == PyThread_get_thread_ident()
           && fl_loop_claim(loop);
}

void
fl_loop_unclaim(FlLoop *loop)
{
    atomic_store(&loop->claim.thread, 0);
}

int
fl_thread_queue_push_anythread(FlLoop *loop, FlReady *entry)
{
    FlThreadQueue *thread_queue = &loop->thread_queue;
    FlReadyQueue *ready = FL_HAVE_GIL ? &loop->ready : &thread_queue->ready;
    fl_loop_flush_corked_here(loop->state); /* invariant 2 */
    fl_thread_queue_lock(thread_queue);
    bool closed = loop->closed; /* invariant 3 */
    int code = closed ? -1 : fl_ready_push(ready, entry);
    if (code == 0) {
        atomic_store(&thread_queue->filled, !FL_HAVE_GIL);
        fl_fd_table_wake_anythread(loop->table); /* invariant 1 */
    }
    fl_thread_queue_unlock(thread_queue);
    if (closed) {
        (void)fl_loop_check_open(loop); /* raises RuntimeError */
    }
    if (code < 0) {
        fl_ready_clear(entry);
    }
    return code;
}

int
fl_thread_queue_push_op_anythread(FlLoop *loop, FlReadyOp op,
                                  PyObject *subject, PyObject *argument,
                                  PyObject *context)
{
    FlReady entry = {
        .kind = FL_READY_OP,
        .nargs = argument != NULL,
        .of.op = op,
        .context = Py_XNewRef(context),
        .callback = Py_NewRef(subject),
        .args = {Py_XNewRef(argument)},
    };
    return fl_thread_queue_push_anythread(loop, &entry);
}

/* An FlReadyOp. */
static int
raise_argument(FlLoop *Py_UNUSED(loop), PyObject *Py_UNUSED(subject),
               PyObject *argument)
{
    PyErr_SetRaisedException(Py_NewRef(argument));
    return -1;
}

void
fl_thread_queue_pass_exception_anythread(FlLoop *loop, PyObject *subject)
{
    if (!fl_error_leaves_loop()) {
        PyErr_WriteUnraisable(subject);
        return;
    }
    bool elsewhere = fl_loop_is_running(loop) && !fl_loop_on_own_thread(loop);
    PyObject *exc = PyErr_GetRaisedException();
    if (elsewhere && PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt))
    {
        PyErr_SetInterrupt();
        Py_DECREF(exc);
    }
    else if (!elsewhere
             && fl_thread_queue_push_op_anythread(loop, raise_argument,
                                                  subject, exc, NULL)
                    == 0)
    {
        Py_DECREF(exc);
    }
    else {
        PyErr_SetRaisedException(exc); /* in place of the push's own */
        PyErr_WriteUnraisable(subject);
    }
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
    fl_thread_queue_lock(thread_queue);
    while (fl_ready_count(&thread_queue->ready) > 0) {
        FlReady *slot = fl_ready_reserve(&loop->ready);
        if (slot == NULL) {
            code = -1;
            break;
        }
        *slot = *fl_ready_pop(&thread_queue->ready);
        fl_ready_commit(&loop->ready);
    }
    atomic_store(&thread_queue->filled, code < 0);
    /* After a burst: no wait of the loop trims this queue. */
    while (FL_UNLIKELY(thread_queue->ready.spares > FL_READY_SPARES)) {
        fl_ready_trim(&thread_queue->ready);
    }
    fl_thread_queue_unlock(thread_queue);
    return code;
}

void
fl_thread_queue_close(FlLoop *loop)
{
    FlThreadQueue *thread_queue = &loop->thread_queue;
    fl_thread_queue_lock(thread_queue);
    /* Take the entries: no more are pushed once `closed` is set. */
    FlReadyQueue ready = thread_queue->ready;
    memset(&thread_queue->ready, 0, sizeof(ready));
    atomic_store(&thread_queue->filled, false);
    fl_thread_queue_unlock(thread_queue);
    /* Outside of the lock: a destructor may run Python that pushes. */
    drop_entries(&ready);
}
