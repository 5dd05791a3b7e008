/* What a transport calls in the place of StreamReaderProtocol's methods. */
#include "streams/reader_protocol.h"

#include "py/compat.h"
#include "py/state.h"
#include "streams/native_reader.h"
#include "transport/native_protocol.h"

/* Of less, more than one piece costs more than a copy. */
#define PIECE_BYTES ((Py_ssize_t)(32 * 1024))

static_assert(FL_STORE_PIECES <= FL_NATIVE_PIECES,
              "a stream has room for the store's pieces");

/* The protocol's reader, a new reference, if it and the protocol have
   asyncio's methods; NULL without an exception: call data_received. */
static PyObject *
reader_of(FlState *state, PyObject *protocol)
{
    if (!Py_IS_TYPE(protocol, (PyTypeObject *)state->asyncio_stream_protocol))
    {
        return NULL; /* its class was changed */
    }
    PyObject *method = PyObject_GetAttr(protocol, state->names.data_received);
    bool plain =
        method != NULL && PyMethod_Check(method)
        && PyMethod_GET_SELF(method) == protocol
        && PyMethod_GET_FUNCTION(method) == state->stream_data_received;
    Py_XDECREF(method);
    PyObject *weak =
        plain ? PyObject_GetAttr(protocol, state->names._stream_reader_wr)
              : NULL;
    PyObject *reader = NULL;
    if (weak != NULL && PyWeakref_CheckRef(weak)) {
        reader = fl_weakref_get(weak);
    }
    Py_XDECREF(weak);
    PyErr_Clear(); /* the call of data_received will raise it again */
    return reader;
}

static int
call_data_received(FlState *state, PyObject *protocol, const char *data,
                   size_t size_bytes)
{
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size_bytes);
    PyObject *done =
        bytes == NULL
            ? NULL
            : PyObject_CallMethodOneArg(protocol, state->names.data_received,
                                        bytes);
    Py_XDECREF(bytes);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int
data_received(FlState *state, PyObject *protocol, const char *data,
              size_t size_bytes)
{
    PyObject *reader = reader_of(state, protocol);
    FlReader *self = reader == NULL ? NULL : fl_reader_of(state, reader);
    if (self == NULL) {
        Py_XDECREF(reader);
        return PyErr_Occurred()
                   ? -1
                   : call_data_received(state, protocol, data, size_bytes);
    }
    Py_INCREF(self);
    int code = fl_reader_feed(self, data, (Py_ssize_t)size_bytes);
    Py_DECREF(self);
    Py_DECREF(reader);
    return code;
}

/* The reader's state if who waits will take more bytes than there are. */
static FlReader *
find_wanting(FlState *state, PyObject *protocol)
{
    PyObject *reader = reader_of(state, protocol);
    FlReader *self = reader == NULL ? NULL : fl_reader_peek(state, reader);
    Py_XDECREF(reader); /* the one that waits holds it */
    PyErr_Clear();      /* then data_received raises it */
    bool wanting = self != NULL && self->waiter != NULL && !self->eof
                   && fl_byte_store_size(&self->store) < self->room_bytes;
    return wanting ? self : NULL;
}

static int
get_memory(FlState *state, PyObject *protocol, size_t expected_bytes,
           struct iovec *memory)
{
    FlReader *self = find_wanting(state, protocol);
    if (self == NULL) {
        return 0;
    }
    Py_ssize_t size = fl_byte_store_size(&self->store);
    Py_ssize_t wanted = self->room_bytes - size;
    /* In proportion to what came: a peer may announce what never comes. */
    Py_ssize_t most = size < wanted ? 8 * size : wanted;
    if (most < (Py_ssize_t)expected_bytes) {
        most = (Py_ssize_t)expected_bytes;
    }
    if (most < FL_LARGE_BYTES) {
        most = FL_LARGE_BYTES;
    }
    if (wanted > most) {
        wanted = most;
    }
    /* Who reads so many now likely reads as many again. */
    bool several =
        wanted >= PIECE_BYTES && expected_bytes > (size_t)self->room_bytes;
    int count = fl_byte_store_memory(&self->store, wanted,
                                     several ? FL_STORE_PIECES : 1, memory);
    if (count > 0) {
        FL_CHECK(state->filling == NULL, "what was asked for was filled");
        state->filling = Py_NewRef((PyObject *)self);
    }
    return count;
}

/* Nothing is looked up again: that could fail, and the bytes are there. */
static int
memory_filled(FlState *state, PyObject *protocol, const struct iovec *memory,
              size_t got_bytes)
{
    FlReader *self = (FlReader *)state->filling;
    (void)protocol;
    state->filling = NULL;
    int code = fl_reader_filled(self, memory, (Py_ssize_t)got_bytes);
    Py_DECREF(self);
    return code;
}

static int
eof_received(FlState *state, PyObject *protocol)
{
    PyObject *keep =
        PyObject_CallMethodNoArgs(protocol, state->names.eof_received);
    int keep_open = keep == NULL ? -1 : PyObject_IsTrue(keep);
    Py_XDECREF(keep);
    return keep_open;
}

static void
connecting(FlState *state, PyObject *protocol)
{
    PyObject *reader = reader_of(state, protocol);
    if (reader != NULL) {
        fl_reader_upgrade(state, reader);
        Py_DECREF(reader);
    }
}

static const FlNativeProtocol native = {
    .connecting = connecting,
    .data_received = data_received,
    .get_memory = get_memory,
    .memory_filled = memory_filled,
    .eof_received = eof_received,
};

int
fl_reader_protocol_register(FlState *state)
{
    PyObject *type = state->asyncio_stream_protocol;
    state->stream_data_received =
        PyObject_GetAttr(type, state->names.data_received);
    if (state->stream_data_received == NULL) {
        return -1;
    }
    /* A program that came first may have patched it. */
    if (FL_HAVE_GIL && PyFunction_Check(state->stream_data_received)
        && PyFunction_GetGlobals(state->stream_data_received)
               == state->stream_globals)
    {
        fl_native_protocol_register(state, (PyTypeObject *)type, &native);
    }
    return 0;
}
