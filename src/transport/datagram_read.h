/* Receiving datagrams: several with one system call, delivered one by one.

   Owner: the transport owns received datagrams until they are delivered.  If
   the protocol pauses reading, the rest is delivered after it resumes.
   Threads: the loop's thread only.
   Errors: 0, or -1 with an exception set, as stated for each function. */
#ifndef FL_TRANSPORT_DATAGRAM_READ_H
#define FL_TRANSPORT_DATAGRAM_READ_H

#include "transport/datagram.h"

/* The descriptor is readable: receive and deliver.  The caller owns a
   reference to the transport.  0, or -1 if an exception ends
   the run. */
int fl_datagram_read_ready(FlDatagram *self);

/* Queue the delivery of the datagrams received so far for the next iteration.
   0, or -1 with MemoryError set. */
int fl_datagram_deliver_later(FlDatagram *self);

/* Drop the datagrams that were received but not delivered. */
void fl_datagram_drop_received(FlDatagram *self);

#endif
