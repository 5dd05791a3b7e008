/* Python methods of transports: those that both types share, and the type
   StreamTransport.

   The functions here check and convert arguments.  The work is done in
   stream.c, stream_read.c, stream_write.c, flow.c and extra_info.c.

   1. After the loop is closed, close(), abort() and resume_reading() of a
      stream that was open raise RuntimeError('Event loop is closed').
      asyncio's transports raise it from call_soon or _add_reader.  Without the
      check connection_lost would be queued to a loop that never runs it.
   2. Corked bytes count as sent, since asyncio has sent them by then.  So a
      method that ends the stream, or whose result depends on the write queue,
      flushes them first; get_write_buffer_size does not count them.
   3. Without a GIL a method may be called in another thread.  close, abort,
      pause_reading and resume_reading change what only the loop's thread may
      change, and are forwarded to it (fl_transport_was_queued). */
#include "transport/transport.h"

#include "core/fd_set.h"
#include "core/loop.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/flow.h"
#include "transport/stream.h"
#include "transport/stream_gc.h"
#include "transport/stream_error.h"
#include "transport/stream_write.h"
#include "transport/write_queue.h"

#include <stdlib.h>
#include <string.h>

PyObject *
fl_transport_queue_to_loop(FlLoop *loop, PyObject *self, PyObject *method,
                           PyObject *argument)
{
    /* From the type, not from the instance: a program may have replaced the
       instance's attribute with a wrapper that called us, and would be called
       twice. */
    PyObject *function = PyObject_GetAttr((PyObject *)Py_TYPE(self), method);
    PyObject *queued =
        function == NULL
            ? NULL
            : PyObject_CallMethodObjArgs(
                (PyObject *)loop, loop->state->names.call_soon_threadsafe,
                function, self, argument, NULL);
    Py_XDECREF(function);
    Py_XDECREF(queued);
    return queued == NULL ? NULL : Py_NewRef(Py_None);
}

#if !FL_HAVE_GIL
bool
fl_transport_was_queued(FlStream *self, PyObject *method, PyObject **result)
{
    PyObject *loop;
    /* The loop's thread may be clearing self->loop: see fl_stream_finish.
       Both use a critical section, so the reference taken here is valid. */
    Py_BEGIN_CRITICAL_SECTION(self);
    loop = Py_XNewRef((PyObject *)self->loop);
    Py_END_CRITICAL_SECTION();
    bool elsewhere = fl_transport_on_other_thread((FlLoop *)loop);
    if (elsewhere) {
        *result = fl_transport_queue_to_loop((FlLoop *)loop, (PyObject *)self,
                                             method, NULL);
    }
    Py_XDECREF(loop);
    return elsewhere;
}
#endif

/* Invariant 1.  0, or -1 with RuntimeError set.  A CLOSED stream has no loop,
   and nothing left to queue. */
static int
check_loop_open(FlStream *self)
{
    return self->loop == NULL ? 0 : fl_loop_check_open(self->loop);
}

/* The next two call _streams.py: messages go through asyncio's logger. */

int
fl_stream_warn_lost(FlStream *self)
{
    return fl_call_done(PyObject_CallMethodNoArgs(
        self->state->streams, self->state->names.warn_lost));
}

int
fl_stream_log(FlStream *self, const char *event)
{
    PyObject *text = PyUnicode_FromString(event);
    PyObject *result =
        text == NULL
            ? NULL
            : PyObject_CallMethodObjArgs(self->state->streams,
                                         self->state->names.log_event,
                                         (PyObject *)self, text, NULL);
    Py_XDECREF(text);
    return fl_call_done(result);
}

/* --- extra info ---------------------------------------------------------- */

const char fl_transport_get_extra_info_doc[] =
    "get_extra_info($self, name, default=None)\n--\n\n"
    "Return information about the transport: 'socket', 'sockname',\n"
    "'peername', or a name given when it was created; default if unknown.\n\n"
    "Implements asyncio's BaseTransport.get_extra_info().  After the fd of\n"
    "the socket was obtained, each write is sent immediately.";

/* --- closing ------------------------------------------------------------- */

const char fl_transport_close_doc[] =
    "close($self, /)\n--\n\n"
    "Close the transport: send buffered data, then call\n"
    "connection_lost(None).  Implements asyncio's BaseTransport.close().";

PyObject *
fl_transport_close(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    if (fl_transport_was_queued(self, self->state->names.close, &result)) {
        return result;
    }
    /* First: a second close() is silent even if the loop is closed by now. */
    if (fl_stream_is_closing(self)) {
        Py_RETURN_NONE;
    }
    if (check_loop_open(self) < 0) {
        return NULL;
    }
    fl_stream_close(self);
    Py_RETURN_NONE;
}

const char fl_transport_abort_doc[] =
    "abort($self, /)\n--\n\n"
    "Close immediately: discard buffered data, then call\n"
    "connection_lost(None).  Implements asyncio's WriteTransport.abort().";

PyObject *
fl_transport_abort(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    if (fl_transport_was_queued(self, self->state->names.abort, &result)) {
        return result;
    }
    /* A CLOSING stream is still sending its buffer, and can be aborted. */
    if (self->phase >= FL_STREAM_LOST) {
        Py_RETURN_NONE;
    }
    if (check_loop_open(self) < 0) {
        return NULL;
    }
    /* asyncio sends each write immediately: abort() must not discard what this
       callback has written before it. */
    fl_stream_flush(self);
    fl_stream_force_close(self, NULL);
    Py_RETURN_NONE;
}

const char fl_transport_force_close_doc[] =
    "_force_close($self, exc)\n--\n\n"
    "abort() with an exception for connection_lost; asyncio's private name.";

/* A LOST stream does not check its loop: asyncio's method returns silently
   then. */
static PyObject *
force_close(FlStream *self, PyObject *exc)
{
    if (self->phase < FL_STREAM_LOST) {
        if (check_loop_open(self) < 0) {
            return NULL;
        }
        fl_stream_flush(self);
        fl_stream_force_close(self, exc == Py_None ? NULL : exc);
    }
    Py_RETURN_NONE;
}

const char fl_transport_fatal_error_doc[] =
    "_fatal_error($self, exc, message='Fatal error on transport')\n--\n\n"
    "Report an exception and close with it; asyncio's private name.";

int
fl_transport_parse_fatal(PyObject *args, PyObject *kwargs, PyObject **exc,
                         const char **message)
{
    static char *keywords[] = {"exc", "message", NULL};
    *message = "Fatal error on transport";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|s:_fatal_error",
                                     keywords, exc, message))
    {
        return -1;
    }
    /* asyncio does not check this.  connection_lost and exception handlers
       expect an exception instance. */
    if (!PyExceptionInstance_Check(*exc)) {
        PyErr_SetString(PyExc_TypeError, "exc must be an exception");
        return -1;
    }
    return 0;
}

PyObject *
fl_transport_fatal_error(FlStream *self, PyObject *args, PyObject *kwargs)
{
    PyObject *exc;
    const char *message;
    if (fl_transport_parse_fatal(args, kwargs, &exc, &message) < 0) {
        return NULL;
    }
    /* Fails only with an exception that must leave run_forever. */
    if (fl_stream_fatal_exception(self, exc, message) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

const char fl_transport_is_closing_doc[] =
    "is_closing($self, /)\n--\n\n"
    "Return True if the transport is closing or closed.\n\n"
    "Implements asyncio's BaseTransport.is_closing().";

PyObject *
fl_transport_is_closing(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(fl_stream_is_closing(self));
}

/* --- reading ------------------------------------------------------------- */

/* Pause or resume reading.  Does nothing on a closing transport or when
   already in that state, as asyncio.  None, or NULL with an exception set. */
static PyObject *
set_paused(FlStream *self, bool paused)
{
    if (fl_stream_is_closing(self) || self->paused == paused) {
        Py_RETURN_NONE;
    }
    /* Set before the loop is checked, as in asyncio: is_reading() reports the
       new state even if this raises. */
    self->paused = paused;
    if (!paused && check_loop_open(self) < 0) {
        return NULL;
    }
    int code = fl_stream_update_registration(self);
    if (code < 0) {
        (void)fl_raise_errno(code);
        return NULL;
    }
    if (self->loop->debug
        && fl_stream_log(self, paused ? "pauses reading" : "resumes reading")
               < 0)
    {
        return NULL;
    }
    Py_RETURN_NONE;
}

const char fl_transport_pause_reading_doc[] =
    "pause_reading($self, /)\n--\n\n"
    "Stop calling data_received until resume_reading() is called.\n\n"
    "Implements asyncio's ReadTransport.pause_reading().";

PyObject *
fl_transport_pause_reading(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    if (fl_transport_was_queued(self, self->state->names.pause_reading,
                                &result)) {
        return result;
    }
    return set_paused(self, true);
}

const char fl_transport_resume_reading_doc[] =
    "resume_reading($self, /)\n--\n\n"
    "Resume delivery of data.  Implements asyncio's\n"
    "ReadTransport.resume_reading().";

PyObject *
fl_transport_resume_reading(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    if (fl_transport_was_queued(self, self->state->names.resume_reading,
                                &result)) {
        return result;
    }
    return set_paused(self, false);
}

const char fl_transport_is_reading_doc[] =
    "is_reading($self, /)\n--\n\n"
    "Return True unless reading is paused or the transport is closing.\n\n"
    "Implements asyncio's ReadTransport.is_reading().";

PyObject *
fl_transport_is_reading(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(fl_stream_is_reading(self));
}

/* --- protocol ------------------------------------------------------------ */

const char fl_transport_set_protocol_doc[] =
    "set_protocol($self, protocol)\n--\n\n"
    "Replace the protocol by another Protocol or BufferedProtocol.\n\n"
    "Implements asyncio's BaseTransport.set_protocol().";

static PyObject *
set_protocol(FlStream *self, PyObject *protocol)
{
    if (fl_stream_set_protocol(self, protocol) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

const char fl_transport_get_protocol_doc[] =
    "get_protocol($self, /)\n--\n\n"
    "Return the protocol, or None after connection_lost.\n\n"
    "Implements asyncio's BaseTransport.get_protocol().";

PyObject *
fl_transport_get_protocol(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self->protocol == NULL ? Py_None : self->protocol);
}

/* --- writing ------------------------------------------------------------- */

static const char write_doc[] =
    "write($self, data)\n--\n\n"
    "Send a bytes, bytearray or memoryview object in order, without\n"
    "blocking.  The caller may change a mutable buffer afterwards.\n\n"
    "Raises TypeError for other types, RuntimeError after write_eof().\n"
    "Implements asyncio's WriteTransport.write().  If a callback writes\n"
    "several times, data may be sent only when the callback returns.";

static const char writelines_doc[] =
    "writelines($self, list_of_data)\n--\n\n"
    "Send an iterable of buffers with as few system calls as possible.\n\n"
    "Implements asyncio's WriteTransport.writelines().";

static const char write_eof_doc[] =
    "write_eof($self, /)\n--\n\n"
    "Shut down the write side after all buffered data was sent.\n\n"
    "Implements asyncio's WriteTransport.write_eof().";

static const char can_write_eof_doc[] =
    "can_write_eof($self, /)\n--\n\n"
    "Return True.  Implements asyncio's WriteTransport.can_write_eof().";

static PyObject *
stream_can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

const char fl_transport_get_buffer_size_doc[] =
    "get_write_buffer_size($self, /)\n--\n\n"
    "Return the number of bytes that the kernel has not accepted yet.\n\n"
    "Implements asyncio's WriteTransport.get_write_buffer_size().";

PyObject *
fl_transport_get_buffer_size(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    /* Invariant 2.  While the stream is corked, its whole queue is. */
    bool corked = fl_stream_is_corked(self);
    return PyLong_FromSize_t(corked ? 0 : self->write_queue.size_bytes);
}

const char fl_transport_get_buffer_limits_doc[] =
    "get_write_buffer_limits($self, /)\n--\n\n"
    "Return the low and high water marks in bytes.\n\n"
    "Implements asyncio's WriteTransport.get_write_buffer_limits().";

PyObject *
fl_transport_get_buffer_limits(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("KK", (unsigned long long)self->low_water_bytes,
                         (unsigned long long)self->high_water_bytes);
}

const char fl_transport_set_buffer_limits_doc[] =
    "set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
    "Set the marks, in bytes, at which writing is paused and resumed.\n\n"
    "Raises ValueError unless high >= low >= 0.  Implements asyncio's\n"
    "WriteTransport.set_write_buffer_limits().";

PyObject *
fl_transport_set_buffer_limits(FlStream *self, PyObject *args,
                               PyObject *kwargs)
{
    static char *keywords[] = {"high", "low", NULL};
    PyObject *high_object = Py_None, *low_object = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs,
                                     "|OO:set_write_buffer_limits", keywords,
                                     &high_object, &low_object))
    {
        return NULL;
    }
    int64_t high = 0, low = 0;
    if ((high_object != Py_None && fl_flow_parse_mark(high_object, &high) < 0)
        || (low_object != Py_None && fl_flow_parse_mark(low_object, &low) < 0))
    {
        return NULL;
    }
    /* asyncio's defaults: high is 4 * low, low is high // 4.  Python's
       integers do not overflow, so these saturate. */
    if (high_object == Py_None) {
        high = low_object == Py_None ? FL_HIGH_WATER_BYTES
               : low > INT64_MAX / 4 ? INT64_MAX
               : low < INT64_MIN / 4 ? INT64_MIN
                                     : 4 * low;
    }
    if (low_object == Py_None) {
        low = high < 0 ? ~(~high / 4) : high / 4; /* rounds down */
    }
    if (high < low || low < 0) {
        PyErr_Format(PyExc_ValueError,
                     "high (%lld) must be >= low (%lld) must be >= 0",
                     (long long)high, (long long)low);
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    self->high_water_bytes = (uint64_t)high;
    self->low_water_bytes = (uint64_t)low;
    Py_END_CRITICAL_SECTION();
    /* Corked bytes must not count against the new high-water mark. */
    fl_stream_flush(self);
    if (self->phase < FL_STREAM_LOST && fl_stream_maybe_pause(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static const char make_empty_waiter_doc[] =
    "_make_empty_waiter($self, /)\n--\n\n"
    "Return a future that is done when the write buffer is empty.  Until\n"
    "_reset_empty_waiter() writing raises RuntimeError.  For asyncio's\n"
    "sendfile.";

static PyObject *
stream_make_empty_waiter(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    if (self->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Transport is closing");
        return NULL;
    }
    /* Corked bytes must leave before sendfile's own: invariant 2. */
    fl_stream_flush(self);
    PyObject *waiter =
        PyObject_CallMethodNoArgs((PyObject *)self->loop,
                                  self->state->names.create_future);
    if (waiter == NULL) {
        return NULL;
    }
    if (fl_write_queue_is_empty(&self->write_queue)) {
        PyObject *result =
            PyObject_CallMethodOneArg(waiter, self->state->names.set_result,
                                      Py_None);
        if (result == NULL) {
            Py_DECREF(waiter);
            return NULL;
        }
        Py_DECREF(result);
    }
    /* From here on write() raises.  The stream and the caller own a reference
       each. */
    self->empty_waiter = Py_NewRef(waiter);
    return waiter;
}

static const char make_room_waiter_doc[] =
    "_make_room_waiter($self, /)\n--\n\n"
    "Return a future that is done when the socket is writable.  Replaces the\n"
    "empty waiter that sendfile already has.";

static PyObject *
stream_make_room_waiter(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_ConnectionError, FL_STREAM_CLOSED_TEXT);
        return NULL;
    }
    PyObject *waiter =
        PyObject_CallMethodNoArgs((PyObject *)self->loop,
                                  self->state->names.create_future);
    if (waiter == NULL) {
        return NULL;
    }
    /* The same field as the empty waiter: writing stays forbidden, and the end
       of the stream fails this future. */
    Py_XSETREF(self->empty_waiter, Py_NewRef(waiter));
    self->awaits_room = true;
    int code = fl_stream_update_registration(self);
    if (code < 0) {
        Py_DECREF(waiter);
        (void)fl_raise_errno(code);
        return NULL;
    }
    return waiter;
}

static const char reset_empty_waiter_doc[] =
    "_reset_empty_waiter($self, /)\n--\n\n"
    "Allow writes again after sendfile.";

static PyObject *
stream_reset_empty_waiter(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(self->empty_waiter);
    self->awaits_room = false;
    int code = fl_stream_update_registration(self);
    if (code < 0) {
        (void)fl_raise_errno(code);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- the type ------------------------------------------------------------ */

PyObject *
fl_transport_repr(FlStream *self)
{
    /* By phase.  asyncio shows no phase for an open transport. */
    static const char *const phases[] = {"", "", " closing", " closing",
                                         " closed"};
    const char *state = phases[self->phase];
    /* The class name without its module. */
    const char *name = strrchr(Py_TYPE(self)->tp_name, '.') + 1;
    /* The fd is shown after close, too: logs refer to it. */
    if (self->loop == NULL || self->reg == NULL) {
        return PyUnicode_FromFormat("<%s%s fd=%d>", name, state,
                                    self->last_fd);
    }
    return PyUnicode_FromFormat(
        "<%s%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state, self->fd,
        self->reg->wanted & FL_READABLE ? "polling" : "idle",
        self->reg->wanted & FL_WRITABLE ? "polling" : "idle",
        self->write_queue.size_bytes);
}

static PyGetSetDef stream_getset[] = {
    FL_DICT_GETTER,
    {NULL, NULL, NULL, NULL, NULL},
};

/* Before 3.12 a heap type finds its __dict__ and weak references through these
   members.  Later versions manage both (FL_DICT_FLAGS). */
#if PY_VERSION_HEX < 0x030C0000
static PyMemberDef stream_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(FlStream, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(FlStream, weakrefs), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};
#endif

/* Methods with one parameter, from functions that take its value. */
FL_ONE(FlStream, fl_transport_force_close, "_force_close", "exc", force_close)
FL_ONE(FlStream, fl_transport_set_protocol, "set_protocol", "protocol",
       set_protocol)

#define OWN_ONE(function, name, parameter, call) \
    static FL_ONE(FlStream, function, name, parameter, call)

OWN_ONE(stream_write, "write", "data", fl_stream_write)
OWN_ONE(stream_writelines, "writelines", "list_of_data", fl_stream_writelines)

static PyMethodDef stream_methods[] = {
    FL_COMMON_METHODS,
    FL_COMMON_METHOD(resume_reading, resume_reading, METH_NOARGS),
    FL_METHOD("write", stream_write, FL_FASTCALL, write_doc),
    FL_METHOD("writelines", stream_writelines, FL_FASTCALL, writelines_doc),
    FL_METHOD("write_eof", fl_stream_write_eof, METH_NOARGS, write_eof_doc),
    FL_METHOD("can_write_eof", stream_can_write_eof, METH_NOARGS,
              can_write_eof_doc),
    FL_METHOD("_make_empty_waiter", stream_make_empty_waiter, METH_NOARGS,
              make_empty_waiter_doc),
    FL_METHOD("_make_room_waiter", stream_make_room_waiter, METH_NOARGS,
              make_room_waiter_doc),
    FL_METHOD("_reset_empty_waiter", stream_reset_empty_waiter, METH_NOARGS,
              reset_empty_waiter_doc),
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
    {Py_tp_repr, fl_transport_repr},
    {Py_tp_methods, stream_methods},
    {Py_tp_getset, stream_getset},
#if PY_VERSION_HEX < 0x030C0000
    {Py_tp_members, stream_members},
#endif
    {0, NULL},
};

static PyType_Spec stream_spec = {
    .name = "fastloop._core.StreamTransport",
    .basicsize = sizeof(FlStream),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | FL_DICT_FLAGS
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = stream_slots,
};

/* Slots that C code does not use.  They exist because the base class has them:
   our own fields begin behind them. */
#define UNUSED_SLOT(at) \
    (offsetof(FlStream, unused) + (at) * sizeof(PyObject *))

const FlBaseSlot fl_transport_base_slots[] = {
    {"_extra", offsetof(FlStream, extra)},
    {"_high_water", UNUSED_SLOT(0)},
    {"_loop", UNUSED_SLOT(1)},
    {"_low_water", UNUSED_SLOT(2)},
    {"_protocol_paused", UNUSED_SLOT(3)},
    {NULL, UNUSED_SLOT(4)},
};

int
fl_transport_register(PyObject *module, FlState *state)
{
    state->stream_type =
        fl_type_derive(module, &stream_spec, state->asyncio_transport, NULL,
                       fl_transport_base_slots);
    if (state->stream_type == NULL) {
        return -1;
    }
    PyObject *type = (PyObject *)state->stream_type;
    state->streams = PyImport_ImportModule("fastloop._streams");
    if (state->streams == NULL) {
        return -1;
    }
    /* loop.sendfile and loop.start_tls of asyncio look for these two. */
    PyObject *mode =
        PyObject_GetAttrString(state->streams, "SENDFILE_COMPATIBLE");
    int code =
        mode == NULL
            ? -1
            : PyObject_SetAttrString(type, "_sendfile_compatible", mode);
    Py_XDECREF(mode);
    if (code == 0) {
        code = PyObject_SetAttrString(type, "_start_tls_compatible", Py_True);
    }
    return code;
}
