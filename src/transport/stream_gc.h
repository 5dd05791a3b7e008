/* The slots of a stream's type that the collector calls, for streams and for
   datagram transports.

   Threads: any, as the collector runs in any. */
#ifndef FL_TRANSPORT_STREAM_GC_H
#define FL_TRANSPORT_STREAM_GC_H

#include "transport/stream.h"

/* Whether the loop waits for nothing of it: FlOwnedKind. */
bool fl_stream_owns_itself(const FlOwned *owned);

int fl_stream_traverse(FlStream *self, visitproc visit, void *arg);
int fl_stream_clear(FlStream *self);
void fl_stream_finalize(FlStream *self);
void fl_stream_dealloc(FlStream *self);

#endif
