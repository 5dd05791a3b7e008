/* The state of native readers: upgrade, downgrade, feeding, waiting.

   1. A native reader's __dict__ has the state under the name _fastloop, and
      none of the attributes that the state has.  So the common check for
      replaced methods is one comparison of the dict's size
      (may_stay_native).
   2. Whichever step of an upgrade or a downgrade fails, the reader works.  An
      upgrade changes the class first, then the __dict__: the native class runs
      asyncio's code for an object without a state (reader_type.c).  A
      downgrade adds the attributes to the __dict__, then changes the class,
      then removes the state, which a plain class ignores.
   3. Calls into Python may downgrade the reader.  The state then is stale: it
      still works, but nobody reads it any more.  Code that goes on after such
      a call checks `downgraded`.
   4. What decides whether a reader may stay native is checked by each call,
      not cached, except for the methods of asyncio's class
      (methods_are_plain). */
#include "streams/native_reader.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"

/* Methods of asyncio.StreamReader whose work C does.  If an application
   replaces one of them, asyncio's code must run, which calls the
   replacement. */
static const size_t c_methods[] = {
    offsetof(FlNames, read),
    offsetof(FlNames, readexactly),
    offsetof(FlNames, readuntil),
    offsetof(FlNames, readline),
    offsetof(FlNames, feed_data),
    offsetof(FlNames, at_eof),
    offsetof(FlNames, exception),
    offsetof(FlNames, _wakeup_waiter),
    offsetof(FlNames, _wait_for_data),
    offsetof(FlNames, _maybe_resume_transport),
};

#define METHOD_COUNT (sizeof(c_methods) / sizeof(c_methods[0]))

/* An interned name by its offset in FlNames.  Borrowed. */
static PyObject *
name_at(const FlState *state, size_t offset)
{
    return *(PyObject *const *)((const char *)&state->names + offset);
}

/* --- replaced methods ---------------------------------------------------- */

/* Whether a class has asyncio's methods.  These are functions whose globals
   are asyncio.streams' own; a replacement from any other module is not. */
static bool
class_is_plain(const FlState *state, PyObject *type)
{
    for (size_t at = 0; at < METHOD_COUNT; at++) {
        PyObject *method =
            PyObject_GetAttr(type, name_at(state, c_methods[at]));
        bool plain = method != NULL && PyFunction_Check(method)
                     && PyFunction_GetGlobals(method) == state->stream_globals;
        Py_XDECREF(method);
        if (!plain) {
            PyErr_Clear(); /* a missing method: asyncio's code raises that */
            return false;
        }
    }
    return true;
}

/* Whether asyncio.StreamReader has asyncio's methods.  The answer is cached by
   the type's version, which changes with each change of the class.  Version 0
   means that the type has none: then nothing may be cached. */
static bool
methods_are_plain(FlState *state)
{
    PyTypeObject *type = (PyTypeObject *)state->asyncio_reader_type;
    unsigned version = fl_type_version(type);
    if (FL_UNLIKELY(version == 0 || version != state->reader_type_version)) {
        state->reader_methods_plain =
            class_is_plain(state, state->asyncio_reader_type);
        /* Looking the methods up may have given the type a version. */
        state->reader_type_version = fl_type_version(type);
    }
    return state->reader_methods_plain;
}

/* Whether none of the methods was set on the object itself. */
static bool
object_is_plain(const FlState *state, PyObject *dict)
{
    for (size_t at = 0; at < METHOD_COUNT; at++) {
        int found = PyDict_Contains(dict, name_at(state, c_methods[at]));
        if (found != 0) {
            PyErr_Clear(); /* a key whose __eq__ raised: not plain */
            return false;
        }
    }
    return true;
}

/* --- finding ------------------------------------------------------------- */

/* The state in a reader's __dict__, and that dict.  Both are borrowed: the
   reader owns the dict, and the dict the state.  NULL without an exception if
   there is no state. */
static FlReader *
find_state(FlState *state, PyObject *reader, PyObject **dict)
{
    *dict = PyObject_GenericGetDict(reader, NULL);
    if (*dict == NULL) {
        return NULL;
    }
    Py_DECREF(*dict); /* the reader still owns it */
    PyObject *found = PyDict_GetItemWithError(*dict, state->names._fastloop);
    /* An application may have put another object under the name. */
    if (found == NULL || !Py_IS_TYPE(found, state->reader_type)) {
        return NULL;
    }
    return (FlReader *)found;
}

/* No native class yet means that fastloop.streams was not imported.  An exact
   type check suffices: an upgrade sets exactly this class, and a subclass
   that an application makes has no state. */
FlReader *
fl_reader_unchecked(FlState *state, PyObject *reader)
{
    PyObject *dict;
    if (state->native_reader == NULL
        || !Py_IS_TYPE(reader, (PyTypeObject *)state->native_reader))
    {
        return NULL;
    }
    return find_state(state, reader, &dict);
}

/* Whether the application neither kept nor filled the empty _buffer that it
   read: ours is the only reference, and the bytearray is empty. */
static bool
empty_buffer_is_unused(const FlReader *self)
{
    return self->empty_buffer == NULL
           || (Py_REFCNT(self->empty_buffer) == 1
               && PyByteArray_GET_SIZE(self->empty_buffer) == 0);
}

/* Whether asyncio's code would do the same as ours: no method was replaced,
   and nobody can see that the bytes are not in the _buffer. */
static bool
may_stay_native(const FlReader *self, PyObject *dict)
{
    return methods_are_plain(self->state)
           && (PyDict_GET_SIZE(dict) == 1 /* the state alone: invariant 1 */
               || object_is_plain(self->state, dict))
           && empty_buffer_is_unused(self);
}

/* For find_room, which must not downgrade: that runs code that may be the
   application's. */
FlReader *
fl_reader_peek(FlState *state, PyObject *reader)
{
    PyObject *dict;
    if (state->native_reader == NULL
        || !Py_IS_TYPE(reader, (PyTypeObject *)state->native_reader))
    {
        return NULL;
    }
    FlReader *self = find_state(state, reader, &dict);
    return self != NULL && may_stay_native(self, dict) ? self : NULL;
}

/* The check that each step of a method begins with. */
FlReader *
fl_reader_of(FlState *state, PyObject *reader)
{
    FlReader *self = fl_reader_peek(state, reader);
    /* Not allowed to stay native, and not plain yet. */
    if (FL_UNLIKELY(self == NULL) && !PyErr_Occurred()
        && fl_reader_unchecked(state, reader) != NULL)
    {
        /* On failure the exception stays set, for the caller. */
        (void)fl_reader_downgrade(state, reader);
    }
    return self;
}

/* --- attributes ---------------------------------------------------------- */

/* How an optional field reads as an attribute.  Borrowed. */
static PyObject *
or_none(PyObject *object)
{
    return object == NULL ? Py_None : object;
}

/* The same object each time, as a plain reader's _buffer is one object. */
PyObject *
fl_reader_empty_buffer(FlReader *self)
{
    if (self->empty_buffer == NULL) {
        self->empty_buffer = PyByteArray_FromStringAndSize(NULL, 0);
    }
    return Py_XNewRef(self->empty_buffer);
}

/* What a plain reader's _buffer would be.  An application may have kept the
   empty one that it read, so that object is used as long as there are no
   bytes.  A new reference. */
static PyObject *
buffer_of(FlReader *self)
{
    Py_ssize_t size = fl_byte_store_size(&self->store);
    if (size == 0 && self->empty_buffer != NULL) {
        return Py_NewRef(self->empty_buffer);
    }
    const char *data = fl_byte_store_data(&self->store);
    return data == NULL ? NULL : PyByteArray_FromStringAndSize(data, size);
}

/* In the order of asyncio's __init__, which vars() shows.  What else an
   application set is in the reader's __dict__ already. */
PyObject *
fl_reader_attributes(FlReader *self)
{
    const FlNames *names = &self->state->names;
    PyObject *dict = PyDict_New();
    PyObject *buffer = buffer_of(self);
    PyObject *limit = PyLong_FromSsize_t(self->limit_bytes);
    if (dict == NULL || buffer == NULL || limit == NULL
        || PyDict_SetItem(dict, names->_limit, limit) < 0
        || PyDict_SetItem(dict, names->_loop, or_none(self->loop)) < 0
        || PyDict_SetItem(dict, names->_buffer, buffer) < 0
        || PyDict_SetItem(dict, names->_eof, self->eof ? Py_True : Py_False)
               < 0
        || PyDict_SetItem(dict, names->_waiter, or_none(self->waiter)) < 0
        || PyDict_SetItem(dict, names->_exception, or_none(self->exception))
               < 0
        || PyDict_SetItem(dict, names->_transport, or_none(self->transport))
               < 0
        || PyDict_SetItem(dict, names->_paused,
                          self->paused ? Py_True : Py_False)
               < 0)
    {
        Py_CLEAR(dict);
    }
    Py_XDECREF(buffer);
    Py_XDECREF(limit);
    return dict;
}

/* A bool in a dict: 1 for True, 0 for False, -1 for anything else or if it is
   missing; then an exception may be set. */
static int
bool_in(PyObject *dict, PyObject *name)
{
    PyObject *value = PyDict_GetItemWithError(dict, name);
    return value == Py_True ? 1 : value == Py_False ? 0 : -1;
}

/* An object in a dict: *value is a new reference, NULL for None.  0, or -1 if
   it is missing; then an exception may be set. */
static int
object_in(PyObject *dict, PyObject *name, PyObject **value)
{
    PyObject *found = PyDict_GetItemWithError(dict, name);
    *value = found == Py_None ? NULL : Py_XNewRef(found);
    return found == NULL ? -1 : 0;
}

/* Copy the attributes of a plain reader into the state.  -1 if one is missing
   or of another type than asyncio's code gives it: such a reader is not
   upgraded.  An exception may be set, which the caller clears. */
static int
load_state(FlReader *self, PyObject *dict)
{
    const FlNames *names = &self->state->names;
    int eof = bool_in(dict, names->_eof);
    int paused = bool_in(dict, names->_paused);
    PyObject *buffer = PyDict_GetItemWithError(dict, names->_buffer);
    PyObject *limit = PyDict_GetItemWithError(dict, names->_limit);
    if (eof < 0 || paused < 0 || buffer == NULL || limit == NULL
        || !PyByteArray_CheckExact(buffer) || !PyLong_CheckExact(limit)
        || object_in(dict, names->_loop, &self->loop) < 0
        || object_in(dict, names->_waiter, &self->waiter) < 0
        || object_in(dict, names->_exception, &self->exception) < 0
        || object_in(dict, names->_transport, &self->transport) < 0)
    {
        return -1;
    }
    /* -1 with OverflowError if it is too large: rejected below. */
    self->limit_bytes = PyLong_AsSsize_t(limit);
    self->eof = eof;
    self->paused = paused;
    /* Twice the limit must not overflow (data_added). */
    if (self->loop == NULL || self->limit_bytes <= 0
        || self->limit_bytes > PY_SSIZE_T_MAX / 4)
    {
        return -1;
    }
    return PyByteArray_GET_SIZE(buffer) == 0
               ? 0
               : fl_byte_store_append(&self->store,
                                      PyByteArray_AS_STRING(buffer),
                                      PyByteArray_GET_SIZE(buffer));
}

/* Whether nobody but the reader uses its _buffer.  An application with a
   reference to it could read it later, and a coroutine that already waits in
   asyncio's code reads it when it wakes; both would find it empty for
   ever. */
static bool
buffer_is_private(const FlState *state, PyObject *dict)
{
    PyObject *buffer = PyDict_GetItemWithError(dict, state->names._buffer);
    return buffer != NULL && Py_REFCNT(buffer) == 1
           && PyDict_GetItemWithError(dict, state->names._waiter) == Py_None;
}

/* A state with the attributes of a plain reader, whose dict is given.  NULL if
   it cannot be upgraded; an exception may be set. */
static FlReader *
reader_new(FlState *state, PyObject *dict)
{
    PyTypeObject *type = state->reader_type;
    FlReader *self = (FlReader *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    if (load_state(self, dict) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

/* The __dict__ of a native reader: the state, and of the plain reader's dict
   what is not the state's, such as _source_traceback or an attribute that an
   application set.  The copy makes the iteration safe: comparing keys may run
   Python code, which may change the original. */
static PyObject *
native_dict(FlState *state, PyObject *plain, FlReader *self)
{
    PyObject *dict = PyDict_Copy(plain);
    PyObject *attributes = dict == NULL ? NULL : fl_reader_attributes(self);
    PyObject *native = attributes == NULL ? NULL : PyDict_New();
    PyObject *name, *value;
    Py_ssize_t at = 0;
    int code = native == NULL ? -1
                              : PyDict_SetItem(native, state->names._fastloop,
                                               (PyObject *)self);
    while (code == 0 && PyDict_Next(dict, &at, &name, &value)) {
        int ours = PyDict_Contains(attributes, name);
        if (ours != 0) {
            code = ours < 0 ? -1 : 0;
        }
        else {
            code = PyDict_SetItem(native, name, value);
        }
    }
    Py_XDECREF(dict);
    Py_XDECREF(attributes);
    if (code < 0) {
        Py_CLEAR(native);
    }
    return native;
}

int
fl_reader_set_class(FlState *state, PyObject *reader, PyObject *type)
{
    PyObject *attribute = state->object_class;
    return Py_TYPE(attribute)->tp_descr_set(attribute, reader, type);
}

/* Make a reader native, with a __dict__ that has its state.  The class first:
   invariant 2.  0 or -1. */
static int
switch_class(FlState *state, PyObject *reader, PyObject *native)
{
    if (fl_reader_set_class(state, reader, state->native_reader) < 0) {
        return -1;
    }
    return PyObject_GenericSetDict(reader, native, NULL);
}

/* Exact types only: an application's subclass, or a changed class, keeps
   asyncio's code.  Everything that is needed is made before the reader
   changes. */
void
fl_reader_upgrade(FlState *state, PyObject *reader)
{
    if (state->native_reader == NULL
        || !Py_IS_TYPE(reader, (PyTypeObject *)state->asyncio_reader_type)
        || !methods_are_plain(state))
    {
        return;
    }
    PyObject *dict = PyObject_GenericGetDict(reader, NULL);
    FlReader *self = NULL;
    PyObject *native = NULL;
    if (dict != NULL && object_is_plain(state, dict)
        && buffer_is_private(state, dict))
    {
        self = reader_new(state, dict);
        native = self == NULL ? NULL : native_dict(state, dict, self);
    }
    if (native != NULL) {
        (void)switch_class(state, reader, native);
    }
    PyErr_Clear(); /* the reader stays plain: asyncio's code handles it */
    Py_XDECREF(self);
    Py_XDECREF(native);
    Py_XDECREF(dict);
}

/* Readers keep working after a failure: see invariant 2.  `downgraded` tells
   callers further up the stack, which own a reference, that the state is
   stale. */
int
fl_reader_downgrade(FlState *state, PyObject *reader)
{
    PyObject *dict;
    FlReader *self = find_state(state, reader, &dict);
    if (self == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    /* Both are borrowed: removing the state from the dict may drop its last
       reference, and dropping the old attributes may run Python code that
       replaces the dict. */
    Py_INCREF(self);
    Py_INCREF(dict);
    /* Attributes, then the class, then the state: invariant 2. */
    PyObject *plain = fl_reader_attributes(self);
    int code = plain == NULL ? -1 : PyDict_Update(dict, plain);
    if (code == 0) {
        code = fl_reader_set_class(state, reader, state->asyncio_reader_type);
    }
    if (code == 0) {
        code = PyDict_DelItem(dict, state->names._fastloop);
        self->downgraded = true;
    }
    Py_XDECREF(plain);
    Py_DECREF(dict);
    Py_DECREF(self);
    return code;
}

/* --- feeding and waiting ------------------------------------------------- */

/* asyncio's _wakeup_waiter.  0 or -1. */
static int
wake(FlReader *self)
{
    const FlNames *names = &self->state->names;
    PyObject *waiter = self->waiter;
    if (waiter == NULL) {
        return 0;
    }
    /* First: the calls below may run Python code, which may begin to wait. */
    self->waiter = NULL;
    self->wanted_bytes = 0;
    /* By the methods' names: an application's loop may create futures of any
       class. */
    int cancelled = fl_call_truth(waiter, names->cancelled);
    PyObject *done =
        cancelled == 0
            ? PyObject_CallMethodOneArg(waiter, names->set_result, Py_None)
            : NULL;
    Py_DECREF(waiter);
    Py_XDECREF(done);
    return cancelled > 0 || done != NULL ? 0 : -1;
}

/* As asyncio's feed_data does it.  0 or -1. */
static int
pause_transport(FlReader *self)
{
    PyObject *transport = Py_NewRef(self->transport);
    self->paused = true; /* first: the call may downgrade, which copies it */
    PyObject *done =
        PyObject_CallMethodNoArgs(transport, self->state->names.pause_reading);
    Py_DECREF(transport);
    if (done != NULL) {
        Py_DECREF(done);
        return 0;
    }
    self->paused = false;
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        return -1;
    }
    PyErr_Clear(); /* it cannot pause: asyncio does not try again either */
    Py_CLEAR(self->transport);
    return 0;
}

/* 0 or -1.  Without a transport the call on None raises AttributeError, as in
   asyncio. */
static int
resume_transport(FlReader *self)
{
    self->paused = false;
    PyObject *transport = Py_NewRef(or_none(self->transport));
    PyObject *done =
        PyObject_CallMethodNoArgs(transport,
                                  self->state->names.resume_reading);
    Py_DECREF(transport);
    return fl_call_done(done);
}

/* After bytes were added: wake the waiter, then pause the transport if more
   than twice the limit is stored.  0 or -1. */
static int
data_added(FlReader *self)
{
    if (wake(self) < 0) {
        return -1;
    }
    /* If waking downgraded the reader, the state is stale.  The plain reader
       pauses the transport itself when it receives more. */
    return self->transport != NULL && !self->paused && !self->downgraded
                   && fl_byte_store_size(&self->store) > 2 * self->limit_bytes
               ? pause_transport(self)
               : 0;
}

/* The checks are asyncio's, in its order. */
int
fl_reader_feed(FlReader *self, const char *data, Py_ssize_t size_bytes)
{
    if (self->eof) {
        PyErr_SetString(PyExc_AssertionError, "feed_data after feed_eof");
        return -1;
    }
    if (size_bytes == 0) {
        return 0;
    }
    if (fl_byte_store_append(&self->store, data, size_bytes) < 0) {
        return -1;
    }
    return data_added(self);
}

int
fl_reader_filled(FlReader *self, const struct iovec *memory,
                 Py_ssize_t got_bytes)
{
    int code = fl_byte_store_filled(&self->store, memory, got_bytes);
    return code < 0 || got_bytes == 0 ? code : data_added(self);
}

int
fl_reader_maybe_resume(FlReader *self)
{
    return self->paused
                   && fl_byte_store_size(&self->store) <= self->limit_bytes
               ? resume_transport(self)
               : 0;
}

/* asyncio's _wait_for_data, without its await: fastloop/streams.py awaits the
   future, and the next step drops it. */
PyObject *
fl_reader_wait(FlReader *self, const char *name, Py_ssize_t wanted_bytes)
{
    if (self->waiter != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s() called while another coroutine is already waiting "
                     "for incoming data",
                     name);
        return NULL;
    }
    if (self->eof) {
        PyErr_SetString(PyExc_AssertionError, "_wait_for_data after EOF");
        return NULL;
    }
    /* A read that waits while the transport is paused would never end. */
    if (self->paused && resume_transport(self) < 0) {
        return NULL;
    }
    PyObject *waiter =
        PyObject_CallMethodNoArgs(or_none(self->loop),
                                  self->state->names.create_future);
    if (waiter == NULL) {
        return NULL;
    }
    /* resume_reading or create_future may be the application's and downgrade
       the reader.  Our waiter would not be seen by asyncio's code. */
    if (self->downgraded) {
        Py_DECREF(waiter);
        return Py_None;
    }
    /* The state owns the future; the caller borrows it.  create_future may
       have run code that began to wait as well: as in asyncio, the later one
       replaces the earlier. */
    Py_XSETREF(self->waiter, waiter);
    self->wanted_bytes = wanted_bytes;
    return waiter;
}

/* --- the type ------------------------------------------------------------ */

/* The empty_buffer is not visited: a bytearray refers to nothing. */
static int
reader_traverse(FlReader *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->waiter);
    Py_VISIT(self->exception);
    Py_VISIT(self->transport);
    return 0;
}

static int
reader_clear(FlReader *self)
{
    Py_CLEAR(self->loop);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->exception);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->empty_buffer);
    return 0;
}

/* The memory that the kernel writes into is never freed here: state->filling
   owns the state meanwhile (reader_protocol.c). */
static void
reader_dealloc(FlReader *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)reader_clear(self);
    /* All of it: frees the objects. */
    fl_byte_store_drop(&self->store, PY_SSIZE_T_MAX);
    type->tp_free(self);
    Py_DECREF(type);
}

static const char reader_doc[] = "The state of a native stream reader.";

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, (void *)reader_doc},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "fastloop._core.StreamState",
    .basicsize = sizeof(FlReader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};

/* Keeps object's own __class__ descriptor: see fl_reader_set_class. */
int
fl_native_reader_register(PyObject *module, FlState *state)
{
    PyObject *object = (PyObject *)&PyBaseObject_Type;
    PyObject *dict = PyObject_GetAttrString(object, "__dict__");
    if (dict == NULL) {
        return -1;
    }
    state->object_class = PyMapping_GetItemString(dict, "__class__");
    state->reader_type = fl_type_add(module, &reader_spec, NULL);
    Py_DECREF(dict);
    return state->object_class == NULL || state->reader_type == NULL ? -1 : 0;
}
