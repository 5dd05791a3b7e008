/* Metrics: counters of a loop's work, once the application enables them.

   loop->metrics is NULL until enable_metrics().  Everything that costs time is
   behind a test of that pointer.  The loop owns it: once set, it stays until
   the loop is freed, so that a thread which reads metrics never accesses freed
   memory.

   What is measured:

   - Time.  The loop is always in one state (FlTimeOf), and its time counts for
     that state.  The precise clock is read when a poll begins and when it
     ends; an iteration without a poll does not read it.
   - Lag: how long the loop did not poll, from the end of a poll, before the
     GIL is taken again, to the beginning of the next one.  An event in between
     was queued at most that much later.  Rejected: a time stamp for each
     queued callback.  Reading the clock costs a third of a call.
   - Slow callbacks: see run_timed in dispatch.c.
   - The running callback: when it began, for a watchdog in another thread
     (fastloop/observe/watchdog.py).  That is one store before a callback and
     one after it, by run_timed.

   Threads: the loop's thread writes; executor workers write the job counters;
   any thread may call fl_metrics_read.  The lock of loop->table guards
   the times, of which one changes without the GIL (fl_metrics_woke).  Each
   counter is atomic.

   Functions cannot fail unless they say so. */
#ifndef FL_CORE_METRICS_H
#define FL_CORE_METRICS_H

#include "core/loop.h"
#include "core/meter.h"
#include "py/compat.h"

#include <stdint.h>

/* Enable metrics; does nothing if they are enabled.  Any thread that may use
   the loop.  0, or -1 with MemoryError. */
int fl_metrics_enable(FlLoop *loop);

/* The loop was closed: reset the counters of what is open or queued. */
void fl_metrics_closed(FlMetrics *metrics);

/* Around a run, or around an iteration outside a run. */
void fl_metrics_run_begins(FlLoop *loop);
void fl_metrics_run_ends(FlLoop *loop);

/* Before a poll, with the state that its time counts for. */
void fl_metrics_callbacks_ended(FlLoop *loop, FlTimeOf next);

void fl_metrics_poll_ended(FlLoop *loop);

/* A poll that released the GIL has ended; call this before the GIL is taken.
   The time from now on counts as FL_TIME_GIL. */
void fl_metrics_woke(FlLoop *loop);

/* Before the entries of an iteration run. */
void fl_metrics_batch_begins(FlLoop *loop);

/* All metrics of a loop that has them, as a list of ints: the time since they
   were enabled, how long the present state lasts if that is CALLBACKS or GIL,
   else 0, the time of each state, and all counters.  Any thread.  NULL with
   MemoryError. */
PyObject *fl_metrics_read(FlLoop *loop);

#endif
