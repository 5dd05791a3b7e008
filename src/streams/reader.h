/* The way of a native reader's bytes: from the socket to its store, and from
   there to the method that awaits them.

   In.  A stream whose protocol is an exact asyncio.StreamReaderProtocol calls
   functions of ours instead of the protocol's methods
   (transport/native_protocol.h).  They put received bytes into the state of
   the protocol's reader without a Python frame.  The reader is upgraded when
   the connection is made, and only then: one that was downgraded stays plain.
   If an application replaced data_received, on the class or on the protocol,
   or if the reader is not native, they call data_received as asyncio does.

   Out.  Two functions, _take and _take_until, make the steps of asyncio's four
   methods that may wait.  A step returns bytes, or a future to await before
   the next step, or None if asyncio's method must go on.  That method does so
   because the reader is a plain one by now, because it raises an exception,
   or because n is not a positive whole number.  The coroutines are Python
   (fastloop/streams.py): real coroutines, which inspect, warnings and
   tracebacks know.  They measured as fast as awaitables in C.  The methods
   that do not wait are asyncio's own.

   Threads: the loop's thread, with the GIL.  Without a GIL this folder
   registers no native protocol. */
#ifndef FL_STREAMS_READER_H
#define FL_STREAMS_READER_H

#include "py/state.h"

/* Add the functions to the module, and register the native protocol, unless
   asyncio's method is already replaced.  0 or -1. */
int fl_reader_register(PyObject *module, FlState *state);

#endif
