/* Thread-safe handles: what call_soon_threadsafe returns from 3.14 on.

   If another thread calls cancel() or cancelled() while the callback runs, it
   waits until the callback has returned.  On earlier versions nothing waits.

   Threads: begin and end are for the thread that runs the callback;
   fl_threadsafe_handle_wait_callback is for any thread with a thread state.

   Rejected: a lock in each handle, as in asyncio.  Only one callback of a loop
   runs at a time, so one lock for each loop is enough. */
#ifndef FL_CORE_THREADSAFE_HANDLE_H
#define FL_CORE_THREADSAFE_HANDLE_H

#include "core/handle.h"
#include "core/loop.h"
#include "py/compat.h"

/* Call this before the callback of a thread-safe handle.  If it returns true,
   fl_threadsafe_handle_end must follow the callback.  Check whether the handle
   is cancelled only after this call: from here on a cancel() waits. */
bool fl_threadsafe_handle_begin(FlHandle *self);
void fl_threadsafe_handle_end(FlHandle *self);

/* Wait while another thread runs the handle's callback, and then, with
   `cancel`, mark the handle cancelled.  Releases the GIL to wait.  0, or -1
   with the exception of a signal handler. */
int fl_threadsafe_handle_wait_callback(FlHandle *self, bool cancel);

/* Whether call_soon_threadsafe returned this handle, on a version where other
   threads wait.  `self` may be a TimerHandle, which lacks the field, so the
   type is checked first. */
static inline bool
fl_handle_is_threadsafe(const FlHandle *self)
{
    return FL_CANCEL_WAITS_FOR_CALLBACK
           && Py_TYPE(self) == FL_LOOP(self->loop)->state->handle_type
           && self->threadsafe;
}

#endif
