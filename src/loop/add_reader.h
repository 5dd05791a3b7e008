/* add_reader, add_writer, remove_reader and remove_writer.

   Threads: any (user_fd.h).  Failures: NULL with an exception set. */
#ifndef FL_LOOP_ADD_READER_H
#define FL_LOOP_ADD_READER_H

#include "loop/methods.h"

/* The fd of an int or of an object with fileno().  -1 with an exception set:
   ValueError or OverflowError, as selectors raises them, or what fileno()
   raised. */
int fl_fd_of(FlLoop *loop, PyObject *object);

/* Those named _unchecked have asyncio's private names, such as
   _add_reader: they do not look for asyncio's own transports, which call them
   for their fds. */
FL_FAST_KW(fl_loop_add_reader);
FL_FAST_KW(fl_loop_add_writer);
FL_FAST_KW(fl_loop_remove_reader);
FL_FAST_KW(fl_loop_remove_writer);
FL_FAST_KW(fl_loop_add_reader_unchecked);
FL_FAST_KW(fl_loop_add_writer_unchecked);
FL_FAST_KW(fl_loop_remove_reader_unchecked);
FL_FAST_KW(fl_loop_remove_writer_unchecked);
FL_FAST_KW(fl_loop_ensure_no_transport);

#endif
