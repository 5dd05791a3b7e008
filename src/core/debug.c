/* Debug mode: see debug.h. */
#include "core/debug.h"

#include "core/handle.h"
#include "core/loop.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"

int
fl_debug_check(FlLoop *loop, PyObject *callback, const char *method,
               bool check_thread)
{
    PyObject *object = (PyObject *)loop;
    if (check_thread
        && fl_call_method(object, loop->state->names._check_thread, NULL) < 0)
    {
        return -1;
    }
    /* Not interned: debug mode is slow anyway. */
    PyObject *name = PyUnicode_FromString(method);
    int code = name == NULL ? -1
                            : fl_call_done(PyObject_CallMethodObjArgs(
                                object, loop->state->names._check_callback,
                                callback, name, NULL));
    Py_XDECREF(name);
    return code;
}

/* Replaces a stack that the handle may have.  Without a frame extract_stack()
   begins with its caller's; C functions have none, so that is the Python code
   which called fastloop. */
int
fl_debug_note_source(FlLoop *loop, FlHandle *handle)
{
    PyObject *stack = PyObject_CallNoArgs(loop->state->extract_stack);
    if (stack == NULL) {
        return -1;
    }
    Py_XSETREF(handle->source_traceback, stack);
    return 0;
}
