/* One iteration of the loop: poll, queue the events and the due timers, run
   the batch.

   The order is that of asyncio's _run_once().

   Threads: the loop's thread only.

   Rejected: "run the batch, then poll".  It saves nothing, and a run that
   stop() ends at once would skip the poll that asyncio makes. */
#ifndef FL_CORE_ITERATION_H
#define FL_CORE_ITERATION_H

#include "py/compat.h"

struct FlLoop;

/* When the loop polled, and how often it may run callbacks without a poll. */
typedef struct {
    int64_t last_ns;  /* coarse time of the last poll */
    int64_t empty_ns; /* precise time at which the last poll ended, if it did
                         not wait and found nothing; else 0 */
    int64_t quiet_ns; /* coarse time at which the last long wait ended */
    int64_t wait_ns;  /* and at which a wait began, if waits_are_long */
    bool waits_are_long;  /* the last tick came late */
    int64_t rechecked_ns; /* coarse: last fl_registrations_recheck */
    /* Polls that may still be skipped.  Any thread may set it to 0.  Without a
       GIL the loop's own store may undo that: then its next poll is at a tick
       of the coarse clock at the latest. */
    FL_ATOMIC unsigned skips_left;
    unsigned skip_allowance; /* adapted at each empty poll */
} FlPolls;

/* Run one iteration.  The caller has checked that none of this loop runs on
   this thread, and has called fl_fd_table_begin_iterations.  0, or -1 with an
   exception that ends the run. */
int fl_loop_iterate(struct FlLoop *loop);

/* For the loops of fastloop.testing, which look for races in programs: the
   same iteration, but it waits for at most limit_ns, and random bits other
   than 0 shuffle what asyncio leaves open: the order of events, and of timers
   with one deadline.  A third of the events wait for the next iteration.  1 if
   there was anything to run, 0 if not, or -1. */
int fl_loop_iterate_shuffled(struct FlLoop *loop, int64_t limit_ns,
                             uint64_t bits);

#endif
