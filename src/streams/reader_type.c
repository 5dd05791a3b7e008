/* The attributes and the plain methods of native readers. */
#include "streams/reader_type.h"

#include "py/args.h"
#include "py/compat.h"
#include "py/state.h"
#include "streams/native_reader.h"

static PyGetSetDef getset[9];

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
        return fl_reader_give_back(state, reader) < 0
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
            self->wanted_bytes = self->room_bytes = 0;
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
    if (fl_reader_give_back(state, reader) < 0) {
        return -1;
    }
    return PyObject_SetAttr(reader, name, value);
}

/* --- methods ------------------------------------------------------------- */

/* A bound method outlives its reader's being native: only the class that it
   was defined in still knows the module. */
#define METHOD_PARAMETERS                                            \
    PyObject *reader, PyTypeObject *defining, PyObject *const *args, \
        size_t nargs, PyObject *kwnames
#define METHOD(name, function, doc)                          \
    {                                                        \
        name, (PyCFunction)(void (*)(void))function,         \
            METH_METHOD | METH_FASTCALL | METH_KEYWORDS, doc \
    }

static bool
takes_nothing(const char *name, size_t nargs, PyObject *kwnames)
{
    if (nargs != 0 || kwnames != NULL) {
        PyErr_Format(PyExc_TypeError, "%s() takes no arguments", name);
        return false;
    }
    return true;
}

/* asyncio's method, for a reader without a state or with a program's own
   methods. */
static PyObject *
call_asyncio(const FlState *state, PyObject *name, PyObject *reader,
             PyObject *argument)
{
    PyObject *method = PyErr_Occurred()
                           ? NULL
                           : PyObject_GetAttr(state->asyncio_reader, name);
    PyObject *result =
        method == NULL
            ? NULL
            : PyObject_CallFunctionObjArgs(method, reader, argument, NULL);
    Py_XDECREF(method);
    return result;
}

static const char feed_data_doc[] = "feed_data($self, data)\n--\n\n"
                                    "Add data to what can be read.";

static PyObject *
feed_data(METHOD_PARAMETERS)
{
    PyObject *data =
        fl_parse_one("feed_data", "data", args, (Py_ssize_t)nargs, kwnames);
    if (data == NULL) {
        return NULL;
    }
    FlState *state = PyType_GetModuleState(defining);
    Py_buffer view;
    /* First: it may be the program's code, and give the reader back. */
    bool simple = PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) == 0;
    if (!simple) {
        PyErr_Clear(); /* bytearray.extend takes more, or raises it */
    }
    FlReader *self = fl_reader_of(state, reader);
    int code = -1;
    if (self != NULL && simple) {
        Py_INCREF(self);
        code = fl_reader_feed(self, view.buf, view.len);
        Py_DECREF(self);
    }
    if (simple) {
        PyBuffer_Release(&view);
    }
    if (self != NULL && simple) {
        return code < 0 ? NULL : Py_NewRef(Py_None);
    }
    if (self != NULL && fl_reader_give_back(state, reader) < 0) {
        return NULL;
    }
    return call_asyncio(state, state->names.feed_data, reader, data);
}

static const char at_eof_doc[] =
    "at_eof($self, /)\n--\n\n"
    "Return True if nothing is left and feed_eof() was called.";

static PyObject *
at_eof(METHOD_PARAMETERS)
{
    if (!takes_nothing("at_eof", nargs, kwnames)) {
        return NULL;
    }
    FlState *state = PyType_GetModuleState(defining);
    FlReader *self = fl_reader_of(state, reader);
    if (self == NULL) {
        return call_asyncio(state, state->names.at_eof, reader, NULL);
    }
    return PyBool_FromLong(self->eof && fl_byte_store_size(&self->store) == 0);
}

static const char exception_doc[] =
    "exception($self, /)\n--\n\n"
    "Return the exception that was set, or None.";

static PyObject *
exception(METHOD_PARAMETERS)
{
    if (!takes_nothing("exception", nargs, kwnames)) {
        return NULL;
    }
    FlState *state = PyType_GetModuleState(defining);
    FlReader *self = fl_reader_of(state, reader);
    if (self == NULL) {
        return call_asyncio(state, state->names.exception, reader, NULL);
    }
    return Py_NewRef(self->exception == NULL ? Py_None : self->exception);
}

static const char maybe_resume_doc[] =
    "_maybe_resume_transport($self, /)\n--\n\n"
    "Resume the transport if little enough is left.";

static PyObject *
maybe_resume(METHOD_PARAMETERS)
{
    if (!takes_nothing("_maybe_resume_transport", nargs, kwnames)) {
        return NULL;
    }
    FlState *state = PyType_GetModuleState(defining);
    FlReader *self = fl_reader_of(state, reader);
    if (self == NULL) {
        return call_asyncio(state, state->names._maybe_resume_transport,
                            reader, NULL);
    }
    Py_INCREF(self);
    int code = fl_reader_maybe_resume(self);
    Py_DECREF(self);
    return code < 0 ? NULL : Py_NewRef(Py_None);
}

static const char attributes_doc[] =
    "_attributes($self, /)\n--\n\n"
    "A dict of a plain reader's attributes; None without a state.";

static PyObject *
attributes(METHOD_PARAMETERS)
{
    if (!takes_nothing("_attributes", nargs, kwnames)) {
        return NULL;
    }
    FlReader *self = fl_reader_behind(PyType_GetModuleState(defining), reader);
    if (self == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    return fl_reader_attributes(self);
}

/* --- the type ------------------------------------------------------------ */

static PyMethodDef methods[] = {
    METHOD("feed_data", feed_data, feed_data_doc),
    METHOD("at_eof", at_eof, at_eof_doc),
    METHOD("exception", exception, exception_doc),
    METHOD("_maybe_resume_transport", maybe_resume, maybe_resume_doc),
    METHOD("_attributes", attributes, attributes_doc),
    {NULL, NULL, 0, NULL},
};

#define GETSET(name)                                     \
    {                                                    \
#name, get, set, NULL, (void *)&name##_attribute \
    }

static PyGetSetDef getset[9] = {
    GETSET(_loop),      GETSET(_waiter), GETSET(_exception),
    GETSET(_transport), GETSET(_eof),    GETSET(_paused),
    GETSET(_limit),     GETSET(_buffer), {NULL, NULL, NULL, NULL, NULL},
};

static const char native_doc[] =
    "An asyncio.StreamReader whose state is in C; see fastloop.streams.";

static PyType_Slot native_slots[] = {
    {Py_tp_doc, (void *)native_doc},
    {Py_tp_methods, methods},
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
