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
    const FlNames *names = &loop->state->names;
    const struct {
        uint8_t bit;
        PyObject *name;
    } methods[] = {
        {FL_OVERRIDES_TIME, names->time},
        {FL_OVERRIDES_CALL_SOON, names->call_soon},
        {FL_OVERRIDES_CALL_AT, names->call_at},
        {FL_OVERRIDES_CALL_SOON_THREADSAFE, names->call_soon_threadsafe},
    };
    uint8_t found = 0;
    for (size_t at = 0; at < sizeof(methods) / sizeof(methods[0]); at++) {
        int replaced =
            is_replaced(loop->state, Py_TYPE(loop), methods[at].name);
        if (replaced < 0) {
            return -1;
        }
        found |= replaced ? methods[at].bit : 0;
    }
    loop->class_overrides = found;
    return 0;
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

/* The methods are those that the class inherits from its base, in C. */
static bool
socket_is_plain(const FlState *state)
{
    const FlNames *names = &state->names;
    PyObject *methods[] = {names->recv,  names->recv_into, names->recvfrom,
                           names->send,  names->sendmsg,   names->sendto,
                           names->fileno};
    PyObject *base = (PyObject *)((PyTypeObject *)state->socket_type)->tp_base;
    for (size_t at = 0; at < sizeof(methods) / sizeof(methods[0]); at++) {
        PyObject *found = PyObject_GetAttr(state->socket_type, methods[at]);
        PyObject *systems =
            found == NULL ? NULL : PyObject_GetAttr(base, methods[at]);
        Py_XDECREF(found);
        Py_XDECREF(systems);
        if (systems == NULL) {
            PyErr_Clear(); /* the socket object's call will say so */
            return false;
        }
        if (found != systems) {
            return false;
        }
    }
    return true;
}

bool
fl_overrides_note_socket(FlState *state)
{
    FlSeenClass *seen = &state->socket_seen;
    bool plain = socket_is_plain(state);
    seen->is_plain = plain;
    /* The look-ups have given the class a version, unless it has had so many
       that it gets none: then it is looked at each time. */
    seen->version = fl_type_version((PyTypeObject *)state->socket_type);
    return !plain;
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
