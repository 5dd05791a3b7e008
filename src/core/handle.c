/* Handle and TimerHandle: allocation, GC, filling.

   We visit and clear every slot by hand.  asyncio's base classes are Python
   classes with __slots__.  Their tp_traverse and tp_dealloc search the type's
   bases for the first function that differs from themselves.  They would find
   ours and recurse for ever. */
#include "core/handle.h"

#include "base/timer_queue.h"
#include "core/debug.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "py/args.h"
#include "py/compat.h"
#include "py/state.h"

/* The most freed objects of each kind that a loop's pool holds. */
#define MOST_POOLED_HANDLES 1024
#define MOST_POOLED_TIMERS  16384
/* How deeply timers' deallocators nest without the trashcan. */
#define MOST_NESTED         50

/* --- making and freeing -------------------------------------------------- */

/* Whether this thread may use the loop's pools, which have no lock. */
static inline bool
may_pool(const FlLoop *loop)
{
    return !fl_loop_needs_lock(loop);
}

/* An empty handle of either type, not tracked by GC: every slot is NULL except
   loop and cancelled. */
static FlHandle *
handle_alloc(FlLoop *loop, PyTypeObject *type, FlHandlePool *pool)
{
    FlHandle *self = may_pool(loop) ? (FlHandle *)pool->first : NULL;
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
        PyObject_GC_Track(self);
    }
    return self;
}

/* Fill a new handle, and note where it was made: see fl_handle_new_filled.
   Returns it, or NULL. */
FL_INLINE FlHandle *
fill(FlHandle *self, FlLoop *loop, PyObject *callback, PyObject *args,
     PyObject *context)
{
    self->callback = Py_NewRef(callback);
    self->args = Py_NewRef(args);
    self->context = Py_NewRef(context);
    if (FL_UNLIKELY(loop->debug) && fl_debug_note_source(loop, self) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

FlHandle *
fl_handle_new_filled(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *context)
{
    PyObject *tuple = fl_args_tuple(args + 1, nargs - 1);
    FlHandle *self = tuple == NULL ? NULL : fl_handle_new(loop);
    if (self != NULL) {
        self = fill(self, loop, args[0], tuple, context);
    }
    Py_XDECREF(tuple);
    return self;
}

FlTimerHandle *
fl_timer_new(FlLoop *loop, PyObject *callback, PyObject *args,
             PyObject *context, double when_s)
{
    FlTimerHandle *self =
        (FlTimerHandle *)handle_alloc(loop, loop->state->timer_type,
                                      &loop->timer_pool);
    if (self == NULL) {
        return NULL;
    }
    self->when_s = when_s;
    self->node.place = 0;
    PyObject_GC_Track(self);
    return (FlTimerHandle *)fill((FlHandle *)self, loop, callback, args,
                                 context);
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
pool_release(FlHandle *self, FlHandlePool *pool, uint32_t limit)
{
    PyObject *loop = self->loop;
    Py_CLEAR(self->cancelled);
    self->loop = NULL;
    if (may_pool(FL_LOOP(loop)) && pool->count < limit) {
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
    pool_release(self, &FL_LOOP(self->loop)->handle_pool, MOST_POOLED_HANDLES);
}

/* The application may set a handle as the callback of another one.  CPython's
   trashcan bounds how deeply the deallocators of such a chain nest.  Up to
   3.13 it may postpone a deallocator, and then calls it again from its
   beginning; from 3.14 on _Py_Dealloc postpones it before it begins
   (fl_handle_of_entry). */
void
fl_handle_dealloc(FlHandle *self)
{
    PyObject_GC_UnTrack(self);
    /* The entry runs without its handle from now on.  Before weak references
       are cleared: their callbacks run Python, which could find this dying
       handle through its entry. */
    if (self->entry != NULL) {
        FL_CHECK(self->entry->of.handle == self, "they point at each other");
        self->entry->of.handle = NULL;
        self->entry = NULL;
    }
    clear_weakrefs((PyObject *)self);
    /* An unfilled handle has none of these, and needs no trashcan.  A filled
       one, and one that was cancelled, has a context; it is rare, and always
       has the trashcan. */
    if (self->context != NULL || self->callback != NULL || self->args != NULL
        || self->repr != NULL || self->source_traceback != NULL)
    {
        Py_TRASHCAN_BEGIN(self, fl_handle_dealloc)
        clear_slots(self);
        handle_release(self);
        Py_TRASHCAN_END
    }
    else {
        handle_release(self);
    }
}

static inline void
timer_release(FlTimerHandle *self)
{
    pool_release((FlHandle *)self, &FL_LOOP(self->loop)->timer_pool,
                 MOST_POOLED_TIMERS);
}

/* The trashcan costs 70 instructions up to 3.13, so a timer uses it only deep
   in a chain. */
void
fl_timer_dealloc(FlTimerHandle *self)
{
    FlState *state = FL_LOOP(self->loop)->state;
    PyObject_GC_UnTrack(self);
    clear_weakrefs((PyObject *)self);
    /* A queued timer cannot die. */
    FL_CHECK(!fl_timer_node_is_queued(&self->node),
             "the queue owns a reference");
    if (!FL_HAVE_GIL || FL_UNLIKELY(state->nested_timers >= MOST_NESTED)) {
        Py_TRASHCAN_BEGIN(self, fl_timer_dealloc)
        clear_slots((FlHandle *)self);
        timer_release(self);
        Py_TRASHCAN_END
    }
    else {
        state->nested_timers++;
        clear_slots((FlHandle *)self);
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

/* An unfilled handle's call is the loop's to visit (fl_ready_traverse). */
int
fl_handle_traverse(FlHandle *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->args);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->loop);
    Py_VISIT(self->repr);
    Py_VISIT(self->source_traceback);
    return 0;
}

/* `loop` is not cleared: a handle needs its loop to be used and to be freed.
   Clearing the other slots, or the loop's own tp_clear, breaks the cycle. */
int
fl_handle_clear(FlHandle *self)
{
    clear_slots(self);
    return 0;
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
    FL_CHECK(entry->of.handle == self, "they point at each other");
    take_call(self, tuple, entry);
    *entry = (FlReady){.kind = FL_READY_HANDLE,
                       .callback = Py_NewRef((PyObject *)self)};
    return 0;
}
