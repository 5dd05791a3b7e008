/* _core.TlsAdapter: the protocol methods that a raw transport calls, asyncio's
   private names of SSLProtocol, and the creation of a TLS connection.

   Our stream transports deliver data through the native protocol
   (fl_tls_native of lifecycle.c); data_received() serves all other raw
   transports.  The other methods are looked up for each call:
   programs find the connection as _ssl_protocol, and set a connection_lost()
   of their own on it, to learn when it has ended.

   A connection's engine is chosen when the connection is created, and stays
   for good: libssl's if all its conditions hold (make_engine), else the
   SSLObject's.  Records in flight could not move from one to the other. */
#include "tls/adapter.h"

#include "core/loop.h"
#include "core/write_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/field.h"
#include "py/state.h"
#include "tls/connection.h"
#include "tls/engine.h"
#include "tls/engine_libssl.h"
#include "tls/engine_object.h"
#include "tls/lifecycle.h"
#include "tls/tls_read.h"
#include "tls/tls_transport.h"
#include "tls/tls_write.h"

/* --- protocol methods ---------------------------------------------------- */

/* Records of a raw transport that is none of ours, or those that a
   StreamReader had read before start_tls(), which stay in the engine until the
   handshake begins.  The view prevents a callback from resizing a bytearray,
   which would move its memory. */
static PyObject *
adapter_data_received(FlTls *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int code = fl_tls_receive(self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return fl_call_none(code);
}

/* True keeps the raw transport open; None has it close itself. */
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
    if (self->raw == NULL && self->app_state == FL_TLS_APP_MADE
        && self->transport != NULL)
    {
        /* start_tls calls this before connection_made if the raw transport
           has already paused the protocol. */
        self->transport->protocol_paused = true;
    }
    Py_RETURN_NONE;
}

/* --- private methods ----------------------------------------------------- */

/* start_tls() failed or was cancelled, so the application has no transport to
   reply on: the held first data must not be delivered.  During the handshake
   nothing is held; the caller closes the raw transport. */
static PyObject *
abandon(FlTls *self, PyObject *Py_UNUSED(ignored))
{
    fl_tls_set_unwrapped(self);
    Py_RETURN_NONE;
}

static PyMethodDef adapter_methods[] = {
    FL_METHOD("connection_made", fl_tls_connection_made, METH_O,
              "connection_made($self, transport, /)\n--\n\n"
              "Begin the handshake over a transport."),
    FL_METHOD("connection_lost", fl_tls_connection_lost, METH_O,
              "connection_lost($self, exc, /)\n--\n\n"
              "The transport below is lost."),
    FL_METHOD("data_received", adapter_data_received, METH_O,
              "data_received($self, data, /)\n--\n\n"
              "Process records, or keep those of before connection_made()."),
    FL_METHOD("eof_received", eof_received, METH_NOARGS,
              "eof_received($self, /)\n--\n\n"
              "The transport below received EOF."),
    FL_METHOD("pause_writing", pause_writing, METH_NOARGS,
              "pause_writing($self, /)\n--\n\n"
              "The buffer of the transport below is full."),
    FL_METHOD("resume_writing", fl_tls_resume_writing, METH_NOARGS,
              "resume_writing($self, /)\n--\n\n"
              "The buffer of the transport below has room."),
    FL_METHOD("_abandon", abandon, METH_NOARGS,
              "_abandon($self, /)\n--\n\n"
              "Deliver no first data: start_tls() returns no transport."),
    {NULL, NULL, 0, NULL},
};

/* --- asyncio's private names --------------------------------------------- */

#define FIELD(name, field)                                                   \
    {                                                                        \
        name, fl_field_attribute, NULL, NULL, (void *)offsetof(FlTls, field) \
    }

static PyGetSetDef adapter_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    FIELD("_transport", raw),
    FIELD("_app_transport", transport),
    FIELD("_app_protocol", protocol.object),
    FIELD("_extra", extra),
    FIELD("_sslobj", engine.object),
    {NULL, NULL, NULL, NULL, NULL},
};

#define OBJECT(name, field, flags)                             \
    {                                                          \
        name, FL_T_OBJECT, offsetof(FlTls, field), flags, NULL \
    }

/* asyncio's names.  Those that are read-only belong to the C code, the others
   to _loop/_tls.py. */
static PyMemberDef adapter_members[] = {
    OBJECT("_loop", loop, Py_READONLY),
    OBJECT("_sslcontext", ssl_context, 0),
    OBJECT("_waiter", waiter, 0),
    OBJECT("_timer", timer, 0),
    OBJECT("_ssl_handshake_timeout", handshake_timeout, 0),
    OBJECT("_ssl_shutdown_timeout", shutdown_timeout, 0),
    /* The loss itself counts as the first write. */
    {"_conn_lost", Py_T_PYSSIZET, offsetof(FlTls, writes_after_loss),
     Py_READONLY, NULL},
    {"_app_reading_paused", Py_T_BOOL, offsetof(FlTls, app_paused),
     Py_READONLY, NULL},
    /* _loop/_tls.py makes asyncio's _state of it. */
    {"_phase", Py_T_UINT, offsetof(FlTls, phase), Py_READONLY, NULL},
    FL_LAST_MEMBERS(FlTls),
};

/* --- the type ------------------------------------------------------------ */

/* Not visited: the backlog.  It owns bytes objects, which own no references
   and so are in no cycle. */
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
    Py_VISIT(self->protocol.object);
    Py_VISIT(self->transport);
    Py_VISIT(self->waiter);
    Py_VISIT(self->ssl_context);
    Py_VISIT(self->extra);
    Py_VISIT(self->timer);
    Py_VISIT(self->failure);
    Py_VISIT(self->handshake_timeout);
    Py_VISIT(self->shutdown_timeout);
    return fl_visit_dict(self, visit, arg);
}

/* The state is a connection that has ended, so that every method still works
   afterwards.  `loop` and the engine stay until dealloc, because methods use
   them without a check.  A cycle through the engine's objects passes through a
   dict or an SSLContext, whose tp_clear breaks it. */
static int
adapter_clear(FlTls *self)
{
    fl_tls_set_phase(self, FL_TLS_LOST);
    self->hold_iterations = 0;
    Py_CLEAR(self->raw); /* first: LOST has none */
    Py_CLEAR(self->ssl_context);
    fl_field_set(self, &self->extra, NULL);
    Py_CLEAR(self->protocol.object);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->timer);
    Py_CLEAR(self->failure);
    Py_CLEAR(self->handshake_timeout);
    Py_CLEAR(self->shutdown_timeout);
    fl_clear_dict(self);
    return 0;
}

static void
adapter_dealloc(FlTls *self)
{
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs((PyObject *)self);
    (void)adapter_clear(self);
    fl_write_queue_clear(&self->backlog);
    Py_CLEAR(self->engine.object);
    Py_CLEAR(self->engine.incoming);
    Py_CLEAR(self->engine.outgoing);
    Py_CLEAR(self->engine.owner);
    Py_CLEAR(self->loop);
    fl_object_free(self);
}

static const char adapter_doc[] =
    "The protocol between a raw transport and its TLS transport; made by\n"
    "the loop.";

static PyType_Slot adapter_slots[] = {
    {Py_tp_doc, (void *)adapter_doc},   {Py_tp_dealloc, adapter_dealloc},
    {Py_tp_traverse, adapter_traverse}, {Py_tp_clear, adapter_clear},
    {Py_tp_methods, adapter_methods},   {Py_tp_getset, adapter_getset},
    {Py_tp_members, adapter_members},   {0, NULL},
};

/* Instances of asyncio.Protocol have no slots of their own. */
static const FlBaseSlot adapter_base_slots[] = {
    {NULL, sizeof(PyObject)},
};

/* --- creation ------------------------------------------------------------ */

/* Create the SSLObject, and choose the engine.  It is libssl's if there is a
   GIL, FASTLOOP_DISABLE does not name it, libssl's functions were found,
   wrap() has returned the _sslobj (_is_plain() of _loop/_tls.py), and the
   last SSL that this thread has created is that one's.  0, or -1 with an
   exception set. */
static int
make_engine(FlTls *self, PyObject *wrap, const char *ssl_file)
{
    FlTlsEngine *engine = &self->engine;
    PyObject *object, *owner, *incoming, *outgoing;
    bool may_use_libssl = ssl_file != NULL && FL_HAVE_GIL
                          && !(self->loop->off & FL_OFF_LIBSSL)
                          && fl_libssl_find(ssl_file);
    PyObject *made = PyObject_CallNoArgs(wrap);
    /* No Python may run between here and fl_tls_engine_take_ssl: it could free
       the SSL. */
    if (made == NULL
        || !PyArg_ParseTuple(made, "OOOO", &object, &owner, &incoming,
                             &outgoing))
    {
        Py_XDECREF(made);
        return -1;
    }
    engine->object = Py_NewRef(object);
    int taken = may_use_libssl && owner != Py_None
                    ? fl_tls_engine_take_ssl(engine, owner)
                    : 0;
    if (taken == 0) {
        engine->incoming = Py_NewRef(incoming);
        engine->outgoing = Py_NewRef(outgoing);
    }
    Py_DECREF(made);
    return taken < 0 ? -1 : 0;
}

static const char open_tls_doc[] =
    "open_tls(loop, protocol, wrap, libssl, made, /)\n--\n\n"
    "Make a TlsAdapter; its _app_transport is the application's.  wrap()\n"
    "returns an SSLObject, its _sslobj, or None if its methods have to be\n"
    "called, and its MemoryBIOs; libssl is _ssl's file, as bytes, or None;\n"
    "made is true if connection_made() has already been called.";

static PyObject *
adapter_open(PyObject *module, PyObject *args)
{
    FlState *state = fl_state_get(module);
    PyObject *loop, *protocol, *wrap, *file;
    int made;
    if (!PyArg_ParseTuple(args, "O!OOOp:open_tls", state->loop_type, &loop,
                          &protocol, &wrap, &file, &made))
    {
        return NULL;
    }
    const char *ssl_file =
        PyBytes_Check(file) ? PyBytes_AS_STRING(file) : NULL;
    /* tp_alloc zeroes the memory, so that dealloc works from here on. */
    FlTls *self =
        (FlTls *)state->tls_adapter_type->tp_alloc(state->tls_adapter_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = self->engine.state = state;
    self->engine.type = &fl_tls_engine_object; /* make_engine may replace it */
    self->loop = (FlLoop *)Py_NewRef(loop);
    fl_write_queue_init(&self->backlog);
    self->app_state = made ? FL_TLS_APP_MADE : FL_TLS_APP_NEW;
    if (fl_protocol_change(state, self, &self->protocol, protocol) == 0
        && make_engine(self, wrap, ssl_file) == 0)
    {
        self->extra =
            Py_BuildValue("{ss}", "tls_engine", self->engine.type->name);
    }
    /* A reference cycle until connection_lost; see connection.h. */
    self->transport = self->extra == NULL ? NULL : fl_tls_transport_new(self);
    if (self->transport == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* _loop/_tls.py calls this when it is imported, which connections.py does for
   the first TLS connection.  open_tls needs what it stores. */
static const char use_tls_doc[] =
    "use_tls(module, again, error, ends, /)\n--\n\n"
    "Give the core fastloop._loop._tls and the ssl module's exceptions.";

static PyObject *
use_tls(PyObject *module, PyObject *args)
{
    FlState *state = fl_state_get(module);
    PyObject *tls, *again, *error, *ends;
    if (!PyArg_ParseTuple(args, "OOOO:use_tls", &tls, &again, &error, &ends)) {
        return NULL;
    }
    Py_XSETREF(state->tls, Py_NewRef(tls));
    Py_XSETREF(state->tls_again_errors, Py_NewRef(again));
    Py_XSETREF(state->tls_error, Py_NewRef(error));
    Py_XSETREF(state->tls_end_errors, Py_NewRef(ends));
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"open_tls", adapter_open, METH_VARARGS, open_tls_doc},
    {"use_tls", use_tls, METH_VARARGS, use_tls_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_tls_register(PyObject *module, FlState *state)
{
    PyType_Spec spec = {"fastloop._core.TlsAdapter", sizeof(FlTls), 0,
                        FL_TYPE_FLAGS | FL_DICT_FLAGS, adapter_slots};
    state->tls_adapter_type =
        fl_type_derive(module, &spec, state->asyncio_protocol, NULL,
                       adapter_base_slots);
    if (state->tls_adapter_type == NULL
        || fl_tls_transport_register(module, state) < 0
        || PyModule_AddFunctions(module, functions) < 0)
    {
        return -1;
    }
    /* For exact instances: a subclass may override the Python methods. */
    state->native_tls = &fl_tls_native;
    return 0;
}
