/* The types Handle and TimerHandle: their attributes and methods.

   The attributes are asyncio's slots as getters and setters.  Setting one
   takes effect, as in asyncio: a waiting handle runs with the callback,
   arguments and context that were set last.

   Threads: as in handle.h. */
#ifndef FL_CORE_HANDLE_TYPE_H
#define FL_CORE_HANDLE_TYPE_H

#include "py/state.h"

/* Create the two types and add them to the module.  0, or -1; ImportError
   where asyncio's classes are not laid out as the structs of handle.h. */
int fl_handle_register(PyObject *module, FlState *state);

#endif
