/* The attributes of handles.

   1. A handle is filled before one of its slots is read or set.  Otherwise the
      entry would run its own callback and ignore the new value.  Any object
      may be set: call_in_context in dispatch.c checks the types of args and
      context when the handle runs.
   2. A replaced value is released last, outside of the critical section: its
      destructor may run Python, which must find the new value in place. */
#include "core/handle_attributes.h"

#include "core/loop.h"
#include "core/timers.h"
#include "py/compat.h"

/* --- slots --------------------------------------------------------------- */

/* A slot of a filled handle; timers are always filled.  `closure` is the
   slot's offset.  A slot that is NULL, as after cancel(), reads as None. */
static PyObject *
get_timer_slot(FlHandle *self, void *closure)
{
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(self);
    value = Py_XNewRef(*(PyObject **)((char *)self + (size_t)closure));
    Py_END_CRITICAL_SECTION();
    return value == NULL ? Py_NewRef(Py_None) : value;
}

/* A slot of a Handle, which may wait unfilled: see invariant 1. */
static PyObject *
get_slot(FlHandle *self, void *closure)
{
    return fl_handle_fill(self) < 0 ? NULL : get_timer_slot(self, closure);
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
set_timer_slot(FlHandle *self, PyObject *value, void *closure)
{
    PyObject **slot = (PyObject **)((char *)self + (size_t)closure);
    PyObject *before;
    if (check_value(value) < 0) {
        return -1;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    before = *slot;
    *slot = Py_NewRef(value);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before);
    return 0;
}

static int
set_slot(FlHandle *self, PyObject *value, void *closure)
{
    return fl_handle_fill(self) < 0 ? -1
                                    : set_timer_slot(self, value, closure);
}

/* Read-only, unlike asyncio's slot: the handle's memory and its entry belong
   to this loop. */
static PyObject *
get_loop(FlHandle *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->loop);
}

/* --- timers -------------------------------------------------------------- */

/* The application may enter the context or change it, so it gets the timer's
   own copy and never the shared one. */
PyObject *
fl_timer_get_context(FlTimerHandle *self)
{
    if (fl_timer_unshare_context(self) < 0) {
        return NULL;
    }
    return Py_NewRef(self->context == NULL ? Py_None : self->context);
}

static PyObject *
get_context(FlTimerHandle *self, void *Py_UNUSED(closure))
{
    return fl_timer_get_context(self);
}

static int
set_context(FlTimerHandle *self, PyObject *value, void *closure)
{
    if (check_value(value) < 0) {
        return -1;
    }
    self->shares_context = false; /* the new context is the timer's own */
    return set_timer_slot((FlHandle *)self, value, closure);
}

/* call_at keeps the caller's object, of whatever class, so that when() returns
   it; call_later's float is made when it is read. */
PyObject *
fl_timer_get_when(const FlTimerHandle *self)
{
    return self->when == NULL ? PyFloat_FromDouble(self->when_seconds)
                              : Py_NewRef(self->when);
}

static PyObject *
get_when(FlTimerHandle *self, void *Py_UNUSED(closure))
{
    return fl_timer_get_when(self);
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
   wins.  Our loop writes nothing: the timer's place in the queue tells.  The
   slot is NULL unless the application set it (queue_due in iteration.c clears
   it when the timer is due). */
static PyObject *
get_scheduled(FlTimerHandle *self, void *closure)
{
    return self->scheduled == NULL ? PyBool_FromLong(self->node.place != 0)
                                   : get_timer_slot((FlHandle *)self, closure);
}

/* --- tables -------------------------------------------------------------- */

/* KIND picks the pair of functions, NAME the slot. */
#define SLOT(kind, name)                                         \
    {                                                            \
        "_" #name, (getter)get_##kind, (setter)set_##kind, NULL, \
            (void *)offsetof(FlHandle, name)                     \
    }
#define LOOP_SLOT                                   \
    {                                               \
        "_loop", (getter)get_loop, NULL, NULL, NULL \
    }

PyGetSetDef fl_handle_getset[] = {
    SLOT(slot, callback),           SLOT(slot, args), SLOT(slot, context),
    SLOT(slot, source_traceback),   SLOT(slot, repr), LOOP_SLOT,
    {NULL, NULL, NULL, NULL, NULL},
};

PyGetSetDef fl_timer_getset[] = {
    SLOT(timer_slot, callback),
    SLOT(timer_slot, args),
    SLOT(context, context),
    SLOT(timer_slot, source_traceback),
    SLOT(timer_slot, repr),
    LOOP_SLOT,
    {"_when", (getter)get_when, (setter)set_when, NULL, NULL},
    {"_scheduled", (getter)get_scheduled, (setter)set_timer_slot, NULL,
     (void *)offsetof(FlTimerHandle, scheduled)},
    {NULL, NULL, NULL, NULL, NULL},
};
