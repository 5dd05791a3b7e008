/* _core.SSLTransport: the operations of the methods that applications call,
   and what TLS transports alone have.

   set_read_buffer_limits(), get_read_buffer_limits() and the defaults of
   set_write_buffer_limits() are Python, in _loop/_tls.py.  The marks of a
   new transport are set here.

   1. The transport owns its FlTls until it is freed.  tp_clear does not drop
      it: the tp_clear of the FlTls breaks every cycle, and leaves a connection
      that has ended.
   2. Without a GIL, write, writelines, close, abort, pause_reading,
      resume_reading and both checks of new water marks forward the calls of
      other threads to the loop's, because a finalizer, which may call close(),
      runs in any thread.  set_protocol() changes the protocol under a lock.
      The other methods that change the connection are for the loop's thread
      only. */
#include "tls/tls_transport.h"

#include "py/call.h"
#include "py/errors.h"
#include "py/field.h"
#include "tls/connection.h"
#include "tls/lifecycle.h"
#include "tls/tls_read.h"
#include "tls/tls_write.h"
#include "transport/native_protocol.h"
#include "transport/transport.h"

/* asyncio's default water marks. */
#define WRITE_HIGH_BYTES (512 * 1024)
#define READ_HIGH_BYTES  (256 * 1024)

/* The connection, for a call of the application's: lifecycle.c, invariant 3.
   Another thread's does not end a hold. */
static inline FlTls *
end_hold(const void *transport)
{
    FlTls *self = ((const FlTlsTransport *)transport)->connection;
    if (FL_UNLIKELY(self->hold_iterations > FL_TLS_HOLD_USED)
        && !fl_loop_on_other_thread(self->loop))
    {
        self->hold_iterations = FL_TLS_HOLD_USED;
    }
    return self;
}

/* --- operations ---------------------------------------------------------- */

static int
tls_close(FlTransport *transport)
{
    FlTlsTransport *self = (FlTlsTransport *)transport;
    if (self->closed) {
        return 0;
    }
    self->closed = true;
    self->connection->hold_iterations = 0; /* nothing may wait for it */
    return fl_tls_start_shutdown(self->connection);
}

static int
tls_force_close(FlTransport *self, PyObject *exc)
{
    FlTls *connection = end_hold(self);
    ((FlTlsTransport *)self)->closed = true;
    /* connection_lost gets `exc`, not the engine's earlier exception. */
    Py_CLEAR(connection->failure);
    return fl_tls_abort(connection, exc);
}

/* Also while the raw transport is closing, as in asyncio's later releases of
   3.12 and 3.13 and since 3.14.  Otherwise StreamWriter.drain() does not yield
   after the connection is lost, so a task that goes on writing never lets the
   loop call connection_lost(). */
static int
tls_is_closing(FlTransport *transport)
{
    FlTlsTransport *self = (FlTlsTransport *)transport;
    PyObject *raw = self->closed
                        ? NULL
                        : fl_field_get(end_hold(self), &self->connection->raw);
    int closing = raw == NULL
                      ? self->closed
                      : fl_call_truth(raw, self->state->names.is_closing);
    Py_XDECREF(raw);
    return closing;
}

/* asyncio also continues in the next iteration, so data_received is never
   called inside resume_reading. */
static int
tls_set_paused(FlTransport *self, bool paused)
{
    FlTls *connection = end_hold(self);
    bool resumes = connection->app_paused && !paused;
    if (paused && !connection->app_paused) {
        connection->paused_in_callback = self->loop->callback_count;
    }
    connection->app_paused = paused;
    return resumes ? fl_tls_defer(connection) : 0;
}

static bool
tls_is_reading(const FlTransport *self)
{
    return !end_hold(self)->app_paused;
}

static int
tls_set_protocol(FlTransport *self, PyObject *protocol)
{
    FlTls *connection = end_hold(self);
    return fl_protocol_change(self->state, connection, &connection->protocol,
                              protocol);
}

static PyObject *
tls_protocol(FlTransport *self)
{
    FlTls *connection = end_hold(self);
    return fl_protocol_get(connection, &connection->protocol).object;
}

/* Looks in the dict, then asks the raw transport. */
static PyObject *
tls_get_extra(FlTransport *transport, PyObject *name, PyObject *fallback)
{
    FlTls *self = end_hold(transport);
    PyObject *found = NULL;
    PyObject *extra = fl_field_get(self, &self->extra);
    fallback = fallback == NULL ? Py_None : fallback;
    /* Owned: hashing `name` may run Python, which may free the dict. */
    int code = extra == NULL ? 0 : PyDict_GetItemRef(extra, name, &found);
    Py_XDECREF(extra);
    if (code != 0) {
        return found;
    }
    PyObject *raw = fl_field_get(self, &self->raw);
    if (raw == NULL) {
        return Py_NewRef(fallback);
    }
    found = PyObject_CallMethodObjArgs(raw, self->state->names.get_extra_info,
                                       name, fallback, NULL);
    Py_DECREF(raw);
    return found;
}

static size_t
tls_buffer_bytes(const FlTransport *self)
{
    return fl_tls_write_buffer_bytes(end_hold(self));
}

static int
tls_control_writing(FlTransport *self)
{
    return fl_tls_control_writing(end_hold(self));
}

static const FlTransportOps tls_ops = {
    .close = tls_close,
    .force_close = tls_force_close,
    .is_closing = tls_is_closing,
    .set_paused = tls_set_paused,
    .is_reading = tls_is_reading,
    .set_protocol = tls_set_protocol,
    .protocol = tls_protocol,
    .get_extra = tls_get_extra,
    .write_buffer_bytes = tls_buffer_bytes,
    .control_writing = tls_control_writing,
};

/* --- writing ------------------------------------------------------------- */

/* Write bytes (stolen; NULL: making them raised), in the loop's thread. */
static PyObject *
transport_write(FlTlsTransport *self, PyObject *bytes)
{
    if (bytes == NULL) {
        return NULL;
    }
    PyObject *result =
        fl_loop_on_other_thread(self->loop)
            ? fl_transport_queue_to_loop(self->loop, (PyObject *)self,
                                         self->state->names.write, bytes)
            : fl_call_none(fl_tls_write(end_hold(self), bytes));
    Py_DECREF(bytes);
    return result;
}

static PyObject *
write_data(FlTlsTransport *self, PyObject *data)
{
    if (fl_transport_check_data(
            data, "data: expecting a bytes-like instance, got %U")
        < 0)
    {
        return NULL;
    }
    /* As asyncio: len() may raise for a memoryview, and 0 bytes do nothing. */
    Py_ssize_t size =
        PyBytes_Check(data) ? PyBytes_GET_SIZE(data) : PyObject_Size(data);
    if (size <= 0) {
        return fl_call_none((int)size);
    }
    return transport_write(self, PyBytes_FromObject(data));
}

/* As one write, so that small pieces share a record; asyncio makes one of
   each. */
static PyObject *
write_lines(FlTlsTransport *self, PyObject *lines)
{
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *bytes =
        empty == NULL
            ? NULL
            : PyObject_CallMethodOneArg(empty, self->state->names.join, lines);
    Py_XDECREF(empty);
    return transport_write(self, bytes);
}

/* --- the type ------------------------------------------------------------ */

static PyObject *
get_read_size(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    FlTlsEngine *engine = &end_hold(self)->engine;
    return PyLong_FromSize_t(engine->type->incoming(engine));
}

/* TLS closes both sides. */
static PyObject *
can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(Py_False);
}

static PyObject *
control_reading(FlTlsTransport *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *name = self->state->names._control_reading;
    return fl_loop_on_other_thread(self->loop)
               ? fl_transport_queue_to_loop(self->loop, (PyObject *)self, name,
                                            NULL)
               : fl_call_none(fl_tls_control_reading(end_hold(self)));
}

FL_ONE_ARGUMENT(FlTlsTransport, write_one, "write", "data", write_data)
FL_ONE_ARGUMENT(FlTlsTransport, writelines_one, "writelines", "list_of_data",
                write_lines)

static PyMethodDef transport_methods[] = {
    FL_METHOD("write", write_one, FL_FASTCALL,
              "write($self, data)\n--\n\n"
              "Encrypt and send bytes, or a bytearray or memoryview (the\n"
              "caller may change it afterwards), in order and without\n"
              "blocking.\n\n"
              "Raises TypeError for other types.  Implements asyncio's\n"
              "WriteTransport.write()."),
    FL_METHOD("writelines", writelines_one, FL_FASTCALL,
              "writelines($self, list_of_data)\n--\n\n"
              "Encrypt and send an iterable of buffers with one call.\n\n"
              "Implements asyncio's WriteTransport.writelines()."),
    FL_METHOD("get_read_buffer_size", get_read_size, METH_NOARGS,
              "get_read_buffer_size($self, /)\n--\n\n"
              "Return how many bytes of records are still to be decrypted."),
    FL_METHOD("_control_reading", control_reading, METH_NOARGS,
              "_control_reading($self, /)\n--\n\n"
              "Compare the records with the read marks."),
    FL_METHOD("can_write_eof", can_write_eof, METH_NOARGS,
              "can_write_eof($self, /)\n--\n\n"),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef own_getset[] = {
    {"_ssl_protocol", fl_field_attribute, NULL, NULL,
     (void *)offsetof(FlTlsTransport, connection)},
    {"_read_high_water", fl_water_mark_get, fl_water_mark_set, NULL,
     (void *)offsetof(FlTlsTransport, read_high_bytes)},
    {"_read_low_water", fl_water_mark_get, fl_water_mark_set, NULL,
     (void *)offsetof(FlTlsTransport, read_low_bytes)},
    /* asyncio's loop.start_tls() looks for it. */
    {"_start_tls_compatible", fl_transport_true, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static int
transport_traverse(FlTlsTransport *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT(self->loop);
    Py_VISIT(self->connection);
    return fl_visit_dict(self, visit, arg);
}

/* Invariant 1; methods use `loop` without a check. */
static int
transport_clear(FlTlsTransport *self)
{
    Py_CLEAR(self->extra);
    fl_clear_dict(self);
    return 0;
}

/* An exception of the code that dropped us is kept. */
static void
transport_finalize(FlTlsTransport *self)
{
    if (!self->closed) {
        self->closed = true;
        PyObject *exc = PyErr_GetRaisedException();
        fl_transport_warn_unclosed((FlTransport *)self);
        fl_error_restore(exc);
    }
}

static void
transport_dealloc(FlTlsTransport *self)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs((PyObject *)self);
    (void)transport_clear(self);
    Py_CLEAR(self->connection);
    Py_CLEAR(self->loop);
    fl_object_free(self);
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
    {Py_tp_getset, fl_transport_getset},
    {Py_tp_members, fl_transport_members},
    {0, NULL},
};

FlTlsTransport *
fl_tls_transport_new(FlTls *connection)
{
    PyTypeObject *type = connection->state->tls_transport_type;
    FlTlsTransport *self = (FlTlsTransport *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->ops = &tls_ops;
        self->state = connection->state;
        self->loop = (FlLoop *)Py_NewRef((PyObject *)connection->loop);
        self->connection = (FlTls *)Py_NewRef((PyObject *)connection);
        self->high_water_bytes = WRITE_HIGH_BYTES;
        self->low_water_bytes = WRITE_HIGH_BYTES / 4;
        self->read_high_bytes = READ_HIGH_BYTES;
        self->read_low_bytes = READ_HIGH_BYTES / 4;
    }
    return self;
}

int
fl_tls_transport_register(PyObject *module, FlState *state)
{
    PyTypeObject *type =
        fl_transport_type_new(module, "fastloop._core.SSLTransport",
                              sizeof(FlTlsTransport), transport_slots, NULL);
    state->tls_transport_type = type;
    return type == NULL
                   || fl_transport_add_attributes(type, NULL, own_getset) < 0
               ? -1
               : 0;
}
