/* Taking the GIL again after an offer: see gil.h.

   An offer lasts for one system call, or for none.  It wakes a thread that
   waits for the GIL.  If that thread wakes on another CPU, it may be too late:
   the loop has the GIL again, and the thread waits for the next offer,
   sometimes for seconds.  (The same happens with asyncio's loop.)  So if a
   thread waits, the loop yields the CPU for WAKE_NS before it takes the GIL
   again.  The duration of the release shows whether a thread waits: to wake
   one is a system call, so it takes more than half as long as the caller's own
   call, or as CALL_NS if that is longer. */
#include "py/gil.h"

#include <sched.h>
#include <sys/resource.h>

#define OFFER_NS  (FL_NS_PER_MS / 10)
#define SWITCH_NS (5 * FL_NS_PER_MS)
/* If the loop waits longer than this for the GIL, another thread computes. */
#define LATE_NS   FL_NS_PER_MS
/* The time that a thread takes to wake up on another CPU. */
#define WAKE_NS   30000
/* What a short system call takes. */
#define CALL_NS   1000

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
    int64_t release_ns = offer->released_ns - offer->began_ns;
    bool other_waits = release_ns > Py_MAX(call_ns, CALL_NS) / 2;
    if (other_waits) {
        /* Both times include one reading of the clock.  On some hosts that is
           a system call, and takes longer than a release. */
        int64_t reading_ns = fl_clock_ns() - asked_ns;
        call_ns -= reading_ns;
        release_ns -= reading_ns;
        other_waits = release_ns > Py_MAX(call_ns, CALL_NS) / 2;
    }
    if (other_waits) {
        do {
            (void)sched_yield();
        } while (fl_clock_ns() - asked_ns < WAKE_NS);
    }
    PyEval_RestoreThread(offer->thread);
    int64_t now_ns = fl_clock_ns();
    gil->due_ns =
        now_ns + (now_ns - asked_ns > LATE_NS ? SWITCH_NS : OFFER_NS);
}

void
fl_gil_offer(FlGil *gil)
{
    int64_t now_ns = fl_clock_ns();
    if (fl_gil_is_due(gil, now_ns)) {
        FlGilOffer offer = fl_gil_release(now_ns);
        fl_gil_retake(gil, &offer);
    }
}

/* How often this thread has blocked.  One that only lost its processor to
   another process did not. */
static int64_t
times_blocked(void)
{
    int64_t times = 0;
#ifdef RUSAGE_THREAD
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) == 0) {
        times = usage.ru_nvcsw;
    }
#endif
    return times;
}

void
fl_gil_retake_timed(FlGil *gil, PyThreadState *thread)
{
    int64_t woke_ns = fl_clock_ns(), before = times_blocked();
    PyEval_RestoreThread(thread);
    if (fl_clock_ns() - woke_ns > LATE_NS && times_blocked() != before) {
        gil->late_ns = woke_ns;
    }
}
