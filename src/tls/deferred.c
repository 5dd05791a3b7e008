/* What a filter puts off: what was asked for from within the engine, and the
   first data.

   1. Whoever awaits start_tls has the new transport only when it returns.  A
      protocol that answered before would write plain text to an encrypted
      connection, so data waits for him, and so does the resume_writing of a
      protocol that was paused before.  asyncio waits for nobody.
   2. What waits is delivered in the context of the raw transport's events, as
      all that follows. */
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

/* The waiter's callbacks run in the first; before 3.12 wait_for() takes one
   more to tell who called it. */
#define AWAITED_ITERATIONS (PY_VERSION_HEX < 0x030C0000 ? 3 : 2)

int
fl_tls_settle(FlTls *self)
{
    FlTlsEngine *engine = &self->engine;
    return engine->type == NULL ? 0 : engine->type->settle(engine);
}

int
fl_tls_go_on(FlTls *self)
{
    int code = fl_tls_process(self);
    return code < 0 ? -1 : fl_tls_settle(self);
}

static int
call_op(FlTls *self, FlReadyOp op)
{
    PyObject *context = self->raw != NULL && self->raw_is_stream
                            ? ((FlStream *)self->raw)->context
                            : NULL;
    return fl_loop_call_op(self->loop, op, (PyObject *)self, NULL, context);
}

#define FAILED "Fatal error: protocol.buffer_updated() call failed."

/* What a protocol raised goes to the raw transport where records come by its
   event; here it is the end of the connection too. */
static int
end_by_error(FlTls *self)
{
    if (fl_error_leaves_loop()) {
        return fl_loop_report_callback(self->loop, NULL);
    }
    PyObject *exc = PyErr_GetRaisedException();
    int code = fl_tls_fatal_exception(self, exc, FAILED);
    Py_DECREF(exc);
    return code < 0 ? fl_loop_report_callback(self->loop, NULL) : 0;
}

/* --- from within the engine ---------------------------------------------- */

static int
do_put_off(FlLoop *Py_UNUSED(loop), PyObject *object,
           PyObject *Py_UNUSED(ignored))
{
    FlTls *self = (FlTls *)object;
    self->put_off = false;
    return fl_tls_go_on(self) < 0 ? end_by_error(self) : 0;
}

int
fl_tls_put_off(FlTls *self)
{
    if (self->put_off || self->raw == NULL) {
        return 0;
    }
    self->put_off = true;
    int code = call_op(self, do_put_off);
    self->put_off = code == 0;
    return code;
}

/* --- the first data ------------------------------------------------------ */

void
fl_tls_begin_awaiting(FlTls *self)
{
    self->awaited = self->waiter == NULL ? 0 : AWAITED_ITERATIONS;
}

int
fl_tls_stop_awaiting(FlTls *self)
{
    self->awaited = 0;
    return fl_tls_go_on(self);
}

static int
count_iteration(FlLoop *loop, PyObject *object, PyObject *Py_UNUSED(ignored))
{
    FlTls *self = (FlTls *)object;
    if (self->awaited > 1) {
        self->awaited--;
        if (call_op(self, count_iteration) == 0) {
            return 0;
        }
        if (fl_loop_report_callback(loop, NULL) < 0) {
            return -1;
        }
    }
    if (self->awaited == 0 || self->abandoned) {
        return 0;
    }
    return fl_tls_stop_awaiting(self) < 0 ? end_by_error(self) : 0;
}

int
fl_tls_wake_first(FlTls *self)
{
    if (self->awaited == 0) {
        return 0;
    }
    int code = fl_tls_wake_waiter(self, NULL);
    if (code == 0) {
        code = call_op(self, count_iteration);
    }
    if (code < 0) {
        self->awaited = 0;
    }
    return code;
}
