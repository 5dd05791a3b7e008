/* Reading: from a readable descriptor to data_received or buffer_updated.

   Rejected: libuv's uv_read_start.  Its alloc callback must not stop the
   stream, and a protocol's get_buffer may. */
#ifndef FL_TRANSPORT_STREAM_READ_H
#define FL_TRANSPORT_STREAM_READ_H

#include "transport/stream.h"

/* The descriptor is readable: read, deliver.  0, or -1 to leave the loop. */
int fl_stream_read_ready(FlStream *self);

#endif
