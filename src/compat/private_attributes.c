/* asyncio's private attributes of transports: see private_attributes.h.

   Known users: libraries read _protocol and _sock, and some set _protocol or
   _extra.  Protocol clients test _conn_lost, _closing or _protocol_connected
   to see if they are still connected.  UDP tunnels read the peer from
   _address; asyncio_dgram sets it, to the peer of a socket that was connected
   before.  What asyncio's sendfile puts in the protocol's place reads _loop
   and _protocol_paused.  docs/differences.md lists those that are missing.

   Reading _sock or _sock_fd shares the fd: the application may now write to
   it without our knowledge, so the transport stops corking and sends at once.
   Otherwise the two writers' bytes could leave in another order. */
#include "compat/private_attributes.h"

#include "py/compat.h"
#include "py/field.h"
#include "py/state.h"
#include "transport/datagram.h"
#include "transport/extra_info.h"
#include "transport/stream.h"
#include "transport/transport.h"

static PyObject *
sock_get(FlStream *self, void *Py_UNUSED(closure))
{
    fl_stream_share_fd(self);
    /* NULL without an exception once the stream is closed. */
    PyObject *sock = fl_stream_get_socket(self);
    return sock != NULL || PyErr_Occurred() ? sock : Py_NewRef(Py_None);
}

static PyObject *
fd_get(FlStream *self, void *Py_UNUSED(closure))
{
    fl_stream_share_fd(self);
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

/* asyncio counts the loss itself, and each write after it. */
static PyObject *
conn_lost_get(FlStream *self, void *Py_UNUSED(closure))
{
    bool lost = self->phase >= FL_STREAM_LOST;
    return PyLong_FromUnsignedLong(lost + self->writes_after_loss);
}

static int
address_set(FlDatagram *self, PyObject *value, void *Py_UNUSED(closure))
{
    fl_field_set(self, &self->address, value == Py_None ? NULL : value);
    return 0;
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

/* --- the types ----------------------------------------------------------- */

/* Without docstrings, as in asyncio.  Both types begin with FlStream's
   fields. */
static PyGetSetDef all_getset[] = {
    {"_closing", (getter)fl_transport_is_closing, NULL, NULL, NULL},
    {"_protocol", (getter)fl_transport_get_protocol, (setter)protocol_set,
     NULL, NULL},
    /* asyncio resets it when the connection is lost. */
    {"_protocol_connected", fl_transport_true, NULL, NULL, NULL},
    {"_conn_lost", (getter)conn_lost_get, NULL, NULL, NULL},
    {"_sock", (getter)sock_get, NULL, NULL, NULL},
    {"_sock_fd", (getter)fd_get, NULL, NULL, NULL},
    {"_extra", (getter)extra_get, (setter)extra_set, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef stream_getset[] = {
    /* asyncio's loop.start_tls() looks for it. */
    {"_start_tls_compatible", fl_transport_true, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef datagram_getset[] = {
    {"_address", fl_field_attribute, (setter)address_set, NULL,
     (void *)offsetof(FlDatagram, address)},
    {NULL, NULL, NULL, NULL, NULL},
};

static int
add_getsets(PyTypeObject *type, PyGetSetDef *more)
{
    return fl_transport_add_attributes(type, NULL, all_getset) < 0
               ? -1
               : fl_transport_add_attributes(type, NULL, more);
}

int
fl_private_attributes_register(FlState *state)
{
    return add_getsets(state->stream_type, stream_getset) < 0
               ? -1
               : add_getsets(state->datagram_type, datagram_getset);
}
