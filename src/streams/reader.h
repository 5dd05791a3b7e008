/* asyncio.StreamReader objects whose bytes C appends and takes.

   All that a reader knows is in its __dict__, under asyncio's names and as
   asyncio keeps it.  So asyncio's own methods, an application that uses
   _buffer or _waiter, and this file may all work on one reader at any time.

   Upgrade.  When a connection of an exact asyncio.StreamReaderProtocol is
   made, its exact asyncio.StreamReader gets the class
   fastloop.streams.StreamReader, a subclass whose methods call C.

   In.  A stream whose protocol is an exact asyncio.StreamReaderProtocol calls
   functions of ours instead of the protocol's methods
   (transport/native_protocol.h).  They append to the _buffer without a Python
   frame; after a large read the kernel writes there.

   Out.  Two functions, _take and _take_until, make the steps of asyncio's four
   methods that may wait.  A step returns bytes, or a future to await before
   the next step, or None if asyncio's method must go on: at the end, to raise
   an exception, or if C may not do its work.  The coroutines are Python
   (fastloop/streams.py): real coroutines, which inspect, warnings and
   tracebacks know.  They measured as fast as awaitables in C.  The methods
   that do not wait are asyncio's own.

   Threads: the loop's thread, with the GIL.  Without a GIL no reader is
   upgraded, because to change an object's class stops all threads.

   Rejected: bytes in a store of ours, from which a large read is returned
   without a copy.  Attributes must then be descriptors, and the reader must
   become asyncio's when an application looks. */
#ifndef FL_STREAMS_READER_H
#define FL_STREAMS_READER_H

#include "py/state.h"

/* Add the functions to the module, and register the native protocol, unless
   asyncio's method is already replaced.  0 or -1. */
int fl_reader_register(PyObject *module, FlState *state);

#endif
