/* Reading: from a readable fd to data_received, buffer_updated or a
   native protocol.

   Loop's thread only.

   Rejected: libuv's uv_read_start.  Its alloc callback must not stop the
   stream, and a protocol's get_buffer may. */
#ifndef FL_TRANSPORT_STREAM_READ_H
#define FL_TRANSPORT_STREAM_READ_H

#include "transport/stream.h"

/* Handle a readable event: read and deliver.  A failure ends the connection as
   asyncio's _fatal_error does.  0, or -1 to end the run. */
int fl_stream_read_ready(FlStream *self);

/* FlStreamKind.run_events of stream sockets. */
int fl_stream_run_events(FlStream *self, int events);

/* FlStreamKind.handle_eof of stream sockets. */
int fl_stream_handle_eof(FlStream *self);

#endif
