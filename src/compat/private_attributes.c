/* asyncio's private attributes of transports: see private_attributes.h.

   Known users: libraries read _protocol and _sock, and some set _protocol or
   _extra.  Tests read the write buffer and the water marks.  Protocol clients
   test _conn_lost, _closing or _protocol_connected to see if they are still
   connected.  UDP tunnels read the peer from _address.  asyncio's own sendfile
   reads _loop, _sock_fd and _protocol_paused.

   Reading _sock or _sock_fd exposes the fd: the application may now write to
   it without our knowledge, so the transport stops corking and sends at once.
   Otherwise the two writers' bytes could leave in another order. */
#include "compat/private_attributes.h"

#include "core/write_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"
#include "transport/datagram.h"
#include "transport/extra_info.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/transport.h"

static PyObject *
sock_get(FlStream *self, void *Py_UNUSED(closure))
{
    fl_stream_expose_fd(self);
    /* NULL without an exception once the stream is closed. */
    PyObject *sock = fl_stream_get_socket(self);
    return sock != NULL || PyErr_Occurred() ? sock : Py_NewRef(Py_None);
}

static PyObject *
fd_get(FlStream *self, void *Py_UNUSED(closure))
{
    fl_stream_expose_fd(self);
    return PyLong_FromLong(self->last_fd); /* also after close, as asyncio */
}

static PyObject *
extra_get(FlStream *self, void *Py_UNUSED(closure))
{
    /* The dict is filled lazily; a reader of _extra expects every key. */
    if (fl_stream_fill_extra(self) < 0) {
        return NULL;
    }
    return fl_field_get(self, &self->extra);
}

/* Replace the stored values of get_extra_info().  Values that are found on
   request, such as peername, are still found; asyncio would not find them. */
static int
extra_set(FlStream *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL || !PyDict_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "_extra must be a dict");
        return -1;
    }
    fl_field_set(self, &self->extra, value);
    return 0;
}

static bool
is_write_pipe(const FlStream *self)
{
    return Py_IS_TYPE((PyObject *)self, self->state->write_pipe_type);
}

/* asyncio counts the loss itself, and each write after it.  A write pipe
   counts a write that has failed instead of the loss. */
static PyObject *
conn_lost_get(FlStream *self, void *Py_UNUSED(closure))
{
    bool lost = !is_write_pipe(self) && self->phase >= FL_STREAM_LOST;
    return PyLong_FromUnsignedLong(lost + self->writes_after_loss);
}

/* The future by which sendfile (fastloop/_sendfile.py) waits: it is resolved
   when the buffer is empty and the kernel has room.  While there is one, other
   writes raise; None allows them again. */
static int
waiter_set(FlStream *self, PyObject *value, void *Py_UNUSED(closure))
{
    bool waits = value != NULL && value != Py_None;
    if (waits && self->loop == NULL) {
        PyErr_SetString(PyExc_ConnectionError, FL_STREAM_CLOSED_TEXT);
        return -1;
    }
    fl_stream_flush_if_corked(self); /* corked bytes leave before the file's */
    fl_field_set(self, &self->empty_waiter, waits ? value : NULL);
    int code;
    Py_BEGIN_CRITICAL_SECTION(self); /* another thread may be writing */
    self->waits_for_writable = waits;
    code = fl_stream_update_registration(self);
    Py_END_CRITICAL_SECTION();
    return code < 0 ? fl_raise_errno(code) : 0;
}

/* A list of the items of the write queue.  shown_buffer() of _core_helpers.py
   makes it into the type that asyncio has for this Python version.  Corked
   ones count as sent: asyncio would have sent them at once. */
static PyObject *
buffer_get(FlStream *self, void *Py_UNUSED(closure))
{
    const FlWriteQueue *queue = &self->out.queue;
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    /* Appending runs no Python, and without a GIL every change of the queue is
       in the critical section: so the queue stays as it is. */
    unsigned at, end;
    size_t sent_bytes;
    int code = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    end = fl_stream_is_corked(self) ? queue->head : queue->tail;
    for (at = queue->head; code == 0 && at < end; at++) {
        code = PyList_Append(list, queue->items[at]);
    }
    sent_bytes = queue->sent_bytes;
    Py_END_CRITICAL_SECTION();
    PyObject *sent = code < 0 ? NULL : PyLong_FromSize_t(sent_bytes);
    PyObject *result = NULL;
    if (sent != NULL) {
        bool datagrams = Py_IS_TYPE(self, self->state->datagram_type);
        result = PyObject_CallMethodObjArgs(self->state->helpers,
                                            self->state->names.shown_buffer,
                                            list, sent,
                                            is_write_pipe(self) ? Py_None
                                            : datagrams         ? Py_True
                                                                : Py_False,
                                            NULL);
        Py_DECREF(sent);
    }
    Py_DECREF(list);
    return result;
}

static int
protocol_set(FlTransport *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_protocol cannot be deleted");
        return -1;
    }
    return self->ops->set_protocol(self, value);
}

static PyObject *
fatal_error(FlStream *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"exc", "message", NULL};
    PyObject *exc;
    const char *message = "Fatal error on transport";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|s:_fatal_error",
                                     keywords, &exc, &message))
    {
        return NULL;
    }
    /* asyncio does not check this.  connection_lost and exception handlers
       expect an exception instance. */
    if (!PyExceptionInstance_Check(exc)) {
        return PyErr_Format(PyExc_TypeError, "exc must be an exception");
    }
    /* Fails only with an exception that ends the run. */
    return fl_call_none(fl_stream_fatal_exception(self, exc, message));
}

/* --- the types ----------------------------------------------------------- */

#define MEMBER(name, type, owner, field)                      \
    {                                                         \
        name, type, offsetof(owner, field), Py_READONLY, NULL \
    }

#define MEMBERS_END         \
    {                       \
        NULL, 0, 0, 0, NULL \
    }
#define GETSET_END                   \
    {                                \
        NULL, NULL, NULL, NULL, NULL \
    }

/* Without docstrings, as in asyncio.  All types begin with FlStream's
   fields. */
static PyMethodDef all_methods[] = {
    FL_METHOD("_fatal_error", fatal_error, FL_KEYWORDS,
              "_fatal_error($self, exc, message='Fatal error on transport')"
              "\n--\n\n"),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef all_getset[] = {
    {"_closing", (getter)fl_transport_is_closing, NULL, NULL, NULL},
    {"_protocol", (getter)fl_transport_get_protocol, (setter)protocol_set,
     NULL, NULL},
    GETSET_END,
};

/* --- of those that read --- */

static PyMemberDef read_members[] = {
    MEMBER("_paused", Py_T_BOOL, FlStream, paused),
    MEMBERS_END,
};

static PyGetSetDef read_getset[] = {
    /* asyncio resets it when the connection is lost. */
    {"_protocol_connected", fl_transport_true, NULL, NULL, NULL},
    GETSET_END,
};

/* --- of those that write --- */

static PyGetSetDef write_getset[] = {
    {"_conn_lost", (getter)conn_lost_get, NULL, NULL, NULL},
    {"_buffer", (getter)buffer_get, NULL, NULL, NULL},
    GETSET_END,
};

/* --- of sockets --- */

static PyGetSetDef socket_getset[] = {
    {"_sock", (getter)sock_get, NULL, NULL, NULL},
    {"_sock_fd", (getter)fd_get, NULL, NULL, NULL},
    {"_extra", (getter)extra_get, (setter)extra_set, NULL, NULL},
    {"_server", fl_field_attribute, NULL, NULL,
     (void *)offsetof(FlStream, server)},
    GETSET_END,
};

static PyMemberDef stream_members[] = {
    MEMBER("_eof", Py_T_BOOL, FlStream, eof_written),
    MEMBERS_END,
};

static PyGetSetDef stream_getset[] = {
    {"_empty_waiter", fl_field_attribute, (setter)waiter_set, NULL,
     (void *)offsetof(FlStream, empty_waiter)},
    /* asyncio's loop.start_tls() looks for it. */
    {"_start_tls_compatible", fl_transport_true, NULL, NULL, NULL},
    GETSET_END,
};

static PyMemberDef datagram_members[] = {
    MEMBER("_address", FL_T_OBJECT, FlDatagram, address),
    MEMBERS_END,
};

static PyGetSetDef datagram_getset[] = {
    {"_buffer_size", (getter)fl_transport_get_buffer_size, NULL, NULL, NULL},
    GETSET_END,
};

/* --- of pipes --- */

static PyGetSetDef pipe_getset[] = {
    {"_pipe", (getter)sock_get, NULL, NULL, NULL},
    {"_fileno", (getter)fd_get, NULL, NULL, NULL},
    GETSET_END,
};

/* asyncio's limit of one read in bytes, which has no effect here.  A program
   may set it for one transport. */
static int
add_max_size(FlState *state)
{
    PyTypeObject *types[] = {state->stream_type, state->datagram_type,
                             state->read_pipe_type};
    PyObject *size = PyLong_FromLong(256 * 1024);
    int code = size == NULL ? -1 : 0;
    for (size_t at = 0; code == 0 && at < sizeof(types) / sizeof(types[0]);
         at++) {
        code = PyObject_SetAttrString((PyObject *)types[at], "max_size", size);
    }
    Py_XDECREF(size);
    return code;
}

int
fl_private_attributes_register(FlState *state)
{
    PyTypeObject *stream = state->stream_type;
    PyTypeObject *datagram = state->datagram_type;
    PyTypeObject *reads = state->read_pipe_type;
    PyTypeObject *writes = state->write_pipe_type;
    const struct {
        PyTypeObject *types[5]; /* then NULL */
        PyMethodDef *methods;
        PyMemberDef *members;
        PyGetSetDef *getset;
    } rows[] = {
        {{stream, datagram, reads, writes}, all_methods, NULL, all_getset},
        {{stream, datagram, reads}, NULL, read_members, read_getset},
        {{stream, datagram, writes}, NULL, NULL, write_getset},
        {{stream, datagram}, NULL, NULL, socket_getset},
        {{stream}, NULL, stream_members, stream_getset},
        {{datagram}, NULL, datagram_members, datagram_getset},
        {{reads, writes}, NULL, NULL, pipe_getset},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        for (size_t at = 0; rows[row].types[at] != NULL; at++) {
            if (fl_transport_add_attributes(rows[row].types[at],
                                            rows[row].methods,
                                            rows[row].members,
                                            rows[row].getset)
                < 0)
            {
                return -1;
            }
        }
    }
    return add_max_size(state);
}
