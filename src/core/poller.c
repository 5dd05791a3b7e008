/* The poller: one uv_loop_t that only we run.

   1. Deadlines: uv's timer counts whole milliseconds from a clock that is cut
      down to them, so it is set to the next millisecond; what is left below
      one goes to a timerfd.  Neither ever fires early: the loop looks at its
      own clock afterwards.
   2. The backend is never renewed, so a wake-up that was sent is heard; only
      a forked child, which cannot run it, gets another to close it with.
   3. libuv polls the set and its own wake-ups, so a poll that does not wait is
      the set's alone.
   4. libuv aborts where the system refuses to register what it polls.  So we
      register that, where a refusal is an error; libuv finds it registered,
      and changes it, which needs no room.
   5. A loop that never waits, as most that tests make, costs neither that nor
      libuv's handles: both are made before the first poll that may wait.
      Without handles libuv never polls, not even to be closed.
   6. libuv aborts where its own descriptors are closed.  To look before each
      wait is a system call more, so that is done before the first of a run
      and before libuv closes them; the set's is found out by the call that
      takes its events.  From then on libuv does not run; a run is an error. */
#include "core/poller.h"

#include "base/clock.h"
#include "base/codes.h"
#include "base/forks.h"
#include "base/list.h"
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
#include <sys/timerfd.h>
#endif

/* asyncio's MAXIMUM_SELECT_TIMEOUT: a day. */
#define LONGEST_POLL_NS (24 * 3600 * FL_NS_PER_S)
/* How often a set is looked at that the system does not let libuv poll. */
#define UNPOLLED_MS     5

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
occupy_standard_fds(void)
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
release_standard_fds(unsigned taken)
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
    unsigned taken = occupy_standard_fds();
    int code = uv_loop_init(uv);
    release_standard_fds(taken);
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
run_timerfd(void *loop, FlRegistration *reg, int events)
{
    (void)loop;
    (void)events;
    (void)reg;
    return 0; /* it has ended the poll; the next expiration is a new edge */
}

/* Sandboxes may refuse it: then deadlines are rounded up to milliseconds. */
static void
open_timerfd(FlPoller *poller)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) {
        return;
    }
    FlRegistration *reg;
    if (fl_registration_open(poller, fd, false, &reg) < 0) {
        (void)close(fd);
        return;
    }
    if (fl_registration_persist(reg) < 0) {
        fl_registration_close(reg);
        (void)close(fd);
        return;
    }
    reg->owner = poller;
    reg->on_events = run_timerfd;
    reg->wanted = FL_READABLE;
    poller->timerfd = fd;
    poller->timerfd_reg = reg;
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
    code = fl_fd_set_open(&poller->set);
    if (code < 0) {
        (void)uv_loop_close(&poller->uv);
    }
    return code;
}

/* See invariant 4.  What is registered stays as it is: with newer libuvs that
   is edge-triggered.  How many were not registered, or a negative errno. */
static int
enter_backend(FlPoller *poller)
{
    int entered = 0;
#ifdef __linux__
    const uv_loop_t *uv = &poller->uv;
    for (int fd = 0; fd < (int)uv->nwatchers; fd++) {
        struct epoll_event event = {.events = EPOLLIN};
        event.data.fd = fd;
        if (uv->watchers[fd] == NULL) {
            continue;
        }
        if (epoll_ctl(uv->backend_fd, EPOLL_CTL_ADD, fd, &event) == 0) {
            entered++;
        }
        else if (errno != EEXIST) {
            return -errno;
        }
    }
#else
    (void)poller;
#endif
    return entered;
}

/* The loop's own descriptors are not there: see invariant 6. */
static void
lose(FlPoller *poller, int code)
{
    poller->lost_by = code;
    poller->unsettled = true;
}

/* See that the descriptors which libuv polls are there: all are registered
   already.  0 or -EBADF. */
static int
check_backend(FlPoller *poller)
{
    if (enter_backend(poller) == 0) {
        return 0;
    }
    lose(poller, -EBADF);
    return -EBADF;
}

/* Have libuv poll the set. */
static int
poll_set(FlPoller *poller)
{
    int code = uv_poll_start(&poller->set_poll, UV_READABLE, on_set);
    if (code == 0) {
        code = enter_backend(poller);
    }
    if (code < 0) {
        (void)uv_poll_stop(&poller->set_poll);
    }
    poller->polled = code >= 0;
    return code;
}

/* Make libuv's handles, once what it polls itself is registered.  The set's
   descriptor is ours alone, so libuv may poll it. */
static int
open_handles(FlPoller *poller)
{
    int code = enter_backend(poller);
    if (code >= 0) {
        code = uv_poll_init(&poller->uv, &poller->set_poll, poller->set.fd);
    }
    if (code < 0) {
        return code;
    }
    poller->set_poll.data = poller;
    (void)uv_timer_init(&poller->uv, &poller->timer);
    /* It cannot fail: what it would open is the loop's own since the start. */
    (void)uv_async_init(&poller->uv, &poller->async, on_async);
    poller->has_handles = true;
    return 0;
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
    uv_walk(&poller->uv, close_any, NULL); /* nothing: without handles */
    while (uv_loop_close(&poller->uv) == UV_EBUSY) {
        (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
    }
    fl_fd_set_close(&poller->set);
}

static int
poller_open(FlPoller *poller)
{
    if (uv_mutex_init(&poller->fds_lock) < 0) {
        return FL_NO_MEMORY;
    }
    int code = poller_init(poller);
    if (code < 0) {
        uv_mutex_destroy(&poller->fds_lock);
    }
    return code;
}

int
fl_poller_open(FlPoller **out, bool use_timerfd)
{
    FlPoller *poller = malloc(sizeof(*poller));
    if (poller == NULL) {
        return FL_NO_MEMORY;
    }
    memset(poller, 0, offsetof(FlPoller, events));
    fl_list_init(&poller->fired);
    fl_list_init(&poller->closed);
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

/* Whether a forked child has closed what it inherited: then the numbers may be
   other files' by now, which streams of the parent's would close in their
   turn, ours too. */
static bool
has_closed_all(const FlPoller *poller)
{
#ifdef __linux__
    /* An epoll that is not in the set: ENOENT says that both are there. */
    return epoll_ctl(poller->set.fd, EPOLL_CTL_DEL, uv_backend_fd(&poller->uv),
                     NULL)
               == 0
           || errno != ENOENT;
#else
    (void)poller; /* a kqueue is never inherited */
    return false;
#endif
}

/* libuv's part of it.  It aborts when asked again after a failure. */
static int
leave_parents_backend(FlPoller *poller)
{
    if (poller->lost_by == 0 && has_closed_all(poller)) {
        poller->lost_by = -EBADF;
    }
    if (poller->lost_by == 0) {
        unsigned taken = occupy_standard_fds();
        poller->lost_by = uv_loop_fork(&poller->uv);
        release_standard_fds(taken);
    }
    return poller->lost_by;
}

int
fl_poller_leave_parent_now(FlPoller *poller)
{
    int code = leave_parents_backend(poller);
    if (code == 0) {
        code = fl_fd_set_renew(&poller->set);
        if (code < 0) {
            lose(poller, code); /* every later attempt fails with it too */
        }
    }
    if (code == 0 && poller->has_handles) {
        code = enter_backend(poller);
    }
    /* Another thread of the parent may have held a lock. */
    if (code >= 0 && uv_mutex_init(&poller->fds_lock) < 0) {
        code = FL_NO_MEMORY;
    }
    if (code < 0) {
        return code;
    }
    poller->forks = fl_forks_count();
    poller->unsettled = true;
    poller->set_fired = poller->busy = false;
    poller->taken = 0;
    /* The parent's threads are not here: neither the one that made a turn
       nor those that were about to wake it. */
    atomic_store(&poller->iterating_thread, 0);
    atomic_store(&poller->sleeping, 0);
    fl_registrations_renew(poller, NULL);
    return 0;
}

void
fl_poller_renew_set(FlPoller *poller)
{
    /* First, while the number is the old set's: a forked child may have that
       still, and libuv would hear of it for ever. */
    if (poller->polled) {
        (void)uv_poll_stop(&poller->set_poll);
        poller->polled = false; /* the next wait begins it again */
    }
    FlFdSet old;
    int code = fl_fd_set_replace(&poller->set, &old);
    if (code == 0) {
        fl_registrations_renew(poller, &old);
        fl_fd_set_close(&old);
    } /* else the old one tells what it told, and more */
}

void
fl_poller_close_own(FlPoller *poller)
{
    FlRegistration **regs[] = {&poller->timerfd_reg, &poller->signal_reg};
    for (size_t at = 0; at < 2; at++) {
        if (*regs[at] != NULL) {
            fl_registration_close(*regs[at]);
            *regs[at] = NULL;
        }
    }
    close_fd(&poller->timerfd);
    close_fd(&poller->signal_fds[0]);
    close_fd(&poller->signal_fds[1]);
    poller->unsettled = false;
}

void
fl_poller_free(FlPoller *poller)
{
    (void)fl_poller_leave_parent(poller);
    if (poller->lost_by == 0 && poller->has_handles) {
        (void)check_backend(poller);
    }
    fl_registrations_close_all(poller);
    if (poller->lost_by == 0) {
        close_uv(poller);
        close_fd(&poller->timerfd);
        close_fd(&poller->signal_fds[0]);
        close_fd(&poller->signal_fds[1]);
    } /* else libuv aborts, and what is left may be anybody's by now */
    free(poller->fds);
    uv_mutex_destroy(&poller->fds_lock);
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
                      int (*on_signal)(void *loop, FlRegistration *reg,
                                       int events))
{
    if (poller->signal_reg != NULL) {
        return 0;
    }
    FlRegistration *reg;
    int code = open_pipe(poller->signal_fds);
    if (code < 0) {
        return code;
    }
    code = fl_registration_open(poller, poller->signal_fds[0], false, &reg);
    if (code == 0) {
        reg->owner = poller;
        reg->on_events = on_signal;
        code = fl_registration_set(reg, FL_READABLE);
        if (code == 0) {
            poller->signal_reg = reg;
            return 0;
        }
        fl_registration_close(reg);
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
    if (poller->timerfd_reg == NULL) {
        return false;
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

/* Take what the set has.  False: nothing. */
static bool
take(FlPoller *poller)
{
    poller->taken = fl_fd_set_take(&poller->set, poller->events);
    poller->busy = poller->taken > 1;
    if (poller->taken > 0) {
        return true;
    }
    if (FL_UNLIKELY(poller->taken < 0)) {
        if (poller->taken != -EINTR) {
            lose(poller, poller->taken);
        }
        poller->taken = 0; /* after EINTR the next poll retries */
    }
    return false;
}

static void
wait_for_events(FlPoller *poller, int64_t timeout_ns)
{
    if (!poller->polled && (!poller->may_wait || poll_set(poller) < 0)) {
        /* There is no room to register it: the next wait tries again. */
        uv_sleep(UNPOLLED_MS);
        poller->set_fired = true;
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

/* Before the first wait of a run.  0 or a negative errno. */
static int
prepare_wait(FlPoller *poller)
{
    int code = poller->lost_by < 0   ? poller->lost_by
               : poller->has_handles ? check_backend(poller)
                                     : open_handles(poller);
    poller->may_wait = code == 0;
    poller->polled = poller->polled && poller->may_wait;
    return code;
}

void
fl_poller_expect_wake(FlPoller *poller, int64_t timeout_ns)
{
    if (FL_LIKELY(poller->may_wait) || prepare_wait(poller) == 0) {
        atomic_store(&poller->sleeping, 1);
    }
#ifdef __linux__
    if (timeout_ns > 0 && timeout_ns < FL_NS_PER_MS && poller->use_timerfd
        && poller->timerfd_reg == NULL)
    {
        open_timerfd(poller);
        poller->use_timerfd = poller->timerfd_reg != NULL;
    }
#endif
}

void
fl_poller_run(FlPoller *poller, int64_t timeout_ns)
{
    poller->polls++;
    atomic_store_explicit(&poller->user_fd_changed, false,
                          memory_order_relaxed);
    bool look = timeout_ns == 0 || poller->busy;
    poller->busy = false;
    if (look && take(poller)) {
        return;
    }
    if (timeout_ns != 0) {
        wait_for_events(poller, timeout_ns);
        if (poller->set_fired) {
            poller->set_fired = false;
            (void)take(poller);
        }
    }
}
