/* Registrations (src/core/registration.c), driven without a loop: see
   test_registrations.py. */
#include "core/poller.h"
#include "core/registration.h"

#include <sys/socket.h>
#include <unistd.h>

/* The registration that a poll fires, or NULL. */
static FlRegistration *
fired(FlPoller *poller)
{
    fl_poller_run(poller, 0);
    fl_registrations_collect(poller);
    return fl_registrations_pop_fired(poller);
}

/* One registration after the other, all of one fd: each fires, and the one
   before it, whose file lives on in a duplicate, does not any more.  0, or the
   line that fails. */
static int
use_once(FlPoller *poller)
{
    int ends[2], others[2];
    FlRegistration *reg;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0
        || socketpair(AF_UNIX, SOCK_STREAM, 0, others) < 0
        || fl_registration_open(poller, ends[0], sizeof(*reg), &reg) < 0
        || fl_registration_set(reg, FL_READABLE) < 0
        || write(ends[1], "x", 1) != 1)
    {
        return __LINE__;
    }
    if (fired(poller) != reg) {
        return __LINE__;
    }
    int duplicate = dup(ends[0]);
    fl_registration_close_with_fd(reg);
    if (dup2(others[0], ends[0]) < 0
        || fl_registration_open(poller, ends[0], sizeof(*reg), &reg) < 0
        || fl_registration_set(reg, FL_READABLE) < 0)
    {
        return __LINE__;
    }
    if (fired(poller) != NULL) {
        return __LINE__;
    }
    if (write(others[1], "y", 1) != 1 || fired(poller) != reg) {
        return __LINE__;
    }
    fl_registration_close(reg);
    int fds[] = {duplicate, ends[0], ends[1], others[0], others[1]};
    for (int at = 0; at < 5; at++) {
        (void)close(fds[at]);
    }
    return 0;
}

/* Use registrations while their generations pass `first`, 32 bits wide. */
int
use_from(uint32_t first, int count)
{
    FlPoller *poller;
    if (fl_poller_open(&poller) < 0) {
        return __LINE__;
    }
    poller->last_generation = first;
    int line = 0;
    for (int at = 0; at < count && line == 0; at++) {
        line = use_once(poller);
    }
    fl_poller_free(poller);
    return line;
}
