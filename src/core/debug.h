/* Debug mode: the checks and the stack traces that it adds to scheduling.

   The checks are asyncio's own methods, so their messages are asyncio's too.
   Callers use this only in debug mode.  Everything here runs Python. */
#ifndef FL_CORE_DEBUG_H
#define FL_CORE_DEBUG_H

#include "core/handle.h"
#include "core/loop.h"
#include "py/compat.h"

/* asyncio's checks before it schedules a callback: that it is callable and no
   coroutine, and, if check_thread, that this is the loop's thread.  `method`
   is the method's name, for the messages.  0, or -1 with an exception set. */
int fl_debug_check(FlLoop *loop, PyObject *callback, const char *method,
                   bool check_thread);

/* Store the caller's stack as the handle's source_traceback.  0, or -1 with an
   exception set. */
int fl_debug_note_source(FlLoop *loop, FlHandle *handle);

#endif
