/* The attributes of native readers. */
#include "streams/reader_type.h"

#include "py/compat.h"
#include "py/state.h"
#include "streams/native_reader.h"

static PyGetSetDef getset[11];

/* Of an instance of a class above ours; attributes do not know their module.
   Ours is looked for first where fastloop.streams has put it: a program's
   class may have another base before it. */
static FlState *
state_of(PyObject *reader)
{
    PyTypeObject *type = Py_TYPE(reader)->tp_base;
    PyObject *order = Py_TYPE(reader)->tp_mro;
    for (Py_ssize_t at = 0; type->tp_getset != getset; at++) {
        type = (PyTypeObject *)PyTuple_GET_ITEM(order, at);
    }
    return PyType_GetModuleState(type);
}

/* --- attributes ---------------------------------------------------------- */

/* An attribute of asyncio.StreamReader: where FlNames and FlReader have it. */
typedef struct {
    size_t name;
    size_t field;
    enum {
        AN_OBJECT,
        A_TRUTH,
        A_SIZE,
        THE_BUFFER
    } kind;
} Attribute;

#define ATTRIBUTE(attribute, member, of_kind)        \
    static const Attribute attribute##_attribute = { \
        offsetof(FlNames, attribute), offsetof(FlReader, member), of_kind}

ATTRIBUTE(_loop, loop, AN_OBJECT);
ATTRIBUTE(_waiter, waiter, AN_OBJECT);
ATTRIBUTE(_exception, exception, AN_OBJECT);
ATTRIBUTE(_transport, transport, AN_OBJECT);
ATTRIBUTE(_eof, eof, A_TRUTH);
ATTRIBUTE(_paused, paused, A_TRUTH);
ATTRIBUTE(_limit, limit_bytes, A_SIZE);
ATTRIBUTE(_buffer, store, THE_BUFFER);

static PyObject *
name_of(const FlState *state, const Attribute *attribute)
{
    return *(PyObject *const *)((const char *)&state->names + attribute->name);
}

/* Of an instance without a state. */
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

static PyObject *
get(PyObject *reader, void *closure)
{
    const Attribute *attribute = closure;
    FlState *state = state_of(reader);
    PyObject *name = name_of(state, attribute);
    FlReader *self = fl_reader_behind(state, reader);
    if (self == NULL) {
        return PyErr_Occurred() ? NULL : get_plain(reader, name);
    }
    const void *field = (const char *)self + attribute->field;
    PyObject *object;
    switch (attribute->kind) {
    case AN_OBJECT:
        object = *(PyObject *const *)field;
        return Py_NewRef(object == NULL ? Py_None : object);
    case A_TRUTH:
        return PyBool_FromLong(*(const bool *)field);
    case A_SIZE:
        return PyLong_FromSsize_t(*(const Py_ssize_t *)field);
    default:
        if (fl_byte_store_size(&self->store) == 0) {
            return fl_reader_show_empty(self);
        }
        return fl_reader_downgrade(state, reader) < 0
                   ? NULL
                   : PyObject_GetAttr(reader, name);
    }
}

/* Put a value into the state.  Whether it can take that. */
static bool
put(FlReader *self, const Attribute *attribute, PyObject *value)
{
    void *field = (char *)self + attribute->field;
    if (attribute->kind == AN_OBJECT && value != NULL) {
        if (attribute == &_waiter_attribute) {
            self->room_bytes = 0;
        }
        PyObject *before = *(PyObject **)field;
        *(PyObject **)field = value == Py_None ? NULL : Py_NewRef(value);
        Py_XDECREF(before);
        return true;
    }
    if (attribute->kind == A_TRUTH && (value == Py_True || value == Py_False))
    {
        *(bool *)field = value == Py_True;
        return true;
    }
    if (attribute->kind == A_SIZE && value != NULL && PyLong_CheckExact(value))
    {
        Py_ssize_t size = PyLong_AsSsize_t(value);
        if (size > 0 && size <= PY_SSIZE_T_MAX / 4) {
            *(Py_ssize_t *)field = size;
            return true;
        }
        PyErr_Clear(); /* a plain reader takes it */
    }
    return false;
}

static int
set(PyObject *reader, PyObject *value, void *closure)
{
    const Attribute *attribute = closure;
    FlState *state = state_of(reader);
    PyObject *name = name_of(state, attribute);
    FlReader *self = fl_reader_behind(state, reader);
    if (self == NULL) {
        return PyErr_Occurred() ? -1 : set_plain(reader, name, value);
    }
    if (put(self, attribute, value)) {
        return 0;
    }
    if (fl_reader_downgrade(state, reader) < 0) {
        return -1;
    }
    return PyObject_SetAttr(reader, name, value);
}

/* --- __dict__, __class__ ------------------------------------------------- */

/* A program that looks at all attributes at once, or changes them there, has
   a plain reader from then on. */
static PyObject *
get_dict(PyObject *reader, void *Py_UNUSED(closure))
{
    return fl_reader_downgrade(state_of(reader), reader) < 0
               ? NULL
               : PyObject_GenericGetDict(reader, NULL);
}

static int
set_dict(PyObject *reader, PyObject *value, void *Py_UNUSED(closure))
{
    return fl_reader_downgrade(state_of(reader), reader) < 0
               ? -1
               : PyObject_GenericSetDict(reader, value, NULL);
}

static PyObject *
get_class(PyObject *reader, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)Py_TYPE(reader));
}

/* Another class has its attributes in the __dict__, where ours has none. */
static int
set_class(PyObject *reader, PyObject *value, void *Py_UNUSED(closure))
{
    FlState *state = state_of(reader);
    return fl_reader_downgrade(state, reader) < 0
               ? -1
               : fl_reader_set_class(state, reader, value);
}

/* --- the type ------------------------------------------------------------ */

#define GETSET(name)                                     \
    {                                                    \
#name, get, set, NULL, (void *)&name##_attribute \
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

static PyType_Spec native_spec = {
    .name = "fastloop._core.NativeReader",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = native_slots,
};

int
fl_reader_type_register(PyObject *module, FlState *state)
{
    PyTypeObject *type =
        fl_type_add(module, &native_spec, state->asyncio_reader);
    Py_XDECREF(type);
    return type == NULL ? -1 : 0;
}
