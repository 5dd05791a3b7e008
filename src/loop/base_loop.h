/* _core.BaseLoop: the type, its creation and its closing.

   Closing releases all that the loop owns.  fastloop.Loop, in Python,
   completes the type. */
#ifndef FL_LOOP_BASE_LOOP_H
#define FL_LOOP_BASE_LOOP_H

#include "py/compat.h"
#include "py/state.h"

int fl_loop_register(PyObject *module, FlState *state);

#endif
