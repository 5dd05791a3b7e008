/* Methods of ours, or of asyncio's, that the application has replaced.

   Applications replace methods to fake the time (tests), to see each timer or
   thread-safe call when it is scheduled (subclasses), and to see a callback
   when it runs (instrumentation).  The fast paths skip these methods, so they
   are not used for a method that was replaced.  call_soon is not among them:
   every caller gets a handle, except asyncio's C code (loop/scheduling.c).

   When a replacement takes effect:

   - on the loop's class: when a loop is created; this and the next need
     attribute lookups;
   - there and asyncio.Handle._run: when a run begins, and in a run within some
     milliseconds (iteration.c, invariant 2): uvicorn imports the application,
     and the tracers that it sets up, in a task;
   - other code in the function _run: when a run begins;
   - on the loop object itself: at once, as in asyncio;
   - on socket.socket, also when it is undone: with the next call.

   Rejected: a tp_setattro of our own that notices attributes being set.  For a
   type that has one, object.__setattr__(loop, ...) raises TypeError.

   fl_overrides: any thread.  The rest: the loop's. */
#ifndef FL_CORE_OVERRIDES_H
#define FL_CORE_OVERRIDES_H

#include "core/loop.h"

/* Check the loop's class; sets loop->class_overrides.  0, or -1 with an
   exception set. */
int fl_overrides_check_class(FlLoop *loop);

/* The same, and check asyncio.Handle._run; sets loop->patched_run.  0, or -1
   with an exception set. */
int fl_overrides_check(FlLoop *loop);

static inline bool
fl_class_has_version(const PyTypeObject *type, unsigned version)
{
    /* 0: the class was changed, or was changed too often to have versions. */
    return version != 0 && version == fl_type_version(type);
}

/* Whether one of the two classes may have changed since fl_overrides_check.
   Not if a function was given other code (py/methods.h). */
static inline bool
fl_overrides_are_old(const FlLoop *loop)
{
    const PyTypeObject *handle = (PyTypeObject *)loop->state->asyncio_handle;
    return !fl_class_has_version(Py_TYPE(loop), loop->class_version)
           || !fl_class_has_version(handle, loop->handle_version);
}

/* Whether the application has replaced a method of socket.socket whose system
   call we make directly.  Then the method must be called instead. */
bool fl_overrides_socket(FlState *state);

/* Whether a socket's class is socket.socket itself, with CPython's own
   methods.  Only then may a system call replace a method call. */
static inline bool
fl_socket_is_plain(FlState *state, const PyTypeObject *type)
{
    return type == (PyTypeObject *)state->socket_type
           && !fl_overrides_socket(state);
}

/* Methods of the loop; a set bit of loop->class_overrides has this number. */
typedef enum {
    FL_OVERRIDES_TIME,
    FL_OVERRIDES_CALL_AT,
    /* A replaced call_soon_threadsafe may also have to wake a foreign event
       loop that the loop is embedded in, so nothing may bypass it. */
    FL_OVERRIDES_CALL_SOON_THREADSAFE,
} FlOverride;

/* Whether the loop's __dict__, which must exist, has another method. */
bool fl_overrides_in_dict(FlLoop *loop, FlOverride method);

/* Whether the application has replaced a method, on the loop's class or on the
   loop object. */
static inline bool
fl_overrides(FlLoop *loop, FlOverride method)
{
    return FL_UNLIKELY(loop->class_overrides & 1 << method)
           || (FL_UNLIKELY(loop->dict != NULL)
               && fl_overrides_in_dict(loop, method));
}

#endif
