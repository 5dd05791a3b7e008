/* add_reader, add_writer and their kin: descriptors of the program.

   The table of descriptors also records which transport uses a number.  A
   number is not a descriptor: the program may close it, and the system may
   give it to another, while a watcher stands. */
#ifndef FL_LOOP_USER_FD_H
#define FL_LOOP_USER_FD_H

#include "core/loop.h"
#include "loop/methods.h"
#include "py/compat.h"

/* Forget a watcher the program left on a number that is ours now. */
void fl_user_fd_evict(FlLoop *loop, int fd);
void fl_user_fd_close_all(FlLoop *loop);

/* --- for fd_wait.c, within the loop's critical section ------------------- */

/* The watcher on a number, or NULL. */
static inline FlUserFd *
fl_user_fd_at(const FlLoop *loop, int fd)
{
    return fd < loop->fds_size ? loop->fds[fd].user_fd : NULL;
}

/* FL_READABLE | FL_WRITABLE: what somebody waits for. */
static inline int
fl_user_fd_wanted(const FlUserFd *user_fd)
{
    return (user_fd->refs.reader != NULL ? FL_READABLE : 0)
           | (user_fd->refs.writer != NULL ? FL_WRITABLE : 0);
}

static inline PyObject **
fl_user_fd_slot(FlUserFd *user_fd, int event)
{
    return event == FL_READABLE ? &user_fd->refs.reader
                                : &user_fd->refs.writer;
}

/* A watcher for a number that has none; NULL with an exception. */
FlUserFd *fl_user_fd_open(FlLoop *loop, int fd);

/* Take a watcher out and free it; its references are handed over, for dropping
   it may run anything. */
void fl_user_fd_take_out(FlLoop *loop, FlUserFd *user_fd, FlFdRefs *refs);

/* ------------------------------------------------------------------------- */

/* Say that an open transport of ours uses a number (borrowed), and that it
   does no more.  acquire takes it from whoever had it before, for the
   system gives a number to one at a time: 0, or -1 with MemoryError or
   OSError. */
int fl_fd_acquire(FlLoop *loop, int fd, FlOwned *transport);
void fl_fd_release(FlLoop *loop, int fd, FlOwned *transport);

/* The number of a descriptor (a number or an object with fileno()), or -1
   with ValueError or OverflowError set, as selectors raises them. */
int fl_fd_of(FlLoop *loop, PyObject *object);

/* RuntimeError if a transport of this loop uses a descriptor (a number or an
   object with fileno()), ValueError for what is no descriptor.  0 or -1. */
int fl_fd_check(FlLoop *loop, PyObject *object);

/* The transport that uses a number, borrowed, or NULL. */
PyObject *fl_fd_transport(FlLoop *loop, int fd);
int fl_user_fd_traverse(FlLoop *loop, visitproc visit, void *arg);

FL_FAST_KW(fl_loop_add_reader);
FL_FAST_KW(fl_loop_add_writer);
FL_FAST_KW(fl_loop_remove_reader);
FL_FAST_KW(fl_loop_remove_writer);
FL_FAST_KW(fl_loop_add_reader_raw);
FL_FAST_KW(fl_loop_add_writer_raw);
FL_FAST_KW(fl_loop_remove_reader_raw);
FL_FAST_KW(fl_loop_remove_writer_raw);
extern const char fl_loop_add_reader_doc[];
extern const char fl_loop_add_writer_doc[];
extern const char fl_loop_remove_reader_doc[];
extern const char fl_loop_remove_writer_doc[];
extern const char fl_loop_add_reader_raw_doc[];
extern const char fl_loop_add_writer_raw_doc[];
extern const char fl_loop_remove_reader_raw_doc[];
extern const char fl_loop_remove_writer_raw_doc[];

#endif
