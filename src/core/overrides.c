/* Methods that the application has replaced: see overrides.h.

   1. Methods are compared by identity.  A lookup on a class returns the
      function or descriptor itself, not a new bound method, so an unchanged
      method is the same object each time.
   2. If a check fails, the answer is "replaced".  The slow path then makes the
      same lookup, and raises the error where asyncio would. */
#include "core/overrides.h"

#include "core/loop.h"
#include "py/compat.h"
#include "py/state.h"

/* Whether a class has another method than BaseLoop.  1 or 0, or -1 with an
   exception set. */
static int
is_replaced(const FlState *state, PyTypeObject *type, PyObject *name)
{
    PyObject *ours = PyObject_GetAttr((PyObject *)state->loop_type, name);
    PyObject *method =
        ours == NULL ? NULL : PyObject_GetAttr((PyObject *)type, name);
    /* The classes still own both, and only the pointers are compared. */
    Py_XDECREF(method);
    Py_XDECREF(ours);
    return method == NULL ? -1 : method != ours;
}

/* The result is stored only if all lookups succeed. */
int
fl_overrides_check_class(FlLoop *loop)
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
    /* CPython's own _run is a Python function whose globals are those of
       asyncio.events.  A replacement's globals are another module's. */
    if (PyFunction_Check(run)
        && PyFunction_GetGlobals(run) == state->asyncio_events)
    {
        Py_CLEAR(run);
    }
    /* NULL if _run is CPython's: a run reads this once per handle. */
    Py_XSETREF(loop->patched_run, run);
    return fl_overrides_check_class(loop);
}

/* Whether socket.socket has the methods of its base class _socket.socket. */
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
        PyObject *inherited =
            found == NULL ? NULL : PyObject_GetAttr(base, methods[at]);
        /* As in is_replaced, only the pointers are compared below. */
        Py_XDECREF(found);
        Py_XDECREF(inherited);
        if (inherited == NULL) {
            PyErr_Clear(); /* invariant 2 */
            return false;
        }
        if (found != inherited) {
            return false;
        }
    }
    return true;
}

bool
fl_overrides_check_socket(FlState *state)
{
    FlSeenClass *seen = &state->socket_seen;
    bool plain = socket_is_plain(state);
    seen->is_plain = plain;
    /* The version is read after the lookups, because a lookup assigns one to a
       class that has none.  A class that was changed very often gets none any
       more: its version stays 0, and each call checks it again. */
    seen->version = fl_type_version((PyTypeObject *)state->socket_type);
    return !plain;
}

bool
fl_overrides_in_dict(FlLoop *loop, PyObject *name)
{
    int found = PyDict_Contains(loop->dict, name);
    if (found < 0) {
        /* A key of the dict cannot be compared: invariant 2. */
        PyErr_Clear();
    }
    return found != 0;
}
