/* create_future and create_task.

   Futures and tasks are asyncio's own C types, so tools that know those work.
   Rejected: types of our own, which such tools would not know.

   Threads: as in asyncio, the loop's thread.  A result is a new reference, or
   NULL with an exception set. */
#ifndef FL_LOOP_TASKS_H
#define FL_LOOP_TASKS_H

#include "core/loop.h"
#include "loop/methods.h"

/* Whether asyncio.tasks.Task and asyncio.futures.Future are still the types
   that we imported: 1 or 0, or -1 with an exception set. */
int fl_tasks_are_plain(const FlLoop *loop);

FL_NOARGS(fl_loop_create_future);
FL_FAST_KW(fl_loop_create_task);

#endif
