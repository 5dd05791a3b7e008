/* epoll, or kqueue: see fd_set.h.

   The set's own fd stays the same when the set is replaced.  A new one could
   be an fd that the application has closed, and may close again. */
#include "core/fd_set.h"

#include "base/clock.h"
#include "py/compat.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#ifdef __linux__
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <time.h>

int
fl_fd_set_open(FlFdSet *set)
{
    set->fd = epoll_create1(EPOLL_CLOEXEC);
    return set->fd < 0 ? -errno : 0;
}

bool
fl_fd_set_is_open(FlFdSet *set, int uv_fd)
{
    struct epoll_event event; /* level-triggered: it is reported again */
    if (uv_fd < 0) {
        return epoll_wait(set->fd, &event, 1, 0) >= 0 || errno == EINTR;
    }
    return fl_fd_set_control(set, FL_FD_ADD, uv_fd, FL_READABLE,
                             FL_FD_SET_UV_TAG)
           == -EEXIST;
}

int
fl_fd_set_control(FlFdSet *set, FlFdControl control, int fd, int interest,
                  uint64_t tag)
{
    struct epoll_event event = {.data.u64 = tag};
    event.events = (interest & FL_READABLE ? (uint32_t)EPOLLIN : 0)
                   | (interest & FL_WRITABLE ? (uint32_t)EPOLLOUT : 0);
    int operation = control == FL_FD_ADD ? EPOLL_CTL_ADD
                    : interest == 0      ? EPOLL_CTL_DEL
                                         : EPOLL_CTL_MOD;
    return epoll_ctl(set->fd, operation, fd, &event) < 0 ? -errno : 0;
}

/* epoll_wait with nanoseconds, of Linux 5.11 and glibc 2.35.  A raw system
   call would not need glibc's, but the systemd of an older distribution may
   end a service for a call that it does not know. */
extern int epoll_pwait2(int, struct epoll_event *, int,
                        const struct timespec *, const sigset_t *)
    __attribute__((weak));

/* False once a sandbox or an older kernel has refused it. */
static atomic_bool has_pwait2 = true;

/* epoll_wait with a timeout of nanoseconds. */
static int
wait_ns(int fd, struct epoll_event *ready, int64_t timeout_ns)
{
    struct timespec left = {(time_t)(timeout_ns / FL_NS_PER_S),
                            (long)(timeout_ns % FL_NS_PER_S)};
    bool tried = epoll_pwait2 != NULL
                 && atomic_load_explicit(&has_pwait2, memory_order_relaxed);
    if (tried) {
        int count = epoll_pwait2(fd, ready, FL_FD_SET_EVENTS, &left, NULL);
        if (count >= 0 || errno == EINTR) {
            return count;
        }
    }
    struct pollfd set = {fd, POLLIN, 0};
    int count = ppoll(&set, 1, &left, NULL) < 0
                    ? -1
                    : epoll_wait(fd, ready, FL_FD_SET_EVENTS, 0);
    if (tried && count >= 0) {
        atomic_store(&has_pwait2, false); /* else the fd is bad */
    }
    return count;
}

int
fl_fd_set_wait(FlFdSet *set, FlFdEvent *events, int64_t timeout_ns)
{
    struct epoll_event ready[FL_FD_SET_EVENTS];
    int count = timeout_ns > 0 ? wait_ns(set->fd, ready, timeout_ns)
                               : epoll_wait(set->fd, ready, FL_FD_SET_EVENTS,
                                            timeout_ns < 0 ? -1 : 0);
    FlFdEvent *event = events;
    for (int at = 0; at < count; at++) {
        uint32_t bits = ready[at].events;
        if (FL_UNLIKELY(ready[at].data.u64 == FL_FD_SET_UV_TAG)) {
            set->uv_fired = true;
            continue;
        }
        event->tag = ready[at].data.u64;
        /* As selectors does: an error, and the end of a connection, are
           events of both directions. */
        event->events =
            (bits & ~(uint32_t)EPOLLOUT ? FL_READABLE : 0)
            | (bits & (EPOLLOUT | EPOLLERR | EPOLLHUP) ? FL_WRITABLE : 0);
        event++;
    }
    return count < 0 ? -errno : (int)(event - events);
}

#else
#include <sys/event.h>
#include <time.h>

int
fl_fd_set_open(FlFdSet *set)
{
    set->fd = kqueue();
    if (set->fd < 0) {
        return -errno;
    }
    /* Ignored: fcntl cannot fail for an fd that we have just opened. */
    (void)fcntl(set->fd, F_SETFD, FD_CLOEXEC);
    return 0;
}

bool
fl_fd_set_is_open(FlFdSet *Py_UNUSED(set), int Py_UNUSED(uv_fd))
{
    return true; /* a child has none of its own: see fl_fd_set_after_fork */
}

/* Add or delete one of an fd's two filters: kqueue has one per direction.
   Deleting one that does not exist is no error.  0 or a negative errno. */
static int
change_filter(FlFdSet *set, int fd, int filter, int interest, int event,
              uint64_t tag)
{
    struct kevent change;
    unsigned flags = interest & event ? EV_ADD | EV_ENABLE : EV_DELETE;
    EV_SET(&change, fd, filter, flags, 0, 0, (void *)(uintptr_t)tag);
    if (kevent(set->fd, &change, 1, NULL, 0, NULL) == 0) {
        return 0;
    }
    /* The other direction was never wanted: there is nothing to delete. */
    return !(interest & event) && errno == ENOENT ? 0 : -errno;
}

/* EV_ADD changes an existing filter, so adding and changing are the same.
   Without an interest both filters are deleted. */
int
fl_fd_set_control(FlFdSet *set, FlFdControl Py_UNUSED(control), int fd,
                  int interest, uint64_t tag)
{
    int code = change_filter(set, fd, EVFILT_READ, interest, FL_READABLE, tag);
    return code < 0 ? code
                    : change_filter(set, fd, EVFILT_WRITE, interest,
                                    FL_WRITABLE, tag);
}

int
fl_fd_set_wait(FlFdSet *set, FlFdEvent *events, int64_t timeout_ns)
{
    struct kevent ready[FL_FD_SET_EVENTS];
    struct timespec left = {(time_t)(timeout_ns / FL_NS_PER_S),
                            (long)(timeout_ns % FL_NS_PER_S)};
    int count = kevent(set->fd, NULL, 0, ready, FL_FD_SET_EVENTS,
                       timeout_ns < 0 ? NULL : &left);
    FlFdEvent *event = events;
    for (int at = 0; at < count; at++) {
        event->tag = (uint64_t)(uintptr_t)ready[at].udata;
        event->events =
            ready[at].filter == EVFILT_READ ? FL_READABLE : FL_WRITABLE;
        if (event->tag == FL_FD_SET_UV_TAG) {
            set->uv_fired = true;
        }
        else {
            event++;
        }
    }
    return count < 0 ? -errno : (int)(event - events);
}
#endif

int
fl_fd_set_after_fork(FlFdSet *set)
{
    int fd = set->fd;
#ifndef __linux__
    if (fcntl(fd, F_GETFD) >= 0) {
        /* A kqueue is not inherited: a file of the child has its number. */
        set->fd = -1;
        return -EBADF;
    }
#endif
    /* Closed first: the process may be at its limit of open files. */
    fl_fd_set_close(set);
    int code = fl_fd_set_open(set);
    if (code < 0 || set->fd == fd) {
        return code;
    }
    /* dup2 does not copy FD_CLOEXEC. */
    if (dup2(set->fd, fd) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        code = -errno;
    }
    fl_fd_set_close(set);
    set->fd = code < 0 ? -1 : fd;
    return code;
}

int
fl_fd_set_replace(FlFdSet *set, FlFdSet *old)
{
    FlFdSet new;
    int code = fl_fd_set_open(&new);
    if (code < 0) {
        return code;
    }
    /* Kept open, because registrations are removed from it one by one: that
       shows which fds still refer to the file they were registered for. */
    old->fd = fcntl(set->fd, F_DUPFD_CLOEXEC, 0);
    if (old->fd < 0 || dup2(new.fd, set->fd) < 0) {
        code = -errno;
        fl_fd_set_close(old);
    }
    else {
        (void)fcntl(set->fd, F_SETFD, FD_CLOEXEC);
    }
    fl_fd_set_close(&new);
    return code;
}

void
fl_fd_set_close(FlFdSet *set)
{
    if (set->fd >= 0) {
        (void)close(set->fd);
        set->fd = -1;
    }
}
