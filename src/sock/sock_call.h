/* The functions behind loop.sock_recv() and the other sock_* methods.

   Each coroutine of _loop/sockets.py calls one function here.  It returns
   the result if the operation can be done at once.  Otherwise it returns a
   SocketCall: an object that waits for the fd, completes the operation and
   sets a future.

   Owner: the coroutine and, while it waits, the slot of the fd (user_fd.h) own
   a SocketCall.  It owns its loop, socket, arguments and future.  Threads: the
   loop's; with a GIL its close() may run in any.  Errors: those of the socket;
   they are raised, or set on the future. */
#ifndef FL_SOCK_SOCK_CALL_H
#define FL_SOCK_SOCK_CALL_H

#include "py/state.h"

/* Add the type and the functions to the module.  0, or -1 with an exception
   set. */
int fl_sock_call_register(PyObject *module, FlState *state);

#endif
