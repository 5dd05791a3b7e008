/* The receiver of asyncio.StreamReaderProtocol: from the socket to the reader.

   Bytes go into the state of the protocol's reader, which is adopted when the
   connection is made, and then only: a reader that was given back stays so.  A
   protocol or a reader with methods of a program's own gets its data_received
   called. */
#ifndef FL_STREAMS_READER_PROTOCOL_H
#define FL_STREAMS_READER_PROTOCOL_H

#include "py/compat.h"
#include "py/state.h"

int fl_reader_protocol_register(FlState *state);

#endif
