/* Methods of ours, or of asyncio's, that the application has replaced.

   Applications replace methods to fake the time (tests), to see each callback
   when it is scheduled (subclasses), and to see it when it runs
   (instrumentation).  The fast paths skip these methods, so they are not used
   for a method that was replaced.

   When a replacement takes effect:

   - on the loop's class: when a loop is created and when a run begins, because
     the check needs attribute lookups;
   - on the loop object itself: at once, as in asyncio;
   - on socket.socket, also when it is undone: with the next call.

   Rejected: a tp_setattro of our own that notices attributes being set.  For a
   type that has one, object.__setattr__(loop, ...) raises TypeError.

   Loop's thread only. */
#ifndef FL_CORE_OVERRIDES_H
#define FL_CORE_OVERRIDES_H

#include "core/loop.h"

/* Check the loop's class; sets loop->class_overrides.  0, or -1 with an
   exception set. */
int fl_overrides_check_class(FlLoop *loop);

/* The same, and check asyncio.Handle._run; sets loop->patched_run.  0, or -1
   with an exception set. */
int fl_overrides_begin_run(FlLoop *loop);

/* The slow path of fl_overrides_socket: check socket.socket and cache the
   answer. */
bool fl_overrides_check_socket(FlState *state);

/* Whether the application has replaced a method of socket.socket whose system
   call we make directly.  Then the method must be called instead. */
static inline bool
fl_overrides_socket(FlState *state)
{
    unsigned version = fl_type_version((PyTypeObject *)state->socket_type);
    const FlSeenClass *seen = &state->socket_seen;
    return FL_LIKELY(version != 0 && version == seen->version)
               ? !seen->is_plain
               : fl_overrides_check_socket(state);
}

/* Whether the loop's __dict__, which must exist, has this name. */
bool fl_overrides_in_dict(FlLoop *loop, PyObject *name);

/* Bits of loop->class_overrides. */
#define FL_OVERRIDES_TIME                 1
#define FL_OVERRIDES_CALL_SOON            2
#define FL_OVERRIDES_CALL_AT              4
#define FL_OVERRIDES_CALL_SOON_THREADSAFE 8

/* Whether the application has replaced a method, on the loop's class (`bit`)
   or on the loop object (`name`). */
static inline bool
fl_overrides(FlLoop *loop, uint8_t bit, PyObject *name)
{
    return FL_UNLIKELY(loop->class_overrides & bit)
           || (FL_UNLIKELY(loop->dict != NULL)
               && fl_overrides_in_dict(loop, name));
}

static inline bool
fl_overrides_time(FlLoop *loop)
{
    return fl_overrides(loop, FL_OVERRIDES_TIME, loop->state->names.time);
}

/* If so, a replacement may look at the handle, so every call needs one. */
static inline bool
fl_overrides_call_soon(FlLoop *loop)
{
    return fl_overrides(loop, FL_OVERRIDES_CALL_SOON,
                        loop->state->names.call_soon);
}

static inline bool
fl_overrides_call_at(FlLoop *loop)
{
    return fl_overrides(loop, FL_OVERRIDES_CALL_AT,
                        loop->state->names.call_at);
}

/* If so, a replacement may also have to wake a foreign event loop that the
   loop is embedded in, so nothing may bypass it. */
static inline bool
fl_overrides_call_soon_threadsafe(FlLoop *loop)
{
    return fl_overrides(loop, FL_OVERRIDES_CALL_SOON_THREADSAFE,
                        loop->state->names.call_soon_threadsafe);
}

#endif
