/* Handle and TimerHandle: allocation, GC, filling, methods, types.

   1. The storage is asyncio's own slots.  fl_handle_register checks asyncio's
      slot descriptors: each slot lies where our structs have it, and there is
      none that our structs lack.  Otherwise a slot and a field of ours would
      share memory.
   2. A waiting Handle and its entry point at each other.  Code that ends one
      side (pop, cancel, fill, dealloc) clears the other pointer too.  One left
      behind would point at freed memory or at another call's entry.
   3. We visit and clear every slot by hand.  asyncio's base classes are Python
      classes with __slots__.  Their tp_traverse and tp_dealloc search the
      type's bases for the first function that differs from themselves.  They
      would find ours and recurse for ever.
   4. Pools are used only with a GIL: their lists have no lock. */
#include "core/handle.h"

#include "base/timer_queue.h"
#include "core/debug.h"
#include "core/handle_attributes.h"
#include "core/dispatch.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/threadsafe_handle.h"
#include "core/timers.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/field.h"
#include "py/state.h"

/* The most freed objects of each kind that a loop's pool holds. */
#define MOST_POOLED_HANDLES 1024
#define MOST_POOLED_TIMERS  16384
/* How deeply timers' deallocators nest without the trashcan. */
#define MOST_NESTED         50

/* --- making and freeing -------------------------------------------------- */

/* An empty handle of either type, not tracked by GC: every slot is NULL except
   loop and cancelled. */
static FlHandle *
handle_alloc(FlLoop *loop, PyTypeObject *type, FlHandlePool *pool)
{
    FlHandle *self = (FlHandle *)pool->first;
    if (self != NULL) {
        pool->first = self->args;
        pool->count--;
        self->args = NULL;
        fl_revive((PyObject *)self); /* still has its reference to the type */
    }
    else {
        self = (FlHandle *)type->tp_alloc(type, 0);
        if (self == NULL) {
            return NULL;
        }
        /* tp_alloc tracks the object; a pooled one is untracked.  The caller
           tracks either once its fields are set. */
        PyObject_GC_UnTrack(self);
    }
    self->cancelled = Py_NewRef(Py_False);
    self->loop = Py_NewRef((PyObject *)loop);
    return self;
}

FlHandle *
fl_handle_new(FlLoop *loop)
{
    FlHandle *self =
        handle_alloc(loop, loop->state->handle_type, &loop->handle_pool);
    if (self != NULL) {
        /* A pooled object has the values of its last use.  Track it last: GC
           may visit a tracked object at any time. */
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
        if (FL_UNLIKELY(loop->debug) && fl_debug_note_source(loop, self) < 0) {
            Py_CLEAR(self);
        }
    }
    return self;
}

FlTimerHandle *
fl_timer_new(FlLoop *loop, PyObject *callback, PyObject *args,
             PyObject *context, FlWhen when)
{
    FlTimerHandle *self =
        (FlTimerHandle *)handle_alloc(loop, loop->state->timer_type,
                                      &loop->timer_pool);
    if (self != NULL) {
        fill((FlHandle *)self, callback, args, context);
        self->when = Py_XNewRef(when.object);
        self->when_seconds = when.seconds;
        self->node.place = 0;
        PyObject_GC_Track(self);
        if (FL_UNLIKELY(loop->debug)
            && fl_debug_note_source(loop, (FlHandle *)self) < 0)
        {
            Py_CLEAR(self);
        }
    }
    return self;
}

/* All slots of asyncio.Handle except loop and cancelled, which a handle has
   until it is freed. */
static void
clear_slots(FlHandle *self)
{
    Py_CLEAR(self->args);
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->repr);
    Py_CLEAR(self->source_traceback);
}

/* Most callbacks make a handle, and few handles have weak references: look
   before the call.  Without a GIL the list is read under CPython's own lock
   only. */
static inline void
clear_weakrefs(PyObject *self)
{
    PyObject **list =
        (PyObject **)((char *)self + Py_TYPE(self)->tp_weaklistoffset);
    if (!FL_HAVE_GIL || FL_UNLIKELY(*list != NULL)) {
        PyObject_ClearWeakRefs(self);
    }
}

/* The end of both deallocators: put the object into its pool, or free it.  A
   pooled object keeps its reference to the type.  Every other slot must be
   NULL by now: handle_alloc resets only args. */
static inline void
release(FlHandle *self, FlHandlePool *pool, uint32_t limit)
{
    PyObject *loop = self->loop;
    Py_CLEAR(self->cancelled);
    self->loop = NULL;
    if (FL_HAVE_GIL && pool->count < limit) {
        self->args = pool->first;
        pool->first = (PyObject *)self;
        pool->count++;
    }
    else {
        fl_object_free(self);
    }
    Py_DECREF(loop); /* last: this may free the loop and its pools */
}

static inline void
handle_release(FlHandle *self)
{
#if FL_CANCEL_WAITS_FOR_CALLBACK
    Py_CLEAR(self->lock); /* asyncio's slot: the application may set it */
#endif
    release(self, &FL_LOOP(self->loop)->handle_pool, MOST_POOLED_HANDLES);
}

/* The application may set a handle as the callback of another one.  CPython's
   trashcan bounds how deeply the deallocators of such a chain nest.  It may
   postpone a deallocator, and then calls it again from its beginning. */
static void
handle_dealloc(FlHandle *self)
{
    PyObject_GC_UnTrack(self);
    /* The entry runs without its handle from now on: invariant 2.  Before weak
       references are cleared: their callbacks run Python, which could find
       this dying handle through its entry. */
    if (self->entry != NULL) {
        self->entry->of.handle = NULL;
        self->entry = NULL;
    }
    clear_weakrefs((PyObject *)self);
    /* An unfilled handle has none of these, and needs no trashcan.  A filled
       one has a context, also after cancel() has cleared callback and args; it
       is rare, and always has the trashcan.  One that was cancelled unfilled
       has what the application set since. */
    if (self->context != NULL || self->callback != NULL || self->args != NULL
        || self->repr != NULL || self->source_traceback != NULL)
    {
        Py_TRASHCAN_BEGIN(self, handle_dealloc)
        clear_slots(self);
        handle_release(self);
        Py_TRASHCAN_END
    }
    else {
        handle_release(self);
    }
}

static inline void
clear_timer_slots(FlTimerHandle *self)
{
    clear_slots((FlHandle *)self);
    Py_CLEAR(self->scheduled);
    Py_CLEAR(self->when);
}

static inline void
timer_release(FlTimerHandle *self)
{
    release((FlHandle *)self, &FL_LOOP(self->loop)->timer_pool,
            MOST_POOLED_TIMERS);
}

/* The trashcan costs 70 instructions, so a timer uses it only deep in a
   chain. */
static void
timer_dealloc(FlTimerHandle *self)
{
    FlState *state = FL_LOOP(self->loop)->state;
    PyObject_GC_UnTrack(self);
    clear_weakrefs((PyObject *)self);
    /* A queued timer cannot die: timers.c, invariant 1. */
    FL_CHECK(self->node.place == 0, "the queue owns a reference");
    if (!FL_HAVE_GIL || FL_UNLIKELY(state->nested_timers >= MOST_NESTED)) {
        Py_TRASHCAN_BEGIN(self, timer_dealloc)
        clear_timer_slots(self);
        timer_release(self);
        Py_TRASHCAN_END
    }
    else {
        state->nested_timers++;
        clear_timer_slots(self);
        state->nested_timers--;
        timer_release(self);
    }
}

/* Pooled objects have a reference count of zero, so they are freed and not
   decremented. */
void
fl_handle_pool_free(FlHandlePool *pool)
{
    for (PyObject *object = pool->first, *next; object != NULL; object = next)
    {
        PyTypeObject *type = Py_TYPE(object);
        next = ((FlHandle *)object)->args;
        PyObject_GC_Del(object);
        Py_DECREF(type);
    }
}

/* --- GC slots ------------------------------------------------------------ */

/* The application may set any of asyncio's slots.  An unfilled handle's call
   is the loop's to visit (fl_ready_traverse). */
static int
visit_slots(FlHandle *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->args);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->loop);
    Py_VISIT(self->repr);
    Py_VISIT(self->cancelled);
    Py_VISIT(self->source_traceback);
    return 0;
}

static int
handle_traverse(FlHandle *self, visitproc visit, void *arg)
{
#if FL_CANCEL_WAITS_FOR_CALLBACK
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

/* `loop` is not cleared: a handle needs its loop to be used and to be freed.
   Clearing the other slots, or the loop's own tp_clear, breaks the cycle. */
static int
handle_clear(FlHandle *self)
{
    clear_slots(self);
    Py_CLEAR(self->cancelled); /* any object, if set by asyncio's own slot */
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

/* A tuple for take_call: the entry's own where it has more than FL_READY_ARGS
   arguments.  A new reference, or NULL with MemoryError. */
static PyObject *
tuple_for(const FlReady *entry)
{
    return entry->nargs > FL_READY_ARGS ? Py_NewRef(entry->args[0])
                                        : PyTuple_New(entry->nargs);
}

/* Move the references of an entry into an empty handle.  `tuple` comes from
   tuple_for and takes the arguments. */
static void
take_call(FlHandle *self, PyObject *tuple, const FlReady *entry)
{
    if (entry->nargs > FL_READY_ARGS) {
        Py_DECREF(entry->args[0]); /* `tuple` is another reference to it */
    }
    else {
        for (uint32_t at = 0; at < entry->nargs; at++) {
            PyTuple_SET_ITEM(tuple, at, entry->args[at]);
        }
    }
    self->args = tuple;
    self->callback = entry->callback;
    self->context = entry->context;
    self->entry = NULL;
}

int
fl_handle_fill_from(FlHandle *self, FlReady *entry)
{
    self->entry = NULL; /* the slot was popped: other calls use it next */
    PyObject *tuple = tuple_for(entry);
    if (tuple == NULL) {
        fl_ready_clear(entry);
        return -1;
    }
    take_call(self, tuple, entry);
    return 0;
}

int
fl_handle_fill(FlHandle *self)
{
    if (self->entry == NULL) {
        return 0;
    }
    /* Allocate before touching the entry.  An allocation may run GC, and GC
       may run Python that cancels or fills this very handle, so self->entry is
       read again. */
    PyObject *tuple = tuple_for(self->entry);
    if (tuple == NULL) {
        return -1;
    }
    FlReady *entry = self->entry;
    if (entry == NULL) {
        Py_DECREF(tuple);
        return 0;
    }
    take_call(self, tuple, entry);
    *entry = (FlReady){.kind = FL_READY_HANDLE,
                       .callback = Py_NewRef((PyObject *)self)};
    return 0;
}

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

PyDoc_STRVAR(
    cancel_doc,
    "cancel($self, /)\n--\n\n"
    "Cancel the callback; nothing happens if it has run or was cancelled.\n\n"
    "Returns None.  Implements asyncio.Handle.cancel().");

static PyObject *
handle_cancel(FlHandle *self, PyObject *Py_UNUSED(ignored))
{
    /* Read first: the wait below marks a thread-safe handle cancelled. */
    bool before = fl_handle_is_cancelled(self);
    if (fl_handle_is_threadsafe(self)
        && fl_threadsafe_handle_wait_callback(self, true) < 0)
    {
        return NULL;
    }
    if (before) {
        Py_RETURN_NONE;
    }
    if (save_repr(self) < 0) {
        return NULL;
    }
    Py_INCREF(self); /* the dropped callback may own the last reference */
    if (self->entry != NULL) {
        /* Its references are released from a copy, when both sides are
           detached: a destructor may run Python that uses the queue. */
        FlReady call = *self->entry;
        self->entry->kind = FL_READY_NONE;
        self->entry = NULL;
        fl_ready_clear(&call);
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
    if (save_repr(handle) < 0) {
        return NULL;
    }
    Py_INCREF(self); /* the queue's reference may be the last */
    fl_timer_remove_anythread(self);
    mark_cancelled(handle);
    Py_DECREF(self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cancelled_doc,
             "cancelled($self, /)\n--\n\n"
             "Return True if cancel() was called before the callback ran.\n\n"
             "Implements asyncio.Handle.cancelled().");

/* A running thread-safe callback may still cancel its own handle, so another
   thread gets the answer after it. */
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

/* The rest is asyncio's, in Python: get_context(), when() and a timer's
   cancelled() and _run() read the attributes. */
static PyMethodDef handle_methods[] = {
    FL_METHOD("cancel", handle_cancel, METH_NOARGS, cancel_doc),
    FL_METHOD("cancelled", handle_cancelled, METH_NOARGS, cancelled_doc),
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

/* Invariant 1.  The names are those of asyncio's slots; the last line of each
   list says where asyncio's part ends and our fields begin. */
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
#if FL_CANCEL_WAITS_FOR_CALLBACK
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

/* From 3.14 on the base of Handle is asyncio's _ThreadSafeHandle, which has
   one slot more: a single type serves call_soon and call_soon_threadsafe.
   Only fl_handle_new and fl_timer_new set the fields behind asyncio's
   slots. */
int
fl_handle_register(PyObject *module, FlState *state)
{
    PyType_Spec handle = {"fastloop._core.Handle", sizeof(FlHandle), 0,
                          FL_TYPE_FLAGS, handle_slots};
    PyType_Spec timer = {"fastloop._core.TimerHandle", sizeof(FlTimerHandle),
                         0, FL_TYPE_FLAGS, timer_slots};
    state->handle_type =
        fl_type_derive(module, &handle, state->asyncio_safe_handle, NULL,
                       handle_base_slots);
    if (state->handle_type == NULL) {
        return -1;
    }
    state->timer_type =
        fl_type_derive(module, &timer, state->asyncio_timer_handle, NULL,
                       timer_base_slots);
    return state->timer_type == NULL ? -1 : 0;
}
