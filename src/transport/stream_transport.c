/* StreamTransport: its operations (FlTransportOps), repr() and type.  Datagram
   transports share the operations.

   The work of an open stream is done in stream_read.c, stream_write.c,
   stream_send.c, stream_close.c and extra_info.c.

   1. After the loop is closed, close(), abort() and resume_reading() of a
      stream that was open change its state and raise RuntimeError('Event loop
      is closed').  asyncio's transports raise it from call_soon or
      _add_reader, so close() of one with unsent bytes does not.  Without the
      check connection_lost would be queued to a loop that never runs it. */
#include "transport/stream_transport.h"

#include "core/loop.h"
#include "core/write_queue.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/extra_info.h"
#include "transport/native_protocol.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/stream_send.h"
#include "transport/stream_write.h"
#include "transport/transport.h"

/* --- operations ---------------------------------------------------------- */

#define STREAM(transport) ((FlStream *)(transport))

/* What waits in the write queue is sent first.  If the kernel takes it at once
   the stream is LOST when this returns.  Otherwise it is CLOSING, and writable
   events send the rest: fl_stream_write_ready, fl_stream_drained. */
static int
op_close(FlTransport *transport)
{
    FlStream *self = STREAM(transport);
    /* First: a second close() is silent even if the loop is closed by now. */
    if (fl_stream_is_closing(self)) {
        return 0;
    }
    bool lost;
    Py_BEGIN_CRITICAL_SECTION(self);
    /* asyncio would have sent the corked bytes by now, and would close at once
       if the kernel had taken them all. */
    fl_stream_flush_if_corked(self);
    if (fl_write_queue_is_empty(&self->out.queue)) {
        /* Does nothing if the flush or another thread's write has failed. */
        fl_stream_force_close(self, NULL);
    }
    else if (!fl_stream_is_closing(self)) {
        fl_stream_set_phase(self, FL_STREAM_CLOSING);
        /* Stop reading.  fl_stream_write_ready ends the stream. */
        (void)fl_stream_update_registration(self);
    }
    lost = self->phase >= FL_STREAM_LOST;
    Py_END_CRITICAL_SECTION();
    return lost ? fl_stream_check_loop(self) : 0; /* invariant 1 */
}

static int
op_force_close(FlTransport *self, PyObject *exc)
{
    /* A CLOSING stream is still sending its buffer, and can be aborted.  A
       LOST one does not check its loop: asyncio returns silently then. */
    if (STREAM(self)->phase >= FL_STREAM_LOST) {
        return 0;
    }
    /* asyncio sends each write immediately: abort() must not discard what this
       callback has written before it. */
    fl_stream_flush_if_corked(STREAM(self));
    fl_stream_force_close(STREAM(self), exc);
    return fl_stream_check_loop(STREAM(self)); /* invariant 1 */
}

static int
op_is_closing(FlTransport *self)
{
    return fl_stream_is_closing(STREAM(self));
}

/* Pause or resume.  0 or -1. */
static int
change_paused(FlStream *self, bool paused)
{
    /* As in asyncio, nothing happens in these cases. */
    if (fl_stream_is_closing(self) || self->paused == paused) {
        return 0;
    }
    /* Set before the loop is checked, as in asyncio: is_reading() reports the
       new state even if this raises. */
    self->paused = paused;
    if (!paused) {
        if (fl_loop_check_open(self->loop) < 0) {
            return -1;
        }
        /* It may be ready already: poll next. */
        self->loop->polls.skips_left = 0;
        /* As in asyncio, EOF is delivered again: start_tls resumes with
           another protocol, whose handshake must learn of it. */
        self->read_eof = false;
    }
    int code = fl_stream_update_registration(self);
    return code < 0 ? fl_raise_errno(code) : 0;
}

static int
op_set_paused(FlTransport *self, bool paused)
{
    int code;
    /* Another thread may be writing, or be ending it. */
    Py_BEGIN_CRITICAL_SECTION(self);
    code = change_paused(STREAM(self), paused);
    Py_END_CRITICAL_SECTION();
    return code;
}

static bool
op_is_reading(const FlTransport *self)
{
    const FlStream *stream = (const FlStream *)self;
    return !fl_stream_is_closing(stream) && !stream->paused;
}

static int
op_set_protocol(FlTransport *self, PyObject *protocol)
{
    return fl_protocol_change(self->state, self, &STREAM(self)->protocol,
                              protocol);
}

static PyObject *
op_protocol(FlTransport *self)
{
    return fl_protocol_get(self, &STREAM(self)->protocol).object;
}

static size_t
op_buffer_bytes(const FlTransport *transport)
{
    return fl_stream_waiting_bytes((const FlStream *)transport);
}

static int
op_control_writing(FlTransport *transport)
{
    FlStream *self = STREAM(transport);
    /* Corked bytes must not count against a new high-water mark. */
    fl_stream_flush_if_corked(self);
    return self->phase < FL_STREAM_LOST ? fl_flow_check(self, true) : 0;
}

const FlTransportOps fl_stream_ops = {
    .close = op_close,
    .force_close = op_force_close,
    .is_closing = op_is_closing,
    .set_paused = op_set_paused,
    .is_reading = op_is_reading,
    .set_protocol = op_set_protocol,
    .protocol = op_protocol,
    .get_extra = fl_stream_get_extra,
    .write_buffer_bytes = op_buffer_bytes,
    .control_writing = op_control_writing,
};

/* --- repr ---------------------------------------------------------------- */

PyObject *
fl_stream_repr(FlTransport *transport)
{
    /* By phase.  asyncio shows no phase for an open transport. */
    static const char *const phases[] = {"", "", " closing", " closing",
                                         " closed"};
    FlStream *self = STREAM(transport);
    FlStreamPhase phase = self->phase; /* one atomic read */
    const char *state = phases[phase];
    size_t size_bytes = op_buffer_bytes(transport);
    /* The fd is shown after close, too: logs refer to it. */
    return fl_transport_repr(
        transport,
        PyUnicode_FromFormat("%s fd=%d read=%s write=<%s, bufsize=%zu>", state,
                             self->last_fd,
                             op_is_reading(transport) ? "polling" : "idle",
                             size_bytes > 0 ? "polling" : "idle", size_bytes));
}

/* --- the type ------------------------------------------------------------ */

static const char stream_doc[] =
    "An asyncio.Transport for a TCP or Unix socket, created by the loop.";

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, (void *)stream_doc},
    {Py_tp_dealloc, fl_stream_dealloc},
    {Py_tp_finalize, fl_stream_finalize},
    {Py_tp_traverse, fl_stream_traverse},
    {Py_tp_clear, fl_stream_clear},
    {Py_tp_repr, fl_stream_repr},
    {Py_tp_methods, fl_stream_methods},
    {Py_tp_getset, fl_transport_getset},
    {Py_tp_members, fl_transport_members},
    {0, NULL},
};

int
fl_stream_register(PyObject *module, FlState *state)
{
    state->stream_type =
        fl_transport_type_new(module, "fastloop._core.StreamTransport",
                              sizeof(FlStream), stream_slots, NULL);
    state->unsent = fl_stream_unsent;
    return state->stream_type == NULL ? -1 : 0;
}
