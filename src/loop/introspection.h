/* What is registered in the loop, for _loop/_selector.py: applications read
   asyncio's private _selector. */
#ifndef FL_LOOP_INTROSPECTION_H
#define FL_LOOP_INTROSPECTION_H

#include "loop/methods.h"

FL_NOARGS(fl_loop_fd_users);

#endif
