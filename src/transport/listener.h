/* Accepting: one listener for each listening socket of a Server.

   A listener is a reader of the loop like the program's own, so remove_reader
   stops it as it stops asyncio's.  Out of descriptors it rests for a second.
   Rejected: libuv's uv_listen, which accepts one connection a turn. */
#ifndef FL_TRANSPORT_LISTENER_H
#define FL_TRANSPORT_LISTENER_H

#include "py/state.h"

/* Add the type and the functions that open transports.  0 or -1. */
int fl_listener_register(PyObject *module, FlState *state);

#endif
