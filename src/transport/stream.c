/* Operations on a stream's state that all its parts share: see stream.h. */
#include "transport/stream.h"

#include "core/fd_set.h"
#include "core/registration.h"
#include "core/report.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/state.h"
#include "transport/native_protocol.h"
#include "transport/write_queue.h"

/* asyncio warns from the fifth write after the connection was lost. */
#define QUIET_WRITES_AFTER_LOSS 5

void
fl_stream_set_phase(FlStream *self, FlStreamPhase phase)
{
    FL_CHECK(phase > self->phase, "phases only advance");
    if (phase >= FL_STREAM_LOST) {
        /* A flush must not find a lost stream. */
        fl_stream_cancel_flush(self);
    }
    self->phase = phase;
}

int
fl_stream_update_registration(FlStream *self)
{
    fl_stream_meter_queue(self);
    if (self->reg == NULL) {
        return 0;
    }
    int wanted = 0;
    /* A closing write pipe still learns that its reader is gone. */
    bool reads =
        self->phase == FL_STREAM_OPEN
        || (self->phase == FL_STREAM_CLOSING && self->kind == FL_WRITE_PIPE);
    if (reads && !self->paused && !self->read_eof) {
        wanted |= FL_READABLE;
    }
    /* Corked bytes wait for the callback's end, not for the kernel. */
    if (self->phase < FL_STREAM_LOST && !fl_stream_is_corked(self)
        && (self->awaits_room || !fl_write_queue_is_empty(&self->write_queue)))
    {
        wanted |= FL_WRITABLE;
    }
    if (wanted == self->reg->wanted) { /* mostly: saves a system call */
        return 0;
    }
    return fl_registration_set(self->reg, wanted);
}

int
fl_stream_wanted(FlStream *self)
{
    int wanted = -1;
    /* Without a GIL the loop's thread may be closing the stream. */
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->reg != NULL && self->loop != NULL && !self->loop->closed) {
        wanted = self->reg->wanted;
    }
    Py_END_CRITICAL_SECTION();
    return wanted;
}

/* Calls _streams.py: messages go through asyncio's logger. */
int
fl_stream_log(FlStream *self, const char *event)
{
    PyObject *text = PyUnicode_FromString(event);
    if (text == NULL) {
        return -1;
    }
    int code =
        fl_call_done(PyObject_CallMethodObjArgs(self->state->streams,
                                                self->state->names.log_event,
                                                (PyObject *)self, text, NULL));
    Py_DECREF(text);
    return code;
}

int
fl_stream_resolve_if_pending(FlLoop *loop, PyObject *waiter, PyObject *method,
                             PyObject *value)
{
    int code =
        fl_call_unless_done(waiter, loop->state->names.done, method, value);
    return code < 0 ? fl_loop_report_callback(loop, NULL) : 0;
}

int
fl_stream_set_protocol(FlStream *self, PyObject *protocol)
{
    /* asyncio's pipes call data_received, whatever the protocol is. */
    return fl_protocol_change(self->state, self, &self->protocol, protocol,
                              self->kind == FL_SOCKET);
}

int
fl_stream_on_events(FlLoop *loop, FlRegistration *reg, int events)
{
    FlStream *self = reg->owner;
    if (events == 0) {
        return 0; /* they were dropped while their entry was queued */
    }
    Py_INCREF(self);
    int code;
    if (PyContext_Enter(self->context) < 0) {
        code = fl_loop_report_callback(loop, NULL);
    }
    else {
        /* Exactly the entered context is left, whatever the handler does. */
        PyObject *context = Py_NewRef(self->context);
        code = self->run_events(self, events);
        fl_context_leave(context, code < 0);
        Py_DECREF(context);
    }
    Py_DECREF(self);
    return code;
}

int
fl_stream_count_lost_write(FlStream *self)
{
    bool is_pipe = self->kind == FL_WRITE_PIPE;
    /* asyncio counts a connection's loss itself as the first. */
    self->writes_after_loss++;
    if (self->writes_after_loss - is_pipe >= QUIET_WRITES_AFTER_LOSS) {
        PyObject *warned =
            PyObject_CallMethodOneArg(self->state->streams,
                                      self->state->names.warn_lost,
                                      is_pipe ? Py_True : Py_False);
        return fl_call_done(warned) < 0 ? -1 : 1;
    }
    return 1;
}
