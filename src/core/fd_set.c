/* epoll, or kqueue: see fd_set.h.

   1. The set's own fd stays the same when the set is replaced.
      libuv's uv_poll_t was initialized with it and polls no other.
   2. A callback that waits for one direction alone learns of an error and of
      the end of its connection.  epoll reports these in bits of their own,
      which fl_fd_set_poll maps to both directions, as selectors does; with
      kqueue each direction's filter reports them. */
#include "core/fd_set.h"

#include "py/compat.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/epoll.h>

int
fl_fd_set_open(FlFdSet *set)
{
    set->fd = epoll_create1(EPOLL_CLOEXEC);
    return set->fd < 0 ? -errno : 0;
}

bool
fl_fd_set_is_open(FlFdSet *set, int other)
{
    struct epoll_event event; /* level-triggered: it is reported again */
    if (other < 0) {
        return epoll_wait(set->fd, &event, 1, 0) >= 0 || errno == EINTR;
    }
    /* EBADF or EINVAL would show that one of them is closed. */
    return fl_fd_set_control(set, FL_FD_CHANGE, other, 0, 0) == -ENOENT;
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

int
fl_fd_set_poll(FlFdSet *set, FlFdEvent *events)
{
    struct epoll_event ready[FL_FD_SET_EVENTS];
    int count = epoll_wait(set->fd, ready, FL_FD_SET_EVENTS, 0);
    for (int at = 0; at < count; at++) {
        uint32_t bits = ready[at].events;
        FlFdEvent *event = &events[at];
        event->tag = ready[at].data.u64;
        /* See invariant 2. */
        event->events =
            (bits & ~(uint32_t)EPOLLOUT ? FL_READABLE : 0)
            | (bits & (EPOLLOUT | EPOLLERR | EPOLLHUP) ? FL_WRITABLE : 0);
    }
    return count < 0 ? -errno : count;
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
fl_fd_set_is_open(FlFdSet *Py_UNUSED(set), int Py_UNUSED(other))
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
fl_fd_set_poll(FlFdSet *set, FlFdEvent *events)
{
    struct kevent ready[FL_FD_SET_EVENTS];
    struct timespec now = {0, 0};
    int count = kevent(set->fd, NULL, 0, ready, FL_FD_SET_EVENTS, &now);
    for (int at = 0; at < count; at++) {
        events[at].tag = (uint64_t)(uintptr_t)ready[at].udata;
        events[at].events =
            ready[at].filter == EVFILT_READ ? FL_READABLE : FL_WRITABLE;
    }
    return count < 0 ? -errno : count;
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
