/* get_extra_info: a dict filled on demand, and the stream's socket object.

   The values of socket, sockname and peername are created on first request and
   then cached in the dict.  Most connections never need them.

   An application may obtain the fd from the socket and send on it directly.
   The object it gets is a TransportSocket (_core_helpers.py), which then
   reports that to the stream (fl_stream_share_fd).  Otherwise corked bytes
   would be sent after bytes that the application sends later. */
#include "transport/extra_info.h"

#include "core/flush.h"
#include "py/compat.h"
#include "py/field.h"
#include "py/state.h"
#include "transport/sockaddr.h"
#include "transport/stream.h"

#include <unistd.h>

PyObject *
fl_socket_from_fd(FlState *state, int fd)
{
    PyObject *number = PyLong_FromLong(fd);
    PyObject *sock =
        number == NULL
            ? NULL
            : PyObject_CallMethodOneArg(state->helpers,
                                        state->names.own_socket, number);
    Py_XDECREF(number);
    return sock;
}

void
fl_close_socket(FlLoop *loop, int fd)
{
    fl_loop_flush_before_send(loop);
    PyThreadState *thread = PyEval_SaveThread();
    /* Not retried after EINTR: Linux has released the fd by then. */
    (void)close(fd);
    PyEval_RestoreThread(thread);
}

void
fl_socket_detach(const FlState *state, PyObject *sock)
{
    PyObject *result = PyObject_CallMethodNoArgs(sock, state->names.detach);
    if (result == NULL) {
        PyErr_WriteUnraisable(sock);
    }
    Py_XDECREF(result);
}

PyObject *
fl_stream_get_socket(FlStream *self)
{
    PyObject *sock = fl_field_get(self, &self->sock);
    if (sock != NULL || self->fd < 0) {
        return sock;
    }
    sock = fl_socket_from_fd(self->state, self->fd);
    if (sock == NULL) {
        return NULL;
    }
    bool is_late;
    Py_BEGIN_CRITICAL_SECTION(self);
    is_late = self->sock != NULL || self->fd < 0;
    if (!is_late) {
        self->sock = sock;
    }
    Py_END_CRITICAL_SECTION();
    if (is_late) {
        /* Creating the object ran Python code.  Another thread or a signal
           handler has created the object first, or has closed the stream. */
        fl_socket_detach(self->state, sock);
        Py_DECREF(sock);
    }
    return fl_field_get(self, &self->sock);
}

/* The value of 'socket': a TransportSocket around the socket object.  If the
   stream closed before it had a socket object, a new, closed socket takes its
   place: asyncio reports a closed socket then, too.  A new reference, or NULL
   with an exception set. */
static PyObject *
make_socket(FlStream *self)
{
    PyObject *sock = fl_stream_get_socket(self);
    if (sock != NULL) {
        /* The wrapper has a weak reference to the stream: no cycle. */
        PyObject *wrapper =
            PyObject_CallMethodObjArgs(self->state->helpers,
                                       self->state->names.TransportSocket,
                                       sock, (PyObject *)self, NULL);
        Py_DECREF(sock);
        return wrapper;
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    int family = self->sockname == NULL
                     ? AF_INET
                     : fl_name_address(self->sockname)->ss_family;
    PyObject *number = PyLong_FromLong(family);
    sock = number == NULL
               ? NULL
               : PyObject_CallMethodOneArg(self->state->helpers,
                                           self->state->names.closed_socket,
                                           number);
    Py_XDECREF(number);
    return sock;
}

/* The result of the socket object's getsockname or getpeername, for address
   families that sockaddr.c cannot format: a new reference, None if the stream
   is closed or the call fails, NULL with an exception set for other errors. */
static PyObject *
call_socket_method(FlStream *self, PyObject *method)
{
    PyObject *sock = fl_stream_get_socket(self);
    PyObject *name = NULL;
    if (sock != NULL) {
        name = PyObject_CallMethodNoArgs(sock, method);
        Py_DECREF(sock);
    }
    if (name == NULL && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OSError)) {
            return NULL;
        }
        PyErr_Clear(); /* asyncio reports None in this case */
    }
    return name == NULL ? Py_NewRef(Py_None) : name;
}

/* The object of a name that the stream saved when it opened, as asyncio: a
   new reference, None if it has none, or NULL with an exception set. */
static PyObject *
make_name(FlStream *self, const FlName *name, PyObject *method)
{
    if (name == NULL) {
        Py_RETURN_NONE;
    }
    const struct sockaddr_storage *address = fl_name_address(name);
    return fl_sockaddr_is_known(address)
               ? fl_sockaddr_object(address, (socklen_t)name->size)
               : call_socket_method(self, method);
}

/* A value that the dict then keeps, so never one that changes.  A new
   reference; NULL without an exception for other keys, or with one. */
static PyObject *
make_extra_value(FlStream *self, PyObject *key)
{
    FlNames *names = &self->state->names;
    if (!PyUnicode_Check(key)) { /* any hashable key is allowed */
        return NULL;
    }
    if (PyUnicode_Compare(key, names->socket) == 0) {
        return make_socket(self);
    }
    if (PyUnicode_Compare(key, names->sockname) == 0) {
        return make_name(self, self->sockname, names->getsockname);
    }
    if (PyUnicode_Compare(key, names->peername) == 0) {
        return make_name(self, self->peer, names->getpeername);
    }
    return NULL;
}

/* The value of a key: a new reference.  The values of socket, sockname and
   peername are created and cached if the dict lacks them.  NULL without an
   exception if the key is unknown, NULL with an exception set on failure. */
static PyObject *
extra_value(FlStream *self, PyObject *key)
{
    PyObject *value = NULL, *extra;
    Py_BEGIN_CRITICAL_SECTION(self);
    /* Created here: most streams are opened without extra info. */
    if (self->extra == NULL) {
        self->extra = PyDict_New();
    }
    /* Owned: the calls below may run Python, which may set _extra to another
       dict. */
    extra = Py_XNewRef(self->extra);
    Py_END_CRITICAL_SECTION();
    if (extra == NULL) {
        return NULL;
    }
    /* The dict comes first: the creator of the transport, or an application by
       _extra, may have set any of these keys. */
    if (PyDict_GetItemRef(extra, key, &value) == 0) {
        PyObject *made = make_extra_value(self, key);
        /* Cached: get_extra_info returns the same object each time, as in
           asyncio; also to threads that have each made one. */
        if (made != NULL) {
            (void)PyDict_SetDefaultRef(extra, key, made, &value);
            Py_DECREF(made);
        }
    }
    Py_DECREF(extra);
    return value;
}

int
fl_stream_fill_extra(FlStream *self)
{
    FlNames *names = &self->state->names;
    PyObject *keys[] = {names->socket, names->sockname, names->peername};
    for (size_t at = 0; at < sizeof(keys) / sizeof(keys[0]); at++) {
        PyObject *value = extra_value(self, keys[at]);
        if (value == NULL) {
            return -1;
        }
        Py_DECREF(value);
    }
    return 0;
}

PyObject *
fl_stream_get_extra(FlTransport *transport, PyObject *name, PyObject *fallback)
{
    FlStream *self = (FlStream *)transport;
    PyObject *value = extra_value(self, name);
    if (value == NULL && !PyErr_Occurred()) {
        value = Py_NewRef(fallback == NULL ? Py_None : fallback);
    }
    return value;
}
