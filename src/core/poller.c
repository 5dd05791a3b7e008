/* The poller: a uv_loop_t that only this file runs, and the set of fds.

   1. Deadlines: uv_timer_t counts whole milliseconds, so it gets the timeout
      rounded up; a timeout below a millisecond waits for libuv's backend fd
      and a timerfd.  (ppoll() needs no timerfd, and is 50 us late.)  Where a
      poll still ends early, no timer runs early: the loop queues only timers
      that are due by its own clock (iteration.c).
   2. The backend fd of libuv is never replaced in a running loop: uv_loop_fork
      replaces the wake-up fd with it, and a wake-up that was sent to the old
      one would be lost.  Only a forked child does so, because changing the
      shared one would change the parent's.
   3. libuv polls two things, the set and its own wake-up fd.  So a poll that
      does not block skips libuv and takes events from the set alone.  One that
      may block does so first if more events are likely (see expects_events),
      or every PROBE_POLLS polls, and waits only if there are none.
   4. libuv aborts if epoll_ctl fails for an fd that it polls, for example
      without memory.  So we add those fds to its epoll ourselves first, where
      a failure is an error code.  libuv then finds them registered and
      modifies them, which needs no memory.
   5. A loop that never runs does not pay for libuv's loop (newer versions open
      an io_uring with it): it is opened for the first run, or for the first fd
      of the application or of a transport.  If it were opened later, it could
      get an fd that the application closes a second time.
   6. libuv aborts if an application closed libuv's fds.  Checking before each
      wait would cost one more system call per wait.  So they are checked
      before the first wait of a run and before libuv closes them.  For the
      set's own fd, the call that takes its events reports it; a poll that
      waits does not, because libuv then never reports the set.  After such a
      failure libuv is not run again, and a run of the loop is an error. */
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
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#endif

/* asyncio's MAXIMUM_SELECT_TIMEOUT: one day. */
#define LONGEST_POLL_NS (24 * 3600 * FL_NS_PER_S)
/* How often the set is polled while libuv cannot do it: libuv's loop could not
   be opened, or the system refuses to register the set there. */
#define UNPOLLED_MS     5
/* Every so many polls, one that may wait first takes pending events. */
#define PROBE_POLLS     16

/* libuv before 1.45 runs due timers before it polls.  If the deadline has
   passed by then, this timer no longer limits the poll: only uv_stop keeps it
   from blocking. */
static void
on_timer(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void
on_set(uv_poll_t *uv, int Py_UNUSED(status), int Py_UNUSED(events))
{
    FlPoller *poller = uv->data;
    poller->set_fired = true;
}

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

/* libuv aborts when it closes an fd from 0 to 2, and in a process without
   standard streams it would get those.  So they are occupied while it opens
   its own.  Returns the ones that were free, as a bit mask. */
static unsigned
occupy_standard_fds(void)
{
    unsigned occupied = 0;
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) {
            continue;
        }
        int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null_fd == fd) {
            occupied |= 1u << fd;
        }
        else if (null_fd >= 0) {
            (void)close(null_fd); /* another thread took `fd` meanwhile */
        }
    }
    return occupied;
}

static void
release_standard_fds(unsigned occupied)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (occupied & 1u << fd) {
            (void)close(fd);
        }
    }
}

/* libuv has made its pipe for signals, or is about to. */
static atomic_bool uv_pipe_made;

/* With the first loop of a process libuv makes a pipe for signals, and aborts
   if no fds are left for it.  So check first that there are as many as that
   loop opens.  0 or a negative errno. */
static int
check_room_for_first(void)
{
    uv_file pipes[3][2];
    int made = 0, code = 0;
    if (atomic_load(&uv_pipe_made)) {
        return 0;
    }
    while (code == 0 && made < 3) {
        code = uv_pipe(pipes[made], 0, 0);
        made += code == 0;
    }
    atomic_store(&uv_pipe_made, code == 0);
    while (made > 0) {
        made--;
        (void)close(pipes[made][0]);
        (void)close(pipes[made][1]);
    }
    return code;
}

/* uv_loop_init() without its leak on failure.  libuv 1.45 to 1.48 start a
   kernel polling thread (SQPOLL) with every loop unless UV_USE_IO_URING=0,
   which the first uv_loop_init of the process reads.  A value that the user
   has set is respected.  0 or a negative errno. */
static int
init_uv(uv_loop_t *uv)
{
    bool may_poll = uv_version() >= 0x012d00 && uv_version() < 0x013100
                    && getenv("UV_USE_IO_URING") == NULL;
    if (may_poll && setenv("UV_USE_IO_URING", "0", 1) < 0) {
        return -errno;
    }
    uv->backend_fd = -1;
    unsigned occupied = occupy_standard_fds();
    int code = check_room_for_first();
    code = code < 0 ? code : uv_loop_init(uv);
    release_standard_fds(occupied);
    if (may_poll) {
        (void)unsetenv("UV_USE_IO_URING");
    }
    if (code < 0) {
        close_forgotten_backend(uv);
    }
    return code;
}

/* Add the fds that libuv is about to poll to its epoll: see invariant 4.  One
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
        poller->table.failure_code = -EBADF; /* invariant 6 */
    }
    return poller->table.failure_code;
}

/* Have libuv poll the set, if it does not.  If the set cannot be added,
   set_poll is stopped again before libuv tries to add it itself and aborts.
   0 or a negative errno. */
static int
start_set_poll(FlPoller *poller)
{
    if (FL_LIKELY(poller->set_polled)) {
        return 0;
    }
    int code = uv_poll_start(&poller->set_poll, UV_READABLE, on_set);
    if (code == 0) {
        code = add_uv_fds(poller);
    }
    if (code < 0) {
        (void)uv_poll_stop(&poller->set_poll);
        return code;
    }
    poller->set_polled = true;
    /* libuv makes its changes now.  Later the fd of its io_uring, by which it
       makes them, may be closed, and it would abort.  This takes a wake-up
       that was sent, so it must not run after `sleeping` is set. */
    (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
    return 0;
}

/* Open libuv's loop with its handles, unless that was done.  The caller has
   the table's lock.  0 or a negative errno, and nothing is left. */
static int
open_uv(FlPoller *poller)
{
    uv_loop_t *uv = &poller->uv;
    if (poller->has_uv) {
        return 0;
    }
    int code = init_uv(uv);
    if (code < 0) {
        return code;
    }
    code = add_uv_fds(poller);
    if (code >= 0) {
        /* Only we close the set's fd, so libuv may poll it. */
        code = uv_poll_init(uv, &poller->set_poll, poller->table.set.fd);
    }
    if (code < 0) {
        (void)uv_loop_close(uv); /* without handles it need not run */
        return code;
    }
    poller->set_poll.data = poller;
    (void)uv_timer_init(uv, &poller->timer);
    /* This cannot fail: uv_loop_init has opened the wake-up fd already.
       Without a callback: arriving has already ended the poll. */
    (void)uv_async_init(uv, &poller->async, NULL);
    poller->has_uv = true;
    poller->table.uv_backend_fd = uv_backend_fd(uv);
    return 0;
}

int
fl_poller_register(FlPoller *poller, int fd, size_t size_bytes,
                   const FlRegistration *init, FlRegistration **out)
{
    fl_fd_table_lock(&poller->table);
    /* If there is no room for its fds, the first wait tries again. */
    (void)open_uv(poller);
    fl_fd_table_unlock(&poller->table);
    return fl_registration_open(&poller->table, fd, size_bytes, init, out);
}

void
fl_poller_begin_run(FlPoller *poller)
{
    fl_fd_table_lock(&poller->table); /* another thread may open it, too */
    (void)open_uv(poller);
    fl_fd_table_unlock(&poller->table);
#ifdef __linux__
    if (poller->timerfd < 0) {
        poller->timerfd = fl_fd_move_from_registered(
            &poller->table,
            timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    }
#endif
    poller->wait_checked = false;
}

static void
close_fd(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

static void
close_timerfd(FlPoller *poller)
{
#ifdef __linux__
    struct itimerspec when;
    if (timerfd_gettime(poller->timerfd, &when) == 0) {
        close_fd(&poller->timerfd);
    } /* else the application has closed it, and another file may have it */
#endif
    poller->timerfd = -1;
}

static void
close_timerfd_and_pipe(FlPoller *poller)
{
    if (poller->signal_reg != NULL) {
        fl_registration_close(poller->signal_reg);
        poller->signal_reg = NULL;
    }
    close_timerfd(poller);
    close_fd(&poller->signal_fds[0]);
    close_fd(&poller->signal_fds[1]);
}

static void
close_uv(FlPoller *poller)
{
    uv_close((uv_handle_t *)&poller->async, NULL);
    uv_close((uv_handle_t *)&poller->timer, NULL);
    uv_close((uv_handle_t *)&poller->set_poll, NULL);
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
    poller->timerfd = poller->signal_fds[0] = poller->signal_fds[1] = -1;
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
   after it failed, because it would abort: failure_code prevents that.  0 or a
   negative errno. */
static int
fork_uv(FlPoller *poller)
{
    int code = -EBADF;
    FlFdTable *table = &poller->table;
    if (fl_fd_set_is_open(&table->set, table->uv_backend_fd)) {
        unsigned occupied = occupy_standard_fds();
        code = uv_loop_fork(&poller->uv);
        release_standard_fds(occupied);
    }
    table->failure_code = code;
    if (code == 0) {
        /* libuv before 1.45 makes a new eventfd and keeps the wake-up that the
           parent had sent to the old one: no later one would be sent. */
        poller->async.pending = 0;
        table->uv_backend_fd = uv_backend_fd(&poller->uv);
        code = add_uv_fds(poller);
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
    close_timerfd_and_pipe(poller); /* fl_signals_begin makes another pipe */
    poller->set_fired = poller->expects_events = false;
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
    if (is_ours) {
        close_timerfd_and_pipe(poller);
    } /* else the fds may be foreign files now, and libuv would abort */
    fl_registrations_close_all(&poller->table);
    if (is_ours && poller->has_uv) {
        close_uv(poller);
    }
    fl_fd_table_close(&poller->table);
}

void
fl_poller_free(FlPoller *poller)
{
    fl_fd_table_free(&poller->table);
    free(poller);
}

int
fl_poller_signal_pipe(FlPoller *poller,
                      int (*on_signal)(struct FlLoop *loop,
                                       FlRegistration *reg, int events))
{
    if (poller->signal_reg != NULL) {
        return 0;
    }
    FlRegistration init = {.on_events = on_signal};
    /* An exec closes it. */
    int code = uv_pipe(poller->signal_fds, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE);
    if (code < 0) {
        return code;
    }
    poller->signal_fds[0] =
        fl_fd_move_from_registered(&poller->table, poller->signal_fds[0]);
    code =
        poller->signal_fds[0] < 0
            ? -errno
            : fl_registration_open(&poller->table, poller->signal_fds[0],
                                   sizeof(init), &init, &poller->signal_reg);
    if (code == 0) {
        code = fl_registration_want(poller->signal_reg, FL_READABLE);
    }
    if (code < 0) {
        /* The next run opens the timerfd again. */
        close_timerfd_and_pipe(poller);
    }
    return code;
}

/* --- polling ------------------------------------------------------------- */

/* Wait less than a millisecond, which libuv cannot.  1: libuv has events; 0:
   it has none; -1: there is no timerfd. */
static int
wait_briefly(FlPoller *poller, int64_t timeout_ns)
{
#ifdef __linux__
    struct itimerspec when = {.it_value.tv_nsec = timeout_ns};
    if (timerfd_settime(poller->timerfd, 0, &when, NULL) < 0) {
        poller->timerfd = -1; /* another file, or none: not ours to close */
        return -1;
    }
    struct pollfd fds[] = {{uv_backend_fd(&poller->uv), POLLIN, 0},
                           {poller->timerfd, POLLIN, 0}};
    return poll(fds, 2, -1) > 0 && fds[0].revents != 0;
#else
    return -1;
#endif
}

/* Have the next poll end after timeout_ns, which is above 0. */
static void
arm_deadline(FlPoller *poller, int64_t timeout_ns)
{
    timeout_ns = Py_MIN(timeout_ns, LONGEST_POLL_NS);
    int64_t timeout_ms = (timeout_ns + FL_NS_PER_MS - 1) / FL_NS_PER_MS;
    /* libuv's cached time dates from the last poll: without this the timer
       would expire too early. */
    uv_update_time(&poller->uv);
    (void)uv_timer_start(&poller->timer, on_timer, (uint64_t)timeout_ms, 0);
}

/* Take the set's pending events.  False if there were none: a poll may wait
   for some.  If the set's fd was closed the poller is broken from now on
   (invariant 6), and must not wait. */
static bool
take_events(FlPoller *poller)
{
    FlFdTable *table = &poller->table;
    int count = fl_fd_set_poll(&table->set, table->events);
    if (FL_UNLIKELY(count < 0 && count != -EINTR)) {
        table->failure_code = count;
    } /* after EINTR the next poll tries again */
    table->event_count = count > 0 ? count : 0;
    poller->expects_events = count > 1;
    return count > 0 || table->failure_code < 0;
}

/* Block in libuv until the set fires, another thread wakes it, or the timeout
   ends; negative: without a timeout. */
static void
wait_for_events(FlPoller *poller, int64_t timeout_ns)
{
    if (!poller->wait_checked || !poller->set_polled) {
        /* See UNPOLLED_MS; the next wait tries again. */
        uv_sleep(UNPOLLED_MS);
        poller->set_fired = true;
        return;
    }
    uv_run_mode mode = UV_RUN_ONCE;
    if (timeout_ns > 0 && timeout_ns < FL_NS_PER_MS) {
        int found = wait_briefly(poller, timeout_ns);
        if (found == 0) {
            return;
        }
        mode = found > 0 ? UV_RUN_NOWAIT : UV_RUN_ONCE;
    }
    if (timeout_ns > 0 && mode == UV_RUN_ONCE) {
        arm_deadline(poller, timeout_ns);
    }
    (void)uv_run(&poller->uv, mode);
    (void)uv_timer_stop(&poller->timer);
}

/* Before the first wait of a run: open libuv's loop, or check that its fds are
   still open.  0 or a negative errno; then libuv must not run. */
static int
check_first_wait(FlPoller *poller)
{
    fl_fd_table_lock(&poller->table); /* another thread may open libuv's */
    int code = poller->table.failure_code < 0 ? poller->table.failure_code
               : poller->has_uv               ? check_uv_fds(poller)
                                              : open_uv(poller);
    fl_fd_table_unlock(&poller->table);
    poller->wait_checked = code == 0;
    return code;
}

void
fl_poller_prepare_wait(FlPoller *poller)
{
    if ((FL_UNLIKELY(!poller->wait_checked) && check_first_wait(poller) < 0)
        || start_set_poll(poller) < 0)
    {
        return;
    }
    /* Before the caller looks at its queues once more.  A thread that pushes
       later sees this and wakes the poll (fl_poller_wake_anythread). */
    atomic_store(&poller->sleeping, 1);
}

void
fl_poller_run(FlPoller *poller, int64_t timeout_ns)
{
    poller->polls++;
    /* Events that are pending already are taken directly, which saves a pass
       through libuv. */
    bool check_first = timeout_ns == 0 || poller->expects_events
                       || poller->polls % PROBE_POLLS == 0;
    poller->expects_events = false;
    if (check_first && take_events(poller)) {
        poller->expects_events |= timeout_ns != 0;
        return;
    }
    if (timeout_ns != 0) {
        wait_for_events(poller, timeout_ns);
        if (poller->set_fired) {
            poller->set_fired = false;
            (void)take_events(poller);
        }
    }
}

void
fl_poller_collect(FlPoller *poller)
{
    bool replace = fl_registrations_collect(&poller->table);
    if (FL_LIKELY(!replace) || poller->table.failure_code < 0) {
        return;
    }
    /* First, while the fd still refers to the old set.  If a forked child has
       the old set open, libuv's epoll would otherwise keep it registered and
       report it for ever. */
    if (poller->set_polled) {
        (void)uv_poll_stop(&poller->set_poll);
        poller->set_polled = false; /* the next wait starts it again */
    }
    fl_fd_table_replace_set(&poller->table);
}
