/* Private attributes of asyncio's transports, for applications that read them.

   Libraries read the protocol and the socket, and some set the protocol or
   _extra.  The attributes are added to the types from this folder, so that no
   transport code depends on them. */
#ifndef FL_COMPAT_PRIVATE_ATTRIBUTES_H
#define FL_COMPAT_PRIVATE_ATTRIBUTES_H

#include "py/state.h"

/* Add the attributes to the types of streams and datagrams, which must
   exist.  0, or -1 with an exception set. */
int fl_private_attributes_register(FlState *state);

#endif
