/* The functions that a stream calls instead of StreamReaderProtocol's methods.

   1. Each call looks the protocol's data_received up and compares it with
      asyncio's, as a call by name would: an application may replace it at any
      time.
   2. A lookup that fails is not reported here.  The bytes then go to
      data_received by its name, which fails in the same way and is reported as
      that method's error.
   3. Between find_room and buffers_filled the stream only reads from the
      socket.  state->filling owns the reader's state meanwhile, so that
      buffers_filled needs no lookup, which could fail after the bytes were
      received. */
#include "streams/reader_protocol.h"

#include "py/compat.h"
#include "py/methods.h"
#include "py/state.h"
#include "streams/native_reader.h"
#include "transport/native_protocol.h"

/* The largest bytes object that stays under the allocator's threshold. */
#define HEAP_BYTES        ((Py_ssize_t)(128 * 1024 - 128))
/* Reads of less than this get one area of memory: several areas would cost
   more than the copy that they save. */
#define SEVERAL_MIN_BYTES ((Py_ssize_t)(32 * 1024))

static_assert(FL_STORE_PIECES <= FL_NATIVE_PIECES,
              "a stream has room for the store's pieces");

/* The protocol's reader, a new reference, if data_received is asyncio's.  NULL
   without an exception: call data_received.  Whether the reader has asyncio's
   methods is for the caller to check (fl_reader_of, fl_reader_peek). */
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

/* FlNativeProtocol: append to the reader what is in the scratch. */
static int
data_received(FlState *state, PyObject *protocol, const char *data,
              size_t size_bytes)
{
    PyObject *reader = reader_of_protocol(state, protocol);
    FlReader *self = reader == NULL ? NULL : fl_reader_of(state, reader);
    int code = PyErr_Occurred() ? -1 : 0;
    if (self != NULL && !self->eof) {
        Py_INCREF(self); /* waking or pausing may downgrade the reader */
        code = fl_reader_feed(self, data, (Py_ssize_t)size_bytes);
        Py_DECREF(self);
    }
    else if (code == 0) {
        /* As a stream without a native protocol does it; after EOF asyncio
           raises. */
        code =
            fl_protocol_data_received(state, protocol, NULL, data, size_bytes);
    }
    Py_XDECREF(reader);
    return code;
}

/* The reader's state, if a waiting read will return more bytes than the store
   has.  A new reference: the lookups may run Python, which may drop the reader
   and the coroutine that waits.  NULL, without an exception, if not. */
static FlReader *
find_waiting(FlState *state, PyObject *protocol)
{
    PyObject *reader = reader_of_protocol(state, protocol);
    FlReader *self = reader == NULL ? NULL : fl_reader_peek(state, reader);
    Py_XINCREF(self);
    Py_XDECREF(reader);
    PyErr_Clear(); /* invariant 2 */
    if (self != NULL
        && (!fl_reader_has(self->waiter) || self->eof
            || self->store.size_bytes >= self->wanted_bytes))
    {
        Py_CLEAR(self);
    }
    return self;
}

/* FlNativeProtocol: memory that becomes the result of the waiting read, so
   that the kernel writes the bytes where they are used. */
static int
find_room(FlState *state, PyObject *protocol, size_t expected_bytes,
          struct iovec *memory)
{
    FlReader *self = find_waiting(state, protocol);
    if (self == NULL) {
        return 0;
    }
    Py_ssize_t size = self->store.size_bytes;
    Py_ssize_t wanted = self->wanted_bytes - size;
    /* At most eight times what was received, so that memory is proportional
       to that: a peer may announce a length of which nothing ever arrives. */
    Py_ssize_t cap_bytes = size < wanted ? 8 * size : wanted;
    /* But at least what the event probably brings, or a block that the
       allocator does not map and unmap each time. */
    cap_bytes = Py_MAX(cap_bytes, (Py_ssize_t)expected_bytes);
    wanted = Py_MIN(wanted, Py_MAX(cap_bytes, HEAP_BYTES));
    /* If the event brings more than this read wants, offer memory for the next
       reads: likely they want as many bytes each. */
    bool several = wanted >= SEVERAL_MIN_BYTES
                   && expected_bytes > (size_t)self->wanted_bytes;
    int count = fl_byte_store_memory(&self->store, wanted,
                                     several ? FL_STORE_PIECES : 1, memory);
    if (count > 0) {
        FL_CHECK(state->filling == NULL,
                 "buffers_filled follows each find_room");
        state->filling = (PyObject *)self;
    }
    else {
        Py_DECREF(self);
    }
    return count;
}

/* FlNativeProtocol: the kernel wrote got_bytes into that memory.  See
   invariant 3; the protocol is not needed. */
static int
buffers_filled(FlState *state, PyObject *Py_UNUSED(protocol),
               const struct iovec *memory, size_t got_bytes)
{
    FlReader *self = (FlReader *)state->filling;
    state->filling = NULL;
    int code = fl_reader_filled(self, memory, (Py_ssize_t)got_bytes);
    Py_DECREF(self);
    return code;
}

/* FlNativeProtocol: connection_made is about to be called.  The reader has no
   bytes yet, so this is the time to upgrade it. */
static void
before_connection_made(FlState *state, PyObject *protocol)
{
    PyObject *reader = reader_of_protocol(state, protocol);
    if (reader != NULL) {
        fl_reader_upgrade(state, reader);
        Py_DECREF(reader);
    }
}

/* EOF comes once a connection, so C would save nothing. */
static const FlNativeProtocol native = {
    .before_connection_made = before_connection_made,
    .data_received = data_received,
    .find_room = find_room,
    .buffers_filled = buffers_filled,
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
    /* If another module patched the method before we were imported, what we
       just saved is not asyncio's: register nothing.  Without a GIL no reader
       is native (native_reader.h). */
    if (FL_HAVE_GIL
        && fl_method_is_from(state->stream_data_received,
                             state->stream_globals))
    {
        state->native_stream = &native;
    }
    return 0;
}
