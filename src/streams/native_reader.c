/* The state of native readers: upgrade, downgrade, feeding, waiting.

   1. A native reader's __dict__ has the state under the name _fastloop and
      nothing else.  So one comparison of the dict's size shows whether the
      application set anything on the object, maybe a method.
   2. Whichever step of an upgrade or a downgrade fails, the reader works.  An
      upgrade changes the class first, then the __dict__: the native class runs
      asyncio's code for an object without a state (reader_type.c).  A
      downgrade adds the attributes to the __dict__, then removes the state,
      then changes the class, as an audit hook may use the reader there.
   3. Calls into Python may downgrade the reader.  The state then is stale: it
      still works, but nobody reads it any more.  Code that goes on after such
      a call checks `downgraded`.
   4. What decides whether a reader may stay native is checked by each call,
      not cached, except for the methods of asyncio's class
      (methods_are_plain). */
#include "streams/native_reader.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/methods.h"
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
    offsetof(FlNames, _wakeup_waiter),
    offsetof(FlNames, _wait_for_data),
    offsetof(FlNames, _maybe_resume_transport),
};

#define METHOD_COUNT (sizeof(c_methods) / sizeof(c_methods[0]))

/* What asyncio's __init__ sets, in its order, which vars() shows.  In debug
   mode it also sets _source_traceback: such a reader stays plain. */
static const size_t attributes[] = {
    offsetof(FlNames, _limit),     offsetof(FlNames, _loop),
    offsetof(FlNames, _buffer),    offsetof(FlNames, _eof),
    offsetof(FlNames, _waiter),    offsetof(FlNames, _exception),
    offsetof(FlNames, _transport), offsetof(FlNames, _paused),
};

#define ATTRIBUTE_COUNT (sizeof(attributes) / sizeof(attributes[0]))

/* Whether asyncio.StreamReader has asyncio's methods. */
static bool
check_methods(const FlState *state)
{
    bool plain = true;
    for (size_t at = 0; plain && at < METHOD_COUNT; at++) {
        PyObject *method = PyObject_GetAttr(state->asyncio_reader_type,
                                            fl_name_at(state, c_methods[at]));
        plain = fl_method_is_from(method, state->stream_globals);
        Py_XDECREF(method);
    }
    PyErr_Clear(); /* a missing method: asyncio's code raises that */
    return plain;
}

static bool
methods_are_plain(FlState *state)
{
    return fl_class_is_plain(state, &state->reader_seen,
                             state->asyncio_reader_type, check_methods);
}

/* --- finding ------------------------------------------------------------- */

/* The state in a reader's __dict__, and that dict.  Both are borrowed: the
   reader owns the dict, and the dict the state.  NULL without an exception if
   the reader is a plain one.  No native class yet means that fastloop.streams
   was not imported.  An exact type check suffices: an upgrade sets exactly
   this class, and a subclass that an application makes has no state. */
static FlReader *
find_state(FlState *state, PyObject *reader, PyObject **dict)
{
    if (!Py_IS_TYPE(reader, (PyTypeObject *)state->native_reader)) {
        return NULL;
    }
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

FlReader *
fl_reader_unchecked(FlState *state, PyObject *reader)
{
    PyObject *dict;
    return find_state(state, reader, &dict);
}

/* Native as long as asyncio's code would do the same: no method was replaced,
   and nobody can see that the bytes are not in the _buffer. */
FlReader *
fl_reader_peek(FlState *state, PyObject *reader)
{
    /* First: this may run Python, which may drop what find_state borrows. */
    bool plain = methods_are_plain(state);
    PyObject *dict;
    FlReader *self = find_state(state, reader, &dict);
    bool stays =
        self != NULL && plain && PyDict_GET_SIZE(dict) == 1; /* invariant 1 */
    if (stays && self->empty_buffer != NULL) {
        /* The application neither kept nor filled the empty _buffer that it
           read: ours is the only reference, and the bytearray is empty. */
        stays = Py_REFCNT(self->empty_buffer) == 1
                && PyByteArray_GET_SIZE(self->empty_buffer) == 0;
    }
    return stays ? self : NULL;
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

/* --- upgrade, downgrade -------------------------------------------------- */

/* The _buffer of a native reader.  While it is empty it is the same object
   each time, as a plain reader's is.  Otherwise it is a copy, which only a
   downgrade makes. */
static PyObject *
get_buffer(FlReader *self, void *Py_UNUSED(closure))
{
    Py_ssize_t size = self->store.size_bytes;
    if (size > 0) {
        const char *data = fl_byte_store_data(&self->store);
        return data == NULL ? NULL : PyByteArray_FromStringAndSize(data, size);
    }
    if (self->empty_buffer == NULL) {
        self->empty_buffer = PyByteArray_FromStringAndSize(NULL, 0);
    }
    return Py_XNewRef(self->empty_buffer);
}

/* A new dict of the attributes that a plain reader would have. */
static PyObject *
attributes_of(FlReader *self)
{
    PyObject *dict = PyDict_New();
    for (size_t at = 0; dict != NULL && at < ATTRIBUTE_COUNT; at++) {
        PyObject *name = fl_name_at(self->state, attributes[at]);
        PyObject *value = PyObject_GetAttr((PyObject *)self, name);
        if (value == NULL || PyDict_SetItem(dict, name, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(value);
    }
    return dict;
}

/* Whether a plain reader with this __dict__ can become native: nothing but
   asyncio's __init__ has set attributes, and nobody else uses the _buffer,
   which is empty.  An application with a reference to it could read it later,
   and a coroutine that already waits in asyncio's code reads it when it wakes;
   both would find it empty for ever. */
static bool
may_upgrade(const FlState *state, PyObject *dict)
{
    PyObject *buffer = PyDict_GetItemWithError(dict, state->names._buffer);
    return PyDict_GET_SIZE(dict) == ATTRIBUTE_COUNT && buffer != NULL
           && PyByteArray_CheckExact(buffer) && Py_REFCNT(buffer) == 1
           && PyByteArray_GET_SIZE(buffer) == 0
           && PyDict_GetItemWithError(dict, state->names._waiter) == Py_None;
}

/* A state with the attributes of a plain reader, whose dict is given.  NULL
   with an exception if one is missing or of another type than asyncio's code
   gives it. */
static FlReader *
reader_new(FlState *state, PyObject *dict)
{
    PyTypeObject *type = state->reader_type;
    FlReader *self = (FlReader *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    int code = 0;
    for (size_t at = 0; code == 0 && at < ATTRIBUTE_COUNT; at++) {
        PyObject *name = fl_name_at(state, attributes[at]);
        PyObject *value = PyDict_GetItemWithError(dict, name);
        if (name != state->names._buffer) { /* it is empty: may_upgrade */
            code = value == NULL
                       ? -1
                       : PyObject_SetAttr((PyObject *)self, name, value);
        }
    }
    if (code < 0) {
        Py_CLEAR(self);
    }
    return self;
}

int
fl_reader_set_class(FlState *state, PyObject *reader, PyObject *type)
{
    PyObject *attribute = state->object_class;
    return Py_TYPE(attribute)->tp_descr_set(attribute, reader, type);
}

/* Exact types only: an application's subclass, or a changed class, keeps
   asyncio's code.  Everything that is needed is made before the reader
   changes: the class first (invariant 2). */
void
fl_reader_upgrade(FlState *state, PyObject *reader)
{
    if (state->native_reader == NULL
        || !Py_IS_TYPE(reader, (PyTypeObject *)state->asyncio_reader_type)
        || !methods_are_plain(state))
    {
        return;
    }
    PyObject *plain = PyObject_GenericGetDict(reader, NULL);
    FlReader *self = plain != NULL && may_upgrade(state, plain)
                         ? reader_new(state, plain)
                         : NULL;
    PyObject *native = self == NULL ? NULL : PyDict_New();
    if (native != NULL
        && PyDict_SetItem(native, state->names._fastloop, (PyObject *)self)
               == 0
        && fl_reader_set_class(state, reader, state->native_reader) == 0)
    {
        (void)PyObject_GenericSetDict(reader, native, NULL);
    }
    PyErr_Clear(); /* the reader stays plain: asyncio's code handles it */
    Py_XDECREF(native);
    Py_XDECREF(self);
    Py_XDECREF(plain);
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
    /* Attributes, then the state, then the class: invariant 2. */
    PyObject *plain = attributes_of(self);
    int code = plain == NULL ? -1 : PyDict_Update(dict, plain);
    if (code == 0) {
        code = PyDict_DelItem(dict, state->names._fastloop);
        self->downgraded = true;
    }
    /* If an audit hook refuses this, the native class runs asyncio's code for
       an object without a state. */
    if (code == 0
        && fl_reader_set_class(state, reader, state->asyncio_reader_type) < 0)
    {
        code = PyErr_ExceptionMatches(PyExc_Exception) ? 0 : -1;
        if (code == 0) {
            PyErr_Clear();
        }
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

/* As asyncio's feed_data does it.  0 or -1. */
static int
pause_transport(FlReader *self)
{
    self->paused = true; /* first: the call may downgrade, which copies it */
    if (fl_call_method(self->transport, self->state->names.pause_reading, NULL)
        == 0)
    {
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
    return fl_call_method(self->transport == NULL ? Py_None : self->transport,
                          self->state->names.resume_reading, NULL);
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
    if (self->downgraded || self->paused || !fl_reader_has(self->transport)) {
        return 0;
    }
    /* An application may set any limit: no product, which could overflow. */
    Py_ssize_t size = self->store.size_bytes;
    Py_ssize_t limit = self->limit_bytes;
    return limit < 0 || size - limit > limit ? pause_transport(self) : 0;
}

int
fl_reader_feed(FlReader *self, const char *data, Py_ssize_t size_bytes)
{
    return fl_byte_store_append(&self->store, data, size_bytes) < 0
               ? -1
               : data_added(self);
}

int
fl_reader_filled(FlReader *self, const struct iovec *memory,
                 Py_ssize_t got_bytes)
{
    int code = fl_byte_store_filled(&self->store, memory, got_bytes);
    return code < 0 || got_bytes == 0 ? code : data_added(self);
}

PyObject *
fl_reader_take(FlReader *self, Py_ssize_t size_bytes)
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

/* asyncio's _wait_for_data, without its await: fastloop/streams.py awaits the
   future, and the next step drops it. */
PyObject *
fl_reader_wait(FlReader *self, Py_ssize_t wanted_bytes)
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
    PyObject_GC_UnTrack(self);
    (void)reader_clear(self);
    /* All of it: frees the objects. */
    fl_byte_store_drop(&self->store, PY_SSIZE_T_MAX);
    fl_object_free(self);
}

/* The attributes by asyncio's names.  NULL reads as None.  Setting one raises
   TypeError for a value that the field cannot represent, and AttributeError
   for the _buffer. */
static PyMemberDef reader_members[] = {
    {"_loop", FL_T_OBJECT, offsetof(FlReader, loop), 0, NULL},
    {"_waiter", FL_T_OBJECT, offsetof(FlReader, waiter), 0, NULL},
    {"_exception", FL_T_OBJECT, offsetof(FlReader, exception), 0, NULL},
    {"_transport", FL_T_OBJECT, offsetof(FlReader, transport), 0, NULL},
    {"_limit", Py_T_PYSSIZET, offsetof(FlReader, limit_bytes), 0, NULL},
    {"_eof", Py_T_BOOL, offsetof(FlReader, eof), 0, NULL},
    {"_paused", Py_T_BOOL, offsetof(FlReader, paused), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef reader_getset[] = {
    {"_buffer", (getter)get_buffer, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static const char reader_doc[] = "The state of a native stream reader.";

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, (void *)reader_doc},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_members, reader_members},
    {Py_tp_getset, reader_getset},
    {0, NULL},
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
    PyType_Spec spec = {"fastloop._core.StreamState", sizeof(FlReader), 0,
                        FL_TYPE_FLAGS | Py_TPFLAGS_IMMUTABLETYPE,
                        reader_slots};
    state->reader_type = fl_type_add(module, &spec, NULL);
    Py_DECREF(dict);
    return state->object_class == NULL || state->reader_type == NULL ? -1 : 0;
}
