/* _core.NativeReader: asyncio.StreamReader with its state in C.

   fastloop.streams.StreamReader adds the methods.  Its attributes are
   asyncio's, by name: to read or set one is to read or set the state, and
   what the state cannot take, or __dict__, gives the reader back first.  An
   instance without a state keeps them in its __dict__ and runs asyncio's
   code. */
#ifndef FL_STREAMS_READER_TYPE_H
#define FL_STREAMS_READER_TYPE_H

#include "py/state.h"

int fl_reader_type_register(PyObject *module, FlState *state);

#endif
