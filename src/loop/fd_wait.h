/* Waits of sock_recv and the like: waiting for a user-owned socket repeatedly,
   without a system call each time.

   This uses a persistent registration (core/registration.h), which belongs to
   one socket object.  The FlUserFd refers to that object (socket_ref), because
   the fd alone may refer to another file by now.  The call waits in the same
   slots as the handles of add_reader and add_writer.  A later call or handle
   replaces it there, and a registration that a handle waits with is no longer
   persistent.

   Rejected: persistent registrations without a GIL.  The thread that clears
   `ready` must be the thread that processes its events.

   Threads: any, while it holds the GIL.  Ownership: the slot owns the waiting
   call.  Errors are -1 with an exception set. */
#ifndef FL_LOOP_FD_WAIT_H
#define FL_LOOP_FD_WAIT_H

#include "core/loop.h"
#include "core/registration.h"
#include "py/compat.h"

/* The persistent registration of this socket under this fd, borrowed, or
   NULL. */
FlRegistration *fl_fd_persistent_registration(const FlLoop *loop, int fd,
                                              PyObject *sock);

/* Call `call` (a SocketCall) when the socket, whose fd this is, is ready for
   `event`.  Returns 1; 0 if a handle waits for this fd, so that the
   registration cannot be persistent; or -1 with MemoryError or OSError.
   fl_fd_remove ends the wait. */
int fl_fd_wait(FlLoop *loop, int fd, PyObject *sock, int event,
               PyObject *call);

#endif
