/* Copies of what waits in the loop, for _loop/_selector.py: applications
   read asyncio's private _ready and _selector. */
#ifndef FL_LOOP_INTROSPECTION_H
#define FL_LOOP_INTROSPECTION_H

#include "loop/methods.h"

FL_NOARGS(fl_loop_ready_handles);
FL_NOARGS(fl_loop_fd_users);

#endif
