/* Accepting connections: one listener per listening socket of a Server.

   A listener is registered with add_reader, like a callback of the
   application, so remove_reader stops it as it stops asyncio's.  When the
   process is out of fds or memory it pauses for one second.
   Rejected: libuv's uv_listen, which accepts one connection per iteration.

   Owner: the handle of that registration owns the listener; during a pause the
   timer that will resume it does.  The Server owns the listening socket.
   Threads: the loop's thread.
   Errors: a connection that cannot be opened is reported to the exception
   handler and closed.  The listener goes on. */
#ifndef FL_TRANSPORT_LISTENER_H
#define FL_TRANSPORT_LISTENER_H

#include "py/state.h"

/* Add the type Listener and its functions to the module.  0, or -1 with an
   exception set. */
int fl_listener_register(PyObject *module, FlState *state);

#endif
