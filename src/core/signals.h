/* Signals: Python's wakeup descriptor during a run of the main thread.

   libuv repeats a poll that a signal interrupted, so a signal must arrive as
   a readable descriptor.  Rejected: uv_signal_t, whose handlers are
   process-wide and would replace Python's. */
#ifndef FL_CORE_SIGNALS_H
#define FL_CORE_SIGNALS_H

#include "core/loop.h"
#include "py/compat.h"
#include "py/state.h"

/* In the main thread: make the signal pipe, so that a loop has the same
   descriptors from its first to its last day.  0 or -1 with OSError. */
int fl_signals_prepare(FlLoop *loop);

/* In the main thread: make Python's wakeup fd ours for the run. */
int fl_signals_begin(FlLoop *loop);
void fl_signals_end(FlLoop *loop);

/* The loop is about to wait: make the wakeup fd ours again, if a callback set
   another.  May shorten the wait.  0 or -1. */
int fl_signals_before_wait(FlLoop *loop, int64_t *timeout_ns);

/* The loop's poller is about to be closed: Python must not write to its pipe
   any more. */
void fl_signals_forget(FlLoop *loop);

/* After a fork, in the child: find the main thread anew, and let go of what
   the parent's loops had. */
int fl_signals_after_fork(FlState *state);

PyObject *fl_loop_signal_wakeup(FlLoop *loop, PyObject *arg);
extern const char fl_loop_signal_wakeup_doc[];

#endif
