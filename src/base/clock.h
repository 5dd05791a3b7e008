/* The loop's clock: nanoseconds of time.monotonic().

   Applications compare loop.time() with time.monotonic().  So this reads the
   same clock as CPython does on each system.  Any thread may call.  Nothing
   here fails. */
#ifndef FL_BASE_CLOCK_H
#define FL_BASE_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
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

/* Whether the system has a coarse clock.  macOS has none; gVisor's is as
   precise as the other one, and a slow system call. */
extern atomic_bool fl_clock_has_ticks;

/* To be called once in a process at least, before fl_clock_coarse_ns. */
void fl_clock_init(void);

/* For fl_clock_coarse_ns alone: its value where the system has none. */
int64_t fl_clock_tick_ns(void);

/* A clock of ticks, and a cheaper one, that is never ahead of fl_clock_ns(),
   and that lags behind it by at most FL_COARSE_LAG_NS.  The exception is a
   virtual machine that the host does not schedule: it misses ticks, and the
   lag grows. */
static inline int64_t
fl_clock_coarse_ns(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    if (atomic_load_explicit(&fl_clock_has_ticks, memory_order_relaxed)) {
        struct timespec now;
        (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        return (int64_t)now.tv_sec * FL_NS_PER_S + now.tv_nsec;
    }
#endif
    return fl_clock_tick_ns();
}

#endif
