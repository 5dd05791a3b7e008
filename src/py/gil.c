/* Taking the GIL again after an offer: see gil.h.

   An offer of one system call is short.  It wakes a thread that waits for the
   GIL, but where that thread runs on another CPU, it comes too late, finds the
   GIL taken again and waits on: offer after offer, for seconds, as it may
   beside asyncio's loop, too.  So where a thread waits, the loop gives it time
   to come.  Whether one waits is seen by the release: to wake it is a system
   call of its own, and without it the release takes a fraction of the caller's
   call. */
#include "py/gil.h"

#include <sched.h>

#define OFFER_NS  (FL_NS_PER_MS / 10)
#define SWITCH_NS (5 * FL_NS_PER_MS)
/* Whoever keeps the GIL for so long computes. */
#define LATE_NS   FL_NS_PER_MS
/* How long a thread that was woken on another CPU takes to come. */
#define WAKE_NS   30000

bool
fl_gil_note_release(FlGil *gil, int64_t now_ns)
{
    bool is_due = gil->due_ns != 0;
    if (!is_due) {
        gil->due_ns = now_ns + OFFER_NS;
    }
    return is_due;
}

void
fl_gil_retake(FlGil *gil, const FlGilOffer *offer)
{
    int64_t asked_ns = fl_clock_ns();
    int64_t call_ns = asked_ns - offer->released_ns;
    if (offer->released_ns - offer->began_ns > call_ns / 2) {
        do {
            (void)sched_yield();
        } while (fl_clock_ns() - asked_ns < WAKE_NS);
    }
    PyEval_RestoreThread(offer->thread);
    int64_t now_ns = fl_clock_ns();
    gil->due_ns =
        now_ns + (now_ns - asked_ns > LATE_NS ? SWITCH_NS : OFFER_NS);
}
