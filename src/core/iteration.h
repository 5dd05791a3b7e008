/* One iteration of the loop: poll, queue the events and the due timers, run
   the batch.

   The order is that of asyncio's _run_once().

   Threads: the loop's thread only.

   Rejected: "run the batch, then poll".  It saves nothing, and a run that
   stop() ends at once would skip the poll that asyncio makes. */
#ifndef FL_CORE_ITERATION_H
#define FL_CORE_ITERATION_H

#include "core/loop.h"

/* Run one iteration.  The caller has checked that none of this loop runs on
   this thread, and has called fl_fd_table_begin_iterations.  0, or -1 with an
   exception that ends the run. */
int fl_loop_iterate(FlLoop *loop);

#endif
