/* Attributes of transports: asyncio's private ones, for who looks inside.

   Libraries read the protocol and the socket, tests how much waits and where
   the water marks are, and some put a protocol, or what get_extra_info
   answers, there by hand.

   1. What is shown of a queue is a copy: a change to it reaches no transport.
   2. What can be set does what the public call does, without its checks. */
#include "net/datagram.h"
#include "net/transport.h"

#include <math.h>

static PyObject *
or_none(PyObject *object)
{
    return Py_NewRef(object == NULL ? Py_None : object);
}

/* What cannot be deleted.  0, or -1 with AttributeError. */
static int
check_given(PyObject *value, const char *name)
{
    if (value != NULL) {
        return 0;
    }
    PyErr_Format(PyExc_AttributeError, "%s cannot be deleted", name);
    return -1;
}

/* --- what it consists of ------------------------------------------------- */

PyObject *
fl_transport_loop_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none((PyObject *)self->loop);
}

PyObject *
fl_transport_sock_get(FlStream *self, void *Py_UNUSED(closure))
{
    fl_stream_give_number_out(self);
    PyObject *sock = fl_stream_own_socket(self);
    return sock != NULL || PyErr_Occurred() ? sock : Py_NewRef(Py_None);
}

PyObject *
fl_transport_fd_get(FlStream *self, void *Py_UNUSED(closure))
{
    fl_stream_give_number_out(self);
    return PyLong_FromLong(self->number);
}

PyObject *
fl_transport_server_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none(self->server);
}

PyObject *
fl_transport_protocol_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none(self->protocol);
}

int
fl_transport_protocol_set(FlStream *self, PyObject *value,
                          void *Py_UNUSED(closure))
{
    return check_given(value, "_protocol") < 0
               ? -1
               : fl_stream_set_protocol(self, value);
}

PyObject *
fl_transport_extra_get(FlStream *self, void *Py_UNUSED(closure))
{
    if (fl_stream_fill_extra(self) < 0) {
        return NULL;
    }
    return Py_NewRef(self->extra);
}

int
fl_transport_extra_set(FlStream *self, PyObject *value,
                       void *Py_UNUSED(closure))
{
    if (value == NULL || !PyDict_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "_extra is a dict");
        return -1;
    }
    Py_XSETREF(self->extra, Py_NewRef(value));
    return 0;
}

/* --- its state ----------------------------------------------------------- */

PyObject *
fl_transport_closing_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(fl_stream_is_closing(self));
}

PyObject *
fl_transport_conn_lost_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong((self->phase >= FL_STREAM_LOST)
                                   + self->writes_after_loss);
}

PyObject *
fl_transport_eof_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->eof_written);
}

PyObject *
fl_transport_paused_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->paused);
}

PyObject *
fl_transport_protocol_paused_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->protocol_paused);
}

PyObject *
fl_transport_empty_waiter_get(FlStream *self, void *Py_UNUSED(closure))
{
    return or_none(self->empty_waiter);
}

/* --- what waits to be sent ----------------------------------------------- */

/* Making what shows them may run the collector, and that anything: the queue
   is looked at anew for each. */

static PyObject *
waiting_bytes(const FlChunks *chunks, size_t at)
{
    PyObject *bytes = chunks->items[chunks->head + at];
    size_t skip = at == 0 ? chunks->sent_bytes : 0;
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(bytes) + skip,
                                     PyBytes_GET_SIZE(bytes)
                                         - (Py_ssize_t)skip);
}

static PyObject *
waiting_datagram(const FlChunks *chunks, size_t at)
{
    PyObject *const *pair = fl_chunks_pair(chunks, at);
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
    size_t count = self->chunks.tail - self->chunks.head;
    return fl_stream_is_holding(self) ? 0 : count / (datagrams ? 2 : 1);
}

PyObject *
fl_transport_buffer_get(FlStream *self, void *Py_UNUSED(closure))
{
    bool datagrams = Py_TYPE(self) == self->state->datagram_type;
    PyObject *list = PyList_New(0);
    for (size_t at = 0; list != NULL && at < waiting_count(self, datagrams);
         at++) {
        PyObject *item = datagrams ? waiting_datagram(&self->chunks, at)
                                   : waiting_bytes(&self->chunks, at);
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

PyObject *
fl_transport_buffer_size_get(FlStream *self, void *Py_UNUSED(closure))
{
    return fl_transport_get_buffer_size(self, NULL);
}

/* --- water marks --------------------------------------------------------- */

int
fl_transport_mark(PyObject *object, Py_ssize_t *mark)
{
    PyObject *whole = NULL;
    if (PyFloat_Check(object)) {
        /* Sizes are whole numbers: a fraction decides nothing. */
        double value = PyFloat_AS_DOUBLE(object);
        if (value >= (double)PY_SSIZE_T_MAX) {
            *mark = PY_SSIZE_T_MAX;
            return 0;
        }
        whole = PyLong_FromDouble(floor(value));
        if (whole == NULL) {
            return -1;
        }
    }
    /* More than there can be memory is as good as that. */
    *mark = PyNumber_AsSsize_t(whole == NULL ? object : whole, NULL);
    Py_XDECREF(whole);
    return *mark == -1 && PyErr_Occurred() ? -1 : 0;
}

static int
set_mark(size_t *mark, PyObject *value, const char *name)
{
    Py_ssize_t number;
    if (check_given(value, name) < 0 || fl_transport_mark(value, &number) < 0)
    {
        return -1;
    }
    *mark = number < 0 ? 0 : (size_t)number;
    return 0;
}

PyObject *
fl_transport_high_water_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->high_water_bytes);
}

int
fl_transport_high_water_set(FlStream *self, PyObject *value,
                            void *Py_UNUSED(closure))
{
    return set_mark(&self->high_water_bytes, value, "_high_water");
}

PyObject *
fl_transport_low_water_get(FlStream *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->low_water_bytes);
}

int
fl_transport_low_water_set(FlStream *self, PyObject *value,
                           void *Py_UNUSED(closure))
{
    return set_mark(&self->low_water_bytes, value, "_low_water");
}

/* --- of the class -------------------------------------------------------- */

int
fl_constants_register(PyTypeObject *type)
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
