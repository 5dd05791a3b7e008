/* Thread-safe handles: what call_soon_threadsafe returns from 3.14 on.

   Another thread that calls cancel() or cancelled() while the callback runs
   waits until the callback has returned.  On earlier versions nothing waits.

   Rejected: a lock in each handle, as asyncio has it.  Only one callback of a
   loop runs at a time, so one lock a loop is enough. */
#ifndef FL_CORE_THREADSAFE_HANDLE_H
#define FL_CORE_THREADSAFE_HANDLE_H

#include "core/handle.h"
#include "core/loop.h"
#include "py/compat.h"

/* The callback of a thread-safe handle begins: true if
   fl_threadsafe_handle_end must follow.
   Whether it was cancelled is to be asked after this. */
bool fl_threadsafe_handle_begin(FlLoop *loop, FlHandle *self);
void fl_threadsafe_handle_end(FlLoop *loop);

/* Wait until the callback, if another thread runs it, is over; optionally mark
   the handle cancelled.  0, or -1 with what a signal's handler raised. */
int fl_threadsafe_handle_wait_callback(FlHandle *self, bool cancel);

/* Whether a handle of either type is one of call_soon_threadsafe. */
static inline bool
fl_handle_is_threadsafe(const FlHandle *self)
{
    return FL_HANDLES_WAIT
           && Py_TYPE(self) == FL_LOOP(self->loop)->state->handle_type
           && self->threadsafe;
}

#endif
