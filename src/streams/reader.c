/* The way of a native reader's bytes: from the socket to its store, and from
   there to the method that awaits them.

   A stream calls functions of this file instead of StreamReaderProtocol's
   methods.

   1. A lookup that fails is not reported here.  The bytes then go to
      data_received by its name, which fails in the same way and is reported as
      that method's error.
   2. Between find_room and buffers_filled the stream only reads from the
      socket.  state->filling owns the reader's state meanwhile, so that
      buffers_filled needs no lookup, which could fail after the bytes were
      received.
   3. Arguments of the steps are converted before the reader's state is
      fetched: conversion may run Python code (__index__), which may downgrade
      the reader. */
#include "streams/reader.h"

#include "core/loop.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/methods.h"
#include "py/state.h"
#include "streams/native_reader.h"
#include "transport/native_protocol.h"

/* The largest bytes object below glibc's initial mmap threshold.  make_scratch
   raises that threshold, but perhaps not under another malloc. */
#define HEAP_BYTES        ((Py_ssize_t)(128 * 1024 - 128))
/* Reads of less than this get one area of memory: several areas would cost
   more than the copy that they save. */
#define SEVERAL_MIN_BYTES ((Py_ssize_t)(32 * 1024))

static_assert(FL_STORE_PIECES <= FL_NATIVE_AREAS,
              "a stream has room for the store's pieces");

/* --- finding ------------------------------------------------------------- */

/* The state of a native reader, borrowed, as long as asyncio's code would do
   the same: no method was replaced, and nobody can see that the bytes are not
   in the _buffer.  NULL for a reader that may not stay native, which stays as
   it is, and on an error. */
static FlReader *
native_state(FlState *state, PyObject *reader)
{
    /* First: this may run Python, which may drop what is borrowed. */
    bool plain = fl_reader_methods_are_plain(state);
    PyObject *dict;
    FlReader *self = fl_reader_find(state, reader, &dict);
    bool stays =
        self != NULL && plain
        && PyDict_GET_SIZE(dict) == 1; /* native_reader.c, invariant 1 */
    if (stays && self->empty_buffer != NULL) {
        /* The application neither kept nor filled the empty _buffer that it
           read: ours is the only reference, and the bytearray is empty. */
        stays = Py_REFCNT(self->empty_buffer) == 1
                && PyByteArray_GET_SIZE(self->empty_buffer) == 0;
    }
    return stays ? self : NULL;
}

/* The same, but a reader that may not stay native is downgraded.  NULL without
   an exception: it is a plain reader, maybe only since now; run asyncio's
   code.  NULL with an exception: the downgrade failed. */
static FlReader *
native_or_downgrade(FlState *state, PyObject *reader)
{
    FlReader *self = native_state(state, reader);
    /* Not allowed to stay native, and not plain yet. */
    if (FL_UNLIKELY(self == NULL) && !PyErr_Occurred()
        && fl_reader_unchecked(state, reader) != NULL)
    {
        /* On failure the exception stays set, for the caller. */
        (void)fl_reader_downgrade(state, reader);
    }
    return self;
}

/* --- waking and waiting -------------------------------------------------- */

/* asyncio's _wakeup_waiter.  0 or -1. */
static int
wake(FlReader *self)
{
    const FlNames *names = &self->state->names;
    PyObject *waiter = self->waiter;
    if (!fl_reader_has(waiter)) {
        return 0;
    }
    /* First: the calls below may run Python code, which may begin to wait. */
    self->waiter = NULL;
    /* By the methods' names: an application's loop may create futures of any
       class. */
    int code = fl_call_truth(waiter, names->cancelled);
    if (code >= 0) {
        code = code ? 0 : fl_call_method(waiter, names->set_result, Py_None);
    }
    Py_DECREF(waiter);
    return code;
}

/* 0 or -1.  Without a transport the call on None raises AttributeError, as in
   asyncio. */
static int
resume_transport(FlReader *self)
{
    self->paused = false;
    return fl_call_method(self->transport == NULL ? Py_None : self->transport,
                          self->state->names.resume_reading, NULL);
}

/* After bytes were added: wake the waiter, then pause the transport if more
   than twice the limit is stored.  May run Python code: the caller owns a
   reference.  0 or -1. */
static int
data_added(FlReader *self)
{
    if (wake(self) < 0) {
        return -1;
    }
    /* If waking downgraded the reader, the state is stale.  The plain reader
       pauses the transport itself when it receives more. */
    if (self->downgraded || self->paused || !fl_reader_has(self->transport)) {
        return 0;
    }
    /* An application may set any limit: no product, which could overflow. */
    Py_ssize_t size = self->store.size_bytes;
    Py_ssize_t limit = self->limit_bytes;
    if (limit >= 0 && size - limit <= limit) {
        return 0;
    }
    self->paused = true; /* first: the call may downgrade, which copies it */
    int code = fl_call_method(self->transport,
                              self->state->names.pause_reading, NULL);
    self->paused = code == 0;
    if (code < 0 && PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        /* Of an application's transport, which cannot pause.  As in asyncio
           all is stored from now on. */
        PyErr_Clear();
        Py_CLEAR(self->transport);
        code = 0;
    }
    return code;
}

/* Return bytes from a method that has enough: take up to size_bytes from the
   store, then resume the transport if at most the limit is left.  May run
   Python code.  NULL with an exception. */
static PyObject *
take_bytes(FlReader *self, Py_ssize_t size_bytes)
{
    Py_INCREF(self);          /* resume_reading may be the application's */
    self->searched_bytes = 0; /* it counts from the front, which moves */
    PyObject *taken = fl_byte_store_take(&self->store, size_bytes);
    if (taken != NULL && self->paused
        && self->store.size_bytes <= self->limit_bytes
        && resume_transport(self) < 0)
    {
        Py_CLEAR(taken); /* they are lost, as in asyncio */
    }
    Py_DECREF(self);
    return taken;
}

/* asyncio's _wait_for_data, without its await: a new reference to a future
   that is resolved when bytes or EOF arrive.  fastloop/streams.py awaits it,
   and the next step drops it.  wanted_bytes is how many bytes the waiting
   method will return at most, 0 if that is unknown.  None: asyncio's method
   must go on, since another call waits already, or since Python code that ran
   here downgraded the reader.  NULL with an exception. */
static PyObject *
begin_wait(FlReader *self, Py_ssize_t wanted_bytes)
{
    if (fl_reader_has(self->waiter)) {
        return Py_NewRef(Py_None); /* asyncio's method raises RuntimeError */
    }
    Py_INCREF(self); /* the calls below may run Python, which downgrades */
    /* A read that waits while the transport is paused would never end. */
    PyObject *waiter = NULL;
    if (!self->paused || resume_transport(self) == 0) {
        PyObject *loop = self->loop == NULL ? Py_None : self->loop;
        waiter =
            PyObject_CallMethodNoArgs(loop, self->state->names.create_future);
    }
    if (waiter != NULL && self->downgraded) {
        /* Asyncio's code would not see our waiter. */
        Py_SETREF(waiter, Py_NewRef(Py_None));
    }
    else if (waiter != NULL) {
        /* create_future may have run code that began to wait as well: as in
           asyncio, the later one replaces the earlier. */
        Py_XSETREF(self->waiter, Py_NewRef(waiter));
        self->wanted_bytes = wanted_bytes;
    }
    Py_DECREF(self);
    return waiter;
}

/* --- the native protocol ------------------------------------------------- */

/* The protocol's reader, a new reference, if data_received is asyncio's.  NULL
   without an exception: call data_received.  Whether the reader has asyncio's
   methods is for the caller to check (native_or_downgrade, native_state). */
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
    PyErr_Clear(); /* invariant 1 */
    return reader;
}

/* FlNativeProtocol: append to the reader what is in the scratch. */
static int
data_received(FlState *state, PyObject *protocol, const char *data,
              size_t size_bytes)
{
    PyObject *reader = reader_of_protocol(state, protocol);
    FlReader *self =
        reader == NULL ? NULL : native_or_downgrade(state, reader);
    int code = PyErr_Occurred() ? -1 : 0;
    if (self != NULL && !self->eof) {
        Py_INCREF(self); /* waking or pausing may downgrade the reader */
        code =
            fl_byte_store_append(&self->store, data, (Py_ssize_t)size_bytes);
        if (code == 0) {
            code = data_added(self);
        }
        Py_DECREF(self);
    }
    else if (code == 0) {
        /* As a stream without a native protocol does it; after EOF asyncio
           raises. */
        PyObject *name = state->names.data_received;
        PyObject *bytes =
            PyBytes_FromStringAndSize(data, (Py_ssize_t)size_bytes);
        code = bytes == NULL ? -1 : fl_call_method(protocol, name, bytes);
        Py_XDECREF(bytes);
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
    FlReader *self = reader == NULL ? NULL : native_state(state, reader);
    Py_XINCREF(self);
    Py_XDECREF(reader);
    PyErr_Clear(); /* invariant 1 */
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
   invariant 2; the protocol is not needed. */
static int
buffers_filled(FlState *state, PyObject *Py_UNUSED(protocol),
               const struct iovec *memory, size_t got_bytes)
{
    FlReader *self = (FlReader *)state->filling;
    state->filling = NULL;
    int code =
        fl_byte_store_filled(&self->store, memory, (Py_ssize_t)got_bytes);
    if (code == 0 && got_bytes > 0) {
        code = data_added(self);
    }
    Py_DECREF(self);
    return code;
}

/* FlNativeProtocol: connection_made is about to be called.  The reader has no
   bytes yet, so this is the time to upgrade it.  The loop of this thread is
   the transport's. */
static void
before_connection_made(FlState *state, PyObject *protocol)
{
    const FlLoop *loop = fl_loop_of_thread(state);
    if (loop != NULL && (loop->off & FL_OFF_NATIVE_READERS)) {
        return;
    }
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
    .data_failed = FL_DATA_FAILED,
    .find_room = find_room,
    .buffers_filled = buffers_filled,
};

/* --- the steps ----------------------------------------------------------- */

/* What a step returns if asyncio's method must go on: None, unless an
   exception is set. */
static PyObject *
use_asyncio(void)
{
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* After an await: drop the reader's waiter, as asyncio does, whichever future
   it is by now.  Usually wake() has dropped it.  If the reader became a plain
   one meanwhile, this is asyncio's own assignment.  0 or -1. */
static int
forget_waiter(FlState *state, PyObject *reader)
{
    FlReader *self = fl_reader_unchecked(state, reader);
    if (FL_UNLIKELY(self == NULL)) {
        return PyErr_Occurred()
                   ? -1
                   : PyObject_SetAttr(reader, state->names._waiter, Py_None);
    }
    Py_CLEAR(self->waiter);
    return 0;
}

/* Begin a step: the reader's state, borrowed; or NULL for use_asyncio. */
static FlReader *
begin_step(FlState *state, PyObject *reader, bool waited)
{
    /* First: dropping the waiter may run Python code, which may downgrade the
       reader. */
    if (waited && forget_waiter(state, reader) < 0) {
        return NULL;
    }
    /* The check that may downgrade: replaced methods, a _buffer in use. */
    FlReader *self = native_or_downgrade(state, reader);
    /* Later steps ignore an exception that was set since the waiter was
       woken: the next call raises it, as in asyncio, or asyncio's method if
       that takes over. */
    bool raises = self != NULL && !waited && fl_reader_has(self->exception);
    return raises ? NULL : self;
}

/* --- read, readexactly --------------------------------------------------- */

static const char take_doc[] =
    "_take(reader, n, waited, exactly, /)\n--\n\n"
    "A step of StreamReader.read(n), or of readexactly(n).";

static PyObject *
take_size(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 4) { /* METH_FASTCALL does not check it */
        return PyErr_Format(PyExc_TypeError, "a step takes 4 arguments");
    }
    /* Without an exception to raise, a number that is too large is clipped, as
       a slice does it. */
    Py_ssize_t wanted = PyNumber_AsSsize_t(args[1], NULL);
    if (wanted == -1 && PyErr_Occurred()
        && PyErr_ExceptionMatches(PyExc_TypeError))
    {
        /* A float, say.  asyncio may never need it as a whole number. */
        PyErr_Clear();
    }
    if (wanted <= 0) {
        return use_asyncio(); /* b"", ValueError or TypeError */
    }
    bool waited = args[2] == Py_True;
    FlReader *self = begin_step(fl_state_get(module), args[0], waited);
    if (self == NULL) {
        return use_asyncio();
    }
    Py_ssize_t size = self->store.size_bytes;
    /* asyncio's read does not wait again, even if the bytes that woke it are
       gone: it returns b"" then. */
    bool enough =
        args[3] == Py_True ? size >= wanted : size > 0 || self->eof || waited;
    if (enough) {
        return take_bytes(self, wanted);
    }
    return self->eof ? use_asyncio() /* IncompleteReadError */
                     : begin_wait(self, wanted);
}

/* --- readuntil, readline ------------------------------------------------- */

/* The bytes received so far have no separator.  The limit is checked before
   EOF, as in asyncio. */
static PyObject *
missed_separator(FlReader *self, Py_ssize_t separator_bytes, bool is_line)
{
    Py_ssize_t size = self->store.size_bytes;
    if (size - self->searched_bytes >= separator_bytes) {
        /* The last bytes may be the beginning of a separator: the next search
           includes them. */
        self->searched_bytes = size + 1 - separator_bytes;
        if (self->searched_bytes > self->limit_bytes) {
            return use_asyncio(); /* LimitOverrunError */
        }
    }
    if (!self->eof) {
        return begin_wait(self, 0); /* how much it returns is unknown */
    }
    if (!is_line) {
        return use_asyncio(); /* IncompleteReadError */
    }
    /* The last line has no newline.  At the end it is b"". */
    self->searched_bytes = 0;
    return fl_byte_store_take(&self->store, PY_SSIZE_T_MAX);
}

/* Search the reader.  A search that is repeated after an await continues where
   the last one ended. */
static PyObject *
take_separated(FlReader *self, PyObject *separator, bool waited, bool is_line)
{
    const char *wanted = PyBytes_AS_STRING(separator);
    Py_ssize_t wanted_bytes = PyBytes_GET_SIZE(separator);
    if (!waited || self->searched_for != wanted) {
        /* A new search; or another call searched while this one waited. */
        self->searched_bytes = 0;
        self->searched_for = wanted;
    }
    Py_ssize_t at = fl_byte_store_find(&self->store, self->searched_bytes,
                                       wanted, wanted_bytes);
    if (at == -2) {
        return NULL;
    }
    if (at == -1) {
        return missed_separator(self, wanted_bytes, is_line);
    }
    /* The limit does not count the separator. */
    return at > self->limit_bytes ? use_asyncio() /* LimitOverrunError */
                                  : take_bytes(self, at + wanted_bytes);
}

static const char take_until_doc[] =
    "_take_until(reader, separator, waited, is_line, /)\n--\n\n"
    "A step of StreamReader.readuntil(separator), where separator is bytes; "
    "or of readline(), where it is a newline.";

static PyObject *
take_until(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 4) { /* METH_FASTCALL does not check it */
        return PyErr_Format(PyExc_TypeError, "a step takes 4 arguments");
    }
    PyObject *separator = args[1];
    if (!PyBytes_Check(separator) || PyBytes_GET_SIZE(separator) == 0) {
        return use_asyncio(); /* ValueError if it is empty */
    }
    bool waited = args[2] == Py_True;
    FlReader *self = begin_step(fl_state_get(module), args[0], waited);
    return self == NULL
               ? use_asyncio()
               : take_separated(self, separator, waited, args[3] == Py_True);
}

/* --- registration -------------------------------------------------------- */

static const char use_reader_doc[] =
    "_use_stream_reader(type, /)\n--\n\n"
    "Set the class of native readers, a subclass of NativeReader.";

static PyObject *
use_reader(PyObject *module, PyObject *type)
{
    /* Called when fastloop.streams is imported: C cannot import it, since it
       needs this module.  Until then no reader is upgraded.  If the module is
       imported again, readers of the first class may be open. */
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
       is native (native_reader.h). */
    if (FL_HAVE_GIL
        && fl_method_is_from(state->stream_data_received,
                             state->stream_globals))
    {
        state->native_reader_protocol = &native;
    }
    return PyModule_AddFunctions(module, functions);
}
