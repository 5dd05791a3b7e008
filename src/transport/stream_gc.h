/* GC slots of a stream: traverse, clear, finalize, dealloc.  The types of
   stream and datagram transports use them.

   Threads: any, because the GC runs in any thread. */
#ifndef FL_TRANSPORT_STREAM_GC_H
#define FL_TRANSPORT_STREAM_GC_H

#include "transport/stream.h"

/* FlOpenTransportKind.visits_own_ref: no event can come of the stream, so it
   visits the loop's reference to it as its own. */
bool fl_stream_visits_own_ref(const FlOpenTransport *owned);

int fl_stream_traverse(FlStream *self, visitproc visit, void *arg);

/* Drops only what finalized garbage no longer needs; fl_stream_dealloc drops
   the rest. */
int fl_stream_clear(FlStream *self);

/* Ends a stream that was not closed, with a ResourceWarning. */
void fl_stream_finalize(FlStream *self);

void fl_stream_dealloc(FlStream *self);

#endif
