/* What the methods of fastloop.streams.StreamReader call: take what is there,
   or wait for it.

   Each function here does one step of a method of asyncio's and answers with
   bytes, or with a future to wait for before the next step, or with None for
   a reader that is no native one (any more).  The coroutines themselves are
   Python: real ones, for inspect, for warnings and for tracebacks, and they
   measured as well as awaitables in C.  The methods that do not wait are
   Python as well: a profiler binds a method of a C type once more after its
   call, and the reader may have another class by then. */
#ifndef FL_STREAMS_READER_CALLS_H
#define FL_STREAMS_READER_CALLS_H

#include "py/state.h"

int fl_reader_calls_register(PyObject *module, FlState *state);

#endif
