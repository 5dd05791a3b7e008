/* call_soon, call_soon_threadsafe, call_later, call_at, time.

   Each function implements the method of its name; the docstring beside it
   states arguments, result and errors.

   Threads: any thread may call call_soon_threadsafe and time.  The others are
   for the loop's thread, as in asyncio.  Without a GIL their calls in another
   thread go through the thread queue. */
#ifndef FL_LOOP_SCHEDULING_H
#define FL_LOOP_SCHEDULING_H

#include "loop/methods.h"

FL_FAST_KW(fl_loop_call_soon);
FL_FAST_KW(fl_loop_call_soon_threadsafe);
FL_FAST_KW(fl_loop_call_later);
FL_FAST_KW(fl_loop_call_at);
FL_NOARGS(fl_loop_time);

#endif
