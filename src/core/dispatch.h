/* Running the entries of the ready queue, and queueing the loop's own work.

   Each entry is copied out of the queue before it runs, because its callback
   may make the queue grow.  Bytes that a callback's writes hold are sent when
   it returns.

   Loop's thread only, but that another thread may close a transport, and so
   queue its end and drop its events.  Functions return 0, or -1 with an
   exception that must leave run_forever; every other error was reported by
   then. */
#ifndef FL_CORE_DISPATCH_H
#define FL_CORE_DISPATCH_H

#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "py/compat.h"

/* Run the entries that are in the queue now.  0, or -1 with an exception that
   must leave run_forever; the rest of the batch then stays queued. */
int fl_loop_run_batch(FlLoop *loop);

/* Queue op(loop, subject, argument) in a context (NULL: a copy of the current
   one); takes its own references.  argument may be NULL.  0 or -1. */
int fl_loop_call_op(FlLoop *loop, FlReadyOp op, PyObject *subject,
                    PyObject *argument, PyObject *context);

/* Queue any asyncio.Handle; takes its own reference.  0 or -1. */
int fl_loop_call_handle(FlLoop *loop, PyObject *handle);

/* Forget the event that may be queued for a watch; and close it as well. */
void fl_loop_drop_event(FlLoop *loop, FlRegistration *reg);
void fl_loop_close_registration(FlLoop *loop, FlRegistration *reg);

#endif
