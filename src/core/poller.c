/* The poller: one uv_loop_t that only we run.

   1. Deadlines: uv's timer counts whole milliseconds from a clock that is cut
      down to them, so it is set to the next millisecond; what is left below
      one goes to a timerfd.  Neither ever fires early: the loop looks at its
      own clock afterwards.
   2. The backend is never renewed, so a wake-up that was sent is heard; only
      a forked child, which cannot run it, gets another to close it with. */
#include "core/poller.h"

#include "base/clock.h"
#include "base/codes.h"
#include "base/forks.h"
#include "base/list.h"
#include "core/fd_set.h"
#include "core/shared_watch.h"
#include "core/watch.h"
#include "py/compat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/epoll.h>
#include <sys/timerfd.h>
#endif

/* asyncio's MAXIMUM_SELECT_TIMEOUT: a day. */
#define LONGEST_POLL_NS (24 * 3600 * FL_NS_PER_S)

static void
on_async(uv_async_t *async)
{
    (void)async; /* its only work is to end the poll */
}

/* libuv before 1.45 runs due timers first and polls then: where this deadline
   passed in between, nothing else would end that poll. */
static void
on_timer(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void
on_set(uv_poll_t *uv, int status, int uv_events)
{
    FlPoller *poller = uv->data;
    (void)status;
    (void)uv_events;
    poller->set_fired = true;
}

/* --- opening and closing ------------------------------------------------- */

/* libuv to 1.48 forgets its epoll descriptor where what it opens next fails.
   Where it has not come to opening that, the number is 0. */
static void
close_forgotten_backend(uv_loop_t *uv)
{
#ifdef __linux__
    struct epoll_event event;
    int fd = uv_backend_fd(uv);
    if (fd > 0 && epoll_wait(fd, &event, 1, 0) >= 0) {
        (void)close(fd);
    }
#else
    (void)uv;
#endif
}

/* libuv aborts where it closes a number up to 2, which it gets in a process
   that has no standard streams.  So these are taken while it opens what it
   needs.  Returns those that were free, a bit each. */
static unsigned
take_standard_numbers(void)
{
    unsigned taken = 0;
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) {
            continue;
        }
        int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null_fd == fd) {
            taken |= 1u << fd;
        }
        else if (null_fd >= 0) {
            (void)close(null_fd); /* another thread has the number by now */
        }
    }
    return taken;
}

static void
give_standard_numbers(unsigned taken)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (taken & 1u << fd) {
            (void)close(fd);
        }
    }
}

/* uv_loop_init() that leaks nothing when it fails.  0 or libuv's code. */
static int
init_uv(uv_loop_t *uv)
{
    uv->backend_fd = -1;
    unsigned taken = take_standard_numbers();
    int code = uv_loop_init(uv);
    give_standard_numbers(taken);
    if (code < 0) {
        close_forgotten_backend(uv);
    }
    return code;
}

/* libuv 1.45 to 1.48 start a kernel polling thread with every loop unless
   UV_USE_IO_URING forbids it; the answer is read once a process, so one loop
   made under the variable settles it for all. */
static int
avoid_sqpoll_thread(void)
{
    unsigned version = uv_version();
    if (version < 0x012d00 || version >= 0x013100
        || getenv("UV_USE_IO_URING") != NULL)
    {
        return 0;
    }
    uv_loop_t throwaway;
    if (setenv("UV_USE_IO_URING", "0", 1) < 0) {
        return -errno;
    }
    int code = init_uv(&throwaway);
    if (code == 0) {
        (void)uv_loop_close(&throwaway);
    }
    (void)unsetenv("UV_USE_IO_URING");
    return code;
}

#ifdef __linux__
static int
run_timerfd(void *loop, FlWatch *watch, int events)
{
    (void)loop;
    (void)events;
    uint64_t expirations;
    /* Not readable any more means that it was armed anew: nothing is lost. */
    ssize_t ignored = read(watch->fd, &expirations, sizeof(expirations));
    (void)ignored;
    return 0;
}

/* Sandboxes may refuse it: then deadlines are rounded up to milliseconds. */
static void
open_timerfd(FlPoller *poller)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) {
        return;
    }
    FlWatch *watch;
    if (fl_watch_open(poller, fd, false, &watch) < 0) {
        (void)close(fd);
        return;
    }
    watch->owner = poller;
    watch->on_events = run_timerfd;
    poller->timerfd = fd;
    poller->timerfd_watch = watch;
    if (fl_watch_set(watch, FL_READABLE) < 0) {
        poller->timerfd_watch = NULL;
        fl_watch_close(watch);
        poller->timerfd = -1;
        (void)close(fd);
    }
}
#endif

static int
poller_init(FlPoller *poller)
{
    int code = avoid_sqpoll_thread();
    if (code < 0) {
        return code;
    }
    code = init_uv(&poller->uv);
    if (code < 0) {
        return code;
    }
    code = uv_async_init(&poller->uv, &poller->async, on_async);
    if (code < 0) {
        (void)uv_loop_close(&poller->uv);
        return code;
    }
    (void)uv_timer_init(&poller->uv, &poller->timer);
    return 0;
}

/* The set's descriptor is ours alone, so libuv may watch it. */
static int
open_set(FlPoller *poller)
{
    int code = fl_fd_set_open(&poller->set);
    if (code < 0) {
        return code;
    }
    code = uv_poll_init(&poller->uv, &poller->set_poll, poller->set.fd);
    if (code < 0) {
        fl_fd_set_close(&poller->set);
        return code;
    }
    poller->set_poll.data = poller;
    code = uv_poll_start(&poller->set_poll, UV_READABLE, on_set);
    return code;
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
close_any(uv_handle_t *handle, void *ignored)
{
    (void)ignored;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

static void
close_uv(FlPoller *poller)
{
    fl_watch_close_all(poller);
    uv_walk(&poller->uv, close_any, NULL);
    while (uv_loop_close(&poller->uv) == UV_EBUSY) {
        (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
    }
    fl_fd_set_close(&poller->set);
}

static int
poller_open(FlPoller *poller)
{
    if (uv_mutex_init(&poller->lock) < 0) {
        return FL_NO_MEMORY;
    }
    if (uv_mutex_init(&poller->numbers_lock) < 0) {
        uv_mutex_destroy(&poller->lock);
        return FL_NO_MEMORY;
    }
    int code = poller_init(poller);
    if (code == 0) {
        code = open_set(poller);
        if (code == 0) {
            return 0;
        }
        close_uv(poller);
    }
    uv_mutex_destroy(&poller->numbers_lock);
    uv_mutex_destroy(&poller->lock);
    return code;
}

int
fl_poller_open(FlPoller **out, bool use_timerfd)
{
    FlPoller *poller = calloc(1, sizeof(*poller));
    if (poller == NULL) {
        return FL_NO_MEMORY;
    }
    fl_list_init(&poller->fired);
    fl_list_init(&poller->shared_fired);
    fl_list_init(&poller->changed);
    poller->timerfd = poller->signal_fds[0] = poller->signal_fds[1] = -1;
    poller->set.fd = -1;
    poller->forks = fl_forks_count();
    poller->use_timerfd = use_timerfd;
    int code = poller_open(poller);
    if (code < 0) {
        free(poller);
        return code;
    }
    *out = poller;
    return 0;
}

int
fl_poller_leave_parent_now(FlPoller *poller)
{
    if (poller->backend_lost) {
        return -EMFILE; /* libuv aborts when asked again */
    }
    unsigned taken = take_standard_numbers();
    int code = uv_loop_fork(&poller->uv);
    give_standard_numbers(taken);
    poller->backend_lost = code < 0;
    if (code == 0) {
        code = fl_fd_set_renew(&poller->set);
    }
    /* Another thread of the parent may have held a lock. */
    if (code == 0
        && (uv_mutex_init(&poller->lock) < 0
            || uv_mutex_init(&poller->numbers_lock) < 0))
    {
        code = FL_NO_MEMORY;
    }
    if (code < 0) {
        return code;
    }
    poller->forks = fl_forks_count();
    poller->shares_own = true;
    poller->set_fired = false;
    /* The parent's threads are not here: neither the one that made a turn
       nor those that were about to wake it. */
    atomic_store(&poller->turn_thread, 0);
    atomic_store(&poller->sleeping, 0);
    fl_shared_register_again(poller);
    return 0;
}

void
fl_poller_renew_set(FlPoller *poller)
{
    /* First, while the number is the old set's: a forked child may have that
       still, and libuv would hear of it for ever. */
    (void)uv_poll_stop(&poller->set_poll);
    int code = fl_fd_set_replace(&poller->set);
    (void)uv_poll_start(&poller->set_poll, UV_READABLE, on_set);
    if (code == 0) {
        fl_shared_register_again(poller);
    } /* else the old one tells what it told, and more */
}

void
fl_poller_close_own(FlPoller *poller)
{
    FlWatch **watches[] = {&poller->timerfd_watch, &poller->signal_watch};
    for (size_t at = 0; at < 2; at++) {
        if (*watches[at] != NULL) {
            fl_watch_close(*watches[at]);
            *watches[at] = NULL;
        }
    }
    close_fd(&poller->timerfd);
    close_fd(&poller->signal_fds[0]);
    close_fd(&poller->signal_fds[1]);
    poller->shares_own = false;
}

void
fl_poller_free(FlPoller *poller)
{
    /* Where this fails nothing helps. */
    (void)fl_poller_leave_parent(poller);
    close_uv(poller);
    close_fd(&poller->timerfd);
    close_fd(&poller->signal_fds[0]);
    close_fd(&poller->signal_fds[1]);
    free(poller->numbers);
    uv_mutex_destroy(&poller->numbers_lock);
    uv_mutex_destroy(&poller->lock);
    free(poller);
}

static int
open_pipe(int fds[2])
{
#ifdef __linux__
    return pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0 ? -errno : 0;
#else
    if (pipe(fds) < 0) {
        return -errno;
    }
    for (int end = 0; end < 2; end++) {
        (void)fcntl(fds[end], F_SETFL, O_NONBLOCK);
        (void)fcntl(fds[end], F_SETFD, FD_CLOEXEC);
    }
    return 0;
#endif
}

int
fl_poller_signal_pipe(FlPoller *poller,
                      int (*on_signal)(void *loop, FlWatch *watch, int events))
{
    if (poller->signal_watch != NULL) {
        return 0;
    }
    FlWatch *watch;
    int code = open_pipe(poller->signal_fds);
    if (code < 0) {
        return code;
    }
    code = fl_watch_open(poller, poller->signal_fds[0], true, &watch);
    if (code == 0) {
        watch->owner = poller;
        watch->on_events = on_signal;
        code = fl_watch_set(watch, FL_READABLE);
        if (code == 0) {
            poller->signal_watch = watch;
            return 0;
        }
        fl_watch_close(watch);
    }
    close_fd(&poller->signal_fds[0]);
    close_fd(&poller->signal_fds[1]);
    return code;
}

/* --- polling ------------------------------------------------------------- */

/* Arm what ends a poll at a timeout below a millisecond; false where there
   is no timerfd. */
static bool
arm_timerfd(FlPoller *poller, int64_t timeout_ns)
{
#ifdef __linux__
    if (!poller->use_timerfd) {
        return false;
    }
    if (poller->timerfd_watch == NULL) {
        open_timerfd(poller);
        if (poller->timerfd_watch == NULL) {
            poller->use_timerfd = false;
            return false;
        }
    }
    struct itimerspec when;
    memset(&when, 0, sizeof(when));
    when.it_value.tv_nsec = timeout_ns;
    if (timerfd_settime(poller->timerfd, 0, &when, NULL) < 0) {
        return false;
    }
    return true;
#else
    (void)poller;
    (void)timeout_ns;
    return false;
#endif
}

static void
arm_deadline(FlPoller *poller, int64_t timeout_ns)
{
    if (timeout_ns > LONGEST_POLL_NS) {
        timeout_ns = LONGEST_POLL_NS;
    }
    if (timeout_ns < FL_NS_PER_MS && arm_timerfd(poller, timeout_ns)) {
        return;
    }
    int64_t timeout_ms = (timeout_ns + FL_NS_PER_MS - 1) / FL_NS_PER_MS;
    uv_update_time(&poller->uv);
    (void)uv_timer_start(&poller->timer, on_timer, (uint64_t)timeout_ms, 0);
}

void
fl_poller_run(FlPoller *poller, int64_t timeout_ns)
{
    poller->polls++;
    atomic_store_explicit(&poller->watch_began, false, memory_order_relaxed);
    if (timeout_ns == 0) {
        (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
        return;
    }
    if (timeout_ns > 0) {
        arm_deadline(poller, timeout_ns);
    }
    (void)uv_run(&poller->uv, UV_RUN_ONCE);
    if (timeout_ns > 0) {
        (void)uv_timer_stop(&poller->timer);
    }
}
