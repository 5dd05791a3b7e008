/* Offering the GIL to other threads.

   A thread that waits for the GIL asks for it only after the switch interval,
   5 ms, and gets it at the next bytecode.  One job of a thread needs the GIL
   several times.  So a loop that always has something ready would make each
   job late by several times 5 ms.  Therefore it also releases the GIL around
   system calls that do not block, if it has not for FL_GIL_OFFER_NS.  Around
   every such call it would cost an echo server a quarter of its CPU.

   A thread that computes keeps the GIL for the whole switch interval each time
   that it gets it.  Beside such a thread the loop keeps it as long, or it
   would run for FL_GIL_OFFER_NS in each 5 ms.

   Without a GIL the thread state is detached, so that other threads can stop
   the world.  Threads: the loop's. */
#ifndef FL_PY_GIL_H
#define FL_PY_GIL_H

#include "base/clock.h"
#include "py/compat.h"

#define FL_GIL_OFFER_NS  (FL_NS_PER_MS / 10)
#define FL_GIL_SWITCH_NS (5 * FL_NS_PER_MS)
/* Whoever keeps the GIL for so long computes. */
#define FL_GIL_LATE_NS   FL_NS_PER_MS

typedef struct {
    int64_t due_ns; /* when it is to be released again; 0: it just was */
} FlGil;

static inline bool
fl_gil_is_due(FlGil *gil, int64_t now_ns)
{
    if (FL_UNLIKELY(gil->due_ns == 0)) {
        gil->due_ns = now_ns + FL_GIL_OFFER_NS;
    }
    return now_ns >= gil->due_ns;
}

/* Take the GIL again, which was due and was released, at asked_ns. */
static inline void
fl_gil_retake(FlGil *gil, PyThreadState *thread, int64_t asked_ns)
{
    PyEval_RestoreThread(thread);
    int64_t now_ns = fl_clock_ns();
    gil->due_ns = now_ns
                  + (now_ns - asked_ns > FL_GIL_LATE_NS ? FL_GIL_SWITCH_NS
                                                        : FL_GIL_OFFER_NS);
}

#endif
