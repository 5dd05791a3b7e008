/* Private views that programs read: _ready, _scheduled, the selector's map.

   They are copies, made when somebody asks.  fastloop.Loop shows them under
   asyncio's names. */
#ifndef FL_COMPAT_INTROSPECTION_H
#define FL_COMPAT_INTROSPECTION_H

#include "py/compat.h"

/* Add the functions to the module.  0 or -1. */
int fl_introspection_register(PyObject *module);

#endif
