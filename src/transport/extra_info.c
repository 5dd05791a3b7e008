/* What get_extra_info answers: a dict that is filled as it is asked.

   socket, sockname and peername are made when somebody asks and then kept:
   most connections are served without.

   1. Making the socket object hands it the descriptor: from then on the object
      closes it, and `fd` is only its number.
   2. What the descriptor alone can tell is asked before it is closed
      (fl_stream_keep_sockname): asyncio's transports answer afterwards too.
   3. A program may take the descriptor out of the socket and send on it: the
      object that it gets (TransportSocket in _streams.py) tells the stream. */
#include "transport/extra_info.h"

#include "py/compat.h"
#include "py/state.h"
#include "transport/sockaddr.h"
#include "transport/stream.h"
#include "transport/transport.h"

#include <unistd.h>

PyObject *
fl_stream_extra(FlStream *self)
{
    if (self->extra == NULL) {
        self->extra = PyDict_New();
    }
    return self->extra;
}

PyObject *
fl_socket_from_descriptor(FlState *state, int fd)
{
    PyObject *number = PyLong_FromLong(fd);
    PyObject *sock =
        number == NULL
            ? NULL
            : PyObject_CallMethodOneArg(state->streams,
                                        state->names.own_socket, number);
    Py_XDECREF(number);
    return sock;
}

void
fl_close_socket(int fd)
{
    PyThreadState *thread = PyEval_SaveThread();
    (void)close(fd);
    PyEval_RestoreThread(thread);
}

/* Of two objects that own a descriptor the first to go would take it from the
   other. */
static void
disown(FlState *state, PyObject *sock)
{
    PyObject *result = PyObject_CallMethodNoArgs(sock, state->names.detach);
    if (result == NULL) {
        PyErr_WriteUnraisable(sock);
    }
    Py_XDECREF(result);
    Py_DECREF(sock);
}

PyObject *
fl_stream_own_socket(FlStream *self)
{
    if (self->sock == NULL && self->fd >= 0) {
        PyObject *sock = fl_socket_from_descriptor(self->state, self->fd);
        if (sock == NULL) {
            return NULL;
        }
        if (self->sock != NULL || self->fd < 0) {
            /* Meanwhile another thread, or a signal's handler, has asked too,
               or the stream was closed. */
            disown(self->state, sock);
        }
        else {
            self->sock = sock;
        }
    }
    return Py_XNewRef(self->sock);
}

static PyObject *
make_socket(FlStream *self)
{
    PyObject *sock = fl_stream_own_socket(self);
    if (sock != NULL) {
        PyObject *shown =
            PyObject_CallMethodObjArgs(self->state->streams,
                                       self->state->names.TransportSocket,
                                       sock, (PyObject *)self, NULL);
        Py_DECREF(sock);
        return shown;
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    return PyObject_CallMethodNoArgs(self->state->streams,
                                     self->state->names.closed_socket);
}

/* What the socket module would say; for families we do not know, and sockets
   that are not real, the socket object is asked. */
static PyObject *
call_socket(FlStream *self, PyObject *method)
{
    PyObject *sock = fl_stream_own_socket(self);
    PyObject *name = NULL;
    if (sock != NULL) {
        name = PyObject_CallMethodNoArgs(sock, method);
        Py_DECREF(sock);
    }
    if (name == NULL && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OSError)) {
            return NULL;
        }
        PyErr_Clear(); /* asyncio's answer then: None */
    }
    return name == NULL ? Py_NewRef(Py_None) : name;
}

static PyObject *
make_sockname(FlStream *self)
{
    struct sockaddr_storage name;
    socklen_t size = sizeof(name);
    if (self->sockname != NULL) {
        return fl_sockaddr_object(fl_name_address(self->sockname),
                                  (socklen_t)self->sockname->size);
    }
    if (self->fd < 0
        || getsockname(self->fd, (struct sockaddr *)&name, &size) < 0) {
        Py_RETURN_NONE;
    }
    if (!fl_sockaddr_is_known(&name)) {
        return call_socket(self, self->state->names.getsockname);
    }
    return fl_sockaddr_object(&name, size);
}

static PyObject *
make_peername(FlStream *self)
{
    if (self->peer == NULL) {
        Py_RETURN_NONE;
    }
    const struct sockaddr_storage *name = fl_name_address(self->peer);
    if (!fl_sockaddr_is_known(name)) {
        return call_socket(self, self->state->names.getpeername);
    }
    return fl_sockaddr_object(name, (socklen_t)self->peer->size);
}

/* The value of a key, made if it is one of ours: a new reference, or NULL
   without an exception when there is none. */
static PyObject *
extra_value(FlStream *self, PyObject *key)
{
    FlNames *names = &self->state->names;
    PyObject *value = NULL;
    PyObject *extra = fl_stream_extra(self);
    if (extra == NULL || PyDict_GetItemRef(extra, key, &value) != 0) {
        return value;
    }
    if (!PyUnicode_Check(key)) {
        return NULL;
    }
    if (PyUnicode_Compare(key, names->socket) == 0) {
        value = make_socket(self);
    }
    else if (PyUnicode_Compare(key, names->sockname) == 0) {
        value = make_sockname(self);
    }
    else if (PyUnicode_Compare(key, names->peername) == 0) {
        value = make_peername(self);
    }
    if (value != NULL && PyDict_SetItem(extra, key, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

/* Put both names into `extra`. */
static void
fill_names(FlStream *self)
{
    PyObject *exc = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
    FlNames *names = &self->state->names;
    PyObject *sockname = extra_value(self, names->sockname);
    PyObject *peername = extra_value(self, names->peername);
    if (sockname == NULL || peername == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(sockname);
    Py_XDECREF(peername);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

void
fl_stream_keep_sockname(FlStream *self)
{
    struct sockaddr_storage name;
    socklen_t size = sizeof(name);
    PyObject *key = self->state->names.sockname;
    int found = self->extra == NULL ? 0 : PyDict_Contains(self->extra, key);
    if (found < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    if (found != 0 || self->fd < 0
        || getsockname(self->fd, (struct sockaddr *)&name, &size) < 0)
    {
        return;
    }
    if (!fl_sockaddr_is_known(&name)) {
        fill_names(self); /* only the socket object can tell */
        return;
    }
    FlName *kept = fl_name_new(&name, size);
    if (kept == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
        return;
    }
    self->sockname = kept;
}

int
fl_stream_fill_extra(FlStream *self)
{
    PyObject *socket = extra_value(self, self->state->names.socket);
    if (socket == NULL && PyErr_Occurred()) {
        return -1;
    }
    Py_XDECREF(socket);
    fill_names(self);
    return 0;
}

/* Whether a program put another method in the place of asyncio's: -1 with an
   exception set. */
static int
is_patched(const FlState *state)
{
    PyObject *method = PyObject_GetAttr(state->asyncio_transport,
                                        state->names.get_extra_info);
    Py_XDECREF(method);
    return method == NULL ? -1 : method != state->base_get_extra_info;
}

/* What asyncio's transports, which have no method of their own, would answer.
   The original, when that is what is called in the end, reads the dict. */
static PyObject *
call_patched(FlStream *self, PyObject *args, PyObject *kwargs)
{
    FlNames *names = &self->state->names;
    if (fl_stream_fill_extra(self) < 0) {
        return NULL;
    }
    PyObject *base = PyObject_CallFunctionObjArgs((PyObject *)&PySuper_Type,
                                                  Py_TYPE(self), self, NULL);
    PyObject *method =
        base == NULL ? NULL : PyObject_GetAttr(base, names->get_extra_info);
    Py_XDECREF(base);
    PyObject *value =
        method == NULL ? NULL : PyObject_Call(method, args, kwargs);
    Py_XDECREF(method);
    return value;
}

int
fl_extra_info_args(PyObject *args, PyObject *kwargs, PyObject **name,
                   PyObject **otherwise)
{
    static char *keywords[] = {"name", "default", NULL};
    Py_ssize_t count = PyTuple_GET_SIZE(args);
    *otherwise = Py_None;
    if (kwargs != NULL || count < 1 || count > 2) {
        return PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info",
                                           keywords, name, otherwise)
                   ? 0
                   : -1;
    }
    *name = PyTuple_GET_ITEM(args, 0);
    if (count == 2) {
        *otherwise = PyTuple_GET_ITEM(args, 1);
    }
    return 0;
}

PyObject *
fl_transport_get_extra_info(FlStream *self, PyObject *args, PyObject *kwargs)
{
    PyObject *name, *otherwise;
    int patched = is_patched(self->state);
    if (FL_UNLIKELY(patched != 0)) {
        return patched < 0 ? NULL : call_patched(self, args, kwargs);
    }
    if (fl_extra_info_args(args, kwargs, &name, &otherwise) < 0) {
        return NULL;
    }
    PyObject *value = extra_value(self, name);
    if (value == NULL && !PyErr_Occurred()) {
        value = Py_NewRef(otherwise);
    }
    return value;
}
