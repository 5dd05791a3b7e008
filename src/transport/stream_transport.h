/* The operations of streams and datagram transports, what the loop calls of
   them, and the type StreamTransport: what transport.h leaves to each kind.

   Owner, threads and errors: as in transport.h. */
#ifndef FL_TRANSPORT_STREAM_TRANSPORT_H
#define FL_TRANSPORT_STREAM_TRANSPORT_H

#include "py/state.h"
#include "transport/stream.h"

/* The operations of streams, pipes and datagram transports. */
extern const FlTransportOps fl_stream_ops;

/* What the loop calls of an open stream; FlOpenTransportKind states the
   contracts. */
extern const FlOpenTransportKind fl_stream_owned_kind;

/* FlStream.run_events of sockets and read pipes. */
int fl_stream_run_events(FlStream *self, int events);

/* repr() of streams and datagram transports, in asyncio's format. */
PyObject *fl_stream_repr(FlTransport *self);

/* Add the type StreamTransport to the module.  0, or -1 with an exception
   set. */
int fl_stream_register(PyObject *module, FlState *state);

#endif
