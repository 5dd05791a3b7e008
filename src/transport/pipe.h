/* The types ReadPipeTransport and WritePipeTransport: asyncio's transports for
   pipes, FIFOs, terminals and sockets of which one direction is used.

   Both are FlStreams of another kind (FlStreamKind).

   Owner, threads and errors: as for streams (stream.h, transport.h). */
#ifndef FL_TRANSPORT_PIPE_H
#define FL_TRANSPORT_PIPE_H

#include "py/state.h"

/* Add both types and open_pipe to the module.  0, or -1 with an exception
   set. */
int fl_pipe_register(PyObject *module, FlState *state);

#endif
