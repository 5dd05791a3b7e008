/* Sending what is corked: see cork.h. */
#include "core/cork.h"

#include "base/clock.h"
#include "base/list.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "py/gil.h"

#include <sched.h>
#include <time.h>

/* While the loop waits for one send of another thread: that often it yields
   the CPU, and then sleeps, as the other may have a lower priority. */
#define YIELDS   50
#define PAUSE_NS 20000
/* A flush of so many streams offers the GIL, if that is due (py/gil.h). */
#define BURST    8

void
fl_cork_take_back(FlLoop *loop)
{
    FlCork *cork = &loop->cork;
    if (fl_loop_is_inherited(loop)) { /* the parent's thread is not here */
        uint64_t turn = atomic_load(&cork->turn) & ~FL_CORK_STATE;
        atomic_store(&cork->turn, turn | FL_CORK_HELD);
        return;
    }
    unsigned tries = 0;
    atomic_store(&cork->wanted, true);
    while (!fl_cork_try_take(cork)) {
        if (tries++ < YIELDS) {
            (void)sched_yield();
        }
        else {
            struct timespec pause = {0, PAUSE_NS};
            (void)nanosleep(&pause, NULL);
        }
    }
    atomic_store(&cork->wanted, false);
}

bool
fl_cork_send_ahead(FlLoop *loop)
{
    FlCork *cork = &loop->cork;
    if (fl_loop_is_inherited(loop)) {
        return false; /* the parent sends them */
    }
    uint64_t turn = atomic_load(&cork->turn) & ~FL_CORK_STATE;
    uint64_t offered = turn | FL_CORK_OFFERED;
    if (!atomic_compare_exchange_strong(&cork->turn, &offered,
                                        turn | FL_CORK_TAKEN))
    {
        return false; /* EMPTY, HELD by the loop, or another thread's */
    }
    bool all = true;
    FlList *link = cork->streams.next;
    while (link != &cork->streams && !atomic_load(&cork->wanted)) {
        all &= cork->send_ahead(link);
        link = link->next;
    }
    all &= link == &cork->streams;
    atomic_store(&cork->turn, turn | FL_CORK_OFFERED);
    return all;
}

void
fl_loop_flush_corked_now(FlLoop *loop)
{
    FlCork *cork = &loop->cork;
    FlList *link;
    fl_cork_take(loop);
    if (FL_UNLIKELY(cork->ahead_bytes > 0)) {
        FL_METER(loop, bytes_out, cork->ahead_bytes);
        cork->ahead_bytes = 0;
    }
    /* One at a time: what reports a failed send may run Python, which finds
       the other streams corked and may flush them, or cork others. */
    while ((link = fl_list_pop(&cork->streams)) != NULL) {
        cork->send(link);
    }
    fl_cork_end_turn(cork);
}

/* Whether at least BURST streams are corked. */
static bool
is_burst(const FlCork *cork)
{
    const FlList *link = cork->streams.next;
    int count = 0;
    while (link != &cork->streams && count < BURST) {
        link = link->next;
        count++;
    }
    return count == BURST;
}

void
fl_loop_flush_corked_batch(FlLoop *loop)
{
    if (is_burst(&loop->cork)) {
        int64_t now_ns = fl_clock_ns();
        if (fl_gil_is_due(&loop->gil, now_ns)) {
            FlGilOffer offer = fl_gil_release(now_ns);
            (void)fl_cork_send_ahead(loop);
            fl_gil_retake(&loop->gil, &offer);
        }
    }
    fl_loop_flush_corked_now(loop);
}
