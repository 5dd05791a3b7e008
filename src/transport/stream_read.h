/* Reading: from a readable descriptor to data_received or buffer_updated.

   Rejected: libuv's uv_read_start.  Its alloc callback must not stop the
   stream, and a protocol's get_buffer may. */
#ifndef FL_TRANSPORT_STREAM_READ_H
#define FL_TRANSPORT_STREAM_READ_H

#include "transport/stream.h"

/* The descriptor is readable: read, deliver.  0, or -1 to leave the loop. */
int fl_stream_read_ready(FlStream *self);

/* Read at once what an event has left in the socket because its receiver said
   that it had enough: so many bytes at most, and no more in all than the event
   would have read.  How many came; 0: none now, wait for the receiver to be
   called; -1 with an exception set.  Loop's thread, outside the receiver. */
Py_ssize_t fl_stream_pull(FlStream *self, char *memory, size_t size_bytes);

#endif
