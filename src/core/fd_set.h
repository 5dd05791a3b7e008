/* A set of descriptors that others may close: an epoll of our own (a kqueue on
   macOS), which libuv sees as one descriptor.

   libuv binds a watch to a descriptor's number: one that is closed, duplicated
   or reused behind its back makes it abort, spin or report a stranger's
   events.  Here a registration carries a tag that the caller compares, and
   what the system refuses is an error code.  One that is left behind is told
   from others by its tag.  It can fire once at most; a level-triggered one
   fires as long as its file is ready, and a kept one, which is
   edge-triggered, with what comes for its file, until the set is renewed.

   Any thread may call, also while another waits for the set.  Errors are
   negative errnos. */
#ifndef FL_CORE_FD_SET_H
#define FL_CORE_FD_SET_H

#include <stdbool.h>
#include <stdint.h>

#define FL_READABLE 1
#define FL_WRITABLE 2

/* Of an event that was taken: what it tells of lasts (an end, an error, urgent
   data), so that one read does not end it. */
#define FL_LASTING 8

typedef struct {
    int fd; /* readable while events wait; -1: closed */
} FlFdSet;

/* The most that one call takes. */
#define FL_FD_SET_EVENTS 64

typedef struct {
    uint64_t tag;
    int events; /* FL_READABLE | FL_WRITABLE | FL_LASTING */
} FlFdEvent;

int fl_fd_set_open(FlFdSet *set);
void fl_fd_set_close(FlFdSet *set);

/* In the child of a fork: an empty set of its own, under the same number. */
int fl_fd_set_renew(FlFdSet *set);

/* An empty set, under the same number, in place of this one, which stays where
   that fails. */
int fl_fd_set_replace(FlFdSet *set);

/* Register a descriptor, to fire once.  -EEXIST: its number and file are
   registered. */
int fl_fd_set_add(FlFdSet *set, int fd, int wanted, uint64_t tag);

/* Change and arm a registration; what is ready already fires.  -ENOENT: the
   file that has this number now is not registered. */
int fl_fd_set_change(FlFdSet *set, int fd, int wanted, uint64_t tag);

/* The same, and it stays armed: level-triggered.  -ENOTSUP where there is no
   epoll. */
int fl_fd_set_change_level(FlFdSet *set, int fd, int wanted, uint64_t tag);

/* Register a descriptor, or change its registration, so that it fires for both
   kinds whenever something new happens, and stays armed.  What is ready
   already fires.  -ENOTSUP where there is no epoll. */
int fl_fd_set_keep(FlFdSet *set, int fd, uint64_t tag);

/* End a registration; nothing happens where there is none. */
void fl_fd_set_remove(FlFdSet *set, int fd);

/* Take events that wait, into an array of FL_FD_SET_EVENTS: how many.  Does
   not block. */
int fl_fd_set_take(FlFdSet *set, FlFdEvent *events);

#endif
