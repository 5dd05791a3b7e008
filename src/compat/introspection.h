/* Views of the loop's private state, which applications read by asyncio's
   names: _ready, _scheduled, and the map of _selector.

   Each view is a copy, made when it is requested.  fastloop.Loop (loop.py) and
   _selector.py return them under those names. */
#ifndef FL_COMPAT_INTROSPECTION_H
#define FL_COMPAT_INTROSPECTION_H

#include "py/compat.h"

/* Add the functions to the module.  0, or -1 with an exception set. */
int fl_introspection_register(PyObject *module);

#endif
