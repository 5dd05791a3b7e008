/* A poller made of an epoll instance and an eventfd: see poller.h.

   1. Another thread wakes the poller by EPOLL_CTL_MOD of an eventfd.  epoll
      then reports once that it is writable, which it always is; before the
      first wake-up it reports nothing.  Rejected: a write.  Other code may
      have closed the eventfd, and the number may belong to another file by
      now, which would receive the bytes; the MOD fails.  (Not if both numbers
      are another loop's.)  Rejected: an edge (EPOLLET).  On Linux a MOD
      reports it again, but epoll's manual promises that of EPOLLONESHOT alone.
      Nothing is ever written, so a forked child can use its parent's eventfd.
      The eventfd is opened with the poller: later it could get an fd that the
      application has closed while it is registered, and the registration's
      owner would close it.
   2. The poller's fds stay the same when the poller is replaced.  A new one
      could be an fd that the application has closed, and may close again.  A
      wake-up that comes meanwhile is lost, and not needed: the loop's thread,
      which replaces the poller, is not waiting. */
#ifdef __linux__
#include "core/poller.h"

#include "base/clock.h"
#include "py/compat.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* epoll's data of the eventfd, whose low half is no fd.  That of others is a
   generation and, below it, an fd. */
#define WAKE_DATA UINT64_MAX

/* One may be -1, which close() refuses. */
static void
close_fds(FlPoller *poller)
{
    (void)close(poller->fd);
    (void)close(poller->wake_fd);
}

/* EPOLL_CTL_ADD: register the eventfd.  EPOLL_CTL_MOD, which needs no memory:
   wake the poller.  0, both fds are the poller's own then; or a negative
   errno. */
static int
control_wake_fd(const FlPoller *poller, int operation)
{
    uint32_t events = operation == EPOLL_CTL_MOD ? EPOLLOUT | EPOLLONESHOT : 0;
    struct epoll_event event = {.events = events, .data.u64 = WAKE_DATA};
    return epoll_ctl(poller->fd, operation, poller->wake_fd, &event) < 0
               ? -errno
               : 0;
}

static int
open_epoll(FlPoller *poller)
{
    poller->fd = epoll_create1(EPOLL_CLOEXEC);
    poller->wake_fd =
        poller->fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int code =
        poller->wake_fd < 0 ? -errno : control_wake_fd(poller, EPOLL_CTL_ADD);
    if (code < 0) {
        close_fds(poller);
    }
    return code;
}

/* Only if both fds are still the poller's own does the MOD succeed.  Else
   close neither, because either number may be another file's by now; what is
   left of the poller's own leaks. */
static void
close_epoll(FlPoller *poller)
{
    if (control_wake_fd(poller, EPOLL_CTL_MOD) == 0) {
        close_fds(poller);
    }
}

/* Of Linux 4.5; an older kernel ignores the bit, and wakes all. */
#ifndef EPOLLEXCLUSIVE
#define EPOLLEXCLUSIVE (1U << 28)
#endif

/* epoll changes no registration that is, or becomes, exclusive: remove it, if
   `control` is FL_POLLER_CHANGE, and add it. */
FL_NOINLINE static int
add_anew(FlPoller *poller, FlPollerControl control, int fd,
         struct epoll_event *event)
{
    if (control == FL_POLLER_CHANGE
        && epoll_ctl(poller->fd, EPOLL_CTL_DEL, fd, event) < 0)
    {
        return -errno;
    }
    int code = epoll_ctl(poller->fd, EPOLL_CTL_ADD, fd, event);
    if (code < 0 && errno == EINVAL) { /* as FreeBSD's emulation of Linux */
        event->events &= ~(uint32_t)EPOLLEXCLUSIVE;
        code = epoll_ctl(poller->fd, EPOLL_CTL_ADD, fd, event);
    }
    return code == 0 ? 0 : control == FL_POLLER_CHANGE ? -ENOENT : -errno;
}

static int
control_epoll(FlPoller *poller, FlPollerControl control, int fd, int interest,
              uint32_t generation)
{
    struct epoll_event event = {.data.u64 =
                                    (uint64_t)generation << 32 | (uint32_t)fd};
    event.events = (interest & FL_READABLE ? (uint32_t)EPOLLIN : 0)
                   | (interest & FL_WRITABLE ? (uint32_t)EPOLLOUT : 0);
    if (FL_UNLIKELY(interest & (FL_EXCLUSIVE | FL_WAS_EXCLUSIVE))) {
        event.events |= interest & FL_EXCLUSIVE ? (uint32_t)EPOLLEXCLUSIVE : 0;
        return add_anew(poller, control, fd, &event);
    }
    int operation = control == FL_POLLER_ADD ? EPOLL_CTL_ADD
                    : interest == 0          ? EPOLL_CTL_DEL
                                             : EPOLL_CTL_MOD;
    return epoll_ctl(poller->fd, operation, fd, &event) < 0 ? -errno : 0;
}

/* epoll_wait with nanoseconds, of Linux 5.11 and glibc 2.35.  A raw system
   call would not need glibc's, but the systemd of an older distribution may
   end a service for a call that it does not know. */
extern int epoll_pwait2(int, struct epoll_event *, int,
                        const struct timespec *, const sigset_t *)
    __attribute__((weak));

/* 1 if it is used.  -1 if it is not there, once a sandbox or an older kernel
   has refused it, and if a library that was preloaded replaces epoll_wait and
   not it, as libfaketime and libvma do: it would go past them.  0: not known
   yet. */
static atomic_int has_pwait2;

static bool
may_use_pwait2(void)
{
    int known = atomic_load_explicit(&has_pwait2, memory_order_relaxed);
    if (FL_UNLIKELY(known == 0)) {
        Dl_info plain, precise;
        /* A libc that has it has dladdr, too. */
        bool found = epoll_pwait2 != NULL
                     && dladdr((void *)epoll_wait, &plain) != 0
                     && dladdr((void *)epoll_pwait2, &precise) != 0
                     && plain.dli_fbase == precise.dli_fbase;
        known = found ? 1 : -1;
        atomic_store(&has_pwait2, known);
    }
    return known > 0;
}

/* epoll_wait with a timeout of nanoseconds, of a day at most; or, as in
   asyncio, of whole milliseconds where there is no epoll_pwait2. */
FL_NOINLINE static int
wait_ns(int fd, struct epoll_event *ready, int64_t timeout_ns)
{
    struct timespec timeout = {(time_t)(timeout_ns / FL_NS_PER_S),
                               (long)(timeout_ns % FL_NS_PER_S)};
    bool tried = may_use_pwait2();
    if (tried) {
        int count = epoll_pwait2(fd, ready, FL_POLLER_EVENTS, &timeout, NULL);
        if (count >= 0 || errno == EINTR) {
            return count;
        }
    }
    int64_t ms = (timeout_ns + FL_NS_PER_MS - 1) / FL_NS_PER_MS;
    int count = epoll_wait(fd, ready, FL_POLLER_EVENTS, (int)ms);
    if (tried && count >= 0) {
        atomic_store(&has_pwait2, -1); /* else the fd is bad */
    }
    return count;
}

static int
wait_epoll(FlPoller *poller, FlPollerEvent *events, int64_t timeout_ns)
{
    struct epoll_event ready[FL_POLLER_EVENTS];
    int count = timeout_ns > 0
                    ? wait_ns(poller->fd, ready, timeout_ns)
                    : epoll_wait(poller->fd, ready, FL_POLLER_EVENTS,
                                 timeout_ns < 0 ? -1 : 0);
    FlPollerEvent *event = events;
    for (int at = 0; at < count; at++) {
        uint32_t bits = ready[at].events;
        if (FL_UNLIKELY(ready[at].data.u64 == WAKE_DATA)) {
            continue;
        }
        event->fd = (uint32_t)ready[at].data.u64;
        event->generation = (uint32_t)(ready[at].data.u64 >> 32);
        /* As selectors does: an error, and the end of a connection, are
           events of both directions. */
        event->events =
            (bits & ~(uint32_t)EPOLLOUT ? FL_READABLE : 0)
            | (bits & (EPOLLOUT | EPOLLERR | EPOLLHUP) ? FL_WRITABLE : 0);
        event++;
    }
    return count < 0 ? -errno : (int)(event - events);
}

/* A failure is ignored: it means that other code has closed the eventfd.  Then
   no thread wakes the loop any more, as in asyncio. */
static void
wake_epoll(FlPoller *poller)
{
    (void)control_wake_fd(poller, EPOLL_CTL_MOD);
}

/* A new epoll instance under the same fd, with the same eventfd. */
static int
replace_epoll(FlPoller *poller)
{
    FlPoller made = {.fd = epoll_create1(EPOLL_CLOEXEC),
                     .wake_fd = poller->wake_fd};
    int code = made.fd < 0 ? -errno : control_wake_fd(&made, EPOLL_CTL_ADD);
    if (made.fd != poller->fd) {
        if (code == 0 && dup3(made.fd, poller->fd, O_CLOEXEC) < 0) {
            code = -errno;
        }
        (void)close(made.fd);
    }
    return code;
}

static int
after_fork_epoll(FlPoller *poller)
{
    if (control_wake_fd(poller, EPOLL_CTL_MOD) < 0) { /* not ours any more */
        return -EBADF;
    }
    /* Closed first: the process may be at its limit of open files. */
    (void)close(poller->fd);
    return replace_epoll(poller);
}

const FlPollerKind fl_poller_epoll = {
    .exclusive = true,
    .open = open_epoll,
    .close = close_epoll,
    .control = control_epoll,
    .wait = wait_epoll,
    .wake_anythread = wake_epoll,
    .after_fork = after_fork_epoll,
    .replace = replace_epoll,
};
#endif
