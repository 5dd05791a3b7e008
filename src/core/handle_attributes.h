/* The attributes of handles: asyncio's slots as getters and setters.

   Setting an attribute takes effect, as in asyncio.  A waiting handle runs
   with the callback, arguments and context that were set last.  A timer whose
   _when is set is due at that time.

   Threads: as in handle.h.  Only the loop's thread may set _when; without a
   GIL any other gets RuntimeError while the loop runs. */
#ifndef FL_CORE_HANDLE_ATTRIBUTES_H
#define FL_CORE_HANDLE_ATTRIBUTES_H

#include "core/handle.h"

extern PyGetSetDef fl_handle_getset[];
extern PyGetSetDef fl_timer_getset[];

#endif
