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
#include "core/thread_queue.h"
#include "core/loop.h"
#include "py/compat.h"

/* How long a signal's handler may have to wait for its thread. */
#define WAIT_NS 50000000

bool
fl_threadsafe_handle_begin(FlLoop *loop, FlHandle *self)
{
    FlThreadQueue *thread_queue = &loop->thread_queue;
    fl_thread_queue_lock(thread_queue);
    bool begun = thread_queue->running == NULL; /* else _run() in a callback */
    if (begun) {
        thread_queue->running = self;
        thread_queue->running_in = PyThread_get_thread_ident();
    }
    fl_thread_queue_unlock(thread_queue);
    return begun;
}

void
fl_threadsafe_handle_end(FlLoop *loop)
{
    FlThreadQueue *thread_queue = &loop->thread_queue;
    fl_thread_queue_lock(thread_queue);
    thread_queue->running = NULL;
    uv_cond_broadcast(&thread_queue->over);
    fl_thread_queue_unlock(thread_queue);
}

static bool
is_over_locked(const FlThreadQueue *thread_queue, const FlHandle *self)
{
    return thread_queue->running != self
           || thread_queue->running_in == PyThread_get_thread_ident();
}

/* Wait a while if `wait`; true when the callback does not run, and then it
   never will if `cancel`. */
static bool
check_end(FlThreadQueue *thread_queue, FlHandle *self, bool wait, bool cancel)
{
    fl_thread_queue_lock(thread_queue);
    if (wait && !is_over_locked(thread_queue, self)) {
        (void)uv_cond_timedwait(&thread_queue->over, &thread_queue->lock,
                                WAIT_NS);
    }
    bool over = is_over_locked(thread_queue, self);
    if (over && cancel) {
        self->cancelled = Py_True; /* immortal, as what was there before */
    }
    fl_thread_queue_unlock(thread_queue);
    return over;
}

int
fl_threadsafe_handle_wait_callback(FlHandle *self, bool cancel)
{
    FlThreadQueue *thread_queue = &FL_LOOP(self->loop)->thread_queue;
    bool over = check_end(thread_queue, self, false, cancel);
    while (!over) {
        PyThreadState *thread = PyEval_SaveThread();
        over = check_end(thread_queue, self, true, cancel);
        PyEval_RestoreThread(thread);
        if (!over && PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}
