/* The loop's clock: nanoseconds of time.monotonic().

   loop.time() must be comparable with time.monotonic() (programs mix them),
   so this reads the very clock CPython reads on each system. */
#ifndef FL_BASE_CLOCK_H
#define FL_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#ifdef __APPLE__
#include <mach/mach_time.h>
#endif

#define FL_NS_PER_S  1000000000LL
#define FL_NS_PER_MS 1000000LL

/* How far the coarse clock may lag behind the precise one: a scheduler tick,
   10 ms where the kernel ticks at its slowest (100 Hz). */
#define FL_COARSE_LAG_NS (11 * FL_NS_PER_MS)

static inline int64_t
fl_clock_ns(void)
{
#ifdef __APPLE__
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

/* Behind fl_clock_ns(), never ahead, and several times cheaper where the
   system has such a clock.  FL_COARSE_LAG_NS is what it lags behind but in a
   virtual machine that waits for its processor, which misses ticks. */
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
