/* Contexts that wait together: see shared_context.h.

   1. The loop's copy is never entered nor shown, so its variables stay as they
      were.
   2. The loop owns it, so that its map's address is not another's meanwhile;
      to the end of the batch. */
#include "core/shared_context.h"

#include "core/loop.h"
#include "py/compat.h"

static int
note_map(PyObject *object, void *arg)
{
    *(PyObject **)arg = object;
    return 0;
}

/* What holds a context's variables: the one object that a context which was
   never entered shows to the collector. */
static PyObject *
map_of(PyObject *context)
{
    PyObject *map = NULL;
    (void)Py_TYPE(context)->tp_traverse(context, note_map, &map);
    return map;
}

void
fl_shared_context_take(FlLoop *loop, PyObject **context)
{
    PyObject *map = map_of(*context);
    if (map == loop->shared_map && map != NULL) {
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
