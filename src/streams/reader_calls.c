/* The steps of read, readexactly, readuntil and readline. */
#include "streams/reader_calls.h"

#include "py/compat.h"
#include "py/state.h"
#include "streams/native_reader.h"

/* As `raise` does it. */
static void
raise_object(PyObject *object)
{
    if (PyExceptionInstance_Check(object)) {
        PyErr_SetObject((PyObject *)Py_TYPE(object), object);
    }
    else if (PyExceptionClass_Check(object)) {
        PyErr_SetNone(object);
    }
    else {
        PyErr_SetString(PyExc_TypeError,
                        "exceptions must derive from BaseException");
    }
}

/* The answer of a step whose reader is not native any more. */
static PyObject *
none_if_downgraded(void)
{
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* The waiter is done, by whomever, of whichever reader.  0 or -1. */
static int
forget_waiter(FlState *state, PyObject *reader)
{
    FlReader *self = fl_reader_behind(state, reader);
    if (FL_UNLIKELY(self == NULL)) {
        return PyErr_Occurred()
                   ? -1
                   : PyObject_SetAttr(reader, state->names._waiter, Py_None);
    }
    Py_CLEAR(self->waiter);
    return 0;
}

/* Begin a step of a method: the reader's state, or NULL with *answer what the
   step returns.  The first step of a call raises the reader's exception. */
static FlReader *
begin(FlState *state, PyObject *reader, bool waited, PyObject **answer)
{
    *answer = NULL;
    /* First: to drop a waiter may run Python, and give the reader back. */
    if (waited && forget_waiter(state, reader) < 0) {
        return NULL;
    }
    FlReader *self = fl_reader_of(state, reader);
    if (self == NULL) {
        *answer = none_if_downgraded();
        return NULL;
    }
    if (!waited && self->exception != NULL) {
        raise_object(self->exception);
        return NULL;
    }
    return self;
}

/* The answer of a method that has what it wants. */
static PyObject *
take(FlReader *self, Py_ssize_t size_bytes)
{
    Py_INCREF(self); /* resume_reading may be the program's */
    self->searched_bytes = 0;
    PyObject *taken = fl_byte_store_take(&self->store, size_bytes);
    if (taken != NULL && fl_reader_maybe_resume(self) < 0) {
        Py_CLEAR(taken);
    }
    Py_DECREF(self);
    return taken;
}

static PyObject *
wait_for(FlReader *self, const char *name, Py_ssize_t room_bytes)
{
    Py_INCREF(self); /* likewise */
    PyObject *waiter = fl_reader_wait(self, name, room_bytes);
    Py_XINCREF(waiter);
    Py_DECREF(self);
    return waiter;
}

/* Raise IncompleteReadError with all that is there. */
static void
raise_incomplete(FlReader *self, PyObject *expected)
{
    self->searched_bytes = 0;
    PyObject *partial = fl_byte_store_take(&self->store, PY_SSIZE_T_MAX);
    PyObject *exc =
        partial == NULL
            ? NULL
            : PyObject_CallFunctionObjArgs(self->state->asyncio_incomplete,
                                           partial, expected, NULL);
    Py_XDECREF(partial);
    if (exc != NULL) {
        raise_object(exc);
        Py_DECREF(exc);
    }
}

static bool
check_nargs(const char *name, Py_ssize_t nargs, Py_ssize_t wanted)
{
    if (nargs != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments", name,
                     wanted);
    }
    return nargs == wanted;
}

/* --- read, readexactly --------------------------------------------------- */

static const char take_some_doc[] =
    "_take_some(reader, n, waited, /)\n--\n\n"
    "A step of StreamReader.read(n), for n of 0 or more.";

static PyObject *
take_some(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *answer;
    if (!check_nargs("_take_some", nargs, 3)) {
        return NULL;
    }
    bool waited = args[2] == Py_True;
    /* First: it may be the program's code, and give the reader back. */
    Py_ssize_t wanted = PyNumber_AsSsize_t(args[1], NULL);
    if (wanted == -1 && PyErr_Occurred()) {
        return NULL;
    }
    FlReader *self = begin(fl_state_get(module), args[0], waited, &answer);
    if (self == NULL) {
        return answer;
    }
    if (wanted == 0) {
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    if (fl_byte_store_size(&self->store) == 0 && !self->eof && !waited) {
        return wait_for(self, "read", wanted);
    }
    return take(self, wanted);
}

static const char take_exactly_doc[] =
    "_take_exactly(reader, n, waited, /)\n--\n\n"
    "A step of StreamReader.readexactly(n).";

static PyObject *
take_exactly(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *answer;
    if (!check_nargs("_take_exactly", nargs, 3)) {
        return NULL;
    }
    Py_ssize_t wanted = PyNumber_AsSsize_t(args[1], NULL);
    if (wanted == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (wanted < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "readexactly size can not be less than zero");
        return NULL;
    }
    FlReader *self =
        begin(fl_state_get(module), args[0], args[2] == Py_True, &answer);
    if (self == NULL) {
        return answer;
    }
    if (wanted == 0) {
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    if (fl_byte_store_size(&self->store) >= wanted) {
        return take(self, wanted);
    }
    if (self->eof) {
        raise_incomplete(self, args[1]);
        return NULL;
    }
    return wait_for(self, "readexactly", wanted);
}

/* --- readuntil, readline ------------------------------------------------- */

typedef struct {
    const char *separator;
    Py_ssize_t size_bytes;
    bool line;
} Search;

/* What readline makes of the error that is set. */
static void
raise_line_error(const char *text)
{
    PyObject *why = PyErr_GetRaisedException();
    PyObject *exc = PyObject_CallFunction(PyExc_ValueError, "s", text);
    if (exc == NULL) {
        Py_DECREF(why);
        return;
    }
    PyException_SetContext(exc, why);
    PyErr_SetRaisedException(exc);
}

/* More than the limit: `at` bytes are no separator. */
static void
raise_overrun(FlReader *self, const Search *search, const char *text,
              Py_ssize_t at, bool found)
{
    self->searched_bytes = 0;
    if (search->line) {
        fl_byte_store_drop(&self->store, found ? at + 1 : PY_SSIZE_T_MAX);
        if (fl_reader_maybe_resume(self) < 0) {
            return;
        }
    }
    PyObject *exc =
        PyObject_CallFunction(self->state->asyncio_overrun, "sn", text, at);
    if (exc == NULL) {
        return;
    }
    raise_object(exc);
    Py_DECREF(exc);
    if (search->line) {
        raise_line_error(text);
    }
}

static PyObject *
take_found(FlReader *self, const Search *search, Py_ssize_t at)
{
    if (at > self->limit_bytes) {
        raise_overrun(self, search,
                      "Separator is found, but chunk is longer than limit", at,
                      true);
        return NULL;
    }
    return take(self, at + search->size_bytes);
}

/* No separator is there. */
static PyObject *
take_unfound(FlReader *self, const Search *search)
{
    Py_ssize_t size = fl_byte_store_size(&self->store);
    if (size - self->searched_bytes >= search->size_bytes) {
        /* Its last bytes may begin a separator. */
        self->searched_bytes = size + 1 - search->size_bytes;
        if (self->searched_bytes > self->limit_bytes) {
            raise_overrun(self, search,
                          "Separator is not found, and chunk exceed the limit",
                          self->searched_bytes, false);
            return NULL;
        }
    }
    if (!self->eof) {
        return wait_for(self, "readuntil", 0);
    }
    if (search->line) {
        self->searched_bytes = 0;
        return fl_byte_store_take(&self->store, PY_SSIZE_T_MAX);
    }
    raise_incomplete(self, Py_None);
    return NULL;
}

static PyObject *
take_until(FlState *state, PyObject *reader, bool waited, const Search *search)
{
    PyObject *answer;
    FlReader *self = begin(state, reader, waited, &answer);
    if (self == NULL) {
        return answer;
    }
    if (!waited || self->searched_for != search->separator) {
        self->searched_bytes = 0; /* or it was another call's search */
        self->searched_for = search->separator;
    }
    Py_INCREF(self);
    Py_ssize_t at = fl_byte_store_find(&self->store, self->searched_bytes,
                                       search->separator, search->size_bytes);
    answer = at >= 0    ? take_found(self, search, at)
             : at == -1 ? take_unfound(self, search)
                        : NULL;
    Py_DECREF(self);
    return answer;
}

static const char take_until_doc[] =
    "_take_until(reader, separator, waited, /)\n--\n\n"
    "A step of StreamReader.readuntil(separator), which is bytes.";

static PyObject *
take_until_separator(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!check_nargs("_take_until", nargs, 3)) {
        return NULL;
    }
    Search search = {.line = false};
    char *separator;
    if (PyBytes_AsStringAndSize(args[1], &separator, &search.size_bytes) < 0) {
        return NULL;
    }
    if (search.size_bytes == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "Separator should be at least one-byte string");
        return NULL;
    }
    search.separator = separator;
    return take_until(fl_state_get(module), args[0], args[2] == Py_True,
                      &search);
}

static const char take_line_doc[] = "_take_line(reader, waited, /)\n--\n\n"
                                    "A step of StreamReader.readline().";

static PyObject *
take_line(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    static const Search search = {.separator = "\n",
                                  .size_bytes = 1,
                                  .line = true};
    if (!check_nargs("_take_line", nargs, 2)) {
        return NULL;
    }
    return take_until(fl_state_get(module), args[0], args[1] == Py_True,
                      &search);
}

/* --- the methods that do not wait --------------------------------------- */

static const char feed_doc[] =
    "_feed(reader, data, /)\n--\n\n"
    "StreamReader.feed_data(data); False: asyncio's has to do it.";

static PyObject *
feed(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    FlState *state = fl_state_get(module);
    Py_buffer view;
    if (!check_nargs("_feed", nargs, 2)) {
        return NULL;
    }
    /* First: it may be the program's code, and give the reader back. */
    if (PyObject_GetBuffer(args[1], &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear(); /* bytearray.extend takes more, or raises it */
        return fl_reader_downgrade(state, args[0]) < 0 ? NULL
                                                       : Py_NewRef(Py_False);
    }
    FlReader *self = fl_reader_of(state, args[0]);
    int code = PyErr_Occurred() ? -1 : 0;
    if (self != NULL) {
        Py_INCREF(self);
        code = fl_reader_feed(self, view.buf, view.len);
        Py_DECREF(self);
    }
    PyBuffer_Release(&view);
    return code < 0 ? NULL : PyBool_FromLong(self != NULL);
}

static const char at_eof_doc[] =
    "_at_eof(reader, /)\n--\n\n"
    "StreamReader.at_eof(); None: asyncio's has to say it.";

static PyObject *
at_eof(PyObject *module, PyObject *reader)
{
    FlReader *self = fl_reader_of(fl_state_get(module), reader);
    if (self == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    return PyBool_FromLong(self->eof && fl_byte_store_size(&self->store) == 0);
}

static const char is_native_doc[] =
    "_is_native(reader, /)\n--\n\n"
    "Whether its state is in C still, after a look whether it may stay there.";

static PyObject *
is_native(PyObject *module, PyObject *reader)
{
    FlReader *self = fl_reader_of(fl_state_get(module), reader);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(self != NULL);
}

static const char maybe_resume_doc[] =
    "_maybe_resume(reader, /)\n--\n\n"
    "StreamReader._maybe_resume_transport(); False: asyncio's has to do it.";

static PyObject *
maybe_resume(PyObject *module, PyObject *reader)
{
    FlReader *self = fl_reader_of(fl_state_get(module), reader);
    int code = PyErr_Occurred() ? -1 : 0;
    if (self != NULL) {
        Py_INCREF(self);
        code = fl_reader_maybe_resume(self);
        Py_DECREF(self);
    }
    return code < 0 ? NULL : PyBool_FromLong(self != NULL);
}

static const char attributes_doc[] =
    "_attributes(reader, /)\n--\n\n"
    "A dict of a plain reader's attributes; None without a state.";

static PyObject *
attributes(PyObject *module, PyObject *reader)
{
    FlReader *self = fl_reader_behind(fl_state_get(module), reader);
    if (self == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    return fl_reader_attributes(self);
}

/* --- registration -------------------------------------------------------- */

static const char use_reader_doc[] =
    "_use_stream_reader(type, /)\n--\n\n"
    "Give native readers this class, of NativeReader's.";

static PyObject *
use_reader(PyObject *module, PyObject *type)
{
    FlState *state = fl_state_get(module);
    if (!PyType_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "a class is required");
        return NULL;
    }
    Py_XSETREF(state->native_reader, Py_NewRef(type));
    Py_RETURN_NONE;
}

#define FAST(name, function, doc)                                       \
    {                                                                   \
        name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, doc \
    }

static PyMethodDef functions[] = {
    FAST("_take_some", take_some, take_some_doc),
    FAST("_take_exactly", take_exactly, take_exactly_doc),
    FAST("_take_until", take_until_separator, take_until_doc),
    FAST("_take_line", take_line, take_line_doc),
    FAST("_feed", feed, feed_doc),
    {"_at_eof", at_eof, METH_O, at_eof_doc},
    {"_is_native", is_native, METH_O, is_native_doc},
    {"_maybe_resume", maybe_resume, METH_O, maybe_resume_doc},
    {"_attributes", attributes, METH_O, attributes_doc},
    {"_use_stream_reader", use_reader, METH_O, use_reader_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_reader_calls_register(PyObject *module, FlState *state)
{
    (void)state;
    return PyModule_AddFunctions(module, functions);
}
