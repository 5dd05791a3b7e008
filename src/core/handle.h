/* Handle and TimerHandle: what call_soon and call_later return.

   Both are true subclasses of asyncio's classes and use those classes' own
   slots as their storage, so every attribute that programs read is real.

   A Handle is born empty: while its callback waits in the ready queue, its
   entry owns callback, arguments and context and the handle only points at
   it.  It is filled when the entry is popped, when someone reads its
   attributes, or from the start in debug mode and without a GIL.  Most handles
   are dropped at once by the caller and never filled.

   Ownership: a handle owns its loop; the loop does not own an unfilled Handle
   (it owns the entry), but does own a scheduled TimerHandle.  That cycle ends
   when the timer runs or is cancelled, or the loop is closed or collected.

   Loop's thread only, except for what other threads may ask of a filled handle
   or do to it: its attributes, cancelled, cancel.  Without a GIL its slots are
   read and changed in its critical section; `cancelled` is read outside. */
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
    FL_LOCK_FIELD
    FlReady *entry; /* in the ready queue, or NULL */
    bool
        threadsafe; /* call_soon_threadsafe gave it: see threadsafe_handle.c */
} FlHandle;

typedef struct {
    FL_HANDLE_SLOTS
    PyObject *scheduled; /* asyncio.TimerHandle's slot: unused, ours say it */
    PyObject *when;      /* the number that call_at was given, or NULL: */
    FlTimerNode node;
    double when_seconds; /* this is it, of no object yet */
    bool shares_context; /* others own it too: see fl_timer_own_context */
} FlTimerHandle;

/* Handles of one loop that await reuse, linked by their args slot. */
typedef struct {
    PyObject *handles;
    PyObject *timers;
    uint32_t handle_count;
    uint32_t timer_count;
} FlHandlePool;

/* Create and add the two types; fails with ImportError when asyncio's classes
   are not laid out as the structs above say. */
int fl_handle_register(PyObject *module, FlState *state);

/* A handle without an entry. */
FlHandle *fl_handle_new(struct FlLoop *loop);

/* A handle that owns its call: new references are taken of all three. */
FlHandle *fl_handle_new_filled(struct FlLoop *loop, PyObject *callback,
                               PyObject *args, PyObject *context);

/* When a timer is due, in seconds of loop.time(). */
typedef struct {
    double seconds;   /* infinite if no double holds the object's value */
    PyObject *object; /* the number as it was given, borrowed; or NULL */
} FlWhen;

/* The same for a timer, not yet scheduled. */
FlTimerHandle *fl_timer_new(struct FlLoop *loop, PyObject *callback,
                            PyObject *args, PyObject *context, FlWhen when);

/* Have the timer, whose context is one that nobody enters (shared_context.h),
   own a copy when it runs or is asked for it. */
static inline void
fl_timer_share_context(FlTimerHandle *self)
{
    self->shares_context = true;
}

/* Move what a popped entry owns into the handle that still points at it.
   0, or -1 with MemoryError; the entry is emptied either way. */
int fl_handle_fill_steal(FlHandle *self, FlReady *entry);

/* Turn a waiting handle's CALL entry into a HANDLE entry that owns it, so
   that the handle's own fields are what will run.  0, or -1 with MemoryError
   and nothing changed. */
int fl_handle_fill_waiting(FlHandle *self);

/* Run a filled handle as asyncio does: skip if cancelled, report what it
   raises.  0, or -1 with an exception that must leave run_forever. */
int fl_handle_run(struct FlLoop *loop, FlHandle *self);

static inline bool
fl_handle_is_cancelled(const FlHandle *self)
{
    return self->cancelled == Py_True;
}

/* Free the handles a loop keeps for reuse. */
void fl_handle_pool_free(FlHandlePool *pool);

static inline FlTimerHandle *
fl_timer_of(FlTimerNode *node)
{
    return (FlTimerHandle *)((char *)node - offsetof(FlTimerHandle, node));
}

#endif
