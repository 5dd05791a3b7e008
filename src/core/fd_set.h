/* A set of fds that other code may close, and how another thread wakes the
   one that waits for it: an epoll instance of our own with an eventfd.

   Each registration carries a tag, which the caller compares, so it recognizes
   events of a file that the fd referred to earlier; and what the system
   refuses is an error code.

   Registrations are level-triggered: they report as long as the file is
   ready.

   Rejected: edge-triggered registrations of sockets.  A registration whose
   fd now refers to another file, or a short read that did not empty the
   socket, would wait for ever.  A Unix or UDP socket would also report an edge
   each time its peer reads, which wakes the loop for nothing.

   Threads: any thread may call, also while another one waits for the set.
   Ownership: the caller owns the FlFdSet and closes it; the set owns its own
   fds and none of those registered in it.  Errors are negative errnos. */
#ifndef FL_CORE_FD_SET_H
#define FL_CORE_FD_SET_H

#include <stdatomic.h>
#include <stdint.h>

#define FL_READABLE 1
#define FL_WRITABLE 2

typedef struct {
    int fd;              /* what waits; -1: closed */
    int wake_fd;         /* through which other threads wake it */
    atomic_int sleeping; /* a wait runs that may block, or is about to */
} FlFdSet;

/* The most events that one call takes. */
#define FL_FD_SET_EVENTS 1024

typedef struct {
    uint64_t tag;
    int events; /* FL_READABLE | FL_WRITABLE */
} FlFdEvent;

/* Open an empty set.  After a failure there is nothing to close. */
int fl_fd_set_open(FlFdSet *set);
void fl_fd_set_close(FlFdSet *set);

/* In a forked child: replace the set shared with the parent by an empty one,
   under the same fds.  The parent's set stays as it is.  -EBADF: the child has
   closed the fds, which may belong to the application by now.  After a failure
   the set is not used any more, and not closed either. */
int fl_fd_set_after_fork(FlFdSet *set);

/* Put an empty set in this one's place, under the same fd.  `old` is then the
   previous set, which the caller closes.  On failure the set stays as it is
   and there is nothing to close. */
int fl_fd_set_replace(FlFdSet *set, FlFdSet *old);

/* FL_FD_ADD registers an fd.  interest: FL_READABLE, FL_WRITABLE.  -EEXIST:
   this fd is already registered for the same file.
   FL_FD_CHANGE changes a registration; what is ready already is reported at
   once.  Without an interest (0) it removes the registration.  -ENOENT: the
   file that the fd refers to now is not registered.  -EBADF, -EPERM: the fd is
   closed, or refers to a file that cannot be registered. */
typedef enum {
    FL_FD_ADD,
    FL_FD_CHANGE
} FlFdControl;
int fl_fd_set_control(FlFdSet *set, FlFdControl control, int fd, int interest,
                      uint64_t tag);

/* Wait for events, at most timeout_ns (0: not at all; negative: without a
   limit), and take them into an array of FL_FD_SET_EVENTS.  Returns how many:
   0 also after a wake-up.
   -EBADF or -EINVAL: the set's own fd was closed.  -EINTR: a signal came
   first; nothing was taken. */
int fl_fd_set_wait(FlFdSet *set, FlFdEvent *events, int64_t timeout_ns);

/* Prepare a wait that may block, before the caller looks at its queues: a
   thread that pushes later sees this and wakes it. */
static inline void
fl_fd_set_let_wake(FlFdSet *set)
{
    atomic_store(&set->sleeping, 1);
}

/* The wait has ended, or will not block after all. */
static inline void
fl_fd_set_end_wait(FlFdSet *set)
{
    atomic_store(&set->sleeping, 0);
}

void fl_fd_set_wake_now(FlFdSet *set);

/* Make a wait return, if one runs that may block, or is about to. */
static inline void
fl_fd_set_wake_anythread(FlFdSet *set)
{
    if (atomic_load(&set->sleeping) && atomic_exchange(&set->sleeping, 0)) {
        fl_fd_set_wake_now(set);
    }
}

#endif
