/* The poller: see poller.h. */
#include "core/poller.h"

#include "base/clock.h"
#include "base/codes.h"
#include "base/forks.h"
#include "core/fd_set.h"
#include "core/registration.h"
#include "py/compat.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* asyncio's MAXIMUM_SELECT_TIMEOUT: one day. */
#define LONGEST_POLL_NS (24 * 3600 * FL_NS_PER_S)

int
fl_poller_open(FlPoller **out)
{
    FlPoller *poller = malloc(sizeof(*poller));
    if (poller == NULL) {
        return FL_NO_MEMORY;
    }
    memset(poller, 0, offsetof(FlPoller, table));
    poller->forks = fl_forks_count();
    int code = fl_fd_table_open(&poller->table);
    if (code < 0) {
        free(poller);
        return code;
    }
    *out = poller;
    return 0;
}

int
fl_poller_after_fork_now(FlPoller *poller)
{
    int code = fl_fd_table_after_fork(&poller->table);
    if (code < 0 || poller->table.failure_code < 0) {
        return code < 0 ? code : poller->table.failure_code;
    }
    poller->forks = fl_forks_count();
    /* fork() copies only the calling thread: those that were about to wake the
       loop do not exist here. */
    atomic_store(&poller->sleeping, 0);
    return 0;
}

void
fl_poller_close(FlPoller *poller)
{
    /* In a forked child, so that closing does not change the parent's set. */
    (void)fl_poller_after_fork(poller);
    fl_registrations_close_all(&poller->table);
    fl_fd_table_close(&poller->table);
}

void
fl_poller_free(FlPoller *poller)
{
    fl_fd_table_free(&poller->table);
    free(poller);
}

void
fl_poller_run(FlPoller *poller, int64_t timeout_ns)
{
    FlFdTable *table = &poller->table;
    if (timeout_ns > LONGEST_POLL_NS) {
        timeout_ns = LONGEST_POLL_NS;
    }
    poller->polls++;
    int count = fl_fd_set_wait(&table->set, table->events, timeout_ns);
    if (FL_UNLIKELY(count < 0 && count != -EINTR)) {
        table->failure_code = count;
    } /* after EINTR Python's signal handlers run, and the next poll follows */
    table->event_count = count > 0 ? count : 0;
}

void
fl_poller_collect(FlPoller *poller)
{
    FlFdTable *table = &poller->table;
    if (FL_UNLIKELY(fl_registrations_collect(table))
        && table->failure_code == 0) {
        fl_fd_table_replace_set(table);
    }
}
