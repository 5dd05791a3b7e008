/* asyncio's private attributes of transports: see private_attributes.h.

   Known users: libraries read _protocol and _sock, and some set _protocol or
   _extra.  Tests read the write buffer and the water marks.  Protocol clients
   test _conn_lost, _closing or _protocol_connected to see if they are still
   connected.  UDP tunnels read the peer from _address.  asyncio's own sendfile
   reads _loop, _sock_fd and _protocol_paused.

   1. _buffer is a copy: changing it does not change the write queue.
   2. Setting an attribute does what the public method does, without that
      method's checks of the argument.
   3. Reading _sock or _sock_fd exposes the fd: the program may now write to it
      without our knowledge, so the transport stops corking and sends at once.
      Otherwise the two writers' bytes could leave in the wrong order. */
#include "compat/private_attributes.h"

#include "py/compat.h"
#include "py/state.h"
#include "transport/datagram.h"
#include "transport/extra_info.h"
#include "transport/flow.h"
#include "transport/stream.h"
#include "transport/stream_write.h"
#include "transport/transport.h"
#include "transport/write_queue.h"

#include <math.h>

/* A new reference to the object, or to None for NULL. */
static PyObject *
or_none(PyObject *object)
{
    return Py_NewRef(object == NULL ? Py_None : object);
}

/* The value given to a setter is NULL for `del`.  0, or -1 with
   AttributeError. */
static int
check_not_deleted(PyObject *value, const char *name)
{
    if (value != NULL) {
        return 0;
    }
    PyErr_Format(PyExc_AttributeError, "%s cannot be deleted", name);
    return -1;
}

/* --- parts --------------------------------------------------------------- */

static PyObject *
loop_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none((PyObject *)self->loop);
}

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
server_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none(self->server);
}

static PyObject *
protocol_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none(self->protocol);
}

static int
protocol_set(FlStream *self, PyObject *value, void *Py_UNUSED(closure))
{
    return check_not_deleted(value, "_protocol") < 0
               ? -1
               : fl_stream_set_protocol(self, value);
}

static PyObject *
extra_get(FlStream *self, void *Py_UNUSED(closure))
{
    /* The dict is filled lazily; a reader of _extra expects every key. */
    if (fl_stream_fill_extra(self) < 0) {
        return NULL;
    }
    return Py_NewRef(self->extra);
}

/* Replaces the dict behind get_extra_info(), as assigning does in asyncio. */
static int
extra_set(FlStream *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL || !PyDict_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "_extra is a dict");
        return -1;
    }
    Py_XSETREF(self->extra, Py_NewRef(value));
    return 0;
}

/* --- state --------------------------------------------------------------- */

static PyObject *
closing_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(fl_stream_is_closing(self));
}

/* asyncio counts the loss itself, and each write after it. */
static PyObject *
conn_lost_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong((self->phase >= FL_STREAM_LOST)
                                   + self->writes_after_loss);
}

/* write_eof() was called; the socket may not be shut down yet. */
static PyObject *
eof_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->eof_written);
}

/* Reading is paused. */
static PyObject *
paused_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->paused);
}

/* The protocol's pause_writing() was called, and no resume_writing() since. */
static PyObject *
protocol_paused_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->protocol_paused);
}

/* The future by which sendfile waits for the buffer to drain. */
static PyObject *
empty_waiter_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none(self->empty_waiter);
}

/* --- the write buffer ---------------------------------------------------- */

/* Making a result object may start a GC, which may run any Python and change
   the queue.  So buffer_get reads the queue and its length again for each
   item, and an item's references are taken before an object is made of it. */

/* The unsent part of the bytes object at an index from the head. */
static PyObject *
unsent_bytes(const FlWriteQueue *write_queue, size_t at)
{
    PyObject *bytes = write_queue->items[write_queue->head + at];
    size_t skip = at == 0 ? write_queue->sent_bytes : 0;
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(bytes) + skip,
                                     PyBytes_GET_SIZE(bytes)
                                         - (Py_ssize_t)skip);
}

/* The (data, address) tuple of the datagram at an index from the head. */
static PyObject *
unsent_datagram(const FlWriteQueue *write_queue, size_t at)
{
    PyObject *const *pair = fl_write_queue_pair(write_queue, at);
    PyObject *data = Py_NewRef(pair[0]), *address = Py_NewRef(pair[1]);
    PyObject *result = PyTuple_Pack(2, data, address);
    Py_DECREF(data);
    Py_DECREF(address);
    return result;
}

/* The number of queued items.  Corked ones count as sent: asyncio would have
   sent them at once.  A datagram takes two slots of the queue. */
static size_t
unsent_count(const FlStream *self, bool datagrams)
{
    size_t count = self->write_queue.tail - self->write_queue.head;
    return fl_stream_is_corked(self) ? 0 : count / (datagrams ? 2 : 1);
}

/* A list of the items, made into the type that asyncio has for this Python
   version by shown_buffer() of fastloop/_streams.py. */
static PyObject *
buffer_get(FlStream *self, void *Py_UNUSED(closure))
{
    bool datagrams = Py_TYPE(self) == self->state->datagram_type;
    PyObject *list = PyList_New(0);
    for (size_t at = 0; list != NULL && at < unsent_count(self, datagrams);
         at++) {
        PyObject *item = datagrams ? unsent_datagram(&self->write_queue, at)
                                   : unsent_bytes(&self->write_queue, at);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    if (list == NULL) {
        return NULL;
    }
    PyObject *result =
        PyObject_CallMethodObjArgs(self->state->streams,
                                   self->state->names.shown_buffer, list,
                                   datagrams ? Py_True : Py_False, NULL);
    Py_DECREF(list);
    return result;
}

static PyObject *
buffer_size_get(FlStream *self, void *Py_UNUSED(closure))
{
    return fl_transport_get_buffer_size(self, NULL);
}

/* --- water marks --------------------------------------------------------- */

/* Set one water mark without comparing it with the other.  0 or -1. */
static int
set_mark(uint64_t *mark, PyObject *value, const char *name)
{
    int64_t number;
    if (check_not_deleted(value, name) < 0
        || fl_flow_parse_mark(value, &number) < 0)
    {
        return -1;
    }
    *mark = number < 0 ? 0 : (uint64_t)number; /* fields are unsigned */
    return 0;
}

static PyObject *
high_water_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->high_water_bytes);
}

static int
high_water_set(FlStream *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_mark(&self->high_water_bytes, value, "_high_water");
}

static PyObject *
low_water_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(self->low_water_bytes);
}

static int
low_water_set(FlStream *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_mark(&self->low_water_bytes, value, "_low_water");
}

/* --- datagrams only ------------------------------------------------------ */

/* The peer of create_datagram_endpoint(remote_addr=...), or None. */
static PyObject *
address_get(FlDatagram *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->address == NULL ? Py_None : self->address);
}

/* --- the types ----------------------------------------------------------- */

/* Without docstrings, as in asyncio.  Both types share FlStream's layout. */
static PyGetSetDef common_getset[] = {
    {"_loop", (getter)loop_get, NULL, NULL, NULL},
    {"_sock", (getter)sock_get, NULL, NULL, NULL},
    {"_sock_fd", (getter)fd_get, NULL, NULL, NULL},
    {"_server", (getter)server_get, NULL, NULL, NULL},
    {"_protocol", (getter)protocol_get, (setter)protocol_set, NULL, NULL},
    {"_extra", (getter)extra_get, (setter)extra_set, NULL, NULL},
    {"_closing", (getter)closing_get, NULL, NULL, NULL},
    {"_conn_lost", (getter)conn_lost_get, NULL, NULL, NULL},
    {"_paused", (getter)paused_get, NULL, NULL, NULL},
    {"_protocol_paused", (getter)protocol_paused_get, NULL, NULL, NULL},
    {"_buffer", (getter)buffer_get, NULL, NULL, NULL},
    {"_high_water", (getter)high_water_get, (setter)high_water_set, NULL,
     NULL},
    {"_low_water", (getter)low_water_get, (setter)low_water_set, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef stream_getset[] = {
    {"_eof", (getter)eof_get, NULL, NULL, NULL},
    {"_empty_waiter", (getter)empty_waiter_get, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef datagram_getset[] = {
    {"_address", (getter)address_get, NULL, NULL, NULL},
    {"_buffer_size", (getter)buffer_size_get, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* Add descriptors to a finished type.  0, or -1 with an exception set. */
static int
add_getset(PyTypeObject *type, PyGetSetDef *getset)
{
    int code = 0;
    for (; code == 0 && getset->name != NULL; getset++) {
        PyObject *descriptor = PyDescr_NewGetSet(type, getset);
        code = descriptor == NULL
                   ? -1
                   : PyObject_SetAttrString((PyObject *)type, getset->name,
                                            descriptor);
        Py_XDECREF(descriptor);
    }
    return code;
}

/* Class attributes.  max_size is asyncio's limit of one read in bytes; it has
   no effect here.  _protocol_connected is an instance attribute in asyncio,
   True while the transport exists. */
static int
add_constants(PyTypeObject *type)
{
    PyObject *size = PyLong_FromLong(256 * 1024);
    int code = size == NULL ? -1
                            : PyObject_SetAttrString((PyObject *)type,
                                                     "max_size", size);
    Py_XDECREF(size);
    return code < 0 ? code
                    : PyObject_SetAttrString((PyObject *)type,
                                             "_protocol_connected", Py_True);
}

/* Add the common attributes and those of one type.  0 or -1. */
static int
add_attributes(PyTypeObject *type, PyGetSetDef *own_getset)
{
    return add_getset(type, common_getset) < 0
                   || add_getset(type, own_getset) < 0
               ? -1
               : add_constants(type);
}

int
fl_private_attributes_register(FlState *state)
{
    return add_attributes(state->stream_type, stream_getset) < 0
               ? -1
               : add_attributes(state->datagram_type, datagram_getset);
}
