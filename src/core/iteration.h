/* One turn of the loop: poll, queue the events and the due timers, run the
   batch.

   A turn is one iteration of asyncio's loop, in asyncio's order.  Rejected:
   "run the batch, then poll".  It saves nothing, and `stop()` before a run
   would then skip the poll that asyncio makes.

   Loop's thread only.  A turn returns 0, or -1 with an exception that must
   leave run_forever. */
#ifndef FL_CORE_ITERATION_H
#define FL_CORE_ITERATION_H

#include "core/loop.h"

/* One turn; RuntimeError inside another, for the inner one could free what the
   outer one uses.  0, or -1 with what must leave run_forever. */
int fl_loop_iterate(FlLoop *loop);

/* Before the first turn of a run. */
void fl_loop_reset_iterations(FlLoop *loop);

#endif
