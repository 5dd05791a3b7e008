/* The loop's clock: nanoseconds of time.monotonic().

   Applications compare loop.time() with time.monotonic().  So this reads the
   same clock as CPython does on each system.  Any thread may call.  Nothing
   here fails. */
#ifndef FL_BASE_CLOCK_H
#define FL_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#ifdef __APPLE__
#include <mach/mach_time.h>
#endif

#define FL_NS_PER_S  1000000000LL
#define FL_NS_PER_MS 1000000LL

/* The most that the coarse clock lags behind the precise one.  It lags by one
   scheduler tick, which is 10 ms at the slowest kernel setting (100 Hz). */
#define FL_COARSE_LAG_NS (11 * FL_NS_PER_MS)

static inline int64_t
fl_clock_ns(void)
{
#ifdef __APPLE__
    /* Constant on one machine: threads that race here store equal values. */
    static mach_timebase_info_data_t base;
    if (base.denom == 0) {
        (void)mach_timebase_info(&base);
    }
    return (int64_t)(mach_absolute_time() * base.numer / base.denom);
#else
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * FL_NS_PER_S + now.tv_nsec;
#endif
}

/* The same in seconds, rounded as CPython rounds it. */
static inline double
fl_clock_s(void)
{
    return (double)fl_clock_ns() / 1e9;
}

/* A cheaper clock that is never ahead of fl_clock_ns(), and that lags behind
   it by at most FL_COARSE_LAG_NS.  The exception is a virtual machine that the
   host does not schedule: it misses ticks, and the lag grows.  A system
   without a coarse clock gets the precise one. */
static inline int64_t
fl_clock_coarse_ns(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * FL_NS_PER_S + now.tv_nsec;
#else
    return fl_clock_ns();
#endif
}

#endif
