/* Work that a TLS connection postpones: calls made while the engine is busy,
   and the first data after the handshake.

   1. No data is delivered before the task that awaits start_tls() has resumed.
      It only has the new transport from then on: a protocol that replied
      earlier would write plain text to the old one.  The resume_writing of a
      protocol that was paused before start_tls waits too.  asyncio does not
      wait.
   2. A postponed call runs in the context of the raw transport's events, so
      that the protocol sees the same context variables in all its calls. */
#include "tls/deferred.h"

#include "core/dispatch.h"
#include "core/loop.h"
#include "core/report.h"
#include "py/compat.h"
#include "py/errors.h"
#include "tls/engine.h"
#include "tls/connection.h"
#include "tls/tls_calls.h"
#include "transport/stream.h"

/* The waiter's callbacks run in the first iteration and resume the task.
   Before 3.12, wait_for() runs its argument in a task of its own, so its
   caller resumes one iteration later. */
#define DELAY_ITERATIONS (PY_VERSION_HEX < 0x030C0000 ? 3 : 2)

int
fl_tls_settle(FlTls *self)
{
    FlTlsEngine *engine = &self->engine;
    return engine->type == NULL ? 0 : engine->type->settle(engine);
}

int
fl_tls_process_and_settle(FlTls *self)
{
    int code = fl_tls_process(self);
    return code < 0 ? -1 : fl_tls_settle(self);
}

/* Invariant 2.  Only our stream has a context that we can read; for other
   transports the loop copies the current one. */
static int
queue_op(FlTls *self, FlReadyOp op)
{
    PyObject *context = self->raw != NULL && self->raw_is_stream
                            ? ((FlStream *)self->raw)->context
                            : NULL;
    return fl_loop_call_op(self->loop, op, (PyObject *)self, NULL, context);
}

/* fastloop/_tls.py compares with this text: _CALL_FAILED. */
#define CALL_FAILED "Fatal error: protocol.buffer_updated() call failed."

/* The protocol raised.  In an event of the raw transport the exception would
   propagate into that transport, which ends the connection.  A postponed call
   has no such caller, so it ends the connection itself.  0, or -1 with an
   exception that leaves the loop. */
static int
fail_connection(FlTls *self)
{
    if (fl_error_leaves_loop()) {
        return fl_loop_report_callback(self->loop, NULL);
    }
    PyObject *exc = PyErr_GetRaisedException();
    int code = fl_tls_fatal_exception(self, exc, CALL_FAILED);
    Py_DECREF(exc);
    return code < 0 ? fl_loop_report_callback(self->loop, NULL) : 0;
}

/* --- calls while the engine is busy -------------------------------------- */

static int
run_deferred(FlLoop *Py_UNUSED(loop), PyObject *object,
             PyObject *Py_UNUSED(ignored))
{
    FlTls *self = (FlTls *)object;
    self->deferred = false; /* before the call, which may defer again */
    return fl_tls_process_and_settle(self) < 0 ? fail_connection(self) : 0;
}

int
fl_tls_defer(FlTls *self)
{
    if (self->deferred || self->raw == NULL) {
        return 0;
    }
    self->deferred = true;
    int code = queue_op(self, run_deferred);
    self->deferred = code == 0;
    return code;
}

/* --- the first data ------------------------------------------------------ */

void
fl_tls_delay_begin(FlTls *self)
{
    self->delay_iterations = self->waiter == NULL ? 0 : DELAY_ITERATIONS;
}

int
fl_tls_delay_end(FlTls *self)
{
    self->delay_iterations = 0;
    return fl_tls_process_and_settle(self);
}

/* Runs once an iteration, and queues itself until the delay is over.  If it
   cannot be queued it reports that and delivers now: early data is better than
   a connection that hangs. */
static int
count_iteration(FlLoop *loop, PyObject *object, PyObject *Py_UNUSED(ignored))
{
    FlTls *self = (FlTls *)object;
    if (self->delay_iterations > 1) {
        self->delay_iterations--;
        if (queue_op(self, count_iteration) == 0) {
            return 0;
        }
        if (fl_loop_report_callback(loop, NULL) < 0) {
            return -1;
        }
    }
    if (self->delay_iterations == 0 || self->abandoned) {
        return 0; /* connection_lost has delivered it, or start_tls failed */
    }
    return fl_tls_delay_end(self) < 0 ? fail_connection(self) : 0;
}

int
fl_tls_delay_wake(FlTls *self)
{
    if (self->delay_iterations == 0) {
        return 0;
    }
    /* This order: the waiter's callbacks run before the first count. */
    int code = fl_tls_wake_waiter(self, NULL);
    if (code == 0) {
        code = queue_op(self, count_iteration);
    }
    if (code < 0) {
        self->delay_iterations = 0;
    }
    return code;
}
