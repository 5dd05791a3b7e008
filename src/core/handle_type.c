/* The types Handle and TimerHandle: see handle_type.h.

   A handle is filled before one of its slots is read or set.  Otherwise the
   entry would run its own callback and ignore the new value.  Any object may
   be set: fl_handle_run checks the types of args and context when the handle
   runs. */
#include "core/handle_type.h"

#include "core/dispatch.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/timers.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/field.h"

/* --- attributes ---------------------------------------------------------- */

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

static PyObject *
get_when(FlTimerHandle *self, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble(self->when_s);
}

static PyObject *
get_scheduled(FlTimerHandle *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(fl_timer_node_is_queued(&self->node));
}

#define SLOT(name)                                           \
    {                                                        \
        "_" #name, (getter)get_slot, (setter)set_slot, NULL, \
            (void *)offsetof(FlHandle, name)                 \
    }
/* An unfilled handle has this slot too. */
#define READ_ONLY(name)                            \
    {                                              \
        "_" #name, fl_field_attribute, NULL, NULL, \
            (void *)offsetof(FlHandle, name)       \
    }
/* The attributes that both types have.  Tracers wrap a handle's call; the rest
   is read-only, unlike asyncio's slots. */
#define HANDLE_SLOTS                                                        \
    SLOT(callback), SLOT(args), SLOT(context), READ_ONLY(source_traceback), \
        READ_ONLY(repr), READ_ONLY(loop),                                   \
    {                                                                       \
        "_cancelled", (getter)get_cancelled, NULL, NULL, NULL               \
    }

static PyGetSetDef handle_getset[] = {
    HANDLE_SLOTS,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef timer_getset[] = {
    HANDLE_SLOTS,
    {"_when", (getter)get_when, NULL, NULL, NULL},
    {"_scheduled", (getter)get_scheduled, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* --- methods ------------------------------------------------------------- */

/* In debug mode asyncio saves a cancelled handle's repr, because cancel()
   drops the callback that it shows.  `cancelled` is set first: the saved text
   says "cancelled".  0, or -1 with what a __repr__ raised. */
static int
save_repr(FlHandle *self)
{
    if (!FL_LOOP(self->loop)->debug) {
        return 0;
    }
    Py_XSETREF(self->cancelled, Py_NewRef(Py_True));
    PyObject *repr = PyObject_Repr((PyObject *)self);
    if (repr == NULL) {
        return -1;
    }
    /* repr() ran Python, which may have cancelled the handle too. */
    fl_field_set(self, &self->repr, repr);
    Py_DECREF(repr);
    return 0;
}

/* As asyncio's cancel(): drop callback and args, which may refer back to the
   handle, and keep the context.  The references are released outside of the
   critical section, since that may run Python. */
static void
mark_cancelled(FlHandle *self)
{
    PyObject *callback = NULL, *args = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    Py_XSETREF(self->cancelled, Py_NewRef(Py_True));
    callback = self->callback;
    args = self->args;
    self->callback = NULL;
    self->args = NULL;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(callback);
    Py_XDECREF(args);
}

FL_INLINE PyObject *
cancel(FlHandle *self, bool is_timer)
{
    if (fl_handle_is_cancelled(self)) {
        Py_RETURN_NONE;
    }
    if (save_repr(self) < 0) {
        return NULL;
    }
    /* The queue of timers or the dropped callback may own the last one. */
    Py_INCREF(self);
    if (is_timer) {
        fl_timer_remove_anythread((FlTimerHandle *)self);
    }
    else if (self->entry != NULL) {
        /* Its references are released from a copy, when both sides are
           detached: a destructor may run Python that uses the queue. */
        FlReady call = *self->entry;
        self->entry->kind = FL_READY_NONE;
        self->entry = NULL;
        self->context = call.context; /* an unfilled handle has none */
        call.context = NULL;
        fl_ready_clear(&call);
    }
    mark_cancelled(self);
    Py_DECREF(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    cancel_doc,
    "cancel($self, /)\n--\n\n"
    "Cancel the callback; nothing happens if it has run or was cancelled.\n\n"
    "Returns None.  Implements asyncio.Handle.cancel().");

static PyObject *
handle_cancel(FlHandle *self, PyObject *Py_UNUSED(ignored))
{
    return cancel(self, false);
}

static PyObject *
timer_cancel(FlHandle *self, PyObject *Py_UNUSED(ignored))
{
    return cancel(self, true);
}

PyDoc_STRVAR(
    run_doc,
    "_run($self, /)\n--\n\n"
    "Run the callback now, as the loop would; asyncio.Handle._run().");

static PyObject *
handle_run(FlHandle *self, PyObject *Py_UNUSED(ignored))
{
    return fl_call_none(fl_handle_fill(self) < 0
                            ? -1
                            : fl_handle_run(FL_LOOP(self->loop), self));
}

/* The rest is asyncio's, in Python: get_context(), cancelled(), when() and a
   timer's _run() read the attributes. */
static PyMethodDef handle_methods[] = {
    FL_METHOD("cancel", handle_cancel, METH_NOARGS, cancel_doc),
    FL_METHOD("_run", handle_run, METH_NOARGS, run_doc),
    {NULL, NULL, 0, NULL},
};

static PyMethodDef timer_methods[] = {
    FL_METHOD("cancel", timer_cancel, METH_NOARGS, cancel_doc),
    {NULL, NULL, 0, NULL},
};

/* --- types --------------------------------------------------------------- */

PyDoc_STRVAR(
    handle_doc,
    "What call_soon() returns: asyncio.Handle with its storage in C.");

PyDoc_STRVAR(
    timer_doc,
    "What call_later() and call_at() return: asyncio.TimerHandle in C.");

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, (void *)handle_doc},
    {Py_tp_dealloc, fl_handle_dealloc},
    {Py_tp_traverse, fl_handle_traverse},
    {Py_tp_clear, fl_handle_clear},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getset},
    {0, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_doc, (void *)timer_doc},
    {Py_tp_dealloc, fl_timer_dealloc},
    {Py_tp_traverse, fl_handle_traverse},
    {Py_tp_clear, fl_handle_clear},
    {Py_tp_methods, timer_methods},
    {Py_tp_getset, timer_getset},
    {0, NULL},
};

/* For fl_type_derive.  The names are those of asyncio's slots; the last
   line of each list says where asyncio's part ends and our fields begin. */
#define BASE_SLOT(type, name)           \
    {                                   \
        "_" #name, offsetof(type, name) \
    }
#define HANDLE_BASE_SLOTS(type)                               \
    BASE_SLOT(type, args), BASE_SLOT(type, callback),         \
        BASE_SLOT(type, cancelled), BASE_SLOT(type, context), \
        BASE_SLOT(type, loop), BASE_SLOT(type, repr),         \
        BASE_SLOT(type, source_traceback)

static const FlBaseSlot handle_base_slots[] = {
    HANDLE_BASE_SLOTS(FlHandle),
    {NULL, offsetof(FlHandle, entry)},
};

static const FlBaseSlot timer_base_slots[] = {
    HANDLE_BASE_SLOTS(FlTimerHandle),
    BASE_SLOT(FlTimerHandle, scheduled),
    BASE_SLOT(FlTimerHandle, when),
    {NULL, offsetof(FlTimerHandle, node)},
};

/* Only fl_handle_new and fl_timer_new set the fields behind asyncio's
   slots. */
int
fl_handle_register(PyObject *module, FlState *state)
{
    PyType_Spec handle = {"fastloop._core.Handle", sizeof(FlHandle), 0,
                          FL_TYPE_FLAGS, handle_slots};
    PyType_Spec timer = {"fastloop._core.TimerHandle", sizeof(FlTimerHandle),
                         0, FL_TYPE_FLAGS, timer_slots};
    state->handle_type = fl_type_derive(module, &handle, state->asyncio_handle,
                                        NULL, handle_base_slots);
    if (state->handle_type == NULL) {
        return -1;
    }
    state->timer_type =
        fl_type_derive(module, &timer, state->asyncio_timer_handle, NULL,
                       timer_base_slots);
    return state->timer_type == NULL ? -1 : 0;
}
