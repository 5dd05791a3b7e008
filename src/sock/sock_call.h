/* sock_recv and its kin: a socket's call, made at once or when it can be.

   A coroutine of fastloop/sockets.py calls one function here.  What cannot be
   done at once waits as a SocketCall, which keeps its registration. */
#ifndef FL_SOCK_SOCK_CALL_H
#define FL_SOCK_SOCK_CALL_H

#include "py/state.h"

/* Add the type and the functions to the module.  0 or -1. */
int fl_sock_call_register(PyObject *module, FlState *state);

#endif
