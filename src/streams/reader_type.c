/* The attributes of native readers.

   1. The type has no storage of its own: an instance has the layout of
      asyncio's class, so that __class__ can be changed both ways.
   2. Each descriptor works for three kinds of object: a native reader, whose
      value is in its state; an instance without a state, whose value is in its
      __dict__; and a reader that the access itself downgrades, after which the
      access is repeated on the plain reader. */
#include "streams/reader_type.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"
#include "streams/native_reader.h"

/* Declared here for state_of, which recognizes our type by it. */
static PyGetSetDef getset[11];

/* The module state of the reader's class.  A descriptor is not told its
   module, so our type is searched among the base classes.  For
   fastloop.streams.StreamReader it is the base class, which is tried first; an
   application's subclass may have other bases, so else the method resolution
   order is searched.  It has our type, or this descriptor would not run. */
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
    FlState *state = state_of(reader);
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
    FlState *state = state_of(reader);
    PyObject *name = fl_name_at(state, (size_t)closure);
    FlReader *self = fl_reader_unchecked(state, reader);
    if (self == NULL) {
        return PyErr_Occurred() ? -1 : set_plain(reader, name, value);
    }
    Py_INCREF(self); /* dropping the previous value may downgrade the reader */
    bool done =
        value != NULL && PyObject_SetAttr((PyObject *)self, name, value) == 0;
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
    FlState *state = state_of(reader);
    return fl_reader_downgrade(state, reader) < 0
               ? -1
               : fl_reader_set_class(state, reader, value);
}

/* --- the type ------------------------------------------------------------ */

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
fl_reader_type_register(PyObject *module, FlState *state)
{
    /* The size is 0: the base class's layout is kept (invariant 1). */
    PyType_Spec spec = {"fastloop._core.NativeReader", 0, 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
                        native_slots};
    PyTypeObject *type =
        fl_type_add(module, &spec, state->asyncio_reader_type);
    return fl_call_done((PyObject *)type);
}
