/* What debug mode adds when something is scheduled.

   The checks are asyncio's own methods, so their messages are too; none of
   this runs otherwise. */
#include "core/debug.h"

#include "core/handle.h"
#include "core/loop.h"
#include "py/compat.h"
#include "py/state.h"

static int
call_check(FlLoop *loop, PyObject *method, PyObject *first, PyObject *second)
{
    PyObject *result = PyObject_CallMethodObjArgs((PyObject *)loop, method,
                                                  first, second, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_debug_check(FlLoop *loop, PyObject *callback, const char *method,
               bool check_thread)
{
    FlState *state = loop->state;
    if (check_thread
        && call_check(loop, state->names._check_thread, NULL, NULL) < 0)
    {
        return -1;
    }
    PyObject *name = PyUnicode_FromString(method);
    if (name == NULL) {
        return -1;
    }
    int code = call_check(loop, state->names._check_callback, callback, name);
    Py_DECREF(name);
    return code;
}

int
fl_debug_note_source(FlLoop *loop, FlHandle *handle)
{
    /* Without a frame it begins at its caller's: C has none, so that is the
       Python code which called us. */
    PyObject *stack = PyObject_CallNoArgs(loop->state->extract_stack);
    if (stack == NULL) {
        return -1;
    }
    Py_XSETREF(handle->source_traceback, stack);
    return 0;
}

void
fl_debug_note_stack(FlLoop *loop, PyObject **stack)
{
    PyObject *exc = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
    Py_XSETREF(*stack, PyObject_CallNoArgs(loop->state->extract_stack));
    if (*stack == NULL) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}
