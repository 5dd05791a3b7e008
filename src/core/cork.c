/* Taking what is corked back from the sender: see cork.h. */
#include "core/cork.h"

#include "core/loop.h"

#include <sched.h>
#include <time.h>

/* While the loop waits for one send of another thread: that often it yields
   the CPU, and then sleeps, as the other may have a lower priority. */
#define YIELDS   50
#define PAUSE_NS 20000

void
fl_cork_take_back(FlCork *cork)
{
    if (fl_loop_is_inherited(fl_loop_of_cork(cork)))
    { /* the parent's thread is not here */
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
