/* Whether the system's coarse clock is one: see clock.h. */
#include "base/clock.h"

/* The tick of a system that has no coarse clock. */
#define TICK_NS (4 * FL_NS_PER_MS)

atomic_bool fl_clock_has_ticks;

void
fl_clock_init(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec tick;
    if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) == 0
        && (tick.tv_sec > 0 || tick.tv_nsec >= FL_NS_PER_MS / 2))
    {
        atomic_store(&fl_clock_has_ticks, true);
    }
#endif
}

int64_t
fl_clock_tick_ns(void)
{
    int64_t now_ns = fl_clock_ns();
    return now_ns - now_ns % TICK_NS;
}
