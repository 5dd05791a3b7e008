/* Corked bytes: the write queues that wait for the end of a callback.

   Threads: the loop's thread. */
#ifndef FL_CORE_CORK_H
#define FL_CORE_CORK_H

#include "py/compat.h"

struct FlLoop;

/* Send what loop->corked has.  Preserves a raised exception, and may run
   Python, which reports a failed send.  Call fl_loop_flush_corked (loop.h),
   which looks first whether there is anything. */
void fl_loop_flush_corked_now(struct FlLoop *loop);

#endif
