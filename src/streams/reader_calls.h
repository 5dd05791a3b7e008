/* The functions of fastloop._core that fastloop.streams.StreamReader calls.

   Each of asyncio's methods that may wait has a function here that does one
   step: it returns bytes, or a future to await before the next step, or None
   if asyncio's method must go on.  That method does so because the reader is a
   plain one by now, or because it raises an exception.  The coroutines are
   Python (fastloop/streams.py): real coroutines, which inspect, warnings and
   tracebacks know.  They measured as fast as awaitables in C.

   The methods that do not wait are asyncio's own.

   Threads: the loop's thread, with the GIL. */
#ifndef FL_STREAMS_READER_CALLS_H
#define FL_STREAMS_READER_CALLS_H

#include "py/state.h"

/* Add the functions to the module.  0 or -1. */
int fl_reader_calls_register(PyObject *module);

#endif
