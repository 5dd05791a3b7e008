/* Receiving datagrams: several with one system call, delivered one by one.

   What a protocol that pauses has not seen stays with the transport. */
#ifndef FL_TRANSPORT_DATAGRAM_READ_H
#define FL_TRANSPORT_DATAGRAM_READ_H

#include "transport/datagram.h"

/* The descriptor is readable.  0, or -1 to leave the loop. */
int fl_datagram_read_ready(FlDatagram *self);

/* Deliver, in a turn to come, what was read and not delivered.  0 or -1. */
int fl_datagram_deliver_later(FlDatagram *self);

/* Forget what was read and not delivered. */
void fl_datagram_drop_received(FlDatagram *self);

#endif
