/* The operations of streams and datagram transports, and the type
   StreamTransport: what transport.h leaves to each kind.

   Owner, threads and errors: as in transport.h. */
#ifndef FL_TRANSPORT_STREAM_TRANSPORT_H
#define FL_TRANSPORT_STREAM_TRANSPORT_H

#include "py/state.h"
#include "transport/transport.h"

/* The operations of streams, pipes and datagram transports. */
extern const FlTransportOps fl_stream_ops;

/* repr() of streams and datagram transports, in asyncio's format. */
PyObject *fl_stream_repr(FlTransport *self);

/* Add the type StreamTransport to the module.  0, or -1 with an exception
   set. */
int fl_stream_register(PyObject *module, FlState *state);

#endif
