/* create_future and create_task.

   Futures and tasks are asyncio's own C types, so every tool that knows those
   works.  Rejected: types of our own, which such tools would not know. */
#ifndef FL_LOOP_TASKS_H
#define FL_LOOP_TASKS_H

#include "core/loop.h"
#include "loop/methods.h"

/* Whether asyncio's classes of tasks and futures are those that we know: 1 or
   0, or -1 with an exception set. */
int fl_tasks_are_plain(const FlLoop *loop);

FL_NOARGS(fl_loop_create_future);
FL_FAST_KW(fl_loop_create_task);
extern const char fl_loop_create_future_doc[];
extern const char fl_loop_create_task_doc[];

#endif
