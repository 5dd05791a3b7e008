/* What a program has put in the place of methods of ours, or of asyncio's. */
#include "core/overrides.h"

#include "core/loop.h"
#include "py/compat.h"
#include "py/state.h"

/* Whether a class has a method of the program's; 1, 0 or -1. */
static int
is_replaced(const FlState *state, PyTypeObject *type, PyObject *name)
{
    PyObject *ours = PyObject_GetAttr((PyObject *)state->loop_type, name);
    PyObject *method =
        ours == NULL ? NULL : PyObject_GetAttr((PyObject *)type, name);
    Py_XDECREF(method);
    Py_XDECREF(ours);
    return method == NULL ? -1 : method != ours;
}

int
fl_overrides_note_class(FlLoop *loop)
{
    const FlState *state = loop->state;
    PyTypeObject *type = Py_TYPE(loop);
    int time = is_replaced(state, type, state->names.time);
    int call_soon =
        time < 0 ? -1 : is_replaced(state, type, state->names.call_soon);
    loop->class_has_time = time > 0;
    loop->class_has_call_soon = call_soon > 0;
    return call_soon < 0 ? -1 : 0;
}

int
fl_overrides_begin_run(FlLoop *loop)
{
    const FlState *state = loop->state;
    PyObject *run = PyObject_GetAttr(state->asyncio_handle, state->names._run);
    if (run == NULL) {
        return -1;
    }
    /* CPython's is a function of asyncio.events, and of no other module. */
    if (PyFunction_Check(run)
        && PyFunction_GetGlobals(run) == state->asyncio_events)
    {
        Py_CLEAR(run);
    }
    Py_XSETREF(loop->patched_run, run);
    return fl_overrides_note_class(loop);
}

bool
fl_overrides_on_object(FlLoop *loop, PyObject *name)
{
    int found = PyDict_Contains(loop->dict, name);
    if (found < 0) {
        /* A key that cannot be compared: asyncio's look-up would fail too,
           and the method's call will say so. */
        PyErr_Clear();
    }
    return found != 0;
}
