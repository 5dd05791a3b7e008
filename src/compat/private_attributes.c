/* Attributes of transports: asyncio's private ones, for who looks inside.

   Libraries read the protocol and the socket, tests how much waits and where
   the water marks are, and some put a protocol, or what get_extra_info
   answers, there by hand.  Clients of many protocols ask _conn_lost, _closing
   or _protocol_connected whether they are connected still, tunnels over UDP
   ask _address for the peer, and asyncio's own sendfile reads _loop, _sock_fd
   and _protocol_paused.

   1. What is shown of a queue is a copy: a change to it reaches no transport.
   2. What can be set does what the public call does, without its checks. */
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

static PyObject *
or_none(PyObject *object)
{
    return Py_NewRef(object == NULL ? Py_None : object);
}

/* What cannot be deleted.  0, or -1 with AttributeError. */
static int
check_exposed(PyObject *value, const char *name)
{
    if (value != NULL) {
        return 0;
    }
    PyErr_Format(PyExc_AttributeError, "%s cannot be deleted", name);
    return -1;
}

/* --- what it consists of ------------------------------------------------- */

static PyObject *
loop_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none((PyObject *)self->loop);
}

static PyObject *
sock_get(FlStream *self, void *Py_UNUSED(closure))
{
    fl_stream_expose_fd(self);
    PyObject *sock = fl_stream_own_socket(self);
    return sock != NULL || PyErr_Occurred() ? sock : Py_NewRef(Py_None);
}

static PyObject *
fd_get(FlStream *self, void *Py_UNUSED(closure))
{
    fl_stream_expose_fd(self);
    return PyLong_FromLong(self->last_fd);
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
    return check_exposed(value, "_protocol") < 0
               ? -1
               : fl_stream_set_protocol(self, value);
}

static PyObject *
extra_get(FlStream *self, void *Py_UNUSED(closure))
{
    if (fl_stream_fill_extra(self) < 0) {
        return NULL;
    }
    return Py_NewRef(self->extra);
}

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

/* --- its state ----------------------------------------------------------- */

static PyObject *
closing_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(fl_stream_is_closing(self));
}

static PyObject *
conn_lost_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong((self->phase >= FL_STREAM_LOST)
                                   + self->writes_after_loss);
}

static PyObject *
eof_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->eof_written);
}

static PyObject *
paused_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->paused);
}

static PyObject *
protocol_paused_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->protocol_paused);
}

static PyObject *
empty_waiter_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none(self->empty_waiter);
}

/* --- what waits to be sent ----------------------------------------------- */

/* Making what shows them may run the collector, and that anything: the queue
   is looked at anew for each. */

static PyObject *
waiting_bytes(const FlWriteQueue *write_queue, size_t at)
{
    PyObject *bytes = write_queue->items[write_queue->head + at];
    size_t skip = at == 0 ? write_queue->sent_bytes : 0;
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(bytes) + skip,
                                     PyBytes_GET_SIZE(bytes)
                                         - (Py_ssize_t)skip);
}

static PyObject *
waiting_datagram(const FlWriteQueue *write_queue, size_t at)
{
    PyObject *const *pair = fl_write_queue_pair(write_queue, at);
    PyObject *data = Py_NewRef(pair[0]), *address = Py_NewRef(pair[1]);
    PyObject *shown = PyTuple_Pack(2, data, address);
    Py_DECREF(data);
    Py_DECREF(address);
    return shown;
}

/* How many wait; what is held counts as sent. */
static size_t
waiting_count(const FlStream *self, bool datagrams)
{
    size_t count = self->write_queue.tail - self->write_queue.head;
    return fl_stream_is_corked(self) ? 0 : count / (datagrams ? 2 : 1);
}

static PyObject *
buffer_get(FlStream *self, void *Py_UNUSED(closure))
{
    bool datagrams = Py_TYPE(self) == self->state->datagram_type;
    PyObject *list = PyList_New(0);
    for (size_t at = 0; list != NULL && at < waiting_count(self, datagrams);
         at++) {
        PyObject *item = datagrams ? waiting_datagram(&self->write_queue, at)
                                   : waiting_bytes(&self->write_queue, at);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    if (list == NULL) {
        return NULL;
    }
    PyObject *shown =
        PyObject_CallMethodObjArgs(self->state->streams,
                                   self->state->names.shown_buffer, list,
                                   datagrams ? Py_True : Py_False, NULL);
    Py_DECREF(list);
    return shown;
}

static PyObject *
buffer_size_get(FlStream *self, void *Py_UNUSED(closure))
{
    return fl_transport_get_buffer_size(self, NULL);
}

/* --- water marks --------------------------------------------------------- */

static int
set_mark(uint64_t *mark, PyObject *value, const char *name)
{
    int64_t number;
    if (check_exposed(value, name) < 0 || fl_flow_mark(value, &number) < 0) {
        return -1;
    }
    *mark = number < 0 ? 0 : (uint64_t)number;
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

/* --- of the class -------------------------------------------------------- */

static PyObject *
address_get(FlDatagram *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->address == NULL ? Py_None : self->address);
}

/* --- the types ----------------------------------------------------------- */

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

/* asyncio's class attributes: the most that its transports read at once, and
   one that is always True. */
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

static int
complete(PyTypeObject *type, PyGetSetDef *own)
{
    return add_getset(type, common_getset) < 0 || add_getset(type, own) < 0
               ? -1
               : add_constants(type);
}

int
fl_private_attributes_register(FlState *state)
{
    return complete(state->stream_type, stream_getset) < 0
               ? -1
               : complete(state->datagram_type, datagram_getset);
}
