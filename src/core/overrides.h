/* What a program has put in the place of methods of ours, or of asyncio's.

   Programs do so to tell another time (tests), to see each callback that is
   scheduled (subclasses) and to see each that is run (instrumentation).  The
   short cuts that would go past such a method are not taken then.

   A class is looked at when a loop is made and when a run begins, for that
   costs a look-up; what is set on the loop itself counts from that moment on,
   as in asyncio.  A slot of our own for attributes that are set was rejected:
   object.__setattr__(loop, ...) is a TypeError for a type that has one. */
#ifndef FL_CORE_OVERRIDES_H
#define FL_CORE_OVERRIDES_H

#include "core/loop.h"

/* Look at the loop's class.  0 or -1. */
int fl_overrides_note_class(FlLoop *loop);

/* Look at the class, and at what runs asyncio's handles.  0 or -1. */
int fl_overrides_begin_run(FlLoop *loop);

/* Whether an attribute was set on the loop itself. */
bool fl_overrides_on_object(FlLoop *loop, PyObject *name);

/* Whether loop.time() is the program's. */
static inline bool
fl_overrides_time(FlLoop *loop)
{
    return FL_UNLIKELY(loop->class_has_time)
           || (FL_UNLIKELY(loop->dict != NULL)
               && fl_overrides_on_object(loop, loop->state->names.time));
}

/* Whether the program replaced call_soon(); it may look at the handle then. */
static inline bool
fl_overrides_call_soon(FlLoop *loop)
{
    return FL_UNLIKELY(loop->class_has_call_soon)
           || (FL_UNLIKELY(loop->dict != NULL)
               && fl_overrides_on_object(loop, loop->state->names.call_soon));
}

#endif
