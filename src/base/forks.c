/* Counts forks; see forks.h. */
#include "base/forks.h"

#include <pthread.h>
#include <stdatomic.h>

static atomic_uint forks;
static pthread_once_t forks_once = PTHREAD_ONCE_INIT;
static int forks_code;

static void
count_fork(void)
{
    atomic_fetch_add(&forks, 1);
}

static void
register_handler(void)
{
    forks_code = -pthread_atfork(NULL, NULL, count_fork);
}

int
fl_forks_init(void)
{
    (void)pthread_once(&forks_once, register_handler);
    return forks_code;
}

unsigned
fl_forks_count(void)
{
    return atomic_load_explicit(&forks, memory_order_relaxed);
}
