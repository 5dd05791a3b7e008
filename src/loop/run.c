/* Runs: their beginning and end, around the iterations of iteration.c. */
#include "loop/run.h"

#include "base/clock.h"
#include "core/dispatch.h"
#include "core/flush.h"
#include "core/iteration.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/overrides.h"
#include "core/thread_queue.h"
#include "loop/tasks.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"

#include <stdlib.h>

/* asyncio's error.  Returns -1. */
static int
raise_already_running(void)
{
    PyErr_SetString(PyExc_RuntimeError, "This event loop is already running");
    return -1;
}

/* --- begin and end ------------------------------------------------------- */

/* Undo begin(), or the part of it that was done. */
void
fl_loop_end_run(FlLoop *loop)
{
    fl_metrics_run_ends(loop);
    loop->thread_id = 0;
    fl_loop_unclaim(loop);
}

/* Decide whether this run corks writes: stream_send.c, invariant 2. */
static void
begin_corking(FlLoop *loop)
{
    /* The loop that runs this one in a callback.  A forked child may still
       have the parent's there, which corks nothing. */
    const FlLoop *outer = fl_loop_of_thread(loop->state);
    bool corks = FL_HAVE_GIL && !(loop->off & FL_OFF_CORK)
                 && (outer == NULL || fl_loop_is_inherited(outer));
    loop->cork.thread = corks ? PyThreadState_Get() : NULL;
    loop->cork.busy_thread = loop->cork.thread;
}

/* Begin a run of a claimed loop on this thread, whose ident is `thread`; 0: an
   iteration outside a run.  If it fails, the caller calls
   fl_loop_end_run all the same.  0 or -1. */
static int
begin(FlLoop *loop, unsigned long thread)
{
    if (fl_loop_check_open(loop) < 0) {
        return -1;
    }
    FL_CHECK(fl_loop_is_claimed_here(loop), "a run holds the loop's claim");
    loop->thread_id = thread;
    loop->polls.skips_left = 0; /* the first iteration polls */
    fl_metrics_run_begins(loop);
    int plain = fl_tasks_are_plain(loop);
    loop->plain_tasks = plain > 0;
    begin_corking(loop);
    return plain < 0 || fl_overrides_check(loop) < 0 ? -1 : 0;
}

PyObject *
fl_loop_thread_id_get(FlLoop *loop, void *Py_UNUSED(closure))
{
    /* Read once: another thread may end the run. */
    unsigned long thread = loop->thread_id;
    return thread == 0 ? Py_NewRef(Py_None) : PyLong_FromUnsignedLong(thread);
}

/* End the run, which only its own thread may, outside an iteration.  0 or
   -1. */
static int
end_by_attribute(FlLoop *loop)
{
    if (!fl_loop_is_running(loop)) {
        return 0;
    }
    if (fl_fd_table_iterates_here(loop->table) || !fl_loop_on_own_thread(loop))
    {
        return raise_already_running();
    }
    fl_loop_end_run(loop);
    return 0;
}

int
fl_loop_thread_id_set(FlLoop *loop, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == Py_None) {
        return end_by_attribute(loop);
    }
    /* NULL means "del loop._thread_id"; no thread has the ident 0. */
    unsigned long ident = value == NULL ? 0 : PyLong_AsUnsignedLong(value);
    if (ident == (unsigned long)-1 && PyErr_Occurred()) {
        return -1;
    }
    if (ident != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_ValueError,
                        "_thread_id must be None or the calling thread's "
                        "ident");
        return -1;
    }
    if (fl_loop_on_own_thread(loop)) {
        return 0; /* what is set already */
    }
    if (!fl_loop_claim(loop)) {
        /* asyncio checks in this order: a closed loop first. */
        return fl_loop_check_open(loop) < 0 ? -1 : raise_already_running();
    }
    int code = begin(loop, ident);
    if (code < 0) {
        fl_loop_end_run(loop);
    }
    return code;
}

/* --- iterations ---------------------------------------------------------- */

/* Begin iterations of this thread; fl_loop_of_thread() returns this loop until
   they end.  If PyThread_tss_set fails for lack of memory, this loop corks no
   writes.  If a callback of another loop iterates this one, that loop's corked
   writes are flushed first, because the callback returns only after this, and
   the callback corks no more.  Sets *previous, for end_iterations.  0 or
   -1. */
FL_INLINE int
begin_iterations(FlLoop *loop, FlLoop **previous)
{
    if (fl_fd_table_iterates_here(loop->table)) {
        return raise_already_running();
    }
    Py_tss_t *running = &loop->state->running;
    *previous = PyThread_tss_get(running);
    if (*previous != NULL) {
        fl_loop_flush_corked(*previous);
        (*previous)->cork.writer = NULL;
    }
    if (PyThread_tss_set(running, loop) != 0) {
        loop->cork.thread = loop->cork.busy_thread = NULL;
    }
    fl_fd_table_begin_iterations(loop->table);
    return 0;
}

FL_INLINE void
end_iterations(FlLoop *loop, FlLoop *previous)
{
    fl_fd_table_end_iterations(loop->table);
    (void)PyThread_tss_set(&loop->state->running, previous);
}

/* Run one iteration, or iterate until stop() is called or an exception leaves
   an iteration.  0 or -1. */
static int
iterate(FlLoop *loop, bool once)
{
    FlLoop *previous = NULL; /* gcc takes it for unset under TSan */
    if (begin_iterations(loop, &previous) < 0) {
        return -1;
    }
    int code;
    do {
        code = fl_loop_iterate(loop);
        /* Checked after the iteration: a run after stop() still makes one. */
    } while (code == 0 && !once && !loop->stopping);
    end_iterations(loop, previous);
    return code;
}

const char fl_loop_iterate_until_stopped_doc[] =
    "_iterate_until_stopped($self, /)\n--\n\n"
    "Iterate until stop() is called, in a run of this thread.";

PyObject *
fl_loop_iterate_until_stopped(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    if (!fl_loop_on_own_thread(loop)) {
        return PyErr_Format(PyExc_RuntimeError,
                            "This event loop is not running");
    }
    return fl_call_none(iterate(loop, false));
}

const char fl_loop_run_once_doc[] =
    "_run_once($self, /)\n--\n\n"
    "Run one iteration.  asyncio's private name.";

PyObject *
fl_loop_run_once(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    if (fl_loop_on_own_thread(loop)) {
        return fl_call_none(iterate(loop, true));
    }
    if (!fl_loop_claim(loop)) {
        return fl_call_none(raise_already_running());
    }
    int code = begin(loop, 0);
    if (code == 0) {
        code = iterate(loop, true);
    }
    fl_loop_end_run(loop);
    return fl_call_none(code);
}

const char fl_loop_run_shuffled_doc[] =
    "_run_shuffled($self, seconds, bits, /)\n--\n\n"
    "Run one iteration that waits at most so many seconds; return whether\n"
    "there was anything to run.  For an override of _run_once.  Random bits\n"
    "other than 0 shuffle events, and timers with one deadline.";

PyObject *
fl_loop_run_shuffled(FlLoop *loop, PyObject *args)
{
    double wait_s;
    unsigned long long bits;
    FlLoop *previous = NULL; /* gcc takes it for unset under TSan */
    if (!PyArg_ParseTuple(args, "dK:_run_shuffled", &wait_s, &bits)) {
        return NULL;
    }
    if (!fl_loop_on_own_thread(loop)) {
        return PyErr_Format(PyExc_RuntimeError,
                            "only for overrides of _run_once");
    }
    if (begin_iterations(loop, &previous) < 0) {
        return NULL;
    }
    int64_t limit_ns = wait_s > 0 ? (int64_t)(Py_MIN(wait_s, 1e6) * 1e9) : 0;
    int found = fl_loop_iterate_shuffled(loop, limit_ns, bits);
    end_iterations(loop, previous);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

/* --- nested runs --------------------------------------------------------- */

/* The loop's state for the callback that runs; a nested run has its own.  A
   handle whose context the callback has entered is queued when that run ends.
   Rejected: before all else (18 lines, and no program was found that sees the
   order). */
typedef struct {
    char *scratch;
    int64_t since_ns;
    PyObject *callback, *handle, *put_off;
} CallbackState;

/* Exchange it. */
static void
swap_callback_state(FlLoop *loop, CallbackState *state)
{
    CallbackState before = {loop->scratch, loop->timing.since_ns,
                            loop->timing.callback, loop->current_handle,
                            loop->put_off};
    Py_BEGIN_CRITICAL_SECTION(loop); /* see py/field.h */
    loop->current_handle = state->handle;
    Py_END_CRITICAL_SECTION();
    loop->scratch = state->scratch;
    loop->timing.since_ns = state->since_ns;
    loop->timing.callback = state->callback;
    loop->put_off = state->put_off;
    *state = before;
}

/* Leave the nested run out of the time of the callback around it: its
   callbacks were timed on their own. */
static void
resume_timing(FlLoop *loop, int64_t nested_ns)
{
    if (loop->timing.since_ns != 0) {
        loop->timing.since_ns += nested_ns;
        if (loop->metrics != NULL) {
            fl_count_set(&loop->metrics->callback_began_ns,
                         (uint64_t)loop->timing.since_ns);
        }
    }
}

/* Queue and register again what a nested run has put off.  A handle for which
   no memory is left is reported.  0, or -1 with an exception that ends the
   run. */
static int
queue_put_off(FlLoop *loop, PyObject *handles)
{
    int code = 0;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(handles); at++) {
        PyObject *handle = PyList_GET_ITEM(handles, at);
        if (fl_loop_queue_handle(loop, (FlHandle *)handle) < 0
            && fl_loop_report_callback(loop, handle) < 0)
        {
            code = -1;
            break;
        }
    }
    fl_registrations_recheck(loop->table, false);
    loop->polls.skips_left = 0; /* poll next, for what was put off */
    return code;
}

const char fl_loop_nest_doc[] =
    "_nest($self, run, /)\n--\n\n"
    "Call run(), which may call _run_once(), inside a callback of this loop.";

PyObject *
fl_loop_nest(FlLoop *loop, PyObject *run)
{
    PyObject *handles = PyList_New(0);
    if (handles == NULL) {
        return NULL;
    }
    CallbackState around = {.put_off = handles};
    swap_callback_state(loop, &around);
    if (loop->metrics != NULL) {
        fl_count_set(&loop->metrics->callback_began_ns, 0);
    }
    int64_t began_ns = fl_clock_ns();
    FlFdTable *table = loop->table;
    bool iterates = fl_fd_table_iterates_here(table);
    /* In a signal handler that runs before a wait. */
    bool waits = atomic_load(&table->poller.sleeping);
    fl_fd_table_end_iterations(table);
    PyObject *result = PyObject_CallNoArgs(run);
    if (iterates) {
        fl_fd_table_begin_iterations(table);
    }
    if (waits) {
        fl_poller_let_wake(&table->poller);
    }
    PyObject *exc = PyErr_GetRaisedException();
    swap_callback_state(loop, &around);
    free(around.scratch); /* the nested run's */
    resume_timing(loop, fl_clock_ns() - began_ns);
    if (fl_error_keep_first(exc, queue_put_off(loop, handles), run) < 0) {
        Py_CLEAR(result);
    }
    Py_DECREF(handles);
    return result;
}
