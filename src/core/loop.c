/* What every part asks of a loop: whether it is open, which one this thread
   runs, and that a forked child shares nothing with its parent. */
#include "core/loop.h"

#include "core/dispatch.h"
#include "core/poller.h"
#include "core/registration.h"
#include "py/compat.h"
#include "py/state.h"

int
fl_loop_check_open(FlLoop *loop)
{
    if (FL_LIKELY(!loop->closed)) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}

FlLoop *
fl_loop_of_thread(FlState *state)
{
    return PyThread_tss_get(&state->running);
}

void
fl_loop_flush_corked_here(FlState *state)
{
    FlLoop *loop = fl_loop_of_thread(state);
    if (loop != NULL) {
        fl_loop_flush_corked(loop);
    }
}

/* In a forked child the loop shares the parent's epoll set, signal pipe and
   timerfd: it gets its own.  A run must work there, for what leaves the
   parent's run by an exception meets Runner.close(), which makes three. */
int
fl_loop_leave_parent(FlLoop *loop)
{
    FlPoller *poller = loop->poller;
    int code = fl_poller_leave_parent(poller);
    if (code < 0 || poller->lost_by < 0 || !poller->unsettled) {
        return code < 0 ? code : poller->lost_by;
    }
    FlRegistration *own[] = {poller->timerfd_reg, poller->signal_reg};
    for (size_t at = 0; at < 2; at++) {
        if (own[at] != NULL) {
            fl_loop_drop_event(loop, own[at]);
        }
    }
    fl_poller_close_own(poller);
    return 0;
}
