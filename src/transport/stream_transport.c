/* The operations (FlTransportOps) and repr() of streams and datagram
   transports, what the loop calls of them, and the type StreamTransport.

   The work is done in stream_close.c, stream_write.c, flow.c and
   extra_info.c.

   1. After the loop is closed, close(), abort() and resume_reading() of a
      stream that was open change its state and raise RuntimeError('Event loop
      is closed').  asyncio's transports raise it from call_soon or
      _add_reader, so close() of one with unsent bytes does not.  Without the
      check connection_lost would be queued to a loop that never runs it.
   2. Corked bytes count as sent, since asyncio has sent them by then.  So a
      method that ends the stream, or whose result depends on the write queue,
      flushes them first; get_write_buffer_size does not count them. */
#include "transport/stream_transport.h"

#include "core/fd_set.h"
#include "core/loop.h"
#include "py/errors.h"
#include "py/field.h"
#include "transport/datagram_read.h"
#include "transport/extra_info.h"
#include "transport/flow.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/stream_fd.h"
#include "transport/stream_read.h"
#include "transport/stream_write.h"
#include "transport/transport.h"

/* --- operations ---------------------------------------------------------- */

#define STREAM(transport) ((FlStream *)(transport))

/* Invariant 1.  0, or -1 with RuntimeError set.  A CLOSED stream has no loop,
   and nothing left to queue. */
static int
check_loop_open(FlTransport *self)
{
    return self->loop == NULL ? 0 : fl_loop_check_open(self->loop);
}

/* Invariant 1: if the loop is closed, advance a stream that is not LOST to
   `phase`.  Whether it is; the stream's finalizer closes the socket. */
static bool
ends_without_loop(FlStream *self, FlStreamPhase phase)
{
    if (!self->loop->closed) {
        return false;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    if (phase == FL_STREAM_LOST) {
        fl_write_queue_clear(&self->write_queue);
    }
    if (self->phase < phase) {
        fl_stream_set_phase(self, phase);
    }
    Py_END_CRITICAL_SECTION();
    return true;
}

/* The write queue is sent first. */
static int
stream_close(FlTransport *transport)
{
    FlStream *self = STREAM(transport);
    /* First: a second close() is silent even if the loop is closed by now. */
    if (fl_stream_is_closing(self)) {
        return 0;
    }
    bool unsent = !fl_write_queue_is_empty(&self->write_queue);
    if (ends_without_loop(self, unsent ? FL_STREAM_CLOSING : FL_STREAM_LOST)) {
        return unsent ? 0 : fl_loop_check_open(self->loop);
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    /* asyncio would have sent the corked bytes by now, and would close at once
       if the kernel had taken them all. */
    fl_stream_flush(self);
    if (fl_write_queue_is_empty(&self->write_queue)) {
        /* Does nothing if the flush or another thread's write has failed.  Not
           fl_stream_force_close: its critical section would release this one
           on 3.13, and another thread could write in between. */
        fl_stream_queue_connection_lost(self, NULL);
    }
    else if (!fl_stream_is_closing(self)) {
        fl_stream_set_phase(self, FL_STREAM_CLOSING);
        /* Stop reading.  fl_stream_write_ready ends the stream. */
        (void)fl_stream_update_registration(self);
    }
    Py_END_CRITICAL_SECTION();
    return 0;
}

static int
stream_force_close(FlTransport *self, PyObject *exc)
{
    /* A CLOSING stream is still sending its buffer, and can be aborted.  A
       LOST one does not check its loop: asyncio returns silently then. */
    if (STREAM(self)->phase >= FL_STREAM_LOST) {
        return 0;
    }
    if (ends_without_loop(STREAM(self), FL_STREAM_LOST)) {
        return fl_loop_check_open(self->loop);
    }
    /* asyncio sends each write immediately: abort() must not discard what this
       callback has written before it. */
    fl_stream_flush(STREAM(self));
    fl_stream_force_close(STREAM(self), exc);
    return 0;
}

static int
stream_is_closing(FlTransport *self)
{
    return fl_stream_is_closing(STREAM(self));
}

/* Does nothing on a closing transport or when already in that state, as
   asyncio. */
static int
stream_set_paused(FlTransport *transport, bool paused)
{
    FlStream *self = STREAM(transport);
    if (fl_stream_is_closing(self) || self->paused == paused) {
        return 0;
    }
    /* Set before the loop is checked, as in asyncio: is_reading() reports the
       new state even if this raises. */
    self->paused = paused;
    if (!paused && check_loop_open(transport) < 0) {
        return -1;
    }
    int code;
    Py_BEGIN_CRITICAL_SECTION(self); /* another thread may be writing */
    code = fl_stream_update_registration(self);
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        return fl_raise_errno(code);
    }
    if (self->loop->debug
        && fl_stream_log(self, paused ? "pauses reading" : "resumes reading")
               < 0)
    {
        return -1;
    }
    /* Datagrams that were received before the pause are delivered in the next
       iteration, since asyncio's resume_reading calls no protocol. */
    return !paused && Py_IS_TYPE(self, self->state->datagram_type)
               ? fl_datagram_deliver_later(FL_DATAGRAM(self))
               : 0;
}

static bool
stream_is_reading(const FlTransport *self)
{
    const FlStream *stream = (const FlStream *)self;
    return !fl_stream_is_closing(stream) && !stream->paused;
}

static int
stream_set_protocol(FlTransport *self, PyObject *protocol)
{
    return fl_stream_set_protocol(STREAM(self), protocol);
}

static PyObject *
stream_protocol(FlTransport *self)
{
    return fl_protocol_get(self, &STREAM(self)->protocol).object;
}

static size_t
stream_buffer_bytes(const FlTransport *transport)
{
    const FlStream *self = (const FlStream *)transport;
    /* Invariant 2.  While the stream is corked, its whole queue is. */
    return fl_stream_is_corked(self) ? 0 : self->write_queue.size_bytes;
}

static int
stream_control_writing(FlTransport *transport)
{
    FlStream *self = STREAM(transport);
    /* Corked bytes must not count against a new high-water mark. */
    fl_stream_flush(self);
    return self->phase < FL_STREAM_LOST ? fl_flow_check(self, true) : 0;
}

const FlTransportOps fl_stream_ops = {
    .close = stream_close,
    .force_close = stream_force_close,
    .is_closing = stream_is_closing,
    .set_paused = stream_set_paused,
    .is_reading = stream_is_reading,
    .set_protocol = stream_set_protocol,
    .protocol = stream_protocol,
    .get_extra = fl_stream_get_extra,
    .write_buffer_bytes = stream_buffer_bytes,
    .control_writing = stream_control_writing,
};

/* --- what the loop calls ------------------------------------------------- */

const FlOpenTransportKind fl_stream_owned_kind = {
    .visits_own_ref = fl_stream_visits_own_ref,
    .abandon = fl_stream_abandon,
    .has_fd = fl_stream_has_fd,
    .invalidate_fd = fl_stream_invalidate_fd,
    .flush = fl_stream_flush_corked,
};

/* Reads first, as asyncio does.  Reading may end the stream: then its loop is
   NULL and nothing is left to write. */
int
fl_stream_run_events(FlStream *self, int events)
{
    int code = events & FL_READABLE ? fl_stream_read_ready(self) : 0;
    if (code == 0 && (events & FL_WRITABLE) && self->loop != NULL) {
        code = fl_stream_write_ready(self);
    }
    return code;
}

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
    int wanted = fl_stream_wanted(self);
    /* The fd is shown after close, too: logs refer to it. */
    PyObject *details =
        wanted < 0
            ? PyUnicode_FromFormat("%s fd=%d", state, self->last_fd)
            : PyUnicode_FromFormat("%s fd=%d read=%s write=<%s, bufsize=%zu>",
                                   state, self->fd,
                                   wanted & FL_READABLE ? "polling" : "idle",
                                   wanted & FL_WRITABLE ? "polling" : "idle",
                                   stream_buffer_bytes(transport));
    return fl_transport_repr(transport, details);
}

/* --- StreamTransport ----------------------------------------------------- */

FL_ONE_ARGUMENT(FlStream, stream_write, "write", "data", fl_stream_write)
FL_ONE_ARGUMENT(FlStream, stream_writelines, "writelines", "list_of_data",
                fl_stream_writelines)

static PyMethodDef stream_methods[] = {
    FL_METHOD(
        "write", stream_write, FL_FASTCALL,
        "write($self, data)\n--\n\n"
        "Send a bytes, bytearray or memoryview object in order, without\n"
        "blocking.  The caller may change a mutable buffer afterwards.\n"
        "\n"
        "Raises TypeError for other types, RuntimeError after\n"
        "write_eof().  Implements asyncio's WriteTransport.write().  If\n"
        "a callback writes several times, data may be sent only when\n"
        "the callback returns."),
    FL_METHOD("writelines", stream_writelines, FL_FASTCALL,
              "writelines($self, list_of_data)\n--\n\n"
              "Send an iterable of buffers with as few system calls as\n"
              "possible.  Implements asyncio's WriteTransport.writelines()."),
    /* Only the signature: help() then shows that of asyncio's class. */
    FL_METHOD("write_eof", fl_stream_write_eof, METH_NOARGS,
              "write_eof($self, /)\n--\n\n"),
    {NULL, NULL, 0, NULL},
};

static const char stream_doc[] =
    "An asyncio.Transport for a TCP or Unix socket, created by the loop.";

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, (void *)stream_doc},
    {Py_tp_dealloc, fl_stream_dealloc},
    {Py_tp_finalize, fl_stream_finalize},
    {Py_tp_traverse, fl_stream_traverse},
    {Py_tp_clear, fl_stream_clear},
    {Py_tp_repr, fl_stream_repr},
    {Py_tp_methods, stream_methods},
    {Py_tp_getset, fl_transport_getset},
    {Py_tp_members, fl_transport_members},
    {0, NULL},
};

int
fl_stream_register(PyObject *module, FlState *state)
{
    state->streams = PyImport_ImportModule("fastloop._streams");
    state->stream_type =
        state->streams == NULL
            ? NULL
            : fl_transport_type_new(module, "fastloop._core.StreamTransport",
                                    sizeof(FlStream), stream_slots,
                                    state->asyncio_transport, NULL);
    return state->stream_type == NULL ? -1 : 0;
}
