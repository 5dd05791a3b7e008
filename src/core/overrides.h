/* What a program has put in the place of methods of ours, or of asyncio's.

   Programs do so to tell another time (tests), to see each callback that is
   scheduled (subclasses) and to see each that is run (instrumentation).  The
   short cuts that would go past such a method are not taken then.

   A class is looked at when a loop is made and when a run begins, for that
   costs a look-up; what is set on the loop itself counts from that moment on,
   as in asyncio.  What is set on socket.socket, or taken off it, counts from
   the next call on.  A slot of our own for attributes that are set was
   rejected: object.__setattr__(loop, ...) is a TypeError for a type that has
   one. */
#ifndef FL_CORE_OVERRIDES_H
#define FL_CORE_OVERRIDES_H

#include "core/loop.h"

/* Look at the loop's class.  0 or -1. */
int fl_overrides_note_class(FlLoop *loop);

/* Look at the class, and at what runs asyncio's handles.  0 or -1. */
int fl_overrides_begin_run(FlLoop *loop);

/* Look at socket.socket; as fl_overrides_socket. */
bool fl_overrides_note_socket(FlState *state);

/* Whether socket.socket has other methods than the system's, among those whose
   system calls we make ourselves. */
static inline bool
fl_overrides_socket(FlState *state)
{
    unsigned version = fl_type_version((PyTypeObject *)state->socket_type);
    const FlSeenClass *seen = &state->socket_seen;
    return FL_LIKELY(version != 0 && version == seen->version)
               ? !seen->is_plain
               : fl_overrides_note_socket(state);
}

/* Whether an attribute was set on the loop itself. */
bool fl_overrides_on_object(FlLoop *loop, PyObject *name);

#define FL_OVERRIDES_TIME                 1
#define FL_OVERRIDES_CALL_SOON            2
#define FL_OVERRIDES_CALL_AT              4
#define FL_OVERRIDES_CALL_SOON_THREADSAFE 8

/* Whether a method is the application's: of the loop's class, as its bit says,
   or on the loop itself. */
static inline bool
fl_overrides(FlLoop *loop, uint8_t bit, PyObject *name)
{
    return FL_UNLIKELY(loop->class_overrides & bit)
           || (FL_UNLIKELY(loop->dict != NULL)
               && fl_overrides_on_object(loop, name));
}

static inline bool
fl_overrides_time(FlLoop *loop)
{
    return fl_overrides(loop, FL_OVERRIDES_TIME, loop->state->names.time);
}

/* It may look at the handle then. */
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

/* It may wake what the loop runs in. */
static inline bool
fl_overrides_call_soon_threadsafe(FlLoop *loop)
{
    return fl_overrides(loop, FL_OVERRIDES_CALL_SOON_THREADSAFE,
                        loop->state->names.call_soon_threadsafe);
}

#endif
