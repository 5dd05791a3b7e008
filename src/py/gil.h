/* Offering the GIL to other threads.

   A thread that waits for the GIL asks for it only after the switch interval,
   5 ms, and gets it at the next bytecode.  One job of a thread needs the GIL
   several times.  So a loop that always has something ready would make each
   job late by several times 5 ms.  Therefore it also releases the GIL around
   system calls that do not block, if it has not for OFFER_NS.  Around
   every such call it would cost an echo server a quarter of its CPU.

   A thread that computes keeps the GIL for the whole switch interval each time
   that it gets it.  Beside such a thread the loop keeps it as long, or it
   would run for OFFER_NS in each 5 ms.

   Without a GIL the thread state is detached, so that other threads can stop
   the world.  Threads: the loop's. */
#ifndef FL_PY_GIL_H
#define FL_PY_GIL_H

#include "base/clock.h"
#include "py/compat.h"

typedef struct {
    int64_t due_ns; /* when it is to be released again; 0: it just was */
} FlGil;

/* One offer. */
typedef struct {
    PyThreadState *thread;
    int64_t began_ns, released_ns;
} FlGilOffer;

/* For fl_gil_is_due alone: false if the GIL just was released. */
bool fl_gil_note_release(FlGil *gil, int64_t now_ns);

static inline bool
fl_gil_is_due(FlGil *gil, int64_t now_ns)
{
    return FL_UNLIKELY(now_ns >= gil->due_ns)
           && fl_gil_note_release(gil, now_ns);
}

/* Release the GIL, at began_ns.  The caller makes its system calls, and then
   fl_gil_retake waits until it has the GIL again. */
static inline FlGilOffer
fl_gil_release(int64_t began_ns)
{
    PyThreadState *thread = PyEval_SaveThread();
    return (FlGilOffer){thread, began_ns, fl_clock_ns()};
}

void fl_gil_retake(FlGil *gil, const FlGilOffer *offer);

#endif
