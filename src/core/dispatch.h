/* Running the entries of the ready queue, and queueing the loop's own
   operations.

   Each entry is copied out of the queue before it runs, since its callback may
   push entries that reuse the slot.  Corked bytes are sent when an event
   returns, or else when the batch ends.

   Threads: functions that run entries are for the loop's thread.  Any thread
   may call the two functions that queue.

   Failure: functions that run entries return 0, or -1 with an exception that
   ends the run.  Every other exception was reported by then.
   Functions that queue return 0, or -1 with MemoryError or, from another
   thread to a closed loop, RuntimeError. */
#ifndef FL_CORE_DISPATCH_H
#define FL_CORE_DISPATCH_H

#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/thread_queue.h"
#include "py/compat.h"

/* Run the entries that are in the queue now, not those that they queue.  On -1
   the rest of the batch stays queued. */
int fl_loop_run_batch(FlLoop *loop);

/* End the timing of one callback, which returned `code`, and start that of the
   next; report the callback if it was slow.  Call this after a callback that
   is followed by another one of the same entry, or that ran without a handle:
   the end of the entry would time both together, or could not name it.
   `subject` is the callback, or NULL for a handle.  Does nothing unless the
   entry is timed.  Returns `code`, or -1. */
int fl_loop_time_rest(FlLoop *loop, PyObject *subject, int code);

/* Choose where this thread queues an entry.  1: in the thread queue.  0: in
   the ready queue; by now that has what other threads queued before, which so
   runs first, as from asyncio's single queue.  -1 with MemoryError. */
static inline int
fl_loop_choose_queue(FlLoop *loop)
{
    return FL_HAVE_GIL                ? 0
           : fl_loop_needs_lock(loop) ? 1
                                      : fl_thread_queue_drain(loop);
}

/* Queue op(loop, subject, argument) to run in a context; NULL means a copy of
   the current one.  argument may be NULL.  Takes its own references.  A closed
   loop, which would never run it, queues nothing: 0. */
int fl_loop_queue_op(FlLoop *loop, FlReadyOp op, PyObject *subject,
                     PyObject *argument, PyObject *context);

/* Queue a filled handle; takes its own reference.  0 or -1. */
int fl_loop_queue_handle(FlLoop *loop, FlHandle *handle);

/* Run a filled handle as asyncio does: skip it if it is cancelled, and report
   an exception of its callback.  0, or -1 with an exception that ends the
   run. */
int fl_handle_run(FlLoop *loop, FlHandle *self);

/* Whether this is a nested run (fl_loop_nest) and a callback around it has
   entered the context: no handle can run in it before that run ends.  Keeps
   the exception that is set. */
bool fl_loop_must_put_off(const FlLoop *loop, PyObject *context);

#endif
