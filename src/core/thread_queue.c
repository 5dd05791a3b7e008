/* The thread queue: pushes and wake-ups by other threads.

   With a GIL a push goes straight into the ready queue, which belongs to the
   thread that has the GIL.  Without one, pushes wait behind a lock until the
   loop's thread next queues something or looks for events.

   1. The wake-up follows the push, and the loop sets poller.sleeping before
      it looks for entries a last time.  So it either sees the entry or is
      woken.  In any other order it could sleep with an entry queued.
   2. A push flushes what the calling thread's own loop has corked before it
      wakes this loop.  Otherwise the caller could wait for this loop's answer
      while this loop waits for those bytes.
   3. Without a GIL a push that has seen an open loop may use the table until
      it releases the lock: close_core takes the lock once after it has set
      `closed`, and closes the table later.
   4. Without a GIL the ready queue and the timers belong to the thread that
      claimed the loop; while none has, the timers belong to the one that has
      the lock.  A claim takes it once: after that no thread uses them that
      found the loop idle. */
#include "core/thread_queue.h"

#include "core/flush.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "py/compat.h"
#include "py/errors.h"

#include <string.h>

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

bool
fl_loop_claim(FlLoop *loop)
{
    unsigned long nobody = 0;
    if (!atomic_compare_exchange_strong(&loop->claim.thread, &nobody,
                                        PyThread_get_thread_ident()))
    {
        return false;
    }
    fl_fd_table_lock(loop->table); /* invariant 4 */
    fl_fd_table_unlock(loop->table);
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
    fl_fd_table_lock(loop->table);
    bool closed = loop->closed; /* invariant 3 */
    int code = closed ? -1 : fl_ready_push(ready, entry);
    if (code == 0) {
        atomic_store(&thread_queue->filled, !FL_HAVE_GIL);
        fl_fd_table_wake_anythread(loop->table); /* invariant 1 */
    }
    fl_fd_table_unlock(loop->table);
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
    if (!fl_exception_ends_run()) {
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
    fl_fd_table_lock(loop->table);
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
    fl_fd_table_unlock(loop->table);
    return code;
}

void
fl_thread_queue_close(FlLoop *loop)
{
    FlThreadQueue *thread_queue = &loop->thread_queue;
    fl_fd_table_lock(loop->table);
    /* Take the entries: no more are pushed once `closed` is set. */
    FlReadyQueue ready = thread_queue->ready;
    memset(&thread_queue->ready, 0, sizeof(ready));
    atomic_store(&thread_queue->filled, false);
    fl_fd_table_unlock(loop->table);
    /* Outside of the lock: a destructor may run Python that pushes. */
    drop_entries(&ready);
}
