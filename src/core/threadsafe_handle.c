/* Handles of call_soon_threadsafe: from 3.14 on, other threads wait.

   From 3.14 on cancel() and cancelled(), if another thread calls them while
   the callback runs, return after the callback.  A thread that has cancelled a
   handle may then free what its callback uses.

   1. At most one such handle runs in a loop, since iterations do not nest.
      thread_queue->running names it, under the queue's lock.  Only threads
      that call cancel() or cancelled() of that handle sleep.
   2. `cancelled` is set under the same lock.  Otherwise cancel() could return
      as if in time while the loop begins the callback. */
#include "core/threadsafe_handle.h"

#include "core/handle.h"
#include "core/loop.h"
#include "core/thread_queue.h"
#include "py/compat.h"

/* A wait ends this often to run signal handlers: 50 ms. */
#define WAIT_NS 50000000

bool
fl_threadsafe_handle_begin(FlHandle *self)
{
    FlThreadQueue *thread_queue = &FL_LOOP(self->loop)->thread_queue;
    fl_thread_queue_lock(thread_queue);
    /* Not NULL: a callback called _run() of a thread-safe handle. */
    bool begun = thread_queue->running == NULL;
    if (begun) {
        thread_queue->running = self;
        thread_queue->running_thread = PyThread_get_thread_ident();
    }
    fl_thread_queue_unlock(thread_queue);
    return begun;
}

void
fl_threadsafe_handle_end(FlHandle *self)
{
    FlThreadQueue *thread_queue = &FL_LOOP(self->loop)->thread_queue;
    fl_thread_queue_lock(thread_queue);
    thread_queue->running = NULL;
    uv_cond_broadcast(&thread_queue->finished);
    fl_thread_queue_unlock(thread_queue);
}

int
fl_threadsafe_handle_wait_callback(FlHandle *self, bool cancel)
{
    FlThreadQueue *thread_queue = &FL_LOOP(self->loop)->thread_queue;
    for (;;) {
        fl_thread_queue_lock(thread_queue);
        /* The callback's own thread never waits: it would wait for
           itself. */
        bool runs =
            thread_queue->running == self
            && thread_queue->running_thread != PyThread_get_thread_ident();
        PyObject *old = NULL; /* any object, if set by asyncio's own slot */
        if (!runs && cancel) {
            old = self->cancelled;
            self->cancelled = Py_NewRef(Py_True);
        }
        fl_thread_queue_unlock(thread_queue);
        Py_XDECREF(old);
        if (!runs) {
            return 0;
        }
        /* The callback may wait for what this thread's loop has corked. */
        fl_loop_flush_corked_here(FL_LOOP(self->loop)->state);
        PyThreadState *thread = PyEval_SaveThread();
        fl_thread_queue_lock(thread_queue);
        if (thread_queue->running == self) {
            (void)uv_cond_timedwait(&thread_queue->finished,
                                    &thread_queue->lock, WAIT_NS);
        }
        fl_thread_queue_unlock(thread_queue);
        PyEval_RestoreThread(thread);
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
}
