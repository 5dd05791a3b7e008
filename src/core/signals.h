/* Signals: how a signal wakes a loop that runs in the main thread.

   libuv repeats a poll that a signal interrupted.  So a signal must arrive as
   a readable fd: during a run, Python's signal wakeup fd is the loop's signal
   pipe.

   Rejected: uv_signal_t.  Its handlers are process-wide and would replace
   Python's.

   Unless stated, a call in another thread than the main thread does not change
   the wakeup fd. */
#ifndef FL_CORE_SIGNALS_H
#define FL_CORE_SIGNALS_H

#include "core/loop.h"
#include "py/compat.h"
#include "py/state.h"

/* Create the loop's signal pipe, if it has none.  A loop calls this when it is
   created: if the process has no free fd, that fails, and not the first run.
   0, or -1 with OSError. */
int fl_signals_prepare(FlLoop *loop);

/* Around a run: claim Python's wakeup fd, and restore the application's unless
   a loop has signal handlers.
   begin also runs pending Python handlers.  0, or -1 with an exception set;
   errors of end are reported as unraisable. */
int fl_signals_begin(FlLoop *loop);
void fl_signals_end(FlLoop *loop);

/* Whether the calling thread is the main thread of the main interpreter. */
bool fl_signals_in_main_thread(FlState *state);

/* Before a wait: claim the wakeup fd again if a callback has set another one,
   and run pending Python handlers.  Sets *limit_ns where the wait must be
   no longer, else leaves it.  May run Python.  0, or -1 with an exception
   set. */
int fl_signals_before_wait(FlLoop *loop, int64_t *limit_ns);

/* Before the loop's poller is closed: make sure that Python does not write to
   the loop's pipe any more.  Any thread; an exception that is set stays set.
   Errors are reported as unraisable. */
void fl_signals_forget(FlLoop *loop);

/* In the child of a fork: determine the main thread again, and give up a
   wakeup fd that a parent's loop owned.  0, or -1 with an exception set. */
int fl_signals_after_fork(FlState *state);

/* The method _signal_wakeup(on), for add_signal_handler and
   remove_signal_handler.  RuntimeError outside the main thread. */
PyObject *fl_loop_signal_wakeup(FlLoop *loop, PyObject *arg);
extern const char fl_loop_signal_wakeup_doc[];

#endif
