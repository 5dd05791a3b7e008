/* add_reader, add_writer and their kin: descriptors of the program.

   The table of descriptors also records which transport uses a number.  A
   number is not a descriptor: the program may close it, and the system may
   give it to another, while a watcher stands. */
#ifndef FL_LOOP_FD_WATCHER_H
#define FL_LOOP_FD_WATCHER_H

#include "core/loop.h"
#include "loop/methods.h"
#include "py/compat.h"

/* Forget a watcher the program left on a number that is ours now. */
void fl_fd_watcher_evict(FlLoop *loop, int fd);
void fl_fd_watcher_close_all(FlLoop *loop);

/* Say that an open transport of ours uses a number (borrowed), and that it
   does no more.  acquire takes it from whoever had it before, for the
   system gives a number to one at a time: 0, or -1 with MemoryError or
   OSError. */
int fl_fd_acquire(FlLoop *loop, int fd, FlOwned *transport);
void fl_fd_release(FlLoop *loop, int fd, FlOwned *transport);

/* The number of a descriptor (a number or an object with fileno()), or -1
   with ValueError or OverflowError set, as selectors raises them. */
int fl_fd_number(FlLoop *loop, PyObject *object);

/* RuntimeError if a transport of this loop uses a descriptor (a number or an
   object with fileno()), ValueError for what is no descriptor.  0 or -1. */
int fl_fd_check(FlLoop *loop, PyObject *object);

/* The transport that uses a number, borrowed, or NULL. */
PyObject *fl_fd_transport(FlLoop *loop, int fd);
int fl_fd_watcher_traverse(FlLoop *loop, visitproc visit, void *arg);

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
