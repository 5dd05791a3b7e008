/* Methods that the application has replaced: see overrides.h.

   If a check fails, the answer is "replaced".  The slow path then makes the
   same lookup, and raises the error where asyncio would. */
#include "core/overrides.h"

#include "core/loop.h"
#include "py/compat.h"
#include "py/methods.h"
#include "py/state.h"

/* Whether a class has another method than its base.  1 or 0, or -1 with an
   exception set. */
static int
is_replaced(PyObject *base, PyObject *type, PyObject *name)
{
    PyObject *ours = PyObject_GetAttr(base, name);
    PyObject *method = ours == NULL ? NULL : PyObject_GetAttr(type, name);
    /* The classes still own both, and only the pointers are compared. */
    Py_XDECREF(method);
    Py_XDECREF(ours);
    return method == NULL ? -1 : method != ours;
}

/* The names of FlOverride. */
static const size_t methods[] = {
    [FL_OVERRIDES_TIME] = offsetof(FlNames, time),
    [FL_OVERRIDES_CALL_AT] = offsetof(FlNames, call_at),
    [FL_OVERRIDES_CALL_SOON_THREADSAFE] =
        offsetof(FlNames, call_soon_threadsafe),
};

/* The result is stored only if all lookups succeed. */
int
fl_overrides_check_class(FlLoop *loop)
{
    const FlState *state = loop->state;
    if (fl_class_has_version(Py_TYPE(loop), loop->class_version)) {
        return 0;
    }
    /* Before the lookups, which another thread's change may come between. */
    unsigned version = fl_type_version(Py_TYPE(loop));
    uint8_t found = 0;
    for (size_t at = 0; at < sizeof(methods) / sizeof(methods[0]); at++) {
        int replaced = is_replaced((PyObject *)state->loop_type,
                                   (PyObject *)Py_TYPE(loop),
                                   fl_name_at(state, methods[at]));
        if (replaced < 0) {
            return -1;
        }
        found |= (uint8_t)(replaced << at);
    }
    loop->class_overrides = found;
    loop->class_version = version;
    return 0;
}

int
fl_overrides_check(FlLoop *loop)
{
    const FlState *state = loop->state;
    /* Before the lookup, as above. */
    loop->handle_version =
        fl_type_version((PyTypeObject *)state->asyncio_handle);
    PyObject *run = PyObject_GetAttr(state->asyncio_handle, state->names._run);
    if (run == NULL) {
        return -1;
    }
    /* CPython's own _run is a Python function of asyncio.events. */
    if (fl_method_is_from(run, state->asyncio_events)) {
        Py_CLEAR(run);
    }
    /* NULL if _run is CPython's: a run reads this once per handle. */
    Py_XSETREF(loop->patched_run, run);
    return fl_overrides_check_class(loop);
}

/* Whether socket.socket has the methods of _socket.socket. */
static bool
socket_is_plain(const FlState *state)
{
    const FlNames *names = &state->names;
    /* _loop/_originals.py has the same names, for other classes. */
    PyObject *methods[] = {
        names->recv,        names->recv_into,   names->recvfrom,
        names->send,        names->sendmsg,     names->sendto,
        names->getpeername, names->getsockname, names->setsockopt,
        names->shutdown,    names->fileno,      names->connect,
    };
    for (size_t at = 0; at < sizeof(methods) / sizeof(methods[0]); at++) {
        if (is_replaced(state->system_socket_type, state->socket_type,
                        methods[at])
            != 0)
        {
            PyErr_Clear(); /* the slow path raises it again */
            return false;
        }
    }
    return true;
}

bool
fl_overrides_socket(FlState *state)
{
    return !fl_class_is_plain(state, &state->socket_seen, state->socket_type,
                              socket_is_plain);
}

bool
fl_overrides_in_dict(FlLoop *loop, FlOverride method)
{
    FlState *state = loop->state;
    PyObject *value;
    int found = PyDict_GetItemRef(loop->dict,
                                  fl_name_at(state, methods[method]), &value);
    if (found < 0) {
        /* A key of the dict cannot be compared: the slow path raises. */
        PyErr_Clear();
        return true;
    }
    /* A fake clock may stand in the place of time.monotonic, also since before
       fastloop was imported. */
    bool is_clock = method == FL_OVERRIDES_TIME && value == state->monotonic
                    && found > 0 && PyCFunction_Check(value);
    Py_XDECREF(value);
    return found > 0 && !is_clock;
}
