/* The attributes of handles.

   1. A handle is filled before one of its slots is read or set.  Otherwise the
      entry would run its own callback and ignore the new value.  Any object
      may be set: run_handle in dispatch.c checks the types of args and
      context when the handle runs.
   2. A replaced value is released last, outside of the critical section: its
      destructor may run Python, which must find the new value in place. */
#include "core/handle_attributes.h"

#include "core/loop.h"
#include "py/compat.h"
#include "py/field.h"

/* --- slots --------------------------------------------------------------- */

/* A timer is always filled.  0, or -1 with MemoryError. */
static int
ensure_filled(FlHandle *self)
{
    return Py_TYPE(self) == FL_LOOP(self->loop)->state->handle_type
               ? fl_handle_fill(self)
               : 0;
}

/* `closure` is the slot's offset.  A slot that is NULL, as after cancel(),
   reads as None. */
static PyObject *
get_slot(FlHandle *self, void *closure)
{
    return ensure_filled(self) < 0
               ? NULL
               : fl_field_attribute((PyObject *)self, closure);
}

static int
set_slot(FlHandle *self, PyObject *value, void *closure)
{
    if (value == NULL) { /* it could not be run or reported */
        PyErr_SetString(PyExc_AttributeError,
                        "a handle's attribute cannot be deleted");
        return -1;
    }
    if (ensure_filled(self) < 0) {
        return -1;
    }
    fl_field_set(self, (PyObject **)((char *)self + (size_t)closure), value);
    return 0;
}

static PyObject *
get_cancelled(FlHandle *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(fl_handle_is_cancelled(self));
}

/* The value's truth is stored: the loop compares with True.  The handle is
   filled, so that its entry owns it and sees the value although the
   application has dropped the handle. */
static int
set_cancelled(FlHandle *self, PyObject *value, void *closure)
{
    int cancelled = value == NULL ? 0 : PyObject_IsTrue(value);
    PyObject *truth = cancelled ? Py_True : Py_False;
    return cancelled < 0
               ? -1
               : set_slot(self, value == NULL ? NULL : truth, closure);
}

/* --- timers -------------------------------------------------------------- */

/* call_at keeps the caller's object, of whatever class, so that when() returns
   it; call_later's float is made when it is read. */
static PyObject *
get_when(FlTimerHandle *self, void *Py_UNUSED(closure))
{
    return self->when == NULL ? PyFloat_FromDouble(self->when_seconds)
                              : Py_NewRef(self->when);
}

static PyObject *
get_scheduled(FlTimerHandle *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->node.place != 0);
}

/* --- tables -------------------------------------------------------------- */

#define SLOT(name)                                           \
    {                                                        \
        "_" #name, (getter)get_slot, (setter)set_slot, NULL, \
            (void *)offsetof(FlHandle, name)                 \
    }
/* The attributes that both types have.  _loop, _when and _scheduled are
   read-only, unlike asyncio's slots: the handle's memory and its place belong
   to this loop. */
#define HANDLE_SLOTS                                                      \
    SLOT(callback), SLOT(args), SLOT(context), SLOT(source_traceback),    \
        SLOT(repr),                                                       \
        {"_loop", fl_field_attribute, NULL, NULL,                         \
         (void *)offsetof(FlHandle, loop)},                               \
    {                                                                     \
        "_cancelled", (getter)get_cancelled, (setter)set_cancelled, NULL, \
            (void *)offsetof(FlHandle, cancelled)                         \
    }

PyGetSetDef fl_handle_getset[] = {
    HANDLE_SLOTS,
    {NULL, NULL, NULL, NULL, NULL},
};

PyGetSetDef fl_timer_getset[] = {
    HANDLE_SLOTS,
    {"_when", (getter)get_when, NULL, NULL, NULL},
    {"_scheduled", (getter)get_scheduled, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
