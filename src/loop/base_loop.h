/* _core.BaseLoop: the type, its creation, closing and garbage collection.

   BaseLoop owns everything that runs per callback, and closing it releases
   that.  fastloop.Loop, in Python, is the subclass that applications use. */
#ifndef FL_LOOP_BASE_LOOP_H
#define FL_LOOP_BASE_LOOP_H

#include "py/compat.h"
#include "py/state.h"

/* Create the type and add it to the module and the state.  0, or -1 with an
   exception set. */
int fl_loop_register(PyObject *module, FlState *state);

#endif
