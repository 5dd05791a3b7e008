/* A set of descriptors that others may close: an epoll of our own (a kqueue on
   macOS), which libuv sees as one descriptor.

   libuv knows a file by its fd alone: one that is closed, duplicated or reused
   behind its back makes it abort, spin or report events of the wrong file.
   Here a registration carries a tag that the caller compares, so a stale one
   is known, and what the system refuses is an error code.  A registration for
   a single event can fire once at most; a level-triggered one fires as long as
   its file is ready, and a kept one, which is edge-triggered, with what comes
   for its file, until the set is renewed.

   Any thread may call, also while another waits for the set.  Errors are
   negative errnos. */
#ifndef FL_CORE_FD_SET_H
#define FL_CORE_FD_SET_H

#include <stdbool.h>
#include <stdint.h>

#define FL_READABLE 1
#define FL_WRITABLE 2

/* Of what is registered: it fires again and again, as long as it is so
   (level-triggered), and not once. */
#define FL_LEVEL 4

/* Of an event that was taken: what it tells of lasts (an end, an error, urgent
   data), so that one read does not end it. */
#define FL_LASTING 8

typedef struct {
    int fd; /* readable while events wait; -1: closed */
} FlFdSet;

/* The most that one call takes, as many as libuv would. */
#define FL_FD_SET_EVENTS 1024

typedef struct {
    uint64_t tag;
    int events; /* FL_READABLE | FL_WRITABLE | FL_LASTING */
} FlFdEvent;

int fl_fd_set_open(FlFdSet *set);
void fl_fd_set_close(FlFdSet *set);

/* In the child of a fork: an empty set of its own, under the same number. */
int fl_fd_set_renew(FlFdSet *set);

/* An empty set, under the same number, in place of this one, which is `old`
   from then on, for the caller to close; it stays where that fails. */
int fl_fd_set_replace(FlFdSet *set, FlFdSet *old);

/* Register a descriptor; interest is of FL_READABLE, FL_WRITABLE and
   FL_LEVEL.  -EEXIST: its number and file are registered. */
int fl_fd_set_add(FlFdSet *set, int fd, int interest, uint64_t tag);

/* Change and arm a registration; what is ready already fires.  -ENOENT: the
   file that has this number now is not registered. */
int fl_fd_set_change(FlFdSet *set, int fd, int interest, uint64_t tag);

/* Register a descriptor, or change its registration, so that it fires for both
   kinds whenever something new happens, and stays armed.  What is ready
   already fires.  -ENOTSUP where there is no epoll. */
int fl_fd_set_add_persistent(FlFdSet *set, int fd, uint64_t tag);

/* End a registration.  -ENOENT, -EBADF or -EPERM: the file that has this
   number now is not registered. */
int fl_fd_set_remove(FlFdSet *set, int fd);

/* Take events that wait, into an array of FL_FD_SET_EVENTS: how many.  Does
   not block.  -EBADF or -EINVAL: the set's own fd was closed. */
int fl_fd_set_take(FlFdSet *set, FlFdEvent *events);

#endif
