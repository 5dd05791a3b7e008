/* Calls that every part of the loop uses: whether it is open, which loop this
   thread runs, and how a forked child separates from its parent.

   1. A thread's running loop is in the thread-specific `state->running`, which
      iterate() in loop/run.c sets and restores.  The pointer is borrowed: the
      method call that iterates owns a reference.
   2. A loop of a forked child shares no kernel object with the parent's.
      Otherwise a change in one process would change the other's epoll set or
      take its signals. */
#include "core/loop.h"

#include "base/codes.h"
#include "core/poller.h"
#include "core/registration.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"

int
fl_loop_check_open(FlLoop *loop)
{
    if (FL_LIKELY(!loop->closed)) {
        return 0;
    }
    return fl_raise_errno(FL_CLOSED);
}

void
fl_loop_flush_corked_here(FlState *state)
{
    FlLoop *loop = fl_loop_of_thread(state);
    if (loop != NULL) {
        fl_loop_flush_corked(loop);
    }
}

/* A run must work in a forked child.  If a callback forks and the child raises
   out of the run, asyncio's Runner.close() runs the loop three times more. */
int
fl_loop_after_fork(FlLoop *loop)
{
    FlPoller *poller = loop->poller;
    int code = fl_poller_after_fork(poller);
    /* failure_code is set also where this process itself closed the poller's
       fds; its timerfd and pipe may be other files by now and stay
       untouched. */
    if (code < 0 || poller->table.failure_code < 0 || !poller->needs_repair) {
        return code < 0 ? code : poller->table.failure_code;
    }
    fl_poller_close_own(poller);
    return 0;
}
