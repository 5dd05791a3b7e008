/* What a program has put in the place of methods of ours, or of asyncio's. */
#include "loop/overrides.h"

#include "loop/methods.h"

/* Whether a class has a method of the program's; 1, 0 or -1. */
static int
is_replaced(PyTypeObject *type, PyObject *name, PyCFunction ours)
{
    PyObject *method = PyObject_GetAttr((PyObject *)type, name);
    if (method == NULL) {
        return -1;
    }
    bool same = Py_IS_TYPE(method, &PyMethodDescr_Type)
                && ((PyMethodDescrObject *)method)->d_method->ml_meth == ours;
    Py_DECREF(method);
    return !same;
}

int
fl_overrides_note_class(FlLoop *loop)
{
    const FlNames *names = &loop->state->names;
    PyTypeObject *type = Py_TYPE(loop);
    int time = is_replaced(type, names->time,
                           (PyCFunction)(void (*)(void))fl_loop_time);
    int call_soon =
        time < 0 ? -1
                 : is_replaced(type, names->call_soon,
                               (PyCFunction)(void (*)(void))fl_loop_call_soon);
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
