/* The native protocol of asyncio.StreamReaderProtocol: from socket to reader.

   A stream whose protocol is an exact StreamReaderProtocol calls the functions
   here instead of the protocol's methods (transport/native_protocol.h).  They
   put received bytes into the state of the protocol's reader without a Python
   frame.  The reader is upgraded when the connection is made, and only then:
   one that was downgraded stays plain.

   If an application replaced data_received, on the class or on the protocol,
   or if the reader is not native, they call data_received as asyncio does.

   Threads: the loop's thread, with the GIL.  Without a GIL nothing is
   registered. */
#ifndef FL_STREAMS_READER_PROTOCOL_H
#define FL_STREAMS_READER_PROTOCOL_H

#include "py/compat.h"
#include "py/state.h"

/* Register the native protocol, unless asyncio's method is already replaced.
   0 or -1. */
int fl_reader_protocol_register(FlState *state);

#endif
