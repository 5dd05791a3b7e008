/* The poller: the set of fds, which waits, and a uv_loop_t that only this file
   runs.

   1. The backend fd of libuv is never replaced in a running loop: uv_loop_fork
      replaces the wake-up fd with it, and a wake-up that was sent to the old
      one would be lost.  Only a forked child does so, because changing the
      shared one would change the parent's.
   2. libuv aborts if epoll_ctl fails for an fd that it polls, for example if
      memory runs out.  So we add those fds to its epoll ourselves first, where
      a failure is an error code.  libuv then finds them registered and
      modifies them, which needs no memory.
   3. libuv aborts if an application closed libuv's fds.  So they are checked
      before the first wait of a run, which a wake-up may follow, and before
      libuv closes them.  Between these libuv runs only where the set reports
      its epoll, which is therefore open.  If one was closed, or the set's own,
      libuv is not run again, and a run of the loop is an error.
   4. An application that closes an fd twice closes what has its number by
      then.  So that this is seldom libuv's, which aborts where its wake-up fd
      is closed, libuv gets none of the lowest free fds.  Nor does it get one
      from 0 to 2: it aborts when it closes those. */
#include "core/poller.h"

#include "base/clock.h"
#include "base/codes.h"
#include "base/forks.h"
#include "core/fd_set.h"
#include "core/registration.h"
#include "py/compat.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/epoll.h>
#endif

/* asyncio's MAXIMUM_SELECT_TIMEOUT: one day. */
#define LONGEST_POLL_NS (24 * 3600 * FL_NS_PER_S)
/* The longest poll of a loop that no thread can wake, because libuv could not
   be opened or the system refuses to register it. */
#define UNWAKEABLE_NS   (5 * FL_NS_PER_MS)
/* How many of the lowest free fds libuv does not get (invariant 4). */
#define HELD_FDS        8

/* --- opening and closing ------------------------------------------------- */

/* libuv up to 1.48 leaks its epoll fd if uv_loop_init fails after opening it.
   If it failed before that, backend_fd is 0 or -1.  epoll_wait confirms that
   it is an epoll fd before we close it. */
static void
close_forgotten_backend(uv_loop_t *uv)
{
#ifdef __linux__
    struct epoll_event event;
    int fd = uv_backend_fd(uv);
    if (fd > 0 && epoll_wait(fd, &event, 1, 0) >= 0) {
        (void)close(fd);
    }
#endif
}

/* Hold the lowest free fds while libuv opens its own: invariant 4.  Where few
   are left, hold only those from 0 to 2.  Returns how many. */
static int
hold_lowest_fds(const FlPoller *poller, int *held)
{
    int count = 0;
    while (count < HELD_FDS) {
        held[count] = fcntl(poller->table.set.fd, F_DUPFD_CLOEXEC, 0);
        if (held[count] < 0) {
            break;
        }
        count++;
    }
    while (count > 0 && count < HELD_FDS && held[count - 1] > STDERR_FILENO) {
        count--;
        (void)close(held[count]);
    }
    return count;
}

static void
release_fds(const int *held, int count)
{
    while (count > 0) {
        count--;
        (void)close(held[count]);
    }
}

/* libuv has been used: it has read its environment and has made its pipe for
   signals, or is about to. */
static atomic_bool uv_was_used;

/* With the first loop of a process libuv makes a pipe for signals, and aborts
   if no fds are left for it.  So check first that there are as many as that
   loop opens.  0 or a negative errno. */
static int
check_room_for_first(void)
{
    uv_file pipes[3][2];
    int made = 0, code = 0;
    while (code == 0 && made < 3) {
        code = uv_pipe(pipes[made], 0, 0);
        made += code == 0;
    }
    while (made > 0) {
        made--;
        (void)close(pipes[made][0]);
        (void)close(pipes[made][1]);
    }
    return code;
}

/* uv_loop_init() of the process's first loop.  libuv 1.45 to 1.48 start a
   kernel polling thread (SQPOLL) with every loop unless UV_USE_IO_URING=0,
   which the first one of the process reads.  A value that the user has set is
   respected.  0 or a negative errno. */
static int
init_first_uv(uv_loop_t *uv)
{
    bool may_poll = uv_version() >= 0x012d00 && uv_version() < 0x013100
                    && getenv("UV_USE_IO_URING") == NULL;
    int code = check_room_for_first();
    if (code == 0 && may_poll && setenv("UV_USE_IO_URING", "0", 1) < 0) {
        code = -errno;
    }
    code = code < 0 ? code : uv_loop_init(uv);
    atomic_store(&uv_was_used, code == 0);
    if (may_poll) {
        (void)unsetenv("UV_USE_IO_URING");
    }
    return code;
}

/* uv_loop_init() without its leak on failure.  0 or a negative errno. */
static int
init_uv(FlPoller *poller)
{
    uv_loop_t *uv = &poller->uv;
    int held[HELD_FDS], count = hold_lowest_fds(poller, held);
    uv->backend_fd = -1;
    int code =
        atomic_load(&uv_was_used) ? uv_loop_init(uv) : init_first_uv(uv);
    release_fds(held, count);
    if (code < 0) {
        close_forgotten_backend(uv);
    }
    return code;
}

/* Add the fds that libuv is about to poll to its epoll: see invariant 2.  One
   that is registered already stays as it is, because newer versions of libuv
   register as edge-triggered.  Returns how many were added, or a negative
   errno. */
static int
add_uv_fds(FlPoller *poller)
{
    int added = 0;
#ifdef __linux__
    const uv_loop_t *uv = &poller->uv;
    for (int fd = 0; fd < (int)uv->nwatchers; fd++) {
        struct epoll_event event = {.events = EPOLLIN};
        event.data.fd = fd;
        if (uv->watchers[fd] == NULL) {
            continue; /* libuv's table is sparse */
        }
        if (epoll_ctl(uv->backend_fd, EPOLL_CTL_ADD, fd, &event) == 0) {
            added++;
        }
        else if (errno != EEXIST) {
            return -errno;
        }
    }
#endif
    return added;
}

/* Check that libuv's fds are still open.  All of them are registered by then,
   so if adding one succeeds, or fails with anything but EEXIST, it is another
   file or the epoll is gone.  0 or -EBADF. */
static int
check_uv_fds(FlPoller *poller)
{
    if (add_uv_fds(poller) != 0) {
        poller->table.failure_code = -EBADF; /* invariant 3 */
    }
    return poller->table.failure_code;
}

/* libuv makes its changes of its epoll now.  Later the fd of its io_uring, by
   which it makes them, may be closed, and it would abort.  This takes a
   wake-up that was sent, so no thread may wait for one. */
static void
make_changes(FlPoller *poller)
{
    (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
}

/* Open libuv's loop with its handle, unless that was done.  0 or a negative
   errno, and nothing is left. */
static int
open_uv(FlPoller *poller)
{
    uv_loop_t *uv = &poller->uv;
    if (poller->has_uv) {
        return 0;
    }
    int code = init_uv(poller);
    if (code < 0) {
        return code;
    }
    code = add_uv_fds(poller);
    if (code < 0) {
        (void)uv_loop_close(uv); /* without handles it need not run */
        return code;
    }
    /* This cannot fail: uv_loop_init has opened the wake-up fd already.
       Without a callback: arriving has already ended the poll. */
    (void)uv_async_init(uv, &poller->async, NULL);
    make_changes(poller);
    poller->has_uv = true;
    return 0;
}

int
fl_poller_register(FlPoller *poller, int fd, size_t size_bytes,
                   const FlRegistration *init, FlRegistration **out)
{
    fl_fd_table_lock(&poller->table);
    /* Not opened with the loop: from 1.45 on libuv opens an io_uring with it,
       for which a loop that waits for nothing need not pay.  If there is no
       room for its fds, the first wait tries again. */
    (void)open_uv(poller);
    fl_fd_table_unlock(&poller->table);
    return fl_registration_open(&poller->table, fd, size_bytes, init, out);
}

/* Before the first wait of a run, and after the set was replaced: check that
   libuv's fds are open, and have the set contain its epoll.  0 or a negative
   errno; then no thread can wake the loop. */
static int
join_uv(FlPoller *poller)
{
    FlFdTable *table = &poller->table;
    fl_fd_table_lock(table); /* another thread may open it, too */
    int code = poller->has_uv ? check_uv_fds(poller) : open_uv(poller);
    fl_fd_table_unlock(table);
    if (code < 0) {
        return code;
    }
    int fd = uv_backend_fd(&poller->uv);
    code = fl_fd_set_control(&table->set, FL_FD_ADD, fd, FL_READABLE,
                             FL_FD_SET_UV_TAG);
    if (code < 0 && code != -EEXIST) {
        return code;
    }
    table->uv_fd = fd;
    poller->is_joined = true;
    return 0;
}

static void
close_uv(FlPoller *poller)
{
    uv_close((uv_handle_t *)&poller->async, NULL);
    while (uv_loop_close(&poller->uv) == UV_EBUSY) {
        (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
    }
}

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

/* Give libuv a backend of its own.  uv_loop_fork must not be called again
   after it failed, because it would abort: failure_code prevents that.  0 or
   a negative errno. */
static int
fork_uv(FlPoller *poller)
{
    FlFdTable *table = &poller->table;
    int code = check_uv_fds(poller); /* it changes nothing of the parent's */
    if (code < 0) {
        return code;
    }
    int held[HELD_FDS], count = hold_lowest_fds(poller, held);
    code = table->failure_code = uv_loop_fork(&poller->uv);
    release_fds(held, count);
    if (code == 0) {
        /* libuv before 1.45 makes a new eventfd and keeps the wake-up that the
           parent had sent to the old one: no later one would be sent. */
        poller->async.pending = 0;
        code = add_uv_fds(poller);
    }
    if (code >= 0) {
        make_changes(poller);
    }
    return code < 0 ? code : 0;
}

int
fl_poller_after_fork_now(FlPoller *poller)
{
    int code = fl_fd_table_after_fork(&poller->table);
    if (code == 0) {
        code = poller->table.failure_code;
    }
    if (code == 0 && poller->has_uv) {
        code = fork_uv(poller);
    }
    if (code < 0) {
        return code;
    }
    poller->forks = fl_forks_count();
    poller->is_joined = false;
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
    bool is_ours = poller->table.failure_code == 0
                   && (!poller->has_uv || check_uv_fds(poller) == 0);
    fl_registrations_close_all(&poller->table);
    if (is_ours && poller->has_uv) {
        close_uv(poller);
    } /* else the fds may be foreign files now, and libuv would abort */
    fl_fd_table_close(&poller->table);
}

void
fl_poller_free(FlPoller *poller)
{
    fl_fd_table_free(&poller->table);
    free(poller);
}

/* --- polling ------------------------------------------------------------- */

void
fl_poller_prepare_wait(FlPoller *poller)
{
    if (FL_UNLIKELY(!poller->is_joined) && join_uv(poller) < 0) {
        return; /* the next wait tries again */
    }
    /* Before the caller looks at its queues.  A thread that pushes later sees
       this and wakes the poll (fl_poller_wake_anythread). */
    atomic_store(&poller->sleeping, 1);
}

void
fl_poller_run(FlPoller *poller, int64_t timeout_ns)
{
    FlFdTable *table = &poller->table;
    int64_t most_ns = poller->is_joined ? LONGEST_POLL_NS : UNWAKEABLE_NS;
    if (timeout_ns > most_ns || (timeout_ns < 0 && !poller->is_joined)) {
        timeout_ns = most_ns;
    }
    poller->polls++;
    int count = fl_fd_set_wait(&table->set, table->events, timeout_ns);
    if (FL_UNLIKELY(count < 0 && count != -EINTR)) {
        table->failure_code = count; /* invariant 3 */
    } /* after EINTR Python's signal handlers run, and the next poll follows */
    table->event_count = count > 0 ? count : 0;
    if (table->set.uv_fired) {
        table->set.uv_fired = false;
        /* It calls nothing of ours, so it needs no GIL. */
        (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
    }
}

void
fl_poller_collect(FlPoller *poller)
{
    FlFdTable *table = &poller->table;
    bool replace = fl_registrations_collect(table);
    if (FL_UNLIKELY(replace) && table->failure_code == 0) {
        fl_fd_table_replace_set(table);
        poller->is_joined = false;
    }
}
