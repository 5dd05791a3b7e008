/* Waiting for a socket of the program's, time and again, without asking the
   system each time: what sock_recv and its kin wait by.

   The watch is kept (core/registration.h) for one socket object: a number and the
   object that has it, for the number alone may be another's by now.  The slots
   are add_reader's: who comes later takes the place, and a watch that a handle
   waits by is kept no more.

   Rejected: to keep a watch where there is no GIL, for whoever clears `ready`
   must be the thread that notes it.

   With the GIL; errors are -1 with an exception set. */
#ifndef FL_LOOP_FD_WAIT_H
#define FL_LOOP_FD_WAIT_H

#include "core/loop.h"
#include "core/registration.h"
#include "py/compat.h"

/* The watch that is kept for a socket under this number, or NULL. */
FlRegistration *fl_fd_persistent(const FlLoop *loop, int fd, PyObject *sock);

/* Have a call run when the socket, which has this number, is ready; it is not
   now.  1; or 0 where its watch cannot be kept, for a handle waits by it. */
int fl_fd_wait(FlLoop *loop, int fd, PyObject *sock, int event,
               PyObject *call);

/* Have it run no more.  Does nothing where another took its place. */
void fl_fd_stop_waiting(FlLoop *loop, int fd, int event, PyObject *call);

#endif
