/* Handle and TimerHandle: the objects that call_soon and call_later return.

   Both types subclass asyncio's classes and store their data in those classes'
   own slots.  So asyncio's attributes work.

   A Handle starts empty.  While its callback waits in the ready queue, the
   queue's entry owns callback, arguments and context, and the handle only
   points at the entry.  The handle is filled when the entry is popped or when
   code reads the handle's attributes.  In debug mode and without a GIL it is
   filled from the start.  Callers drop most handles at once, so most are never
   filled.

   Ownership: a handle owns its loop.  The loop owns the entry of an unfilled
   Handle, not the Handle; it does own each scheduled TimerHandle.  That
   reference cycle ends when the timer runs or is cancelled, or when the loop
   is closed or garbage-collected.

   Threads: the loop's thread only.  Other threads may read the attributes of a
   filled handle, set them, and call cancelled() and cancel().  Without a GIL
   the handle's critical section guards its slots.  `cancelled` is also read
   outside of it. */
#ifndef FL_CORE_HANDLE_H
#define FL_CORE_HANDLE_H

#include "base/timer_queue.h"
#include "core/ready_queue.h"
#include "py/state.h"

/* asyncio.Handle's __slots__, which CPython lays out in sorted order. */
#define FL_HANDLE_SLOTS                                \
    PyObject_HEAD                                      \
    PyObject *args;                                    \
    PyObject *callback;                                \
    PyObject *FL_ATOMIC cancelled; /* True or False */ \
    PyObject *context;                                 \
    PyObject *loop;                                    \
    PyObject *repr;                                    \
    PyObject *source_traceback;                        \
    FL_WEAKREF_FIELD

typedef struct FlHandle {
    FL_HANDLE_SLOTS
    FlReady *entry; /* in the ready queue, or NULL */
} FlHandle;

typedef struct {
    FL_HANDLE_SLOTS
    PyObject *scheduled; /* asyncio's slot, unused: see node.place */
    PyObject *when;      /* asyncio's slot, unused: see when_s */
    FlTimerNode node;
    double when_s; /* the deadline in seconds of loop.time(), not NaN */
} FlTimerHandle;

/* The freed handles of one loop and type that wait for reuse, linked through
   their args slot. */
typedef struct {
    PyObject *first;
    uint32_t count;
} FlHandlePool;

/* A new empty handle without an entry; NULL with MemoryError. */
FlHandle *fl_handle_new(struct FlLoop *loop);

/* A new filled handle of args[0](*args[1:]), with new references to all that
   it has.  In debug mode it records the caller's stack, which runs Python.
   NULL with MemoryError, or with what that raises. */
FlHandle *fl_handle_new_filled(struct FlLoop *loop, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *context);

/* A new filled timer, not yet scheduled; else as fl_handle_new_filled. */
FlTimerHandle *fl_timer_new(struct FlLoop *loop, PyObject *callback,
                            PyObject *args, PyObject *context, double when_s);

/* The handle of a call's entry, borrowed, or NULL.  From 3.14 on _Py_Dealloc
   postpones a deallocator where the C stack is nearly full.  Until that runs,
   the entry still refers to a handle without references, which must not be
   revived. */
static inline FlHandle *
fl_handle_of_entry(FlReady *entry)
{
    FlHandle *handle = entry->of.handle;
#if PY_VERSION_HEX >= 0x030E0000
    if (FL_UNLIKELY(handle != NULL && Py_REFCNT(handle) == 0)) {
        handle->entry = NULL;
        entry->of.handle = NULL;
        return NULL;
    }
#endif
    return handle;
}

/* Move a popped entry's call into a handle: the one that still points at the
   entry, or a new one.  `entry` is the caller's copy, not the queue's slot.
   0, or -1 with MemoryError; the copy owns nothing either way. */
int fl_handle_fill_from(FlHandle *self, FlReady *entry);

/* Fill a handle whose entry still waits, so that its attributes can be read
   and set.  The CALL entry becomes a HANDLE entry: it owns the handle and runs
   the handle's fields.  0, or -1 with MemoryError and nothing changed. */
int fl_handle_fill(FlHandle *self);

static inline bool
fl_handle_is_cancelled(const FlHandle *self)
{
    return self->cancelled == Py_True;
}

/* tp_dealloc of each type, tp_traverse and tp_clear of both. */
void fl_handle_dealloc(FlHandle *self);
void fl_timer_dealloc(FlTimerHandle *self);
int fl_handle_traverse(FlHandle *self, visitproc visit, void *arg);
int fl_handle_clear(FlHandle *self);

/* Free the handles that wait for reuse. */
void fl_handle_pool_free(FlHandlePool *pool);

static inline FlTimerHandle *
fl_timer_of(FlTimerNode *node)
{
    return (FlTimerHandle *)((char *)node - offsetof(FlTimerHandle, node));
}

#endif
