/* Shared contexts: see shared_context.h.

   1. The shared copy is never entered and never exposed to the application.
      So its variables never change: a later change would show in all callbacks
      that share it.
   2. The loop owns the copy, and the copy owns its map of variables.  So while
      loop->shared_map is set, no other map can have that address, and equal
      addresses mean equal variables.
   3. The loop drops the copy at the end of each batch.  Otherwise it would
      keep the values of context variables alive without need. */
#include "core/shared_context.h"

#include "core/loop.h"
#include "py/compat.h"

/* The visitproc of map_of. */
static int
store_map(PyObject *object, void *arg)
{
    *(PyObject **)arg = object;
    return 0;
}

/* The map that holds a context's variables, borrowed.  There is no public way
   to get it, so this uses the context's tp_traverse: a context that was never
   entered references no other object. */
static PyObject *
map_of(PyObject *context)
{
    PyObject *map = NULL;
    (void)Py_TYPE(context)->tp_traverse(context, store_map, &map);
    return map;
}

void
fl_shared_context_share(FlLoop *loop, PyObject **context)
{
    PyObject *map = map_of(*context);
    if (map == loop->shared_map && map != NULL) {
        /* No variable has changed since.  The fresh copy dies young, which is
           cheap. */
        Py_SETREF(*context, Py_NewRef(loop->shared_context));
    }
    else {
        loop->shared_map = map;
        Py_XSETREF(loop->shared_context, Py_NewRef(*context));
    }
}

void
fl_shared_context_drop(FlLoop *loop)
{
    loop->shared_map = NULL;
    Py_CLEAR(loop->shared_context);
}
