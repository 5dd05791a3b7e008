/* The state of native readers: upgrade, downgrade, attributes.

   1. A native reader's __dict__ has the state under the name _fastloop and
      nothing else.  So one comparison of the dict's size shows whether the
      application set anything on the object, maybe a method.
   2. Whichever step of an upgrade or a downgrade fails, the reader works.  An
      upgrade changes the class first, then the __dict__: the native class runs
      asyncio's code for an object without a state (4).  A downgrade adds the
      attributes to the __dict__, then removes the state, then changes the
      class, as an audit hook may use the reader there.
   3. What decides whether a reader may stay native is checked by each call,
      not cached, except for the methods of asyncio's class
      (fl_reader_methods_are_plain).
   4. Each of its descriptors works for three kinds of object: a native reader,
      whose value is in its state; an instance without a state, whose value is
      in its __dict__; and a reader that the access itself downgrades, after
      which the access is repeated on the plain reader. */
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

bool
fl_reader_methods_are_plain(FlState *state)
{
    return fl_class_is_plain(state, &state->reader_seen,
                             state->asyncio_reader_type, check_methods);
}

/* --- finding ------------------------------------------------------------- */

/* No native class yet means that fastloop.streams was not imported.  An exact
   type check suffices: an upgrade sets exactly this class, and a subclass that
   an application makes has no state. */
FlReader *
fl_reader_find(FlState *state, PyObject *reader, PyObject **dict)
{
    if (!Py_IS_TYPE(reader, (PyTypeObject *)state->native_reader_type)) {
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
    return fl_reader_find(state, reader, &dict);
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

/* Whether a plain reader with this __dict__ can become native: it has as many
   attributes as asyncio's __init__ sets, and nobody else uses the _buffer,
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

/* A state with the attributes of a plain reader, whose dict is given.  NULL,
   perhaps with an exception, if one is missing or of another type than
   asyncio's code gives it. */
static FlReader *
reader_new(FlState *state, PyObject *dict)
{
    PyTypeObject *type = state->reader_type;
    FlReader *self = (FlReader *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    Py_INCREF(state->module);
    int code = 0;
    for (size_t at = 0; code == 0 && at < ATTRIBUTE_COUNT; at++) {
        PyObject *name = fl_name_at(state, attributes[at]);
        if (name == state->names._buffer) {
            continue; /* it is empty: may_upgrade */
        }
        PyObject *value = PyDict_GetItemWithError(dict, name);
        code = value == NULL ? -1
                             : PyObject_SetAttr((PyObject *)self, name, value);
    }
    if (code < 0) {
        Py_CLEAR(self);
    }
    return self;
}

/* Set __class__ with object's own descriptor, past ours and past a class's
   __setattr__.  0 or -1. */
static int
change_class(FlState *state, PyObject *reader, PyObject *type)
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
    if (state->native_reader_type == NULL
        || !Py_IS_TYPE(reader, (PyTypeObject *)state->asyncio_reader_type)
        || !fl_reader_methods_are_plain(state))
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
        && change_class(state, reader, state->native_reader_type) == 0)
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
    FlReader *self = fl_reader_find(state, reader, &dict);
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
        && change_class(state, reader, state->asyncio_reader_type) < 0) {
        code = PyErr_ExceptionMatches(PyExc_Exception) ? 0 : -1;
        if (code == 0) {
            PyErr_Clear(); /* the reader works as it is */
        }
    }
    Py_XDECREF(plain);
    Py_DECREF(dict);
    Py_DECREF(self);
    return code;
}

/* --- NativeReader's attributes ------------------------------------------- */

/* Declared here for module_state_of, which recognizes our type by it. */
static PyGetSetDef getset[11];

/* The module state of the reader's class.  CPython passes no module to a
   descriptor, so this finds our type among the base classes.  It is the base
   class of fastloop.streams.StreamReader.  An application's subclass may have
   other bases, so the method resolution order is searched next.  It has our
   type, or this descriptor would not run. */
static FlState *
module_state_of(PyObject *reader)
{
    PyTypeObject *type = Py_TYPE(reader)->tp_base;
    PyObject *order = Py_TYPE(reader)->tp_mro;
    for (Py_ssize_t at = 0; type->tp_getset != getset; at++) {
        type = (PyTypeObject *)PyTuple_GET_ITEM(order, at);
    }
    return PyType_GetModuleState(type);
}

/* The attribute of an instance without a state: from its __dict__. */
static PyObject *
get_plain(PyObject *reader, PyObject *name)
{
    PyObject *dict = PyObject_GenericGetDict(reader, NULL);
    PyObject *value = NULL;
    if (dict != NULL && PyDict_GetItemRef(dict, name, &value) == 0) {
        PyErr_SetObject(PyExc_AttributeError, name);
    }
    Py_XDECREF(dict);
    return value;
}

/* The same for setting it, and for deleting it (value NULL). */
static int
set_plain(PyObject *reader, PyObject *name, PyObject *value)
{
    PyObject *dict = PyObject_GenericGetDict(reader, NULL);
    int code = dict == NULL    ? -1
               : value == NULL ? PyDict_DelItem(dict, name)
                               : PyDict_SetItem(dict, name, value);
    Py_XDECREF(dict);
    return code;
}

/* The getter of all attributes: `closure` is the name's offset in FlNames. */
static PyObject *
get(PyObject *reader, void *closure)
{
    FlState *state = module_state_of(reader);
    PyObject *name = fl_name_at(state, (size_t)closure);
    FlReader *self = fl_reader_unchecked(state, reader);
    if (self == NULL) {
        return PyErr_Occurred() ? NULL : get_plain(reader, name);
    }
    /* While the _buffer is empty an application may read it and the reader
       stays native; see native_reader.h. */
    if (name != state->names._buffer || self->store.size_bytes == 0) {
        return PyObject_GetAttr((PyObject *)self, name);
    }
    return fl_reader_downgrade(state, reader) < 0
               ? NULL
               : PyObject_GetAttr(reader, name);
}

/* The setter of all attributes. */
static int
set(PyObject *reader, PyObject *value, void *closure)
{
    FlState *state = module_state_of(reader);
    PyObject *name = fl_name_at(state, (size_t)closure);
    FlReader *self = fl_reader_unchecked(state, reader);
    if (self == NULL) {
        return PyErr_Occurred() ? -1 : set_plain(reader, name, value);
    }
    Py_INCREF(self); /* dropping the previous value may downgrade the reader */
    Py_ssize_t limit_bytes = self->limit_bytes;
    bool done =
        value != NULL && PyObject_SetAttr((PyObject *)self, name, value) == 0;
    if (!done && name == state->names._limit) {
        self->limit_bytes = limit_bytes; /* CPython has stored -1 */
    }
    Py_DECREF(self);
    if (done) {
        return 0;
    }
    PyErr_Clear(); /* the state cannot represent it: a plain reader accepts */
    if (fl_reader_downgrade(state, reader) < 0) {
        return -1;
    }
    /* The class is asyncio's now, so this sets or deletes a plain attribute.
       If an audit hook has refused that class, set_plain does. */
    return PyObject_SetAttr(reader, name, value);
}

/* --- __dict__, __class__ ------------------------------------------------- */

/* An application that uses __dict__ may read or change any attribute through
   it, so the reader becomes plain first. */
static PyObject *
get_dict(PyObject *reader, void *Py_UNUSED(closure))
{
    return fl_reader_downgrade(module_state_of(reader), reader) < 0
               ? NULL
               : PyObject_GenericGetDict(reader, NULL);
}

static int
set_dict(PyObject *reader, PyObject *value, void *Py_UNUSED(closure))
{
    return fl_reader_downgrade(module_state_of(reader), reader) < 0
               ? -1
               : PyObject_GenericSetDict(reader, value, NULL);
}

/* As object's own getter, which our descriptor hides. */
static PyObject *
get_class(PyObject *reader, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)Py_TYPE(reader));
}

/* Any other class expects the attributes in the __dict__, so the reader
   becomes plain first. */
static int
set_class(PyObject *reader, PyObject *value, void *Py_UNUSED(closure))
{
    FlState *state = module_state_of(reader);
    return fl_reader_downgrade(state, reader) < 0
               ? -1
               : change_class(state, reader, value);
}

/* --- the types ----------------------------------------------------------- */

/* The empty_buffer is not visited: a bytearray refers to nothing. */
static int
reader_traverse(FlReader *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->state->module);
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
   owns the state meanwhile (reader.c). */
static void
reader_dealloc(FlReader *self)
{
    PyObject *module = self->state->module;
    PyObject_GC_UnTrack(self);
    (void)reader_clear(self);
    /* All of it: frees the objects. */
    fl_byte_store_drop(&self->store, PY_SSIZE_T_MAX);
    fl_object_free(self);
    Py_DECREF(module); /* it owns the state */
}

/* The attributes by asyncio's names.  NULL reads as None.  Setting one raises
   TypeError or OverflowError for a value that the field cannot represent
   (_limit is -1 then), and AttributeError for the _buffer. */
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

#define GETSET(name)                                           \
    {                                                          \
#name, get, set, NULL, (void *)offsetof(FlNames, name) \
    }

static PyGetSetDef getset[11] = {
    GETSET(_loop),
    GETSET(_waiter),
    GETSET(_exception),
    GETSET(_transport),
    GETSET(_eof),
    GETSET(_paused),
    GETSET(_limit),
    GETSET(_buffer),
    {"__dict__", get_dict, set_dict, NULL, NULL},
    {"__class__", get_class, set_class, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static const char native_doc[] =
    "An asyncio.StreamReader whose state is in C; see fastloop.streams.";

static PyType_Slot native_slots[] = {
    {Py_tp_doc, (void *)native_doc},
    {Py_tp_getset, getset},
    {0, NULL},
};

int
fl_native_reader_register(PyObject *module, FlState *state)
{
    /* Keep object's own __class__ descriptor: see change_class. */
    PyObject *object = (PyObject *)&PyBaseObject_Type;
    PyObject *dict = PyObject_GetAttrString(object, "__dict__");
    if (dict == NULL) {
        return -1;
    }
    state->object_class = PyMapping_GetItemString(dict, "__class__");
    Py_DECREF(dict);
    PyType_Spec spec = {"fastloop._core.StreamState", sizeof(FlReader), 0,
                        FL_TYPE_FLAGS | Py_TPFLAGS_IMMUTABLETYPE,
                        reader_slots};
    state->reader_type = fl_type_add(module, &spec, NULL);
    if (state->object_class == NULL || state->reader_type == NULL) {
        return -1;
    }
    /* The size is 0: __class__ can be changed both ways. */
    PyType_Spec native_spec = {"fastloop._core.NativeReader", 0, 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                               native_slots};
    return fl_call_done((PyObject *)fl_type_add(module, &native_spec,
                                                state->asyncio_reader_type));
}
