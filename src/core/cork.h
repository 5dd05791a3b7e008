/* Corked bytes: the write queues that wait for the end of a callback.

   Threads: the loop's thread. */
#ifndef FL_CORE_CORK_H
#define FL_CORE_CORK_H

#include "base/list.h"
#include "py/compat.h"

struct FlLoop;

typedef struct {
    FlList streams; /* those whose queues are corked, in the order of their
                       first corked writes */
    /* Sends the queue of one.  It calls no protocol and preserves a raised
       exception; a failure queues connection_lost. */
    void (*send)(FlList *link);
    int64_t since_ns; /* coarse time at which the first of them was corked */
    bool enabled;     /* this run corks writes, where a callback may */
    bool active;      /* the running callback corks; unused without a GIL */
} FlCork;

/* Send what loop->cork.streams has.  Preserves a raised exception, and may run
   Python, which reports a failed send.  Call fl_loop_flush_corked (loop.h),
   which looks first whether there is anything. */
void fl_loop_flush_corked_now(struct FlLoop *loop);

#endif
