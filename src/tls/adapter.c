/* _core.TlsAdapter: the protocol's methods that a raw transport calls, and
   asyncio's private names.

   1. A stream of ours calls the receiver; these methods are for every other
      raw transport.
   2. Which engine a connection has is decided when it is made: libssl's where
      everything that it needs is so, else the SSLObject's.
   3. A change of keys takes hundreds of times as long as so many bytes of
      data.  A peer whose records are for the greater part no data (each byte
      of data makes up for two that came) is read little at a time, so that
      others are not kept waiting. */
#include "tls/adapter.h"

#include "core/loop.h"
#include "py/compat.h"
#include "py/state.h"
#include "tls/engine.h"
#include "tls/engine_libssl.h"
#include "tls/engine_object.h"
#include "tls/connection.h"
#include "tls/deferred.h"
#include "tls/libssl.h"
#include "tls/tls_calls.h"
#include "tls/tls_read.h"
#include "tls/tls_transport.h"
#include "transport/native_protocol.h"
#include "transport/transport.h"
#include "transport/write_queue.h"

/* What get_buffer() gives a raw transport to read to. */
#define BUFFER_BYTES (64 * 1024)
/* More than the part of a record that may have come. */
#define DRY_BYTES    (24 * 1024)

/* --- from the raw transport ---------------------------------------------- */

static PyObject *
connection_made(FlTls *self, PyObject *raw)
{
    return fl_tls_none(fl_tls_connection_made(self, raw));
}

static PyObject *
connection_lost(FlTls *self, PyObject *exc)
{
    if (self->lost) {
        Py_RETURN_NONE;
    }
    return fl_tls_none(fl_tls_connection_lost(self, exc));
}

static PyObject *
get_buffer(FlTls *self, PyObject *Py_UNUSED(hint))
{
    PyObject *buffer = PyByteArray_FromStringAndSize(NULL, BUFFER_BYTES);
    if (buffer == NULL) {
        return NULL;
    }
    Py_XSETREF(self->buffer, buffer);
    return PyMemoryView_FromObject(buffer);
}

static PyObject *
buffer_updated(FlTls *self, PyObject *count)
{
    Py_ssize_t size = PyLong_AsSsize_t(count);
    PyObject *buffer = self->buffer;
    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (buffer == NULL || size < 0 || size > PyByteArray_GET_SIZE(buffer)) {
        PyErr_SetString(PyExc_ValueError,
                        "buffer_updated() without a get_buffer()");
        return NULL;
    }
    /* Whoever got it may make it larger, and so move it, in a callback. */
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    Py_CLEAR(self->buffer);
    int code = fl_tls_receive(self, view.buf, (size_t)size);
    PyBuffer_Release(&view);
    return fl_tls_none(code);
}

static PyObject *
eof_received(FlTls *self, PyObject *Py_UNUSED(ignored))
{
    int keep_open = fl_tls_receive_eof(self);
    return keep_open < 0 ? NULL : Py_NewRef(keep_open ? Py_True : Py_None);
}

static PyObject *
pause_writing(FlTls *self, PyObject *Py_UNUSED(ignored))
{
    self->writing_paused = true;
    if (self->raw == NULL && self->app_state == FL_TLS_APP_MADE) {
        /* start_tls passes on what the protocol was told. */
        self->protocol_paused = self->paused_before = true;
    }
    Py_RETURN_NONE;
}

static PyObject *
resume_writing(FlTls *self, PyObject *Py_UNUSED(ignored))
{
    return fl_tls_none(fl_tls_raw_resumed(self));
}

/* Invariant 3: count what came, before and after it is decrypted. */
static int
native_data_received(FlState *Py_UNUSED(state), PyObject *object,
                     const char *data, size_t size_bytes)
{
    FlTls *self = (FlTls *)object;
    if (self->phase != FL_TLS_HANDSHAKE && !self->app_paused
        && self->awaited == 0) {
        self->dry_bytes += size_bytes;
    }
    int code = fl_tls_receive(self, data, size_bytes);
    if (FL_LIKELY(self->dry_bytes <= DRY_BYTES) || code < 0
        || self->engine.more) {
        return code;
    }
    self->dry_bytes = DRY_BYTES;
    return 1;
}

static int
native_eof_received(FlState *Py_UNUSED(state), PyObject *self)
{
    return fl_tls_receive_eof((FlTls *)self);
}

static const FlNativeProtocol native = {
    .data_received = native_data_received,
    .eof_received = native_eof_received,
};

/* --- what is queued ------------------------------------------------------ */

static PyObject *
do_read(FlTls *self, PyObject *Py_UNUSED(ignored))
{
    int code = fl_tls_read(self);
    return fl_tls_none(code < 0 ? -1 : fl_tls_settle(self));
}

static PyObject *
resume(FlTls *self, PyObject *Py_UNUSED(ignored))
{
    bool goes_on = self->phase != FL_TLS_HANDSHAKE && !self->lost;
    return fl_tls_none(goes_on ? fl_tls_go_on(self) : 0);
}

static PyObject *
fatal_error(FlTls *self, PyObject *args, PyObject *kwargs)
{
    PyObject *exc;
    const char *message;
    if (fl_transport_parse_fatal(args, kwargs, &exc, &message) < 0) {
        return NULL;
    }
    return fl_tls_none(fl_tls_fatal_exception(self, exc, message));
}

/* Bytes that the raw transport's protocol had read before start_tls. */
static PyObject *
feed(FlTls *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int code = 0;
    if (view.len > 0 && self->engine.type != NULL) {
        code = fl_tls_receive(self, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
    return fl_tls_none(code);
}

/* start_tls failed or was cancelled: the application has no transport. */
static PyObject *
abandon(FlTls *self, PyObject *Py_UNUSED(ignored))
{
    self->abandoned = true;
    Py_RETURN_NONE;
}

static const char connection_made_doc[] =
    "connection_made($self, transport, /)\n--\n\n"
    "Begin the handshake over a transport.";
static const char connection_lost_doc[] =
    "connection_lost($self, exc, /)\n--\n\n"
    "The transport below is lost.";
static const char get_buffer_doc[] = "get_buffer($self, sizehint, /)\n--\n\n"
                                     "Return a buffer to read records to.";
static const char buffer_updated_doc[] =
    "buffer_updated($self, nbytes, /)\n--\n\n"
    "There are so many bytes in the buffer.";
static const char eof_received_doc[] = "eof_received($self, /)\n--\n\n"
                                       "The transport below sees an end.";
static const char pause_writing_doc[] = "pause_writing($self, /)\n--\n\n"
                                        "The transport below has enough.";
static const char resume_writing_doc[] = "resume_writing($self, /)\n--\n\n"
                                         "The transport below wants more.";
static const char do_read_doc[] = "_do_read($self, /)\n--\n\n"
                                  "Deliver what waits to be read.";
static const char resume_doc[] = "_resume($self, /)\n--\n\n"
                                 "Go on after resume_reading().";
static const char fatal_error_doc[] =
    "_fatal_error($self, exc, message='Fatal error on transport')\n--\n\n"
    "Report an exception and close with it; asyncio's private name.";
static const char feed_doc[] =
    "_feed($self, data, /)\n--\n\n"
    "Take records that were read before start_tls().";
static const char abandon_doc[] =
    "_abandon($self, /)\n--\n\n"
    "Deliver no first data: start_tls() returns no transport.";

static PyMethodDef adapter_methods[] = {
    FL_METHOD("connection_made", connection_made, METH_O, connection_made_doc),
    FL_METHOD("connection_lost", connection_lost, METH_O, connection_lost_doc),
    FL_METHOD("get_buffer", get_buffer, METH_O, get_buffer_doc),
    FL_METHOD("buffer_updated", buffer_updated, METH_O, buffer_updated_doc),
    FL_METHOD("eof_received", eof_received, METH_NOARGS, eof_received_doc),
    FL_METHOD("pause_writing", pause_writing, METH_NOARGS, pause_writing_doc),
    FL_METHOD("resume_writing", resume_writing, METH_NOARGS,
              resume_writing_doc),
    FL_METHOD("_do_read", do_read, METH_NOARGS, do_read_doc),
    FL_METHOD("_resume", resume, METH_NOARGS, resume_doc),
    FL_METHOD("_fatal_error", fatal_error, FL_KEYWORDS, fatal_error_doc),
    FL_METHOD("_feed", feed, METH_O, feed_doc),
    FL_METHOD("_abandon", abandon, METH_NOARGS, abandon_doc),
    {NULL, NULL, 0, NULL},
};

/* --- asyncio's private names --------------------------------------------- */

static PyObject *
state_get(FlTls *self, void *Py_UNUSED(closure))
{
    static const char *const names[] = {"UNWRAPPED", "DO_HANDSHAKE", "WRAPPED",
                                        "FLUSHING", "SHUTDOWN"};
    PyObject *name = PyUnicode_FromString(names[self->phase]);
    PyObject *state =
        name == NULL
            ? NULL
            : PyObject_CallMethodOneArg(self->state->tls,
                                        self->state->names.state, name);
    Py_XDECREF(name);
    return state;
}

static PyObject *
conn_lost_get(FlTls *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong((long)self->writes_after_loss);
}

static PyGetSetDef adapter_getset[] = {
    {"_state", (getter)state_get, NULL, NULL, NULL},
    {"_conn_lost", (getter)conn_lost_get, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define OBJECT(name, field)                                          \
    {                                                                \
        name, FL_T_OBJECT, offsetof(FlTls, field), Py_READONLY, NULL \
    }

static PyMemberDef adapter_members[] = {
    OBJECT("_loop", loop),
    OBJECT("_transport", raw),
    OBJECT("_app_transport", transport),
    OBJECT("_app_protocol", protocol),
    OBJECT("_sslobj", engine.object),
    OBJECT("_sslcontext", context),
    OBJECT("_waiter", waiter),
    OBJECT("_extra", extra),
    OBJECT("_ssl_handshake_timeout", handshake_timeout),
    OBJECT("_ssl_shutdown_timeout", shutdown_timeout),
    {"_app_reading_paused", Py_T_BOOL, offsetof(FlTls, app_paused),
     Py_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* --- the type ------------------------------------------------------------ */

static int
adapter_traverse(FlTls *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->engine.object);
    Py_VISIT(self->engine.incoming);
    Py_VISIT(self->engine.outgoing);
    Py_VISIT(self->engine.owner);
    Py_VISIT(self->raw);
    Py_VISIT(self->protocol);
    Py_VISIT(self->transport);
    Py_VISIT(self->waiter);
    Py_VISIT(self->context);
    Py_VISIT(self->extra);
    Py_VISIT(self->timer);
    Py_VISIT(self->handshake_timeout);
    Py_VISIT(self->shutdown_timeout);
    Py_VISIT(self->began);
    return 0;
}

static int
adapter_clear(FlTls *self)
{
    self->phase = FL_TLS_UNWRAPPED;
    self->lost = true;
    self->native = NULL;
    fl_tls_drop_engine(self);
    Py_CLEAR(self->raw);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->timer);
    Py_CLEAR(self->handshake_timeout);
    Py_CLEAR(self->shutdown_timeout);
    Py_CLEAR(self->buffer);
    Py_CLEAR(self->began);
    return 0;
}

static void
adapter_dealloc(FlTls *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)adapter_clear(self);
    fl_write_queue_clear(&self->backlog);
    Py_CLEAR(self->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static const char adapter_doc[] =
    "The protocol between a transport and one over TLS; the loop makes them.";

static PyType_Slot adapter_slots[] = {
    {Py_tp_doc, (void *)adapter_doc},   {Py_tp_dealloc, adapter_dealloc},
    {Py_tp_traverse, adapter_traverse}, {Py_tp_clear, adapter_clear},
    {Py_tp_methods, adapter_methods},   {Py_tp_getset, adapter_getset},
    {Py_tp_members, adapter_members},   {0, NULL},
};

static PyType_Spec adapter_spec = {
    .name = "fastloop._core.TlsAdapter",
    .basicsize = sizeof(FlTls),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = adapter_slots,
};

static const FlBaseSlot adapter_base_slots[] = {
    {NULL, sizeof(PyObject)},
};

/* --- opening ------------------------------------------------------------- */

/* Call wrap(), which returns the SSLObject, and choose the engine. */
static int
make_engine(FlTls *self, PyObject *wrap, const char *file)
{
    FlTlsEngine *engine = &self->engine;
    FlNames *names = &self->state->names;
    FlLibsslWindow window;
    bool direct = file != NULL && FL_HAVE_GIL
                  && !(self->loop->off & FL_OFF_LIBSSL)
                  && fl_libssl_find(file);
    PyObject *plain = NULL, *owner = NULL;
    fl_libssl_open_window(&window);
    engine->object = PyObject_CallNoArgs(wrap);
    if (engine->object != NULL) {
        /* In the window as well: it is Python, and may free an SSL. */
        plain = PyObject_CallMethodOneArg(self->state->tls, names->is_plain,
                                          engine->object);
    }
    int found =
        plain == NULL
            ? -1
            : PyObject_GetOptionalAttr(engine->object, names->_sslobj, &owner);
    void *ssl = fl_libssl_close_window(&window);
    engine->type = &fl_tls_engine_object;
    engine->patched = plain != Py_True;
    if (found > 0 && direct && ssl != NULL && !engine->patched) {
        found = fl_tls_engine_take_ssl(engine, ssl, owner);
    }
    Py_XDECREF(plain);
    Py_XDECREF(owner);
    if (engine->ssl != NULL) {
        Py_CLEAR(engine->incoming);
        Py_CLEAR(engine->outgoing);
    }
    return found < 0 ? -1 : 0;
}

/* asyncio's water marks. */
static void
set_marks(FlTls *self)
{
    self->read_high_bytes = 256 * 1024;
    self->read_low_bytes = self->read_high_bytes / 4;
    self->write_high_bytes = 512 * 1024;
    self->write_low_bytes = self->write_high_bytes / 4;
}

static const char open_tls_doc[] =
    "open_tls(loop, protocol, context, waiter, wrap, incoming, outgoing,\n"
    "         libssl, made, handshake_timeout, shutdown_timeout, /)\n--\n\n"
    "Make a TlsAdapter; its _app_transport is the application's.  wrap()\n"
    "returns an SSLObject over the two MemoryBIOs, libssl is _ssl's file or\n"
    "None, made says that the protocol has a connection already.";

static PyObject *
open_tls(PyObject *module, PyObject *args)
{
    FlState *state = fl_state_get(module);
    PyObject *loop, *protocol, *context, *waiter, *wrap, *incoming, *outgoing;
    PyObject *handshake_timeout, *shutdown_timeout;
    const char *file;
    int made;
    if (!PyArg_ParseTuple(args, "O!OOOOOOzpOO:open_tls", state->loop_type,
                          &loop, &protocol, &context, &waiter, &wrap,
                          &incoming, &outgoing, &file, &made,
                          &handshake_timeout, &shutdown_timeout))
    {
        return NULL;
    }
    FlTls *self =
        (FlTls *)state->tls_adapter_type->tp_alloc(state->tls_adapter_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = self->engine.state = state;
    self->loop = (FlLoop *)Py_NewRef(loop);
    fl_write_queue_init(&self->backlog);
    self->context = Py_NewRef(context);
    self->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
    self->engine.incoming = Py_NewRef(incoming);
    self->engine.outgoing = Py_NewRef(outgoing);
    self->handshake_timeout = Py_NewRef(handshake_timeout);
    self->shutdown_timeout = Py_NewRef(shutdown_timeout);
    self->app_state = made ? FL_TLS_APP_MADE : FL_TLS_APP_NEW;
    set_marks(self);
    self->extra = Py_BuildValue("{OO}", state->names.sslcontext, context);
    if (self->extra == NULL || fl_tls_set_protocol(self, protocol) < 0
        || make_engine(self, wrap, file) < 0)
    {
        Py_DECREF(self);
        return NULL;
    }
    self->transport = fl_tls_transport_new(self);
    if (self->transport == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static const char use_tls_doc[] =
    "use_tls(module, again, error, zero, certificate, /)\n--\n\n"
    "Tell the core of fastloop._tls and of the ssl module's exceptions.";

static PyObject *
use_tls(PyObject *module, PyObject *args)
{
    FlState *state = fl_state_get(module);
    PyObject *tls, *again, *error, *zero, *certificate;
    if (!PyArg_ParseTuple(args, "OOOOO:use_tls", &tls, &again, &error, &zero,
                          &certificate))
    {
        return NULL;
    }
    Py_XSETREF(state->tls, Py_NewRef(tls));
    Py_XSETREF(state->tls_again_errors, Py_NewRef(again));
    Py_XSETREF(state->tls_error, Py_NewRef(error));
    Py_XSETREF(state->tls_zero_error, Py_NewRef(zero));
    Py_XSETREF(state->tls_certificate_error, Py_NewRef(certificate));
    Py_RETURN_NONE;
}

static const char has_native_doc[] =
    "has_native_tls(loop, /)\n--\n\n"
    "Return whether a loop makes its TLS connections natively.";

static PyObject *
has_native(PyObject *module, PyObject *loop)
{
    FlState *state = fl_state_get(module);
    if (!PyObject_TypeCheck(loop, state->loop_type)) {
        PyErr_SetString(PyExc_TypeError, "loop must be a fastloop.Loop");
        return NULL;
    }
    return PyBool_FromLong(!(FL_LOOP(loop)->off & FL_OFF_NATIVE_TLS));
}

static PyMethodDef functions[] = {
    {"has_native_tls", has_native, METH_O, has_native_doc},
    {"open_tls", open_tls, METH_VARARGS, open_tls_doc},
    {"use_tls", use_tls, METH_VARARGS, use_tls_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_tls_register(PyObject *module, FlState *state)
{
    state->tls_adapter_type =
        fl_type_derive(module, &adapter_spec, state->buffered_protocol, NULL,
                       adapter_base_slots);
    if (state->tls_adapter_type == NULL
        || fl_tls_transport_register(module, state) < 0
        || PyModule_AddFunctions(module, functions) < 0)
    {
        return -1;
    }
    fl_native_protocol_register(state, state->tls_adapter_type, &native);
    return 0;
}
