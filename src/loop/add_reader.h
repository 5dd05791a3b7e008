/* _add_reader, _add_writer, _remove_reader and _remove_writer.

   Threads: any (user_fd.h).  Failures: NULL with an exception set. */
#ifndef FL_LOOP_ADD_READER_H
#define FL_LOOP_ADD_READER_H

#include "loop/methods.h"

/* The fd of an int or of an object with fileno().  -1 with an exception set:
   ValueError or OverflowError, as selectors raises them, or what fileno()
   raised. */
int fl_fd_of(FlLoop *loop, PyObject *object);

FL_FAST_KW(fl_loop_add_reader);
FL_FAST_KW(fl_loop_add_writer);
FL_ONE(fl_loop_remove_reader);
FL_ONE(fl_loop_remove_writer);
FL_ONE(fl_loop_ensure_no_transport);

#endif
