/* The attributes of handles.

   1. A handle is filled before one of its slots is read or set.  Otherwise the
      entry would run its own callback and ignore the new value.  Any object
      may be set: run_handle in dispatch.c checks the types of args and
      context when the handle runs.
   2. A replaced value is released last, outside of the critical section: its
      destructor may run Python, which must find the new value in place. */
#include "core/handle_attributes.h"

#include "core/loop.h"
#include "core/timers.h"
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

/* Refuse `del handle._callback` and the like: a setter gets NULL for it, and a
   handle without a value could not be run or reported.  0, or -1 with
   AttributeError. */
static int
check_value(const PyObject *value)
{
    if (value != NULL) {
        return 0;
    }
    PyErr_SetString(PyExc_AttributeError,
                    "a handle's attribute cannot be deleted");
    return -1;
}

static int
set_slot(FlHandle *self, PyObject *value, void *closure)
{
    if (check_value(value) < 0 || ensure_filled(self) < 0) {
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

/* The value's truth is stored: the loop compares with True.  Deleted, it reads
   as False.  The handle is filled, so that its entry owns it and sees the
   value although the application has dropped the handle. */
static int
set_cancelled(FlHandle *self, PyObject *value, void *Py_UNUSED(closure))
{
    int cancelled = value == NULL ? 0 : PyObject_IsTrue(value);
    if (cancelled < 0 || ensure_filled(self) < 0) {
        return -1;
    }
    fl_field_set(self, (PyObject **)&self->cancelled,
                 cancelled ? Py_True : Py_False);
    return 0;
}

/* --- timers -------------------------------------------------------------- */

/* call_at keeps the caller's object, of whatever class, so that when() returns
   it; call_later's float is made when it is read. */
static PyObject *
get_when(FlTimerHandle *self, void *Py_UNUSED(closure))
{
    PyObject *when;
    double seconds;
    Py_BEGIN_CRITICAL_SECTION(self); /* fl_timer_move replaces both */
    when = Py_XNewRef(self->when);
    seconds = self->when_seconds;
    Py_END_CRITICAL_SECTION();
    return when == NULL ? PyFloat_FromDouble(seconds) : when;
}

static int
set_when(FlTimerHandle *self, PyObject *value, void *Py_UNUSED(closure))
{
    FlWhen when;
    if (check_value(value) < 0 || fl_timer_parse_when(value, &when) < 0) {
        return -1;
    }
    return fl_timer_move(FL_LOOP(self->loop), self, &when);
}

/* In asyncio the loop and the application write this slot, and the last one
   wins.  Our loop writes nothing: node.place says whether it is queued.  The
   slot is NULL unless the application set it (queue_due in iteration.c clears
   it when the timer is due). */
static PyObject *
get_scheduled(FlTimerHandle *self, void *Py_UNUSED(closure))
{
    PyObject *value = fl_field_get(self, &self->scheduled);
    return value == NULL ? PyBool_FromLong(self->node.place != 0) : value;
}

/* --- tables -------------------------------------------------------------- */

#define SLOT(name)                                           \
    {                                                        \
        "_" #name, (getter)get_slot, (setter)set_slot, NULL, \
            (void *)offsetof(FlHandle, name)                 \
    }
/* The attributes that both types have.  _loop is read-only, unlike asyncio's
   slot: the handle's memory and its entry belong to this loop. */
#define HANDLE_SLOTS                                                      \
    SLOT(callback), SLOT(args), SLOT(context), SLOT(source_traceback),    \
        SLOT(repr),                                                       \
        {"_loop", fl_field_attribute, NULL, NULL,                         \
         (void *)offsetof(FlHandle, loop)},                               \
    {                                                                     \
        "_cancelled", (getter)get_cancelled, (setter)set_cancelled, NULL, \
            NULL                                                          \
    }

PyGetSetDef fl_handle_getset[] = {
    HANDLE_SLOTS,
    {NULL, NULL, NULL, NULL, NULL},
};

PyGetSetDef fl_timer_getset[] = {
    HANDLE_SLOTS,
    {"_when", (getter)get_when, (setter)set_when, NULL, NULL},
    {"_scheduled", (getter)get_scheduled, (setter)set_slot, NULL,
     (void *)offsetof(FlTimerHandle, scheduled)},
    {NULL, NULL, NULL, NULL, NULL},
};
