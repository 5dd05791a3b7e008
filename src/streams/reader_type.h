/* _core.NativeReader: the base class of native readers, with the attributes.

   It is a subclass of asyncio.StreamReader; fastloop.streams.StreamReader, its
   subclass, adds the methods.  The attributes have asyncio's names.  Reading
   or setting one reads or sets the field of the FlReader (native_reader.h).
   If the field cannot represent the value, or the application reads __dict__
   or a _buffer that is not empty, the reader is downgraded first.

   An instance without a state, which an application may make by calling the
   class, keeps its attributes in its __dict__ and runs asyncio's code.

   Threads: the loop's thread, with the GIL.  Errors: as attribute access
   raises them. */
#ifndef FL_STREAMS_READER_TYPE_H
#define FL_STREAMS_READER_TYPE_H

#include "py/state.h"

/* Add the type to the module.  0 or -1. */
int fl_reader_type_register(PyObject *module, FlState *state);

#endif
