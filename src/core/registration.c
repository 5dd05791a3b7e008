/* Registrations of fds: see registration.h.

   The poller stores a generation with each registration.  add() and
   make_stale() renew it; update_interest keeps it unless the fd refers to
   another file.  An event with another generation is stale and is ignored;
   otherwise it would run the callback of another file. */
#include "core/registration.h"

#include "base/clock.h"
#include "base/codes.h"
#include "base/list.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "py/compat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* Events of a registration between two checks of its fd. */
#define MOST_REPEATS    64
/* Unwanted events in a row until they are taken out of the poller. */
#define MOST_UNWANTED   2
/* Stale events until the poller is replaced. */
#define MOST_STALE      256
#define FIRST_FDS       64
/* asyncio's MAXIMUM_SELECT_TIMEOUT: one day. */
#define LONGEST_POLL_NS (24 * 3600 * FL_NS_PER_S)

/* Append it to the list from which iteration.c queues an entry. */
static void
fire(FlRegistration *reg, int events)
{
    FL_CHECK(reg->table->fds[reg->fd] == reg,
             "an fd has one registration, and a closed one does not fire");
    reg->fired |= (uint8_t)events;
    if (fl_list_is_empty(&reg->fired_link)) {
        fl_list_append(&reg->table->fired, &reg->fired_link);
    }
}

/* --- the poller ---------------------------------------------------------- */

static int
control(const FlRegistration *reg, FlPollerControl what, int interest,
        uint32_t generation)
{
    FlPoller *poller = &reg->table->poller;
    return poller->kind->control(poller, what, reg->fd, interest, generation);
}

/* Whether an error means that the fd no longer refers to the registered file:
   it is closed (EBADF), refers to an unregistered file (ENOENT), or to one
   that cannot be registered, such as a regular file (EPERM). */
static bool
is_other_file(int code)
{
    return code == -ENOENT || code == -EBADF || code == -EPERM;
}

/* Treat as stale what the poller may still contain under the fd. */
static void
make_stale(FlRegistration *reg)
{
    reg->interest = 0;
    reg->generation = ++reg->table->last_generation;
}

/* Have the poller report these events, none of them new, under the fd, if the
   poller is usable and this process's own: in a forked child it may be the
   parent's. This also checks the file: an fd that refers to another one by now
   is not registered again, and what the poller still contains is stale. */
static void
update_interest(FlRegistration *reg, int interest)
{
    FlFdTable *table = reg->table;
    if (table->failure_code != 0 || table->forks != fl_forks_count()) {
        return;
    }
    int code = control(reg, FL_POLLER_CHANGE, interest, reg->generation);
    reg->unwanted = 0;
    if (code == 0) {
        reg->interest = (uint8_t)interest;
    }
    else if (is_other_file(code)) {
        make_stale(reg);
    }
}

/* Have fl_registrations_recheck visit it. */
static void
recheck_later(FlRegistration *reg)
{
    FlFdTable *table = reg->table;
    reg->recheck = true;
    table->recheck_end = Py_MAX(table->recheck_end, reg->fd + 1);
}

/* Register the wanted events for the file that the fd refers to now.  The next
   poll reports what is ready already.  Changing is tried first: for the
   registered file that is one system call, where adding would fail and need a
   second one.  If the fd refers to another file by now, that is added, for the
   events in `renewed` alone: those that the caller requests by that fd now.
   The other wanted ones are given up then, because their callbacks belong to
   the earlier file.  0 or a negative errno. */
static int
add(FlRegistration *reg, int renewed)
{
    int all = reg->wanted, interest = all;
    uint32_t generation = ++reg->table->last_generation;
    int code = -ENOENT;
    if (reg->interest != 0) {
        int was = reg->interest & FL_EXCLUSIVE ? FL_WAS_EXCLUSIVE : 0;
        code = control(reg, FL_POLLER_CHANGE, interest | was, generation);
    }
    if (is_other_file(code)) {
        /* The other wanted events were of an earlier file.  This call found
           that, or an earlier one did: nothing is in the poller, and no retry
           for lack of room is due. */
        if (reg->interest != 0 || !reg->recheck) {
            reg->wanted = (uint8_t)(interest &= renewed);
        }
        reg->interest = 0;
        code = control(reg, FL_POLLER_ADD, interest, generation);
    }
    if (code == -EEXIST) {
        /* The poller has this file under this fd although we do not know it,
           for example from a duplicate that was moved back here with dup2.  So
           nothing was given up. */
        reg->wanted = (uint8_t)(interest = all);
        code = control(reg, FL_POLLER_CHANGE, interest, generation);
    }
    if (code == 0 || reg->interest == 0) {
        reg->generation = generation; /* else the previous one stays */
        reg->interest = code == 0 ? (uint8_t)interest : 0;
        reg->unwanted = 0;
    }
    reg->may_be_ready = FL_READABLE | FL_WRITABLE; /* nothing is known yet */
    reg->repeats = 0;
    if (reg->wanted & FL_EXCLUSIVE) {
        recheck_later(reg);
    }
    return code;
}

/* add(), and what the system has no room for is tried again by a later
   fl_registrations_recheck.  A closed fd (EBADF), or one that cannot be
   registered (EPERM), is given up. */
static void
add_or_retry(FlRegistration *reg)
{
    int code = add(reg, reg->wanted);
    if (code < 0 && code != -EBADF && code != -EPERM) {
        recheck_later(reg);
    }
}

/* --- opening, wanting, closing ------------------------------------------- */

/* Make the table large enough for fd, by doubling.  It never shrinks: the
   system reuses the lowest free fd, so it stays as small as the most fds that
   were open.  0 or an error code. */
static int
grow(FlFdTable *table, int fd)
{
    /* An int that is not an open fd could request a table of any size. */
    if (fcntl(fd, F_GETFD) < 0) {
        return -errno;
    }
    size_t size = (size_t)table->fds_size;
    size_t grown = size == 0 ? FIRST_FDS : size;
    while (grown <= (size_t)fd) {
        grown *= 2;
    }
    /* An fd is less than INT_MAX, and so is a size that the system allows. */
    FlRegistration **fds = realloc(table->fds, grown * sizeof(void *));
    if (fds == NULL) {
        return FL_NO_MEMORY;
    }
    memset(fds + size, 0, (grown - size) * sizeof(void *));
    table->fds = fds;
    table->fds_size = (int)grown;
    return 0;
}

int
fl_registration_open(FlFdTable *table, int fd, size_t size_bytes,
                     const FlRegistration *init, FlRegistration **out)
{
    FlRegistration *reg = calloc(1, size_bytes);
    if (reg == NULL) {
        return FL_NO_MEMORY;
    }
    *reg = *init;
    fl_list_init(&reg->fired_link);
    reg->table = table;
    reg->fd = fd;
    fl_fd_table_lock(table);
    int code = fd < table->fds_size ? 0 : grow(table, fd);
    if (code == 0 && table->fds[fd] != NULL) {
        code = -EEXIST;
    }
    if (code == 0) {
        make_stale(reg); /* events of an earlier one may wait */
        table->fds[fd] = *out = reg;
    }
    fl_fd_table_unlock(table);
    if (code < 0) {
        free(reg);
    }
    return code;
}

/* Drop the queued event: its entry becomes FL_READY_NONE and is skipped. */
static void
drop_event(FlRegistration *reg)
{
    /* Without a GIL, while another thread iterates, the entry may be running
       there and its slot may be reused.  So leave it: run_event sees that the
       registration was closed. */
    if ((FL_HAVE_GIL || !fl_fd_table_iterates_elsewhere(reg->table))
        && reg->entry != NULL)
    {
        FL_CHECK(reg->entry->kind == FL_READY_EVENT
                     && reg->entry->of.reg == reg,
                 "a registration and its entry point at each other");
        reg->entry->kind = FL_READY_NONE;
        reg->entry = NULL;
    }
}

int
fl_registration_want(FlRegistration *reg, int wanted, int renewed)
{
    FlFdTable *table = reg->table;
    fl_fd_table_lock(table);
    int before = reg->wanted, added = wanted & ~(before & ~renewed);
    reg->wanted = (uint8_t)wanted;
    int code = fl_fd_table_after_fork(table);
    if (added != 0 && code == 0) {
        if ((wanted & ~reg->interest) || !(reg->persistent || reg->keeps)) {
            code = add(reg, renewed == 0 ? wanted : renewed);
        }
        else if (reg->persistent) { /* no system call has seen the fd */
            recheck_later(reg);
        }
    }
    if (code < 0 && added != 0) {
        reg->wanted = (uint8_t)before;
    }
    else {
        code = reg->wanted != wanted; /* to want less cannot fail */
        /* An event runs what is registered when it is reported.  A queued
           entry runs with what is left.  Without any it is dropped, and a
           later event queues another one, at the tail. */
        int fired = reg->fired & reg->wanted & ~renewed;
        if (fired == 0 && reg->fired != 0) {
            fl_list_remove(&reg->fired_link);
            drop_event(reg);
        }
        reg->fired = (uint8_t)fired;
    }
    fl_fd_table_unlock(table);
    return code;
}

void
fl_registration_put_off(FlFdTable *table, int fd, int event)
{
    fl_fd_table_lock(table);
    FlRegistration *reg = fl_registration_at(table, fd);
    if (reg != NULL) {
        /* An exclusive one can only be removed. */
        update_interest(reg, reg->interest & ~(event | FL_EXCLUSIVE));
        recheck_later(reg);
    }
    fl_fd_table_unlock(table);
}

void
fl_registration_close(FlRegistration *reg)
{
    FlFdTable *table = reg->table;
    fl_fd_table_lock(table);
    FL_CHECK(table->fds[reg->fd] == reg, "an fd has one registration");
    /* What the poller has under the fd for its present file is this one's, or
       stale, even if other code has closed and reused the fd. */
    if (reg->interest != 0) {
        update_interest(reg, 0);
    }
    drop_event(reg);
    table->fds[reg->fd] = NULL;
    reg->on_events = NULL;
    reg->fired = 0;
    fl_list_remove(&reg->fired_link);
    /* Without a GIL the loop's thread may be using it, and frees it before its
       next poll. */
    if (!FL_HAVE_GIL && fl_fd_table_iterates_elsewhere(table)) {
        fl_list_append(&table->closed, &reg->fired_link);
    }
    else {
        free(reg);
    }
    fl_fd_table_unlock(table);
}

/* --- registering again --------------------------------------------------- */

/* Whether the fd still refers to the registered file, and wants an event of
   it. An exclusive registration keeps its place among the pollers that wait:
   epoll refuses to change it (EINVAL), but only after it has found the file
   registered. */
static bool
still_has_file(FlRegistration *reg)
{
    update_interest(reg, reg->wanted & ~FL_EXCLUSIVE);
    return reg->interest != 0;
}

void
fl_registrations_recheck(FlFdTable *table, bool late)
{
    fl_fd_table_lock(table);
    /* A shared listener is rechecked each time.  Its fd is lower than those of
       the many connections, so the walk ends before them. */
    int end = Py_MIN(table->recheck_end, table->fds_size);
    table->recheck_end = 0;
    for (int fd = 0; fd < end; fd++) {
        FlRegistration *reg = table->fds[fd];
        if (reg == NULL || !reg->recheck) {
            continue;
        }
        reg->recheck = false;
        if (reg->wanted == 0
            || (reg->interest != 0 && !reg->persistent
                && !still_has_file(reg)))
        {
            continue;
        }
        if (late) {
            reg->wanted &= (uint8_t)~FL_EXCLUSIVE;
        }
        add_or_retry(reg);
        if (reg->persistent) {
            fire(reg, reg->wanted);
        }
    }
    fl_fd_table_unlock(table);
}

/* The poller was replaced by an empty one: register everything there, for the
   files that the fds refer to now.  What has no room there is retried by
   fl_registrations_recheck. */
static void
register_all(FlFdTable *table)
{
    for (int fd = 0; fd < table->fds_size; fd++) {
        FlRegistration *reg = table->fds[fd];
        bool registered = reg != NULL && reg->interest != 0;
        if (reg != NULL) {
            make_stale(reg);
        }
        if (registered && reg->wanted != 0) {
            add_or_retry(reg);
        }
    }
}

/* Replace the poller.  First leave out what is registered for a file that its
   fd no longer refers to: its callback belongs to the file that was closed.  A
   persistent one is rechecked, because its waiter gets the fd from its socket
   and so notices. */
static void
replace_poller(FlFdTable *table)
{
    for (int fd = 0; fd < table->fds_size; fd++) {
        FlRegistration *reg = table->fds[fd];
        if (reg != NULL && reg->interest != 0 && !still_has_file(reg)) {
            reg->recheck = false;
            if (reg->persistent) {
                recheck_later(reg);
            }
        }
    }
    const FlPollerKind *kind = table->poller.kind;
    if (kind->replace != NULL && kind->replace(&table->poller) == 0) {
        register_all(table);
    }
}

/* --- events -------------------------------------------------------------- */

/* Process one event that the last poll took.  Stale events end here. */
static void
process_event(FlFdTable *table, const FlPollerEvent *event)
{
    if (FL_UNLIKELY(event->fd >= (uint32_t)table->fds_size)) {
        /* The table never shrinks, so this is not our poller: its fd was
           closed, and another epoll has the fd. */
        table->failure_code = -EBADF;
        return;
    }
    FlRegistration *reg = table->fds[event->fd];
    if (reg == NULL || reg->generation != event->generation) {
        table->stale_events++;
        return;
    }
    int wanted = reg->wanted;
    int fired = event->events & wanted;
    if (fired != 0 && !(event->events & reg->interest & ~wanted)) {
        reg->unwanted = 0; /* all that it reports is wanted */
    }
    else if (++reg->unwanted == MOST_UNWANTED) {
        update_interest(reg, wanted); /* or each poll would report it */
    }
    reg->may_be_ready |= (uint8_t)event->events;
    if (fired == 0) {
        return;
    }
    fire(reg, fired);
    if (++reg->repeats == MOST_REPEATS) {
        reg->repeats = 0;
        update_interest(reg, wanted); /* a check of the fd */
    }
}

void
fl_fd_table_poll(FlFdTable *table, int64_t timeout_ns)
{
    if (timeout_ns > LONGEST_POLL_NS) {
        timeout_ns = LONGEST_POLL_NS;
    }
    table->polls++;
    int count =
        table->poller.kind->wait(&table->poller, table->events, timeout_ns);
    /* One less may be all there was room for, beside a wake-up. */
    if (FL_LIKELY((unsigned)count < FL_POLLER_EVENTS - 1)) {
        table->whole_polls++;
    }
    else if (count < 0 && count != -EINTR) {
        table->failure_code = count;
    } /* after EINTR Python's signal handlers run, and the next poll follows */
    table->event_count = count > 0 ? count : 0;
}

void
fl_registrations_collect(FlFdTable *table)
{
    fl_fd_table_lock(table);
    for (int at = 0; at < table->event_count; at++) {
        process_event(table, &table->events[at]);
    }
    table->event_count = 0;
    if (FL_UNLIKELY(table->stale_events >= MOST_STALE)) {
        table->stale_events = 0;
        if (table->failure_code == 0) {
            replace_poller(table);
        }
    }
    fl_fd_table_unlock(table);
}

static FlRegistration *
pop(FlFdTable *table, FlList *list)
{
    fl_fd_table_lock(table);
    FlList *link = fl_list_pop(list);
    fl_fd_table_unlock(table);
    return link == NULL ? NULL
                        : FL_LIST_ENTRY(link, FlRegistration, fired_link);
}

FlRegistration *
fl_registrations_pop_fired(FlFdTable *table)
{
    return pop(table, &table->fired);
}

void
fl_registrations_free_closed(FlFdTable *table)
{
    FlRegistration *reg;
    /* With a GIL fl_registration_close has freed them. */
    while (!FL_HAVE_GIL && (reg = pop(table, &table->closed)) != NULL) {
        drop_event(reg);
        free(reg);
    }
}

/* --- opening, forking and closing the table ------------------------------ */

/* After a fork, initialize the lock again.  The old one is not destroyed, as
   that is undefined while it is held. */
static void
renew_lock(FlFdTable *table)
{
    if (fl_fork_renewal_begin(&table->lock_renewal)) {
        (void)uv_mutex_init_recursive(&table->lock);
        fl_fork_renewal_end(&table->lock_renewal);
    }
}

void
fl_fd_table_lock_now(FlFdTable *table)
{
    renew_lock(table);
    uv_mutex_lock(&table->lock);
}

int
fl_fd_table_open(FlFdTable **out, bool portable)
{
    FlFdTable *table = malloc(sizeof(*table));
    if (table == NULL) {
        return FL_NO_MEMORY;
    }
    memset(table, 0, offsetof(FlFdTable, events));
    fl_list_init(&table->fired);
    fl_list_init(&table->closed);
    table->forks = fl_forks_count();
    fl_fork_renewal_init(&table->lock_renewal);
    int code = fl_poller_open(&table->poller, portable);
    if (code == 0 && uv_mutex_init_recursive(&table->lock) < 0) {
        code = FL_NO_MEMORY;
        table->poller.kind->close(&table->poller);
    }
    if (code < 0) {
        free(table);
        return code;
    }
    *out = table;
    return 0;
}

int
fl_fd_table_after_fork_now(FlFdTable *table)
{
    int code = table->failure_code;
    if (code == 0) {
        /* The threads that were about to wake it do not exist here. */
        table->poller.sleeping = 0;
        code = table->poller.kind->after_fork(&table->poller);
    }
    if (code < 0) {
        /* Every later attempt must fail, too.  The child may have closed the
           fds that it inherited, as a daemon does; then the same fds may refer
           to other files by now. */
        table->failure_code = code;
        return code;
    }
    table->forks = fl_forks_count();
    table->event_count = 0; /* the parent runs those */
    if (fl_fd_table_iterates_elsewhere(table)) {
        /* fork() copies only the calling thread. */
        atomic_store(&table->iterating_thread, 0);
    }
    /* Without the lock: no other thread of the child knows the loop yet. */
    register_all(table);
    return 0;
}

static void
close_registrations(FlFdTable *table)
{
    fl_registrations_free_closed(table);
    for (int fd = 0; fd < table->fds_size; fd++) {
        if (table->fds[fd] != NULL) {
            make_stale(table->fds[fd]); /* the poller closes next: no DEL */
            fl_registration_close(table->fds[fd]);
        }
    }
}

void
fl_fd_table_close(FlFdTable *table)
{
    /* In a forked child, so that closing leaves the parent's poller alone. */
    (void)fl_fd_table_after_fork(table);
    close_registrations(table);
    fl_fd_table_lock(table);
    if (table->failure_code == 0) {
        table->poller.kind->close(&table->poller);
    } /* else its fd may be another file now */
    table->failure_code = FL_CLOSED;
    free(table->fds);
    table->fds = NULL;
    table->fds_size = 0;
    fl_fd_table_unlock(table);
}

void
fl_fd_table_free(FlFdTable *table)
{
    renew_lock(table);
    uv_mutex_destroy(&table->lock);
    free(table);
}
