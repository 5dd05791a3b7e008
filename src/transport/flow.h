/* Flow control: pause_writing and resume_writing at the water marks.

   Both calls run the protocol's code, which may close or abort the stream or
   write to it.  The caller checks the stream's phase again afterwards.

   Threads: as in stream.h. */
#ifndef FL_TRANSPORT_FLOW_H
#define FL_TRANSPORT_FLOW_H

#include "transport/stream.h"

/* With `pause`: call pause_writing if the queue is above the high-water mark.
   Without: call resume_writing if it is at or below the low-water mark.  The
   two calls alternate.  An exception is reported.  0, or -1 with one that
   leaves the loop. */
int fl_flow_check(FlStream *self, bool pause);

/* Call the protocol's pause_writing or resume_writing; do nothing if protocol
   is NULL.  Steals protocol.  A report of an exception names `reported` as the
   protocol, as asyncio's does; NULL: the one that the transport has after the
   call.  0, or -1 with an exception that ends the run. */
int fl_flow_call(FlTransport *self, PyObject *protocol, PyObject *reported,
                 bool pause);

#endif
