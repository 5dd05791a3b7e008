/* A set of fds that other code may close: an epoll instance of our own (a
   kqueue on macOS).  The loop waits for the set; libuv is one of its fds.

   libuv identifies a file by its fd alone.  If an fd is closed, duplicated or
   reused without its knowledge, libuv aborts, spins or reports events of the
   wrong file.  Here each registration carries a tag, which the caller
   compares, so it recognizes stale events; and what the system refuses is an
   error code.

   Registrations are level-triggered: they report as long as the file is
   ready.

   Rejected: edge-triggered registrations of sockets.  A registration whose
   fd now refers to another file, or a short read that did not empty the
   socket, would wait for ever.  A Unix or UDP socket would also report an edge
   each time its peer reads, which wakes the loop for nothing.

   Threads: any thread may call, also while another one waits for the set.
   Ownership: the caller owns the FlFdSet and closes it; the set owns its own
   fd and none of those registered in it.  Errors are negative errnos. */
#ifndef FL_CORE_FD_SET_H
#define FL_CORE_FD_SET_H

#include <stdbool.h>
#include <stdint.h>

#define FL_READABLE 1
#define FL_WRITABLE 2

typedef struct {
    int fd;        /* -1: closed */
    bool uv_fired; /* a wait found that libuv's epoll is ready */
} FlFdSet;

/* The most events that one call takes. */
#define FL_FD_SET_EVENTS 1024

/* The tag of the fd of libuv's epoll, which has no registration
   (registration.h).  Its low half is no fd. */
#define FL_FD_SET_UV_TAG UINT64_MAX

typedef struct {
    uint64_t tag;
    int events; /* FL_READABLE | FL_WRITABLE */
} FlFdEvent;

int fl_fd_set_open(FlFdSet *set);
void fl_fd_set_close(FlFdSet *set);

/* In a forked child: whether the set and libuv's epoll `uv_fd` (-1: none) are
   still open.  The set contains uv_fd, so adding it fails with EEXIST.
   Anything else means that one was closed; both fds may then belong to the
   application. */
bool fl_fd_set_is_open(FlFdSet *set, int uv_fd);

/* In a forked child: replace the set shared with the parent by an empty one,
   under the same fd.  The parent's set stays as it is.  On failure the set is
   closed. */
int fl_fd_set_after_fork(FlFdSet *set);

/* Put an empty set in this one's place, under the same fd.  `old` is then the
   previous set, which the caller closes.  On failure the set stays as it is
   and there is nothing to close. */
int fl_fd_set_replace(FlFdSet *set, FlFdSet *old);

/* FL_FD_ADD registers an fd.  interest: FL_READABLE, FL_WRITABLE.  -EEXIST:
   this fd is already registered for the same file.
   FL_FD_CHANGE changes a registration; what is ready already is reported at
   once.  Without an interest (0) it removes the registration.  -ENOENT: the
   file that the fd refers to now is not registered (epoll alone: a kqueue
   drops the registration with the fd, and makes a new one).  -EBADF, -EPERM:
   the fd is closed, or refers to a file that cannot be registered. */
typedef enum {
    FL_FD_ADD,
    FL_FD_CHANGE
} FlFdControl;
int fl_fd_set_control(FlFdSet *set, FlFdControl control, int fd, int interest,
                      uint64_t tag);

/* Wait for events, at most timeout_ns (0: not at all; negative: without a
   limit), and take them into an array of FL_FD_SET_EVENTS.  Returns how many,
   without libuv's, which sets uv_fired instead.
   -EBADF or -EINVAL: the set's own fd was closed.  -EINTR: a signal came
   first; nothing was taken.  A wait of nanoseconds takes epoll_pwait2, or
   ppoll() and epoll_wait where there is none. */
int fl_fd_set_wait(FlFdSet *set, FlFdEvent *events, int64_t timeout_ns);

#endif
