/* Debug mode: the checks and the stacks that it adds to scheduling.

   The checks call asyncio's own methods, so their messages are asyncio's.
   Nothing here runs outside debug mode. */
#ifndef FL_CORE_DEBUG_H
#define FL_CORE_DEBUG_H

#include "core/handle.h"
#include "core/loop.h"
#include "py/compat.h"

/* For debug mode: put the stack of the calling Python code in *stack, or NULL
   when that fails.  A raised exception stays. */
void fl_debug_note_stack(FlLoop *loop, PyObject **stack);

/* What asyncio checks in debug mode before it schedules, and the
   stack of the caller for the handle.  0 or -1. */
int fl_debug_check(FlLoop *loop, PyObject *callback, const char *method,
                   bool check_thread);
int fl_debug_note_source(FlLoop *loop, FlHandle *handle);

#endif
