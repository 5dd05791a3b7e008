/* The attributes of handles: asyncio's slots, to be read and set.

   What is set takes effect, as in asyncio: the callback, its arguments and
   the context of a handle that waits are those that it runs with, and a timer
   whose _when is set is due then.

   Threads as in handle.h; _when is the loop's thread's. */
#ifndef FL_CORE_HANDLE_ATTRIBUTES_H
#define FL_CORE_HANDLE_ATTRIBUTES_H

#include "core/handle.h"

extern PyGetSetDef fl_handle_getset[];
extern PyGetSetDef fl_timer_getset[];

/* New references, or NULL. */
PyObject *fl_timer_get_when(const FlTimerHandle *self);
PyObject *fl_timer_get_context(FlTimerHandle *self);

#endif
