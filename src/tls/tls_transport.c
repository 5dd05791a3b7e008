/* _core.SSLTransport: the methods that applications call.

   1. After tp_clear `connection` is NULL: the transport acts as a closed one.
   2. Without a GIL, methods that change the connection forward calls of other
      threads to the loop's: a finalizer that closes runs in any thread. */
#include "tls/tls_transport.h"

#include "core/loop.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "tls/connection.h"
#include "tls/tls_calls.h"
#include "tls/tls_read.h"
#include "tls/tls_write.h"
#include "transport/extra_info.h"
#include "transport/flow.h"
#include "transport/native_protocol.h"
#include "transport/transport.h"
#include "transport/write_queue.h"

static FlTls *
connection_of(FlTlsTransport *self)
{
    if (self->connection == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the transport is gone");
    }
    return self->connection;
}

/* --- threads ------------------------------------------------------------- */

/* Whether this thread had to forward the call to the loop's thread; *result is
   then what the method returns. */
static bool
forwarded_to_loop(FlTlsTransport *self, PyObject *method, PyObject **result)
{
    FlLoop *loop = (FlLoop *)self->loop;
    if (!fl_transport_on_other_thread(loop)) {
        return false;
    }
    *result = fl_transport_queue_to_loop(loop, (PyObject *)self, method, NULL);
    return true;
}

/* Forward a write to the loop's thread, with a copy of the data (stolen; NULL:
   making it raised).  The caller may change its buffer at once. */
static PyObject *
forward_write(FlTlsTransport *self, PyObject *bytes)
{
    FlLoop *loop = (FlLoop *)self->loop;
    PyObject *result = NULL;
    if (bytes != NULL) {
        result = fl_transport_queue_to_loop(loop, (PyObject *)self,
                                            loop->state->names.write, bytes);
        Py_DECREF(bytes);
    }
    return result;
}

/* --- closing ------------------------------------------------------------- */

static const char close_doc[] =
    "close($self, /)\n--\n\n"
    "Close the transport: send what was written and close_notify, wait for\n"
    "the peer's close_notify, then call connection_lost(None).\n\n"
    "Implements asyncio's BaseTransport.close().";

static PyObject *
transport_close(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    if (self->connection == NULL) {
        Py_RETURN_NONE;
    }
    if (forwarded_to_loop(self, self->connection->state->names.close, &result))
    {
        return result;
    }
    if (self->closed) { /* asyncio's drops its SSLProtocol here */
        fl_tls_release_early(self->connection);
        Py_RETURN_NONE;
    }
    self->closed = true;
    return fl_call_none(fl_tls_start_shutdown(self->connection));
}

static PyObject *
force_close(FlTlsTransport *self, PyObject *exc)
{
    self->closed = true;
    if (self->connection == NULL) {
        Py_RETURN_NONE;
    }
    return fl_call_none(
        fl_tls_abort(self->connection, exc == Py_None ? NULL : exc));
}

static const char abort_doc[] =
    "abort($self, /)\n--\n\n"
    "Close at once and drop unsent data, without close_notify, then call\n"
    "connection_lost(None).  Implements asyncio's WriteTransport.abort().";

static PyObject *
transport_abort(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    if (self->connection != NULL
        && forwarded_to_loop(self, self->connection->state->names.abort,
                             &result))
    {
        return result;
    }
    return force_close(self, Py_None);
}

static const char force_close_doc[] =
    "_force_close($self, exc)\n--\n\n"
    "abort() with an exception for connection_lost; asyncio's private name.";

static const char is_closing_doc[] =
    "is_closing($self, /)\n--\n\n"
    "Return True if the transport is closing or closed.\n\n"
    "Implements asyncio's BaseTransport.is_closing().";

static PyObject *
transport_is_closing(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
#if FL_TLS_CLOSES_WITH_RAW
    FlTls *connection = self->connection;
    if (!self->closed && connection != NULL && connection->raw != NULL) {
        PyObject *raw = Py_NewRef(connection->raw);
        PyObject *closing =
            PyObject_CallMethodNoArgs(raw,
                                      connection->state->names.is_closing);
        Py_DECREF(raw);
        return closing;
    }
#endif
    return PyBool_FromLong(self->closed);
}

/* --- extra info, protocol ------------------------------------------------ */

static const char get_extra_info_doc[] =
    "get_extra_info($self, name, default=None)\n--\n\n"
    "Return a fact about the connection by its name: 'sslcontext',\n"
    "'ssl_object', 'peercert', 'cipher', 'compression', 'tls_engine'\n"
    "('libssl' or 'sslobject'), or any name of the transport below; else\n"
    "default.  Other threads may query the ssl_object, but must not call\n"
    "its read, write, unwrap or do_handshake.\n\n"
    "Implements asyncio's BaseTransport.get_extra_info().";

static PyObject *
get_extra_info(FlTlsTransport *self, PyObject *args, PyObject *kwargs)
{
    PyObject *name, *fallback;
    if (fl_extra_info_args(args, kwargs, &name, &fallback) < 0) {
        return NULL;
    }
    return self->connection == NULL
               ? Py_NewRef(fallback)
               : fl_tls_get_extra(self->connection, name, fallback);
}

int
fl_tls_set_protocol(FlTls *connection, PyObject *protocol)
{
    int buffered =
        PyObject_IsInstance(protocol, connection->state->buffered_protocol);
    if (buffered < 0) {
        return -1;
    }
    connection->buffered = buffered;
    connection->native = fl_native_protocol_of(connection->state, protocol);
    if (connection->native != NULL) {
        connection->buffered = false; /* it wants data_received alone */
    }
    Py_XSETREF(connection->protocol, Py_NewRef(protocol));
    return 0;
}

static const char set_protocol_doc[] =
    "set_protocol($self, protocol)\n--\n\n"
    "Deliver to another protocol from now on, a Protocol or a\n"
    "BufferedProtocol.  Implements asyncio's BaseTransport.set_protocol().";

static PyObject *
set_protocol(FlTlsTransport *self, PyObject *protocol)
{
    FlTls *connection = connection_of(self);
    return connection == NULL
               ? NULL
               : fl_call_none(fl_tls_set_protocol(connection, protocol));
}

static const char get_protocol_doc[] =
    "get_protocol($self, /)\n--\n\n"
    "Return the protocol, None once the connection is lost.\n\n"
    "Implements asyncio's BaseTransport.get_protocol().";

static PyObject *
get_protocol(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    FlTls *connection = self->connection;
    return Py_NewRef(connection == NULL || connection->protocol == NULL
                         ? Py_None
                         : connection->protocol);
}

/* --- reading ------------------------------------------------------------- */

static const char pause_reading_doc[] =
    "pause_reading($self, /)\n--\n\n"
    "Do not call data_received again before resume_reading().\n\n"
    "Implements asyncio's ReadTransport.pause_reading().";

static PyObject *
pause_reading(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    if (self->connection == NULL) {
        Py_RETURN_NONE;
    }
    FlNames *names = &self->connection->state->names;
    return forwarded_to_loop(self, names->pause_reading, &result)
               ? result
               : fl_call_none(fl_tls_pause_reading(self->connection));
}

static const char resume_reading_doc[] =
    "resume_reading($self, /)\n--\n\n"
    "Deliver data again.  Implements asyncio's\n"
    "ReadTransport.resume_reading().";

static PyObject *
resume_reading(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;
    if (self->connection == NULL) {
        Py_RETURN_NONE;
    }
    FlNames *names = &self->connection->state->names;
    return forwarded_to_loop(self, names->resume_reading, &result)
               ? result
               : fl_call_none(fl_tls_resume_reading(self->connection));
}

static const char is_reading_doc[] =
    "is_reading($self, /)\n--\n\n"
    "Return True unless reading is paused.\n\n"
    "Implements asyncio's ReadTransport.is_reading().";

static PyObject *
is_reading(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->connection != NULL
                           && !self->connection->app_paused);
}

/* --- water marks --------------------------------------------------------- */

/* Set both marks; asyncio's own function applies defaults and checks. */
static int
set_limits(FlTls *connection, PyObject *args, PyObject *kwargs,
           PyObject *function, uint64_t *high_bytes, uint64_t *low_bytes)
{
    static char *keywords[] = {"high", "low", NULL};
    PyObject *high = Py_None, *low = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_buffer_limits",
                                     keywords, &high, &low))
    {
        return -1;
    }
    PyObject *marks = PyObject_CallMethodObjArgs(connection->state->tls,
                                                 function, high, low, NULL);
    int64_t high_mark, low_mark;
    if (marks == NULL) {
        return -1;
    }
    int code = -1;
    if (PyArg_ParseTuple(marks, "OO", &high, &low)
        && fl_flow_parse_mark(high, &high_mark) == 0
        && fl_flow_parse_mark(low, &low_mark) == 0)
    {
        *high_bytes = (uint64_t)high_mark;
        *low_bytes = (uint64_t)low_mark;
        code = 0;
    }
    Py_DECREF(marks);
    return code;
}

static const char set_write_limits_doc[] =
    "set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
    "Set the marks, in bytes, at which the protocol is paused and resumed.\n"
    "\n"
    "Raises ValueError unless high >= low >= 0.  Implements asyncio's\n"
    "WriteTransport.set_write_buffer_limits().";

static PyObject *
set_write_limits(FlTlsTransport *self, PyObject *args, PyObject *kwargs)
{
    FlTls *connection = connection_of(self);
    if (connection == NULL
        || set_limits(connection, args, kwargs,
                      connection->state->names.write_limits,
                      &connection->write_high_bytes,
                      &connection->write_low_bytes)
               < 0)
    {
        return NULL;
    }
    return fl_call_none(fl_tls_control_writing(connection));
}

static const char set_read_limits_doc[] =
    "set_read_buffer_limits($self, high=None, low=None)\n--\n\n"
    "Set the marks, in bytes of records, at which the transport below is\n"
    "paused and resumed; asyncio's SSL transports have this method.";

static PyObject *
set_read_limits(FlTlsTransport *self, PyObject *args, PyObject *kwargs)
{
    FlTls *connection = connection_of(self);
    if (connection == NULL
        || set_limits(connection, args, kwargs,
                      connection->state->names.read_limits,
                      &connection->read_high_bytes,
                      &connection->read_low_bytes)
               < 0)
    {
        return NULL;
    }
    return fl_call_none(fl_tls_control_reading(connection));
}

static PyObject *
limits_tuple(uint64_t low_bytes, uint64_t high_bytes)
{
    return Py_BuildValue("KK", (unsigned long long)low_bytes,
                         (unsigned long long)high_bytes);
}

static const char get_write_limits_doc[] =
    "get_write_buffer_limits($self, /)\n--\n\n"
    "Return the low and high water marks in bytes.\n\n"
    "Implements asyncio's WriteTransport.get_write_buffer_limits().";

static PyObject *
get_write_limits(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    FlTls *connection = connection_of(self);
    return connection == NULL ? NULL
                              : limits_tuple(connection->write_low_bytes,
                                             connection->write_high_bytes);
}

static const char get_read_limits_doc[] =
    "get_read_buffer_limits($self, /)\n--\n\n"
    "Return the low and high marks of set_read_buffer_limits().";

static PyObject *
get_read_limits(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    FlTls *connection = connection_of(self);
    return connection == NULL ? NULL
                              : limits_tuple(connection->read_low_bytes,
                                             connection->read_high_bytes);
}

static const char get_write_size_doc[] =
    "get_write_buffer_size($self, /)\n--\n\n"
    "Return how many bytes the transport below has not accepted yet.\n\n"
    "Implements asyncio's WriteTransport.get_write_buffer_size().";

static PyObject *
get_write_size(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(
        self->connection == NULL
            ? 0
            : fl_tls_write_buffer_bytes(self->connection));
}

static const char get_read_size_doc[] =
    "get_read_buffer_size($self, /)\n--\n\n"
    "Return how many bytes of records are still to be decrypted.";

static PyObject *
get_read_size(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    FlTls *connection = self->connection;
    return PyLong_FromSize_t(
        connection == NULL || connection->engine.type == NULL
            ? 0
            : connection->engine.type->incoming(&connection->engine));
}

/* --- writing ------------------------------------------------------------- */

static const char write_doc[] =
    "write($self, data)\n--\n\n"
    "Encrypt and send bytes, or a bytearray or memoryview (the caller may\n"
    "change it afterwards), in order and without blocking.\n\n"
    "Raises TypeError for other types.  Implements asyncio's\n"
    "WriteTransport.write().";

static PyObject *
write_data(FlTlsTransport *self, PyObject *data)
{
    if (!PyBytes_Check(data) && !PyByteArray_Check(data)
        && !PyMemoryView_Check(data))
    {
        PyObject *name = PyType_GetName(Py_TYPE(data));
        if (name != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "data: expecting a bytes-like instance, got %U",
                         name);
            Py_DECREF(name);
        }
        return NULL;
    }
    /* As asyncio: len() may raise for a memoryview, and 0 bytes do nothing. */
    Py_ssize_t size =
        PyBytes_Check(data) ? PyBytes_GET_SIZE(data) : PyObject_Size(data);
    if (size < 0) {
        return NULL;
    }
    if (size == 0 || self->connection == NULL) {
        Py_RETURN_NONE;
    }
    if (fl_transport_on_other_thread((FlLoop *)self->loop)) {
        return forward_write(self, PyBytes_FromObject(data));
    }
    return fl_call_none(fl_tls_write(self->connection, data));
}

/* b"".join(lines): one entry in the queue of the loop's thread. */
static PyObject *
join_lines(const FlState *state, PyObject *lines)
{
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *bytes =
        empty == NULL
            ? NULL
            : PyObject_CallMethodOneArg(empty, state->names.join, lines);
    Py_XDECREF(empty);
    return bytes;
}

static const char writelines_doc[] =
    "writelines($self, list_of_data)\n--\n\n"
    "Encrypt and send an iterable of buffers with one call.\n\n"
    "Implements asyncio's WriteTransport.writelines().";

static PyObject *
write_lines(FlTlsTransport *self, PyObject *lines)
{
    if (self->connection == NULL) {
        Py_RETURN_NONE;
    }
    if (fl_transport_on_other_thread((FlLoop *)self->loop)) {
        return forward_write(self, join_lines(self->connection->state, lines));
    }
    return fl_call_none(fl_tls_writelines(self->connection, lines));
}

static const char write_eof_doc[] =
    "write_eof($self, /)\n--\n\n"
    "Raise NotImplementedError: TLS closes both sides.";

static PyObject *
write_eof(FlTlsTransport *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

static const char can_write_eof_doc[] =
    "can_write_eof($self, /)\n--\n\n"
    "Return False.  Implements asyncio's WriteTransport.can_write_eof().";

static PyObject *
can_write_eof(FlTlsTransport *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

static const char append_backlog_doc[] =
    "_test__append_write_backlog($self, data)\n--\n\n"
    "Append bytes to the backlog; for asyncio's own tests.";

static PyObject *
append_backlog(FlTlsTransport *self, PyObject *data)
{
    FlTls *connection = connection_of(self);
    if (connection == NULL || !PyBytes_CheckExact(data)) {
        return connection == NULL ? NULL
                                  : PyErr_Format(PyExc_TypeError, "bytes");
    }
    return fl_call_none(fl_write_queue_append(&connection->backlog, data, 0));
}

/* --- the type ------------------------------------------------------------ */

#define ONE(function, name, parameter) \
    static FL_ONE(FlTlsTransport, function##_one, name, parameter, function)

ONE(write_data, "write", "data")
ONE(write_lines, "writelines", "list_of_data")
ONE(set_protocol, "set_protocol", "protocol")
ONE(force_close, "_force_close", "exc")

static PyMethodDef transport_methods[] = {
    FL_METHOD("close", transport_close, METH_NOARGS, close_doc),
    FL_METHOD("abort", transport_abort, METH_NOARGS, abort_doc),
    FL_METHOD("_force_close", force_close_one, FL_FASTCALL, force_close_doc),
    FL_METHOD("is_closing", transport_is_closing, METH_NOARGS, is_closing_doc),
    FL_METHOD("get_extra_info", get_extra_info, FL_KEYWORDS,
              get_extra_info_doc),
    FL_METHOD("set_protocol", set_protocol_one, FL_FASTCALL, set_protocol_doc),
    FL_METHOD("get_protocol", get_protocol, METH_NOARGS, get_protocol_doc),
    FL_METHOD("pause_reading", pause_reading, METH_NOARGS, pause_reading_doc),
    FL_METHOD("resume_reading", resume_reading, METH_NOARGS,
              resume_reading_doc),
    FL_METHOD("is_reading", is_reading, METH_NOARGS, is_reading_doc),
    FL_METHOD("set_write_buffer_limits", set_write_limits, FL_KEYWORDS,
              set_write_limits_doc),
    FL_METHOD("get_write_buffer_limits", get_write_limits, METH_NOARGS,
              get_write_limits_doc),
    FL_METHOD("get_write_buffer_size", get_write_size, METH_NOARGS,
              get_write_size_doc),
    FL_METHOD("set_read_buffer_limits", set_read_limits, FL_KEYWORDS,
              set_read_limits_doc),
    FL_METHOD("get_read_buffer_limits", get_read_limits, METH_NOARGS,
              get_read_limits_doc),
    FL_METHOD("get_read_buffer_size", get_read_size, METH_NOARGS,
              get_read_size_doc),
    FL_METHOD("write", write_data_one, FL_FASTCALL, write_doc),
    FL_METHOD("writelines", write_lines_one, FL_FASTCALL, writelines_doc),
    FL_METHOD("write_eof", write_eof, METH_NOARGS, write_eof_doc),
    FL_METHOD("can_write_eof", can_write_eof, METH_NOARGS, can_write_eof_doc),
    FL_METHOD("_test__append_write_backlog", append_backlog, METH_O,
              append_backlog_doc),
    {NULL, NULL, 0, NULL},
};

static PyObject *
protocol_get(FlTlsTransport *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->connection == NULL ? Py_None
                                              : (PyObject *)self->connection);
}

static PyObject *
paused_get(FlTlsTransport *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->connection != NULL
                           && self->connection->protocol_paused);
}

static PyObject *
closed_get(FlTlsTransport *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->closed);
}

static PyGetSetDef transport_getset[] = {
    FL_DICT_GETTER,
    {"_ssl_protocol", (getter)protocol_get, NULL, NULL, NULL},
    {"_protocol_paused", (getter)paused_get, NULL, NULL, NULL},
    {"_closed", (getter)closed_get, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#if PY_VERSION_HEX < 0x030C0000
static PyMemberDef transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(FlTlsTransport, dict), READONLY,
     NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(FlTlsTransport, weakrefs),
     READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
#endif

static int
transport_traverse(FlTlsTransport *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT(self->loop);
    Py_VISIT(self->connection);
    return fl_visit_dict(self, visit, arg);
}

static int
transport_clear(FlTlsTransport *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->connection);
    fl_clear_dict(self);
    return 0;
}

/* asyncio's warning; an exception of the code that dropped us is kept. */
static void
transport_finalize(FlTlsTransport *self)
{
    if (self->closed) {
        return;
    }
    self->closed = true;
    PyObject *exc = PyErr_GetRaisedException();
    if (PyErr_ResourceWarning((PyObject *)self, 1, "unclosed transport %R",
                              (PyObject *)self)
        < 0)
    {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    fl_error_restore(exc);
}

static void
transport_dealloc(FlTlsTransport *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs((PyObject *)self);
    (void)transport_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static const char transport_doc[] =
    "An application's asyncio.Transport over TLS; made by the loop.";

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, (void *)transport_doc},
    {Py_tp_dealloc, transport_dealloc},
    {Py_tp_finalize, transport_finalize},
    {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},
    {Py_tp_methods, transport_methods},
    {Py_tp_getset, transport_getset},
#if PY_VERSION_HEX < 0x030C0000
    {Py_tp_members, transport_members},
#endif
    {0, NULL},
};

static PyType_Spec transport_spec = {
    .name = "fastloop._core.SSLTransport",
    .basicsize = sizeof(FlTlsTransport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | FL_DICT_FLAGS
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transport_slots,
};

FlTlsTransport *
fl_tls_transport_new(FlTls *connection)
{
    PyTypeObject *type = connection->state->tls_transport_type;
    FlTlsTransport *self = (FlTlsTransport *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->connection = (FlTls *)Py_NewRef((PyObject *)connection);
        self->loop = Py_NewRef((PyObject *)connection->loop);
    }
    return self;
}

int
fl_tls_transport_register(PyObject *module, FlState *state)
{
    state->tls_transport_type =
        fl_type_derive(module, &transport_spec, state->asyncio_transport, NULL,
                       fl_transport_base_slots);
    if (state->tls_transport_type == NULL) {
        return -1;
    }
    PyObject *type = (PyObject *)state->tls_transport_type;
    /* asyncio's sendfile and start_tls look at these two attributes. */
    PyObject *mode =
        PyObject_GetAttrString(state->streams, "SENDFILE_FALLBACK");
    int code =
        mode == NULL
            ? -1
            : PyObject_SetAttrString(type, "_sendfile_compatible", mode);
    Py_XDECREF(mode);
    return code < 0 ? -1
                    : PyObject_SetAttrString(type, "_start_tls_compatible",
                                             Py_True);
}
