/* The state of native readers: adopting, giving back, feeding, waiting. */
#include "streams/native_reader.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"

/* What C does in the place of asyncio's: methods of asyncio.StreamReader. */
static const size_t replaced[] = {
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

#define REPLACED (sizeof(replaced) / sizeof(replaced[0]))

static PyObject *
name_at(const FlState *state, size_t offset)
{
    return *(PyObject *const *)((const char *)&state->names + offset);
}

/* --- whether a program has methods of its own ---------------------------- */

/* CPython's are functions of asyncio.streams, and of no other module. */
static bool
class_is_plain(const FlState *state, PyObject *type)
{
    for (size_t at = 0; at < REPLACED; at++) {
        PyObject *method =
            PyObject_GetAttr(type, name_at(state, replaced[at]));
        bool plain = method != NULL && PyFunction_Check(method)
                     && PyFunction_GetGlobals(method) == state->stream_globals;
        Py_XDECREF(method);
        if (!plain) {
            PyErr_Clear(); /* asyncio's code will say that it is missing */
            return false;
        }
    }
    return true;
}

/* The same, with a memory: a class that is changed has another version. */
static bool
methods_are_plain(FlState *state)
{
    PyTypeObject *type = (PyTypeObject *)state->asyncio_reader;
    unsigned version = fl_type_version(type);
    if (FL_UNLIKELY(version == 0 || version != state->reader_version)) {
        state->reader_is_plain = class_is_plain(state, state->asyncio_reader);
        state->reader_version = fl_type_version(type);
    }
    return state->reader_is_plain;
}

/* Whether none of the methods was set on the object. */
static bool
object_is_plain(const FlState *state, PyObject *dict)
{
    for (size_t at = 0; at < REPLACED; at++) {
        int found = PyDict_Contains(dict, name_at(state, replaced[at]));
        if (found != 0) {
            PyErr_Clear(); /* a key that cannot be compared: not plain */
            return false;
        }
    }
    return true;
}

/* --- finding ------------------------------------------------------------- */

/* Borrowed, from a dict that the reader keeps alive. */
static FlReader *
find(FlState *state, PyObject *reader, PyObject **dict)
{
    *dict = PyObject_GenericGetDict(reader, NULL);
    if (*dict == NULL) {
        return NULL;
    }
    Py_DECREF(*dict);
    PyObject *found = PyDict_GetItemWithError(*dict, state->names._fastloop);
    if (found == NULL || !Py_IS_TYPE(found, state->reader_type)) {
        return NULL;
    }
    return (FlReader *)found;
}

FlReader *
fl_reader_behind(FlState *state, PyObject *reader)
{
    PyObject *dict;
    if (state->native_reader == NULL
        || !Py_IS_TYPE(reader, (PyTypeObject *)state->native_reader))
    {
        return NULL;
    }
    return find(state, reader, &dict);
}

/* Whether nobody has the buffer that was shown, nor has put anything in it. */
static bool
shown_is_empty(const FlReader *self)
{
    return self->shown == NULL
           || (Py_REFCNT(self->shown) == 1
               && PyByteArray_GET_SIZE(self->shown) == 0);
}

/* Whether nothing of asyncio's was replaced. */
static bool
stays_native(const FlReader *self, PyObject *dict)
{
    return methods_are_plain(self->state)
           && (PyDict_GET_SIZE(dict) == 1
               || object_is_plain(self->state, dict))
           && shown_is_empty(self);
}

FlReader *
fl_reader_peek(FlState *state, PyObject *reader)
{
    PyObject *dict;
    if (state->native_reader == NULL
        || !Py_IS_TYPE(reader, (PyTypeObject *)state->native_reader))
    {
        return NULL;
    }
    FlReader *self = find(state, reader, &dict);
    return self != NULL && stays_native(self, dict) ? self : NULL;
}

FlReader *
fl_reader_of(FlState *state, PyObject *reader)
{
    FlReader *self = fl_reader_peek(state, reader);
    if (FL_UNLIKELY(self == NULL) && !PyErr_Occurred()
        && fl_reader_behind(state, reader) != NULL)
    {
        (void)fl_reader_downgrade(state, reader);
    }
    return self;
}

/* --- attributes ---------------------------------------------------------- */

static PyObject *
or_none(PyObject *object)
{
    return object == NULL ? Py_None : object;
}

PyObject *
fl_reader_show_empty(FlReader *self)
{
    if (self->shown == NULL) {
        self->shown = PyByteArray_FromStringAndSize(NULL, 0);
    }
    return Py_XNewRef(self->shown);
}

/* A new reference. */
static PyObject *
buffer_of(FlReader *self)
{
    Py_ssize_t size = fl_byte_store_size(&self->store);
    if (size == 0 && self->shown != NULL) {
        return Py_NewRef(self->shown);
    }
    const char *data = fl_byte_store_data(&self->store);
    return data == NULL ? NULL : PyByteArray_FromStringAndSize(data, size);
}

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

/* A truth of a dict: exactly True or False; else -1. */
static int
truth_in(PyObject *dict, PyObject *name)
{
    PyObject *value = PyDict_GetItemWithError(dict, name);
    return value == Py_True ? 1 : value == Py_False ? 0 : -1;
}

/* An object of a dict in *value, a new reference, NULL for None.  0 or -1. */
static int
object_in(PyObject *dict, PyObject *name, PyObject **value)
{
    PyObject *found = PyDict_GetItemWithError(dict, name);
    *value = found == Py_None ? NULL : Py_XNewRef(found);
    return found == NULL ? -1 : 0;
}

/* Fill from what asyncio's __init__ and a program have set; -1: something is
   not as asyncio has it. */
static int
fill(FlReader *self, PyObject *dict)
{
    const FlNames *names = &self->state->names;
    int eof = truth_in(dict, names->_eof);
    int paused = truth_in(dict, names->_paused);
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
    self->limit_bytes = PyLong_AsSsize_t(limit);
    self->eof = eof;
    self->paused = paused;
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

/* A buffer that somebody else has as well may be looked at later, and who
   waits in asyncio's code will look at it. */
static bool
buffer_is_private(const FlState *state, PyObject *dict)
{
    PyObject *buffer = PyDict_GetItemWithError(dict, state->names._buffer);
    return buffer != NULL && Py_REFCNT(buffer) == 1
           && PyDict_GetItemWithError(dict, state->names._waiter) == Py_None;
}

static FlReader *
reader_new(FlState *state, PyObject *dict)
{
    PyTypeObject *type = state->reader_type;
    FlReader *self = (FlReader *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    if (fill(self, dict) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

/* A dict with the reader's state, and what a program has set on it. */
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

/* First the class, for without a state it runs asyncio's code: whichever
   step fails, the reader works.  0 or -1. */
static int
change(FlState *state, PyObject *reader, PyObject *native)
{
    if (fl_reader_set_class(state, reader, state->native_reader) < 0) {
        return -1;
    }
    return PyObject_GenericSetDict(reader, native, NULL);
}

void
fl_reader_upgrade(FlState *state, PyObject *reader)
{
    if (state->native_reader == NULL
        || !Py_IS_TYPE(reader, (PyTypeObject *)state->asyncio_reader)
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
        (void)change(state, reader, native);
    }
    PyErr_Clear(); /* asyncio's code goes on, without what failed here */
    Py_XDECREF(self);
    Py_XDECREF(native);
    Py_XDECREF(dict);
}

int
fl_reader_downgrade(FlState *state, PyObject *reader)
{
    PyObject *dict;
    FlReader *self = find(state, reader, &dict);
    if (self == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_INCREF(self);
    Py_INCREF(dict);
    PyObject *plain = fl_reader_attributes(self);
    int code = plain == NULL ? -1 : PyDict_Update(dict, plain);
    if (code == 0) {
        code = fl_reader_set_class(state, reader, state->asyncio_reader);
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

/* asyncio's _wakeup_waiter. */
static int
wake(FlReader *self)
{
    const FlNames *names = &self->state->names;
    PyObject *waiter = self->waiter;
    if (waiter == NULL) {
        return 0;
    }
    self->waiter = NULL;
    self->room_bytes = 0;
    int cancelled = fl_call_truth(waiter, names->cancelled);
    PyObject *done =
        cancelled == 0
            ? PyObject_CallMethodOneArg(waiter, names->set_result, Py_None)
            : NULL;
    Py_DECREF(waiter);
    Py_XDECREF(done);
    return cancelled > 0 || done != NULL ? 0 : -1;
}

static int
pause_transport(FlReader *self)
{
    PyObject *transport = Py_NewRef(self->transport);
    self->paused = true; /* first: the call may give the reader back */
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
    PyErr_Clear(); /* one that cannot pause: asyncio forgets it as well */
    Py_CLEAR(self->transport);
    return 0;
}

static int
resume_transport(FlReader *self)
{
    self->paused = false;
    PyObject *transport = Py_NewRef(or_none(self->transport));
    PyObject *done =
        PyObject_CallMethodNoArgs(transport,
                                  self->state->names.resume_reading);
    Py_DECREF(transport);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* The waiter, if any, is told; and the transport pauses if too much is
   there.  After bytes came.  0 or -1. */
static int
received(FlReader *self)
{
    if (wake(self) < 0) {
        return -1;
    }
    /* A plain reader pauses when more comes. */
    return self->transport != NULL && !self->paused && !self->downgraded
                   && fl_byte_store_size(&self->store) > 2 * self->limit_bytes
               ? pause_transport(self)
               : 0;
}

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
    return received(self);
}

int
fl_reader_filled(FlReader *self, const struct iovec *memory,
                 Py_ssize_t got_bytes)
{
    int code = fl_byte_store_filled(&self->store, memory, got_bytes);
    return code < 0 || got_bytes == 0 ? code : received(self);
}

int
fl_reader_maybe_resume(FlReader *self)
{
    return self->paused
                   && fl_byte_store_size(&self->store) <= self->limit_bytes
               ? resume_transport(self)
               : 0;
}

PyObject *
fl_reader_wait(FlReader *self, const char *name, Py_ssize_t room_bytes)
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
    if (self->paused && resume_transport(self) < 0) {
        return NULL;
    }
    PyObject *waiter =
        PyObject_CallMethodNoArgs(or_none(self->loop),
                                  self->state->names.create_future);
    if (waiter == NULL) {
        return NULL;
    }
    if (self->downgraded) {
        Py_DECREF(waiter);
        return Py_None;
    }
    Py_XSETREF(self->waiter, waiter);
    self->room_bytes = room_bytes;
    return waiter;
}

/* --- the type ------------------------------------------------------------ */

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
    Py_CLEAR(self->shown);
    return 0;
}

static void
reader_dealloc(FlReader *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)reader_clear(self);
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
