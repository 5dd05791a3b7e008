/* Handle and TimerHandle.

   1. The storage is asyncio's own slots; `register` proves by asyncio's
      descriptors that they lie where the structs say, and that there is none
      for which the structs have no room.
   2. A Handle with an entry in the ready queue is pointed at by that entry;
      whoever ends one side (pop, cancel, fill, dealloc) ends both.
   3. asyncio's base classes are Python-slotted: their traverse and dealloc
      must not be called from here (they look for the first base that differs
      from themselves), so every slot is visited and cleared by hand.
   4. Pools are used only where the GIL orders threads. */
#include "core/handle.h"

#include "base/timer_queue.h"
#include "core/handle_attributes.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/threadsafe_handle.h"
#include "core/timers.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/state.h"

#define HANDLES_KEPT 1024
#define TIMERS_KEPT  16384

/* --- making and freeing -------------------------------------------------- */

static inline PyObject *
pool_take(PyObject **pool, uint32_t *count)
{
    PyObject *object = *pool;
    if (object != NULL) {
        *pool = ((FlHandle *)object)->args;
        *count -= 1;
    }
    return object;
}

/* An empty handle of either type: every slot NULL but loop and cancelled. */
static FlHandle *
handle_alloc(FlLoop *loop, PyTypeObject *type, PyObject *reused)
{
    FlHandle *self = (FlHandle *)reused;
    if (self != NULL) {
        self->args = NULL;
        fl_revive(reused); /* it kept its type, and that reference */
    }
    else {
        self = (FlHandle *)type->tp_alloc(type, 0);
        if (self == NULL) {
            return NULL;
        }
        /* tp_alloc tracks; so that both ways end alike, undo it. */
        PyObject_GC_UnTrack(self);
    }
    self->cancelled = Py_NewRef(Py_False);
    self->loop = Py_NewRef((PyObject *)loop);
    return self;
}

FlHandle *
fl_handle_new(FlLoop *loop)
{
    FlHandlePool *pool = &loop->pool;
    FlHandle *self =
        handle_alloc(loop, loop->state->handle_type,
                     pool_take(&pool->handles, &pool->handle_count));
    if (self != NULL) {
        self->entry = NULL;
        self->threadsafe = false;
        PyObject_GC_Track(self);
    }
    return self;
}

static inline void
fill(FlHandle *self, PyObject *callback, PyObject *args, PyObject *context)
{
    self->callback = Py_NewRef(callback);
    self->args = Py_NewRef(args);
    self->context = Py_NewRef(context);
}

FlHandle *
fl_handle_new_filled(FlLoop *loop, PyObject *callback, PyObject *args,
                     PyObject *context)
{
    FlHandle *self = fl_handle_new(loop);
    if (self != NULL) {
        fill(self, callback, args, context);
    }
    return self;
}

FlTimerHandle *
fl_timer_new(FlLoop *loop, PyObject *callback, PyObject *args,
             PyObject *context, FlWhen when)
{
    FlHandlePool *pool = &loop->pool;
    FlTimerHandle *self =
        (FlTimerHandle *)handle_alloc(loop, loop->state->timer_type,
                                      pool_take(&pool->timers,
                                                &pool->timer_count));
    if (self != NULL) {
        fill((FlHandle *)self, callback, args, context);
        self->when = Py_XNewRef(when.object);
        self->when_seconds = when.seconds;
        self->node.place = 0;
        self->shares_context = false;
        PyObject_GC_Track(self);
    }
    return self;
}

static void
clear_slots(FlHandle *self)
{
    Py_CLEAR(self->args);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->repr);
    Py_CLEAR(self->source_traceback);
}

/* Most handles have no weak reference, and die once a callback. */
static inline void
clear_weakrefs(PyObject *self)
{
    PyObject **list =
        (PyObject **)((char *)self + Py_TYPE(self)->tp_weaklistoffset);
    if (!FL_HAVE_GIL || FL_UNLIKELY(*list != NULL)) {
        PyObject_ClearWeakRefs(self);
    }
}

static inline void
detach_from_entry(FlHandle *self)
{
    if (self->entry != NULL) {
        self->entry->of.handle = NULL;
        self->entry = NULL;
    }
}

/* The end of both deallocators: into the loop's pool, or freed. */
static inline void
release(FlHandle *self, PyObject **pool, uint32_t *count, uint32_t limit)
{
    PyTypeObject *type = Py_TYPE(self);
    if (FL_HAVE_GIL && *count < limit) {
        self->args = *pool;
        *pool = (PyObject *)self;
        *count += 1;
        return;
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static void
handle_dealloc(FlHandle *self)
{
    PyObject_GC_UnTrack(self);
    FlLoop *loop = FL_LOOP(self->loop);
    /* First: a weak reference's callback may look into the queue. */
    detach_from_entry(self);
    clear_weakrefs((PyObject *)self);
    /* A cancelled one has no callback, but may have the rest. */
    if (self->context != NULL || self->repr != NULL
        || self->source_traceback != NULL)
    {
        clear_slots(self);
    }
#if FL_HANDLES_WAIT
    Py_CLEAR(self->lock); /* a program may have set it */
#endif
    Py_CLEAR(self->cancelled);
    self->loop = NULL;
    release(self, &loop->pool.handles, &loop->pool.handle_count, HANDLES_KEPT);
    Py_DECREF(loop);
}

static void
timer_dealloc(FlTimerHandle *self)
{
    PyObject_GC_UnTrack(self);
    clear_weakrefs((PyObject *)self);
    FlLoop *loop = FL_LOOP(self->loop);
    FL_CHECK(self->node.place == 0, "the queue owns a reference");
    clear_slots((FlHandle *)self);
    Py_CLEAR(self->scheduled);
    Py_CLEAR(self->when);
    Py_CLEAR(self->cancelled);
    self->loop = NULL;
    release((FlHandle *)self, &loop->pool.timers, &loop->pool.timer_count,
            TIMERS_KEPT);
    Py_DECREF(loop);
}

static void
free_chain(PyObject *object)
{
    while (object != NULL) {
        PyObject *next = ((FlHandle *)object)->args;
        PyTypeObject *type = Py_TYPE(object);
        PyObject_GC_Del(object);
        Py_DECREF(type);
        object = next;
    }
}

void
fl_handle_pool_free(FlHandlePool *pool)
{
    free_chain(pool->handles);
    free_chain(pool->timers);
    pool->handles = pool->timers = NULL;
    pool->handle_count = pool->timer_count = 0;
}

/* --- collector ----------------------------------------------------------- */

static int
visit_slots(FlHandle *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->args);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->loop);
    Py_VISIT(self->source_traceback);
    return 0;
}

static int
handle_traverse(FlHandle *self, visitproc visit, void *arg)
{
#if FL_HANDLES_WAIT
    Py_VISIT(self->lock);
#endif
    return visit_slots(self, visit, arg);
}

static int
timer_traverse(FlTimerHandle *self, visitproc visit, void *arg)
{
    Py_VISIT(self->when);
    Py_VISIT(self->scheduled);
    return visit_slots((FlHandle *)self, visit, arg);
}

/* The loop stays: a handle without one could not be freed or used, and the
   cycle is broken by what is cleared here or by the loop's own tp_clear. */
static int
handle_clear(FlHandle *self)
{
    clear_slots(self);
    return 0;
}

static int
timer_clear(FlTimerHandle *self)
{
    Py_CLEAR(self->when);
    Py_CLEAR(self->scheduled);
    return handle_clear((FlHandle *)self);
}

/* --- moving the call into the handle ------------------------------------- */

/* A tuple for that many arguments, to be filled; NULL when the entry has a
   tuple already, or with MemoryError set. */
static PyObject *
tuple_for(uint32_t nargs)
{
    return nargs > FL_READY_ARGS ? NULL : PyTuple_New(nargs);
}

/* The arguments of an entry in the tuple made for it. */
static PyObject *
fill_tuple(PyObject *tuple, const FlReady *entry)
{
    if (tuple == NULL) {
        return Py_NewRef(entry->args[0]);
    }
    for (uint32_t at = 0; at < entry->nargs; at++) {
        PyTuple_SET_ITEM(tuple, at, Py_NewRef(entry->args[at]));
    }
    return tuple;
}

int
fl_handle_fill_steal(FlHandle *self, FlReady *entry)
{
    self->entry = NULL;
    bool failed = fl_ready_own_context(entry) < 0;
    PyObject *tuple = failed ? NULL : tuple_for(entry->nargs);
    failed |= tuple == NULL && entry->nargs <= FL_READY_ARGS;
    if (!failed) {
        self->args = fill_tuple(tuple, entry);
        self->callback = Py_NewRef(entry->callback);
        self->context = Py_NewRef(entry->context);
    }
    fl_ready_clear(entry);
    return failed ? -1 : 0;
}

int
fl_handle_fill_waiting(FlHandle *self)
{
    if (self->entry == NULL) {
        return 0;
    }
    /* What is new first: making it may run the collector. */
    uint32_t nargs = self->entry->nargs;
    PyObject *tuple = tuple_for(nargs), *context = NULL;
    if (tuple == NULL && nargs <= FL_READY_ARGS) {
        return -1;
    }
    if (self->entry != NULL && self->entry->kind == FL_READY_SHARED) {
        context = fl_context_copy(self->entry->context);
        if (context == NULL) {
            Py_XDECREF(tuple);
            return -1;
        }
    }
    FlReady *entry = self->entry;
    if (entry == NULL) {
        Py_XDECREF(tuple);
        Py_XDECREF(context);
        return 0;
    }
    FlReady moved = *entry;
    self->args = fill_tuple(tuple, &moved);
    self->callback = Py_NewRef(moved.callback);
    self->context = context == NULL ? Py_NewRef(moved.context) : context;
    self->entry = NULL;
    entry->kind = FL_READY_HANDLE;
    entry->nargs = 0;
    entry->context = NULL;
    entry->callback = Py_NewRef((PyObject *)self);
    fl_ready_clear(&moved);
    return 0;
}

/* --- methods ------------------------------------------------------------- */

/* asyncio keeps the repr of a handle it cancels in debug mode, and that says
   "cancelled" already. */
static int
keep_repr(FlHandle *self)
{
    if (!FL_LOOP(self->loop)->debug) {
        return 0;
    }
    Py_XSETREF(self->cancelled, Py_NewRef(Py_True));
    PyObject *repr = PyObject_Repr((PyObject *)self);
    if (repr == NULL) {
        return -1;
    }
    PyObject *before;
    Py_BEGIN_CRITICAL_SECTION(self);
    before = self->repr;
    self->repr = repr;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before);
    return 0;
}

static void
cancel_waiting(FlHandle *self)
{
    FlReady *entry = self->entry;
    FlReady taken = *entry;
    self->entry = NULL;
    entry->kind = FL_READY_NONE;
    fl_ready_clear(&taken);
}

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

PyDoc_STRVAR(
    cancel_doc,
    "cancel($self, /)\n--\n\n"
    "Cancel the callback; nothing happens if it has run or was cancelled.\n\n"
    "Returns None.  Implements asyncio.Handle.cancel().");

static PyObject *
handle_cancel(FlHandle *self, PyObject *Py_UNUSED(ignored))
{
    bool before = fl_handle_is_cancelled(self);
    if (fl_handle_is_threadsafe(self)
        && fl_threadsafe_handle_wait_callback(self, true) < 0)
    {
        return NULL;
    }
    if (before) {
        Py_RETURN_NONE;
    }
    if (keep_repr(self) < 0) {
        return NULL;
    }
    Py_INCREF(self);
    if (self->entry != NULL) {
        cancel_waiting(self);
    }
    mark_cancelled(self);
    Py_DECREF(self);
    Py_RETURN_NONE;
}

static PyObject *
timer_cancel(FlTimerHandle *self, PyObject *Py_UNUSED(ignored))
{
    FlHandle *handle = (FlHandle *)self;
    if (fl_handle_is_cancelled(handle)) {
        Py_RETURN_NONE;
    }
    if (keep_repr(handle) < 0) {
        return NULL;
    }
    if (fl_loop_on_other_thread(FL_LOOP(self->loop))) {
        mark_cancelled(handle);
        fl_timer_forget_anythread(self);
        Py_RETURN_NONE;
    }
    bool queued = self->node.place != 0;
    if (queued) {
        fl_timer_queue_remove(&FL_LOOP(self->loop)->timers, &self->node);
    }
    mark_cancelled(handle);
    if (queued) {
        Py_DECREF(self);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cancelled_doc,
             "cancelled($self, /)\n--\n\n"
             "Return True if cancel() was called before the callback ran.\n\n"
             "Implements asyncio.Handle.cancelled().");

static PyObject *
handle_cancelled(FlHandle *self, PyObject *Py_UNUSED(ignored))
{
    if (fl_handle_is_threadsafe(self)
        && fl_threadsafe_handle_wait_callback(self, false) < 0)
    {
        return NULL;
    }
    return PyBool_FromLong(fl_handle_is_cancelled(self));
}

#if PY_VERSION_HEX >= 0x030C0000
PyDoc_STRVAR(get_context_doc,
             "get_context($self, /)\n--\n\n"
             "Return the contextvars.Context the callback runs in.\n\n"
             "Implements asyncio.Handle.get_context(), new in 3.12.");

static PyObject *
handle_get_context(FlHandle *self, PyObject *Py_UNUSED(ignored))
{
    if (self->entry != NULL && fl_handle_fill_waiting(self) < 0) {
        return NULL;
    }
    return Py_NewRef(self->context == NULL ? Py_None : self->context);
}

static PyObject *
timer_context(FlTimerHandle *self, PyObject *Py_UNUSED(ignored))
{
    return fl_timer_get_context(self);
}
#endif

PyDoc_STRVAR(
    run_doc,
    "_run($self, /)\n--\n\n"
    "Run the callback now, as the loop would; asyncio.Handle._run().");

static PyObject *
handle_run(FlHandle *self, PyObject *Py_UNUSED(ignored))
{
    if (Py_TYPE(self) == FL_LOOP(self->loop)->state->handle_type
        && fl_handle_fill_waiting(self) < 0)
    {
        return NULL;
    }
    if (fl_handle_run(FL_LOOP(self->loop), self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(when_doc,
             "when($self, /)\n--\n\n"
             "Return the scheduled time in seconds of loop.time().\n\n"
             "Implements asyncio.TimerHandle.when().");

static PyObject *
timer_when(FlTimerHandle *self, PyObject *Py_UNUSED(ignored))
{
    return fl_timer_get_when(self);
}

#define METHOD(name, function, doc)                                   \
    {                                                                 \
        name, (PyCFunction)(void (*)(void))function, METH_NOARGS, doc \
    }

static PyMethodDef handle_methods[] = {
    METHOD("cancel", handle_cancel, cancel_doc),
    METHOD("cancelled", handle_cancelled, cancelled_doc),
#if PY_VERSION_HEX >= 0x030C0000
    METHOD("get_context", handle_get_context, get_context_doc),
#endif
    METHOD("_run", handle_run, run_doc),
    {NULL, NULL, 0, NULL},
};

static PyMethodDef timer_methods[] = {
    METHOD("cancel", timer_cancel, cancel_doc),
    METHOD("cancelled", handle_cancelled, cancelled_doc),
#if PY_VERSION_HEX >= 0x030C0000
    METHOD("get_context", timer_context, get_context_doc),
#endif
    METHOD("when", timer_when, when_doc),
    METHOD("_run", handle_run, run_doc),
    {NULL, NULL, 0, NULL},
};

/* --- registration -------------------------------------------------------- */

PyDoc_STRVAR(
    handle_doc,
    "What call_soon() returns: asyncio.Handle with its storage in C.");

PyDoc_STRVAR(
    timer_doc,
    "What call_later() and call_at() return: asyncio.TimerHandle in C.");

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, (void *)handle_doc},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, fl_handle_getset},
    {0, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_doc, (void *)timer_doc},
    {Py_tp_dealloc, timer_dealloc},
    {Py_tp_traverse, timer_traverse},
    {Py_tp_clear, timer_clear},
    {Py_tp_methods, timer_methods},
    {Py_tp_getset, fl_timer_getset},
    {0, NULL},
};

#define TYPE_FLAGS                           \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC \
     | Py_TPFLAGS_DISALLOW_INSTANTIATION)

static PyType_Spec handle_spec = {
    .name = "fastloop._core.Handle",
    .basicsize = sizeof(FlHandle),
    .flags = TYPE_FLAGS,
    .slots = handle_slots,
};

static PyType_Spec timer_spec = {
    .name = "fastloop._core.TimerHandle",
    .basicsize = sizeof(FlTimerHandle),
    .flags = TYPE_FLAGS,
    .slots = timer_slots,
};

/* Invariant 1.  The names are those of asyncio's slots. */
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
#if FL_HANDLES_WAIT
    BASE_SLOT(FlHandle, lock),
#endif
    {NULL, offsetof(FlHandle, entry)},
};

static const FlBaseSlot timer_base_slots[] = {
    HANDLE_BASE_SLOTS(FlTimerHandle),
    BASE_SLOT(FlTimerHandle, scheduled),
    BASE_SLOT(FlTimerHandle, when),
    {NULL, offsetof(FlTimerHandle, node)},
};

int
fl_handle_register(PyObject *module, FlState *state)
{
    state->handle_type =
        fl_type_derive(module, &handle_spec, state->asyncio_safe_handle, NULL,
                       handle_base_slots);
    if (state->handle_type == NULL) {
        return -1;
    }
    state->timer_type =
        fl_type_derive(module, &timer_spec, state->asyncio_timer_handle, NULL,
                       timer_base_slots);
    return state->timer_type == NULL ? -1 : 0;
}
