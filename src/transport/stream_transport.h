/* The type StreamTransport, and what it shares with the type of datagrams: the
   operations of its methods, repr().

   Threads: the loop's, or any where a GIL orders them.
   Errors: NULL or -1 with an exception set. */
#ifndef FL_TRANSPORT_STREAM_TRANSPORT_H
#define FL_TRANSPORT_STREAM_TRANSPORT_H

#include "py/state.h"
#include "transport/transport.h"

/* Of streams and datagram transports. */
extern const FlTransportOps fl_stream_ops;

/* repr() of streams and datagram transports, in asyncio's format of
   streams. */
PyObject *fl_stream_repr(FlTransport *self);

/* Add StreamTransport to the module.  0, or -1 with an exception set. */
int fl_stream_register(PyObject *module, FlState *state);

#endif
