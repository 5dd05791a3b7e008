/* The thread queue: how other threads queue entries and wake the loop.  Also
   the claim: which thread runs, iterates or closes the loop.

   With a GIL a push goes straight into the ready queue, so that calls by
   call_soon and call_soon_threadsafe run in one order.  Without a GIL an entry
   waits in the thread queue, behind a lock, until the loop's thread next
   queues something or looks for events.

   Ownership: a push takes over what the entry owns, also where it fails.

   Threads: functions named _anythread are for any thread with a thread state.
   The rest is for the loop's thread unless its comment says otherwise.

   Rejected: a thread queue with a GIL too.  It costs a copy for each
   entry and loses the common order. */
#ifndef FL_CORE_THREAD_QUEUE_H
#define FL_CORE_THREAD_QUEUE_H

#include "core/handle.h"
#include "core/ready_queue.h"
#include "py/compat.h"
#include "py/state.h"

#include <stdatomic.h>

/* The entries that other threads pushed, under the lock of the loop's table.
   With a GIL they stay empty. */
typedef struct {
    FlReadyQueue ready;
    atomic_bool filled; /* ready has entries; readable without the lock */
} FlThreadQueue;

/* Who may run, iterate or close the loop: see fl_loop_claim.  The loop's
   thread_id is 0 for a part of the claim: while a run begins or ends, and in
   close() and in a _run_once() outside a run.  is_running() is false then. */
typedef struct {
    _Atomic unsigned long thread;        /* its ident, or 0 */
    FL_ATOMIC unsigned long last_thread; /* that had the claim last */
} FlClaim;

/* Drop the entries that wait.  The caller has marked the loop closed.  When
   this returns no other thread is pushing to the loop or waking it, and none
   will. */
void fl_thread_queue_close(FlLoop *loop);

/* Take the exclusive right to run, iterate or close the loop, until
   fl_loop_unclaim.  False: another thread has it, or a caller further up this
   thread's stack.  Any thread. */
bool fl_loop_claim(FlLoop *loop);

/* The same, but only in the thread that had the claim last: in another one it
   could make that thread's next run fail. */
bool fl_loop_claim_again(FlLoop *loop);

void fl_loop_unclaim(FlLoop *loop);

/* Push an entry and wake the loop if it sleeps in a poll.  Flushes the bytes
   that the calling thread's own loop has corked.  Steals what the entry owns,
   also on failure.  0, or -1 with MemoryError or RuntimeError (closed) set. */
int fl_thread_queue_push_anythread(FlLoop *loop, FlReady *entry);

/* Push an entry that runs op(loop, subject, argument); argument and context
   may be NULL.  Takes its own references.  0 or -1 as above. */
int fl_thread_queue_push_op_anythread(FlLoop *loop, FlReadyOp op,
                                      PyObject *subject, PyObject *argument,
                                      PyObject *context);

/* For a function that cannot fail: have the loop raise the raised exception in
   its next iteration if it ends the run.  While another thread runs the
   loop, Ctrl-C goes to the main thread.  Any other exception, and what cannot
   be queued, is unraisable, with `subject`. */
void fl_thread_queue_pass_exception_anythread(FlLoop *loop, PyObject *subject);

/* Move all entries into the ready queue, in order.  0, or -1 with MemoryError;
   the entries that were not moved stay queued. */
int fl_thread_queue_drain(FlLoop *loop);

#endif
