/* The number of a stream's descriptor: whether it is still the stream's.

   A program may close the socket that it gave to a transport, and the system
   may give the number to another connection.  The stream then ends with
   EBADF and touches the number no more. */
#ifndef FL_TRANSPORT_STREAM_FD_H
#define FL_TRANSPORT_STREAM_FD_H

#include "core/loop.h"
#include "transport/stream.h"

/* Before a call on the descriptor: 0, or -EBADF where the socket object that
   was given is closed, for the number may be another's by now. */
int fl_stream_query_fd(FlStream *self);

static inline int
fl_stream_check_fd(FlStream *self)
{
    return self->exposed ? fl_stream_query_fd(self) : 0;
}

/* The loop's hooks, see FlOwned. */
int fl_stream_has_fd(FlOwned *owned);
void fl_stream_invalidate_fd(FlOwned *owned);

#endif
