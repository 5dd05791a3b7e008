/* The fork counter: see forks.h.

   The handlers do nothing but atomic additions.  After a fork of a threaded
   process POSIX allows the child only async-signal-safe calls: a lock or an
   allocation could deadlock there. */
#include "base/forks.h"

#include <pthread.h>
#include <sched.h>

atomic_uint fl_forks;
static pthread_once_t forks_once = PTHREAD_ONCE_INIT;
static int forks_code;

static void
count_in_child(void)
{
    atomic_fetch_add(&fl_forks, 1);
}

static void
register_handler(void)
{
    forks_code = -pthread_atfork(NULL, NULL, count_in_child);
}

/* pthread_once, because each interpreter imports the module: a handler that
   is registered twice would count each fork twice. */
int
fl_forks_init(void)
{
    (void)pthread_once(&forks_once, register_handler);
    return forks_code;
}

void
fl_fork_renewal_init(FlForkRenewal *renewal)
{
    atomic_init(&renewal->forks, fl_forks_count());
    atomic_init(&renewal->begun, fl_forks_count());
}

bool
fl_fork_renewal_claim(FlForkRenewal *renewal)
{
    unsigned forks = fl_forks_count();
    unsigned begun = atomic_load(&renewal->begun);
    if (begun != forks
        && atomic_compare_exchange_strong(&renewal->begun, &begun, forks))
    {
        return true;
    }
    while (atomic_load(&renewal->forks) != forks) {
        (void)sched_yield();
    }
    return false;
}

void
fl_fork_renewal_end(FlForkRenewal *renewal)
{
    atomic_store(&renewal->forks, fl_forks_count());
}
