/* Registrations (src/core/registration.c), driven without a loop: see
   test_registrations.py. */
#include "core/registration.h"

#include <sys/socket.h>
#include <unistd.h>

/* The registration that a poll fires, or NULL. */
static FlRegistration *
fired(FlFdTable *table)
{
    fl_fd_table_poll(table, 0);
    fl_registrations_collect(table);
    return fl_registrations_pop_fired(table);
}

/* One registration after the other, all of one fd: each fires, and the one
   before it does not any more.  Other code has replaced its file, which lives
   on in a duplicate.  0, or the line that fails. */
static int
use_once(FlFdTable *table)
{
    int ends[2], others[2];
    FlRegistration user = {NULL}, *reg;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0
        || socketpair(AF_UNIX, SOCK_STREAM, 0, others) < 0
        || fl_registration_open(table, ends[0], sizeof(*reg), &user, &reg) < 0
        || fl_registration_want(reg, FL_READABLE, 0) < 0
        || write(ends[1], "x", 1) != 1)
    {
        return __LINE__;
    }
    if (fired(table) != reg) {
        return __LINE__;
    }
    int duplicate = dup(ends[0]);
    if (dup2(others[0], ends[0]) < 0) {
        return __LINE__;
    }
    fl_registration_close(reg);
    if (fl_registration_open(table, ends[0], sizeof(*reg), &user, &reg) < 0
        || fl_registration_want(reg, FL_READABLE, 0) < 0)
    {
        return __LINE__;
    }
    if (fired(table) != NULL) {
        return __LINE__;
    }
    if (write(others[1], "y", 1) != 1 || fired(table) != reg) {
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
    FlFdTable *table;
    if (fl_fd_table_open(&table, false) < 0) {
        return __LINE__;
    }
    table->last_generation = first;
    int line = 0;
    for (int at = 0; at < count && line == 0; at++) {
        line = use_once(table);
    }
    fl_fd_table_close(table);
    fl_fd_table_free(table);
    return line;
}
