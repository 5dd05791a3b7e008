/* Reading: from a readable fd to data_received, buffer_updated or a
   native protocol.

   Loop's thread only.

   Rejected: libuv's uv_read_start.  Its alloc callback must not stop the
   stream, and a protocol's get_buffer may. */
#ifndef FL_TRANSPORT_STREAM_READ_H
#define FL_TRANSPORT_STREAM_READ_H

#include "transport/stream.h"

/* FlStream.run_events of stream sockets. */
int fl_stream_run_events(FlStream *self, int events);

#endif
