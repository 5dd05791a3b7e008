/* Handles that call_soon_threadsafe gave: from 3.14 on, other threads wait.

   There cancel() and cancelled(), called by another thread while the callback
   runs, return when it is over: who has cancelled it may take down what the
   callback uses.

   1. At most one such handle runs in a loop, for turns do not nest.  It is
      named under the inbox's lock; whoever asks about that one sleeps.
   2. Whether it was cancelled is decided under the same lock, so that nobody
      is told that a callback will not run which then does.
   3. The callback's own thread never waits, as asyncio's lock is re-entrant.
   4. The GIL is given up to wait, and signals are looked at meanwhile. */
#include "core/threadsafe_handle.h"

#include "core/handle.h"
#include "core/inbox.h"
#include "core/loop.h"
#include "py/compat.h"

/* How long a signal's handler may have to wait for its thread. */
#define WAIT_NS 50000000

bool
fl_threadsafe_handle_begin(FlLoop *loop, FlHandle *self)
{
    FlInbox *inbox = &loop->inbox;
    fl_inbox_lock(inbox);
    bool begun = inbox->running == NULL; /* else _run() in a callback */
    if (begun) {
        inbox->running = self;
        inbox->running_in = PyThread_get_thread_ident();
    }
    fl_inbox_unlock(inbox);
    return begun;
}

void
fl_threadsafe_handle_end(FlLoop *loop)
{
    FlInbox *inbox = &loop->inbox;
    fl_inbox_lock(inbox);
    inbox->running = NULL;
    uv_cond_broadcast(&inbox->over);
    fl_inbox_unlock(inbox);
}

static bool
is_over_locked(const FlInbox *inbox, const FlHandle *self)
{
    return inbox->running != self
           || inbox->running_in == PyThread_get_thread_ident();
}

/* Wait a while if `wait`; true when the callback does not run, and then it
   never will if `cancel`. */
static bool
check_end(FlInbox *inbox, FlHandle *self, bool wait, bool cancel)
{
    fl_inbox_lock(inbox);
    if (wait && !is_over_locked(inbox, self)) {
        (void)uv_cond_timedwait(&inbox->over, &inbox->lock, WAIT_NS);
    }
    bool over = is_over_locked(inbox, self);
    if (over && cancel) {
        self->cancelled = Py_True; /* immortal, as what was there before */
    }
    fl_inbox_unlock(inbox);
    return over;
}

int
fl_threadsafe_handle_wait_callback(FlHandle *self, bool cancel)
{
    FlInbox *inbox = &FL_LOOP(self->loop)->inbox;
    bool over = check_end(inbox, self, false, cancel);
    while (!over) {
        PyThreadState *thread = PyEval_SaveThread();
        over = check_end(inbox, self, true, cancel);
        PyEval_RestoreThread(thread);
        if (!over && PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}
