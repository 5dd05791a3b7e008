/* The bytes of an asyncio.StreamReader, appended and taken in C: see reader.h.

   1. C does a method's work only while asyncio's code would do the same: no
      method was replaced, on the class or on the object, and the attributes
      are asyncio's (find, look_up).  Else a step returns None, or
      data_received is called by its name, and asyncio's code does it.
   2. A lookup that fails is not reported here.  The bytes then go to
      data_received by its name, which fails in the same way and is reported as
      that method's error.
   3. Whatever runs Python (a method of a future or a transport) may change any
      attribute.  After it a function looks up again what it uses, in the dict,
      which it owns. */
#include "streams/reader.h"

#include "core/loop.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/methods.h"
#include "py/state.h"
#include "transport/native_protocol.h"

#include <string.h>

/* Methods of asyncio.StreamReader whose work C does.  If an application
   replaces one of them, asyncio's code must run, which calls the
   replacement. */
static const size_t c_methods[] = {
    offsetof(FlNames, read),
    offsetof(FlNames, readexactly),
    offsetof(FlNames, readuntil),
    offsetof(FlNames, readline),
    offsetof(FlNames, feed_data),
    offsetof(FlNames, _wakeup_waiter),
    offsetof(FlNames, _wait_for_data),
    offsetof(FlNames, _maybe_resume_transport),
};

/* What asyncio's __init__ sets, in its order.  In debug mode it sets one more,
   and an application may: such a reader is asyncio's. */
enum {
    LIMIT,
    LOOP,
    BUFFER,
    AT_EOF,
    WAITER,
    EXCEPTION,
    TRANSPORT,
    PAUSED,
    ATTRIBUTES,
};

/* A set of them has the bit 1 << attribute. */
#define ALL ((1 << ATTRIBUTES) - 1)
/* What appending needs. */
#define FED (1 << LIMIT | 1 << BUFFER | 1 << AT_EOF | 1 << WAITER)

static const size_t attributes[ATTRIBUTES] = {
    offsetof(FlNames, _limit),     offsetof(FlNames, _loop),
    offsetof(FlNames, _buffer),    offsetof(FlNames, _eof),
    offsetof(FlNames, _waiter),    offsetof(FlNames, _exception),
    offsetof(FlNames, _transport), offsetof(FlNames, _paused),
};

/* A reader on which C works. */
typedef struct {
    FlState *state;
    PyObject *dict; /* owned: its __dict__ */
    /* Borrowed from there: invariant 3. */
    PyObject *values[ATTRIBUTES];
} Reader;

/* A _buffer that is empty keeps a block of at most this size. */
#define KEPT_BYTES 2048

/* --- finding ------------------------------------------------------------- */

/* Whether asyncio.StreamReader has asyncio's methods. */
static bool
check_methods(const FlState *state)
{
    bool plain = true;
    for (size_t at = 0; plain && at < sizeof(c_methods) / sizeof(c_methods[0]);
         at++)
    {
        PyObject *method = PyObject_GetAttr(state->asyncio_reader_type,
                                            fl_name_at(state, c_methods[at]));
        plain = fl_method_is_from(method, state->stream_globals);
        Py_XDECREF(method);
    }
    PyErr_Clear(); /* a missing method: asyncio's code raises that */
    return plain;
}

/* Look an attribute up anywhere in the dict: an application may have deleted
   it and set it again.  Unlike a look-up by hash, this runs no Python. */
FL_NOINLINE static bool
look_anywhere(Reader *self, Py_ssize_t at)
{
    PyObject *name = NULL, *wanted = fl_name_at(self->state, attributes[at]);
    Py_ssize_t place = 0;
    while (name != wanted
           && PyDict_Next(self->dict, &place, &name, &self->values[at]))
    {
    }
    return name == wanted;
}

/* Look up a set of the attributes, which is constant: first in their places,
   as a look-up by name takes half as long again.  False if one is missing, or
   is not of asyncio's type. */
FL_INLINE bool
look_up(Reader *self, unsigned int which)
{
    bool found = true;
#pragma GCC unroll 8
    for (Py_ssize_t at = 0; at < ATTRIBUTES; at++) {
        Py_ssize_t place = at;
        PyObject *name;
        if (which >> at & 1) {
            found =
                found
                && ((PyDict_Next(self->dict, &place, &name, &self->values[at])
                     && name == fl_name_at(self->state, attributes[at]))
                    || look_anywhere(self, at));
        }
    }
    return found
           && (!(which & 1 << BUFFER)
               || PyByteArray_CheckExact(self->values[BUFFER]))
           && (!(which & 1 << LIMIT)
               || PyLong_CheckExact(self->values[LIMIT]));
}

/* Find a reader of this class, and look up a set of its attributes.  False if
   asyncio's code must run, because it has other methods or attributes than
   asyncio's.  Raises nothing.  The caller owns self->dict if it is not
   NULL. */
FL_INLINE bool
find(FlState *state, PyObject *reader, PyObject *type, unsigned int which,
     Reader *self)
{
    self->dict = NULL;
    if (!Py_IS_TYPE(reader, (PyTypeObject *)type)
        || !fl_class_is_plain(state, &state->reader_seen,
                              state->asyncio_reader_type, check_methods))
    {
        return false;
    }
    self->state = state;
    self->dict = PyObject_GenericGetDict(reader, NULL);
    if (FL_UNLIKELY(self->dict == NULL)) {
        PyErr_Clear();
        return false;
    }
    return PyDict_GET_SIZE(self->dict) == ATTRIBUTES && look_up(self, which);
}

static int
set(const Reader *self, int attribute, PyObject *value)
{
    return PyDict_SetItem(self->dict,
                          fl_name_at(self->state, attributes[attribute]),
                          value);
}

/* The _limit, clipped. */
static Py_ssize_t
limit_of(const Reader *self)
{
    return PyNumber_AsSsize_t(self->values[LIMIT], NULL);
}

/* --- waking and waiting -------------------------------------------------- */

/* asyncio's _wakeup_waiter.  0 or -1. */
static int
reader_wake(const Reader *self)
{
    const FlNames *names = &self->state->names;
    PyObject *waiter = self->values[WAITER];
    if (waiter == Py_None) {
        return 0;
    }
    Py_INCREF(waiter);
    /* First: the calls below may run Python code, which may begin to wait. */
    int code = set(self, WAITER, Py_None);
    /* By the methods' names: an application's loop may create futures of any
       class. */
    if (code == 0) {
        code = fl_call_truth(waiter, names->cancelled);
    }
    if (code >= 0) {
        code = code ? 0 : fl_call_method(waiter, names->set_result, Py_None);
    }
    Py_DECREF(waiter);
    return code;
}

/* Pause the transport, as asyncio's feed_data does.  0 or -1. */
static int
pause_transport(const Reader *self)
{
    if (fl_call_method(self->values[TRANSPORT],
                       self->state->names.pause_reading, NULL)
        == 0)
    {
        return set(self, PAUSED, Py_True);
    }
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        return -1;
    }
    /* Of an application's transport, which cannot pause.  As in asyncio all is
       stored from now on. */
    PyErr_Clear();
    return set(self, TRANSPORT, Py_None);
}

/* 0 or -1.  Without a transport the call on None raises AttributeError, as in
   asyncio. */
static int
resume_transport(Reader *self)
{
    if (set(self, PAUSED, Py_False) < 0) {
        return -1;
    }
    PyObject *transport =
        look_up(self, 1 << TRANSPORT) ? self->values[TRANSPORT] : Py_None;
    return fl_call_method(transport, self->state->names.resume_reading, NULL);
}

/* asyncio's feed_data, for bytes that are stored by now: wake the waiter, then
   pause the transport if more than twice the limit is stored.  0 or -1. */
static int
data_added(Reader *self)
{
    /* An application may set any limit: no product, which could overflow. */
    Py_ssize_t limit = limit_of(self);
    bool full = limit < 0
                || PyByteArray_GET_SIZE(self->values[BUFFER]) - limit > limit;
    if (reader_wake(self) < 0) {
        return -1;
    }
    return full && look_up(self, 1 << PAUSED | 1 << TRANSPORT)
                   && self->values[PAUSED] == Py_False
                   && self->values[TRANSPORT] != Py_None
               ? pause_transport(self)
               : 0;
}

/* As `del buffer[:size_bytes]`, but a small block is kept for the next bytes.
   0 or -1. */
static int
drop_front(PyObject *buffer, Py_ssize_t size_bytes)
{
    PyByteArrayObject *self = (PyByteArrayObject *)buffer;
    Py_ssize_t left = Py_SIZE(self) - size_bytes;
    if (self->ob_exports > 0 || self->ob_alloc > KEPT_BYTES) {
        return PySequence_DelSlice(buffer, 0, size_bytes);
    }
    if (size_bytes > 0) {
        self->ob_start =
            left == 0 ? self->ob_bytes : self->ob_start + size_bytes;
        Py_SET_SIZE(self, left);
        self->ob_start[left] = '\0';
    }
    return 0;
}

/* Return bytes from a method that has enough: remove up to size_bytes from the
   front, then resume the transport if at most the limit is left. */
static PyObject *
take_bytes(Reader *self, Py_ssize_t size_bytes)
{
    PyObject *buffer = self->values[BUFFER];
    Py_ssize_t size = PyByteArray_GET_SIZE(buffer);
    Py_ssize_t taken_bytes = Py_MIN(size_bytes, size);
    PyObject *taken =
        PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), taken_bytes);
    int code = taken == NULL ? -1 : drop_front(buffer, taken_bytes);
    if (code == 0 && look_up(self, 1 << PAUSED)
        && self->values[PAUSED] != Py_False && look_up(self, 1 << LIMIT)
        && size - taken_bytes <= limit_of(self))
    {
        code = resume_transport(self);
    }
    if (code < 0) {
        Py_CLEAR(taken); /* they are lost, as in asyncio */
    }
    return taken;
}

/* What a step returns if asyncio's method must go on: None, unless an
   exception is set. */
static PyObject *
use_asyncio(void)
{
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* asyncio's _wait_for_data, without its await: a new reference to a future
   that is resolved when bytes or EOF arrive. */
static PyObject *
begin_wait(Reader *self)
{
    if (!look_up(self, 1 << AT_EOF | 1 << WAITER | 1 << LOOP | 1 << PAUSED)
        || self->values[AT_EOF] != Py_False || self->values[WAITER] != Py_None)
    {
        return use_asyncio(); /* the end; or another call waits already */
    }
    PyObject *loop = Py_NewRef(self->values[LOOP]);
    PyObject *waiter = NULL;
    /* A read that waits while the transport is paused would never end. */
    if (self->values[PAUSED] == Py_False || resume_transport(self) == 0) {
        waiter =
            PyObject_CallMethodNoArgs(loop, self->state->names.create_future);
    }
    Py_DECREF(loop);
    if (waiter != NULL && set(self, WAITER, waiter) < 0) {
        Py_CLEAR(waiter);
    }
    return waiter;
}

/* --- the native protocol ------------------------------------------------- */

/* The protocol's reader, a new reference, if data_received is asyncio's.  NULL
   without an exception: call data_received. */
static PyObject *
reader_of_protocol(FlState *state, PyObject *protocol)
{
    if (!Py_IS_TYPE(protocol, (PyTypeObject *)state->asyncio_stream_protocol))
    {
        return NULL; /* its class was changed */
    }
    PyObject *method = PyObject_GetAttr(protocol, state->names.data_received);
    /* Bound to this protocol, and asyncio's function. */
    bool plain =
        method != NULL && PyMethod_Check(method)
        && PyMethod_GET_SELF(method) == protocol
        && PyMethod_GET_FUNCTION(method) == state->stream_data_received;
    Py_XDECREF(method);
    PyObject *weak =
        plain ? PyObject_GetAttr(protocol, state->names._stream_reader_wr)
              : NULL;
    /* asyncio's protocol refers to its reader weakly: when nobody uses the
       reader, it is collected and the protocol aborts the connection. */
    PyObject *reader = NULL;
    if (weak != NULL && PyWeakref_CheckRef(weak)) {
        reader = fl_weakref_get(weak);
    }
    Py_XDECREF(weak);
    PyErr_Clear(); /* invariant 2 */
    return reader;
}

/* Find the protocol's reader, if C may append to its _buffer: else false, and
   data_received must be called.  The caller owns self->dict. */
static bool
find_buffer(FlState *state, PyObject *protocol, Reader *self)
{
    self->dict = NULL;
    PyObject *reader = reader_of_protocol(state, protocol);
    bool found = reader != NULL
                 && find(state, reader, state->native_reader_type, FED, self)
                 && self->values[AT_EOF] == Py_False;
    Py_XDECREF(reader);
    return found;
}

/* FlNativeProtocol: append to the reader's _buffer what is in the scratch. */
static int
reader_data_received(FlState *state, PyObject *protocol, const char *data,
                     size_t size_bytes)
{
    Reader self;
    int code;
    if (find_buffer(state, protocol, &self)) {
        PyObject *buffer = self.values[BUFFER];
        Py_ssize_t size = PyByteArray_GET_SIZE(buffer);
        code = PyByteArray_Resize(buffer, size + (Py_ssize_t)size_bytes);
        if (code == 0) {
            memcpy(PyByteArray_AS_STRING(buffer) + size, data, size_bytes);
            code = data_added(&self);
        }
    }
    else {
        /* As a stream without a native protocol does it; after EOF asyncio
           raises. */
        PyObject *name = state->names.data_received;
        PyObject *bytes =
            PyBytes_FromStringAndSize(data, (Py_ssize_t)size_bytes);
        code = bytes == NULL ? -1 : fl_call_method(protocol, name, bytes);
        Py_XDECREF(bytes);
    }
    Py_XDECREF(self.dict);
    return code;
}

/* FlNativeProtocol: the end of the _buffer, made longer, so that the kernel
   writes there.  Until filled() its size is wrong: nothing else runs. */
static char *
find_room(FlState *state, PyObject *protocol, size_t size_bytes,
          PyObject **owner)
{
    Reader self;
    char *room = NULL;
    /* Where a memoryview of it exists, data_received raises: if bytes come. */
    if (find_buffer(state, protocol, &self)
        && ((PyByteArrayObject *)self.values[BUFFER])->ob_exports == 0)
    {
        PyObject *buffer = self.values[BUFFER];
        Py_ssize_t size = PyByteArray_GET_SIZE(buffer);
        if (PyByteArray_Resize(buffer, size + (Py_ssize_t)size_bytes) == 0) {
            room = PyByteArray_AS_STRING(buffer) + size;
        }
    }
    *owner = self.dict;
    if (room == NULL) {
        Py_XDECREF(self.dict);
    }
    return room;
}

/* FlNativeProtocol: the kernel wrote got_bytes there. */
static int
filled(FlState *state, PyObject *owner, size_t got_bytes, size_t left_bytes)
{
    Reader self = {.state = state, .dict = owner};
    bool found = look_up(&self, FED);
    FL_CHECK(found, "it succeeds again: no Python has run");
    (void)found; /* without asserts */
    PyObject *buffer = self.values[BUFFER];
    Py_ssize_t size = PyByteArray_GET_SIZE(buffer) - (Py_ssize_t)left_bytes;
    int code = PyByteArray_Resize(buffer, size);
    if (code < 0 && PyByteArray_GET_SIZE(buffer) > size) {
        PyErr_Clear(); /* no memory for a smaller block: it keeps this one */
        Py_SET_SIZE(buffer, size);
        code = 0;
    }
    if (code == 0 && got_bytes > 0) {
        code = data_added(&self);
    }
    Py_DECREF(owner);
    return code;
}

/* FlNativeProtocol: connection_made is about to be called.  The loop of this
   thread is the transport's.  A reader whose class cannot be changed, as where
   an audit hook refuses that, stays asyncio's. */
static void
before_connection_made(FlState *state, PyObject *protocol)
{
    const FlLoop *loop = fl_loop_of_thread(state);
    PyObject *reader =
        state->native_reader_type == NULL
                || (loop != NULL && (loop->off & FL_OFF_NATIVE_READERS))
            ? NULL
            : reader_of_protocol(state, protocol);
    Reader self = {.dict = NULL};
    if (reader != NULL
        && find(state, reader, state->asyncio_reader_type, ALL, &self)
        /* Past an application's __setattr__. */
        && PyObject_GenericSetAttr(reader, state->names.__class__,
                                   state->native_reader_type)
               < 0)
    {
        PyErr_Clear();
    }
    Py_XDECREF(self.dict);
    Py_XDECREF(reader);
}

/* EOF comes once a connection, so C would save nothing. */
static const FlNativeProtocol native = {
    .before_connection_made = before_connection_made,
    .data_received = reader_data_received,
    .data_failed = FL_DATA_FAILED,
    .find_room = find_room,
    .filled = filled,
};

/* --- the steps ----------------------------------------------------------- */

/* Begin a step, and look up the _buffer.  False: use_asyncio.  The caller owns
   self->dict.  A step after an await drops the waiter, as asyncio does.
   Enough bytes are returned even if an exception was set since the waiter was
   woken. */
FL_INLINE bool
begin_step(PyObject *module, PyObject *reader, bool waited, Reader *self)
{
    FlState *state = fl_state_get(module);
    PyObject *type = state->native_reader_type;
    if (!waited) {
        return find(state, reader, type, 1 << EXCEPTION | 1 << BUFFER, self)
               && self->values[EXCEPTION] == Py_None;
    }
    bool found = find(state, reader, type, 1 << WAITER | 1 << BUFFER, self);
    if (!found || self->values[WAITER] != Py_None) {
        /* Dropping a waiter may run Python. */
        found = PyObject_SetAttr(reader, state->names._waiter, Py_None) == 0
                && found && look_up(self, 1 << BUFFER);
    }
    return found;
}

static const char take_doc[] =
    "_take(reader, n, waited, exactly, /)\n--\n\n"
    "A step of StreamReader.read(n), or of readexactly(n).";

static PyObject *
take_size(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 4) { /* METH_FASTCALL does not check it */
        return PyErr_Format(PyExc_TypeError, "a step takes 4 arguments");
    }
    /* A number that is too large is clipped, as a slice does it.  What is none
       is asyncio's to refuse. */
    Py_ssize_t wanted =
        PyLong_Check(args[1]) ? PyNumber_AsSsize_t(args[1], NULL) : -1;
    if (wanted <= 0) {
        return use_asyncio(); /* b"", ValueError or TypeError */
    }
    bool waited = args[2] == Py_True, exactly = args[3] == Py_True;
    Reader self;
    PyObject *result;
    if (begin_step(module, args[0], waited, &self)) {
        Py_ssize_t size = PyByteArray_GET_SIZE(self.values[BUFFER]);
        /* asyncio's read does not wait again, even if the bytes that woke it
           are gone: it returns b"" then. */
        bool enough = exactly ? size >= wanted : size > 0 || waited;
        result = enough ? take_bytes(&self, wanted) : begin_wait(&self);
    }
    else {
        result = use_asyncio();
    }
    Py_XDECREF(self.dict);
    return result;
}

static const char take_until_doc[] =
    "_take_until(reader, separator, searched, /)\n--\n\n"
    "A step of StreamReader.readuntil(separator), where separator is bytes.\n"
    "searched: so many bytes have been searched by the last step; -1: none.";

/* Search the reader from a place on. */
static PyObject *
take_separated(Reader *self, PyObject *separator, Py_ssize_t from)
{
    const char *wanted = PyBytes_AS_STRING(separator);
    Py_ssize_t wanted_bytes = PyBytes_GET_SIZE(separator);
    Py_ssize_t size = PyByteArray_GET_SIZE(self->values[BUFFER]);
    const char *data = PyByteArray_AS_STRING(self->values[BUFFER]);
    const char *found =
        from + wanted_bytes > size ? NULL
        : wanted_bytes == 1
            ? memchr(data + from, wanted[0], (size_t)(size - from))
            : memmem(data + from, (size_t)(size - from), wanted,
                     (size_t)wanted_bytes);
    /* The limit does not count the separator.  It is checked before EOF, as in
       asyncio. */
    if (!look_up(self, 1 << LIMIT)) {
        return use_asyncio();
    }
    Py_ssize_t limit = limit_of(self);
    if (found != NULL && found - data <= limit) {
        return take_bytes(self, found - data + wanted_bytes);
    }
    return found != NULL || size + 1 - wanted_bytes > limit
               ? use_asyncio() /* LimitOverrunError */
               : begin_wait(self);
}

static PyObject *
take_until(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) { /* METH_FASTCALL does not check it */
        return PyErr_Format(PyExc_TypeError, "a step takes 3 arguments");
    }
    PyObject *separator = args[1];
    Py_ssize_t searched = PyLong_AsSsize_t(args[2]);
    if ((searched == -1 && PyErr_Occurred()) || !PyBytes_Check(separator)
        || PyBytes_GET_SIZE(separator) == 0)
    {
        return use_asyncio(); /* ValueError if it is empty */
    }
    Reader self;
    PyObject *result;
    if (begin_step(module, args[0], searched >= 0, &self)) {
        /* The last bytes may be the beginning of a separator. */
        Py_ssize_t from = searched + 1 - PyBytes_GET_SIZE(separator);
        result = take_separated(&self, separator, Py_MAX(from, 0));
    }
    else {
        result = use_asyncio();
    }
    Py_XDECREF(self.dict);
    return result;
}

/* --- registration -------------------------------------------------------- */

static const char use_reader_doc[] =
    "_use_stream_reader(type, /)\n--\n\n"
    "Set the class of native readers, a subclass of asyncio.StreamReader.";

static PyObject *
use_reader(PyObject *module, PyObject *type)
{
    /* Called when fastloop.loop is imported: C cannot import fastloop.streams,
       since that needs this module.  Until then no reader is upgraded.  If the
       module is imported again, readers of the first class may be open. */
    FlState *state = fl_state_get(module);
    if (!PyType_Check(type)) {
        return PyErr_Format(PyExc_TypeError, "a class is required");
    }
    if (state->native_reader_type == NULL) {
        state->native_reader_type = Py_NewRef(type);
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    FL_METHOD("_take", take_size, METH_FASTCALL, take_doc),
    FL_METHOD("_take_until", take_until, METH_FASTCALL, take_until_doc),
    {"_use_stream_reader", use_reader, METH_O, use_reader_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_reader_register(PyObject *module, FlState *state)
{
    PyObject *type = state->asyncio_stream_protocol;
    state->stream_data_received =
        PyObject_GetAttr(type, state->names.data_received);
    if (state->stream_data_received == NULL) {
        return -1;
    }
    /* If another module patched the method before we were imported, what we
       just saved is not asyncio's: register nothing.  Without a GIL no reader
       is native: changing an object's class stops all threads. */
    if (FL_HAVE_GIL
        && fl_method_is_from(state->stream_data_received,
                             state->stream_globals))
    {
        state->native_reader_protocol = &native;
    }
    return PyModule_AddFunctions(module, functions);
}
