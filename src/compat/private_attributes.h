/* Private attributes of asyncio's transports, for programs that read them.

   Libraries read the protocol and the socket, tests how much waits.  The
   attributes are added to the types from here, so that no transport code
   depends on them. */
#ifndef FL_COMPAT_PRIVATE_ATTRIBUTES_H
#define FL_COMPAT_PRIVATE_ATTRIBUTES_H

#include "py/state.h"

/* Add them to the transport types.  0 or -1. */
int fl_private_attributes_register(FlState *state);

#endif
