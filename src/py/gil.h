/* Offering the GIL to other threads.

   A thread that waits for the GIL asks for it only after the switch interval,
   5 ms, and gets it at the next bytecode.  One job of a thread needs the GIL
   several times.  So a loop that always has something ready would make each
   job late by several times 5 ms.  Therefore the loop also releases the GIL
   around system calls that do not block, and in long work without any, if it
   has kept it for 100 us (OFFER_NS), counted from the first look after a wait.
   Around every system call that would cost an echo server a quarter of its
   CPU.

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
    int64_t due_ns; /* when the next offer is due; 0: a poll that may wait has
                       just released the GIL */
    /* While times_waits is set: when a wait should have ended that ended late,
       or ended after which other threads kept the GIL for long; 0: never. */
    int64_t late_ns;
    /* How many listeners whose socket workers share: they need late_ns
       (transport/listener.c, invariant 4). */
    FL_ATOMIC int times_waits;
} FlGil;

/* Whether late_ns is of the last ten seconds. */
static inline bool
fl_gil_was_late(const FlGil *gil, int64_t now_ns)
{
    return gil->late_ns != 0 && now_ns - gil->late_ns < 10 * FL_NS_PER_S;
}

/* One offer. */
typedef struct {
    PyThreadState *thread;
    int64_t began_ns, released_ns;
} FlGilOffer;

/* For fl_gil_is_due alone: whether an offer is due.  If the GIL has just been
   released (due_ns is 0), this sets due_ns, and returns false. */
bool fl_gil_note_release(FlGil *gil, int64_t now_ns);

static inline bool
fl_gil_is_due(FlGil *gil, int64_t now_ns)
{
    return FL_UNLIKELY(now_ns >= gil->due_ns)
           && fl_gil_note_release(gil, now_ns);
}

/* Release the GIL; began_ns is the time of the call.  The caller makes its
   system calls, and then fl_gil_retake waits until it has the GIL again. */
static inline FlGilOffer
fl_gil_release(int64_t began_ns)
{
    PyThreadState *thread = PyEval_SaveThread();
    return (FlGilOffer){thread, began_ns, fl_clock_ns()};
}

void fl_gil_retake(FlGil *gil, const FlGilOffer *offer);

/* Make an offer if one is due: for work that makes no system call. */
void fl_gil_offer(FlGil *gil);

/* Whether this interpreter has other threads, which may keep the GIL.  Call it
   while this thread has it: without one a thread may end meanwhile. */
static inline bool
fl_gil_has_others(void)
{
    PyInterpreterState *interpreter = PyInterpreterState_Get();
    return PyThreadState_Next(PyInterpreterState_ThreadHead(interpreter))
           != NULL;
}

/* Take the GIL after a wait; late_ns gets the time if others kept it. */
void fl_gil_retake_timed(FlGil *gil, PyThreadState *thread);

#endif
