/* The steps of read, readexactly, readuntil and readline; feed_data and the
   other methods that do not wait.

   1. A step does what asyncio's method does between two awaits, in its order,
      with its exceptions and texts.
   2. Arguments are converted before the reader's state is fetched: conversion
      may run Python code (__index__, __buffer__), which may downgrade the
      reader.
   3. A step that calls a transport's method owns a reference to the state: the
      call may run Python code, and a downgrade drops the reader's reference.
   4. The caller passes waited=False in the first step of a call and True in
      those that follow an await.  As in asyncio, only the first step raises
      the reader's exception, and read waits at most once. */
#include "streams/reader_calls.h"

#include "py/compat.h"
#include "py/state.h"
#include "streams/native_reader.h"

/* Raise what set_exception() was given, as the raise statement does. */
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

/* What a step returns if its reader has no state: None, unless the check
   itself raised. */
static PyObject *
none_if_downgraded(void)
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

/* Begin a step: the reader's state, borrowed; or NULL with *result what the
   step returns (None: run asyncio's method; NULL: an exception is set). */
static FlReader *
begin_step(FlState *state, PyObject *reader, bool waited, PyObject **result)
{
    *result = NULL;
    /* First: dropping the waiter may run Python code, which may downgrade the
       reader. */
    if (waited && forget_waiter(state, reader) < 0) {
        return NULL;
    }
    /* The check that may downgrade: replaced methods, a _buffer in use. */
    FlReader *self = fl_reader_of(state, reader);
    if (self == NULL) {
        *result = none_if_downgraded();
        return NULL;
    }
    /* Later steps ignore an exception that was set since the waiter was
       woken: it is raised by the next call, as in asyncio. */
    if (!waited && self->exception != NULL) {
        raise_object(self->exception);
        return NULL;
    }
    return self;
}

/* Return bytes from a method that has enough: take them, then resume the
   transport if little is left.  If resume_reading raises, the bytes are lost,
   as in asyncio. */
static PyObject *
take(FlReader *self, Py_ssize_t size_bytes)
{
    Py_INCREF(self); /* resume_reading may be the application's: invariant 3 */
    self->searched_bytes = 0; /* it counts from the front, which moves */
    PyObject *taken = fl_byte_store_take(&self->store, size_bytes);
    if (taken != NULL && fl_reader_maybe_resume(self) < 0) {
        Py_CLEAR(taken);
    }
    Py_DECREF(self);
    return taken;
}

/* Return the future to await, or None if the reader was downgraded meanwhile.
   A new reference. */
static PyObject *
wait_for(FlReader *self, const char *name, Py_ssize_t wanted_bytes)
{
    Py_INCREF(self); /* invariant 3 */
    PyObject *waiter = fl_reader_wait(self, name, wanted_bytes);
    Py_XINCREF(waiter);
    Py_DECREF(self);
    return waiter;
}

/* EOF before a method has enough: raise IncompleteReadError with all bytes of
   the store, which is empty then. */
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

/* METH_FASTCALL does not check the number of arguments. */
static bool
check_nargs(const char *name, Py_ssize_t nargs, Py_ssize_t wanted)
{
    if (nargs != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments", name,
                     wanted);
    }
    return nargs == wanted;
}

/* The methods in fastloop/streams.py pass arguments in the order of asyncio's
   methods, then `waited`. */
/* --- read, readexactly --------------------------------------------------- */

static const char take_some_doc[] =
    "_take_some(reader, n, waited, /)\n--\n\n"
    "A step of StreamReader.read(n), for n of 0 or more.";

static PyObject *
take_some(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *result;
    if (!check_nargs("_take_some", nargs, 3)) {
        return NULL;
    }
    bool waited = args[2] == Py_True;
    /* First: invariant 2.  Without an exception to raise, a number that is
       too large is clipped, as a slice does it. */
    Py_ssize_t wanted = PyNumber_AsSsize_t(args[1], NULL);
    if (wanted == -1 && PyErr_Occurred()) {
        return NULL;
    }
    FlReader *self =
        begin_step(fl_state_get(module), args[0], waited, &result);
    if (self == NULL) {
        return result;
    }
    if (wanted == 0) {
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    /* asyncio's read does not wait again, even if the bytes that woke it are
       gone: it returns b"" then. */
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
    PyObject *result;
    if (!check_nargs("_take_exactly", nargs, 3)) {
        return NULL;
    }
    Py_ssize_t wanted = PyNumber_AsSsize_t(args[1], NULL);
    if (wanted == -1 && PyErr_Occurred()) {
        return NULL;
    }
    /* asyncio checks this before the reader's exception. */
    if (wanted < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "readexactly size can not be less than zero");
        return NULL;
    }
    FlReader *self =
        begin_step(fl_state_get(module), args[0], args[2] == Py_True, &result);
    if (self == NULL) {
        return result;
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

/* What readuntil or readline searches for. */
typedef struct {
    const char *separator;
    Py_ssize_t size_bytes;
    bool line; /* readline: other results at EOF and above the limit */
} Search;

/* readline turns LimitOverrunError, which is set, into ValueError with the
   same text.  The former becomes its __context__, as if raised while handling
   it. */
static void
raise_line_error(const char *text)
{
    PyObject *context = PyErr_GetRaisedException();
    PyObject *exc = PyObject_CallFunction(PyExc_ValueError, "s", text);
    if (exc == NULL) {
        Py_DECREF(context);
        return;
    }
    PyException_SetContext(exc, context);
    PyErr_SetRaisedException(exc);
}

/* Raise LimitOverrunError: the first `at` bytes, more than the limit, have no
   separator.  readuntil leaves the bytes in the reader.  readline removes
   them: with the newline if one was found, otherwise all. */
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

/* The separator begins at index `at`.  The limit does not count it. */
static PyObject *
found_separator(FlReader *self, const Search *search, Py_ssize_t at)
{
    if (at > self->limit_bytes) {
        raise_overrun(self, search,
                      "Separator is found, but chunk is longer than limit", at,
                      true);
        return NULL;
    }
    return take(self, at + search->size_bytes);
}

/* The bytes received so far have no separator.  The limit is checked before
   EOF, as in asyncio. */
static PyObject *
missed_separator(FlReader *self, const Search *search)
{
    Py_ssize_t size = fl_byte_store_size(&self->store);
    if (size - self->searched_bytes >= search->size_bytes) {
        /* The last bytes may be the beginning of a separator: the next search
           includes them. */
        self->searched_bytes = size + 1 - search->size_bytes;
        if (self->searched_bytes > self->limit_bytes) {
            raise_overrun(self, search,
                          "Separator is not found, and chunk exceed the limit",
                          self->searched_bytes, false);
            return NULL;
        }
    }
    if (!self->eof) {
        /* How many bytes it will return is unknown.  readline reports itself
           as readuntil, which asyncio's calls. */
        return wait_for(self, "readuntil", 0);
    }
    /* readline returns the last line without a newline, b"" at the end. */
    if (search->line) {
        self->searched_bytes = 0;
        return fl_byte_store_take(&self->store, PY_SSIZE_T_MAX);
    }
    raise_incomplete(self, Py_None);
    return NULL;
}

/* One step of readuntil or readline.  A search that is repeated after an await
   continues where the last one ended. */
static PyObject *
take_until(FlState *state, PyObject *reader, bool waited, const Search *search)
{
    PyObject *result;
    FlReader *self = begin_step(state, reader, waited, &result);
    if (self == NULL) {
        return result;
    }
    if (!waited || self->searched_for != search->separator) {
        /* A new search; or another call searched while this one waited. */
        self->searched_bytes = 0;
        self->searched_for = search->separator;
    }
    /* Invariant 3: the functions below use the state after they have called
       the transport. */
    Py_INCREF(self);
    Py_ssize_t at = fl_byte_store_find(&self->store, self->searched_bytes,
                                       search->separator, search->size_bytes);
    result = at >= 0    ? found_separator(self, search, at)
             : at == -1 ? missed_separator(self, search)
                        : NULL;
    Py_DECREF(self);
    return result;
}

static const char take_until_doc[] =
    "_take_until(reader, separator, waited, /)\n--\n\n"
    "A step of StreamReader.readuntil(separator), where separator is bytes.";

static PyObject *
take_until_separator(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (!check_nargs("_take_until", nargs, 3)) {
        return NULL;
    }
    /* The separator's bytes stay valid during this step: the caller's
       argument owns them. */
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
    /* Static: the address of the separator tells the next step that the same
       search continues. */
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
    "StreamReader.feed_data(data).  Returns False if asyncio's must run.";

static PyObject *
feed(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    FlState *state = fl_state_get(module);
    Py_buffer view;
    if (!check_nargs("_feed", nargs, 2)) {
        return NULL;
    }
    /* First: invariant 2. */
    if (PyObject_GetBuffer(args[1], &view, PyBUF_SIMPLE) < 0) {
        /* No buffer.  asyncio's code extends a bytearray, which takes any
           iterable of ints or raises: make the reader plain and let it. */
        PyErr_Clear();
        return fl_reader_downgrade(state, args[0]) < 0 ? NULL
                                                       : Py_NewRef(Py_False);
    }
    /* NULL without an exception: a plain reader, and asyncio's method must
       run. */
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
    "StreamReader.at_eof().  Returns None if asyncio's must run.";

/* fl_reader_of first: an application may have filled the empty _buffer that it
   read, which then counts as unread bytes. */
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
    "Check whether a reader may stay native, and return whether it is.";

/* For exception(), whose result is the state's own attribute. */
static PyObject *
is_native(PyObject *module, PyObject *reader)
{
    FlReader *self = fl_reader_of(fl_state_get(module), reader);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(self != NULL);
}

static const char maybe_resume_doc[] =
    "_maybe_resume(reader, /)\n--\n\n"
    "StreamReader._maybe_resume_transport().  Returns False if asyncio's must "
    "run.";

/* Called by asyncio's code and by applications; our own steps call
   fl_reader_maybe_resume. */
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
    "Return a dict of a plain reader's attributes; None if it is one.";

static PyObject *
attributes(PyObject *module, PyObject *reader)
{
    /* No check, which might downgrade: this serves repr(). */
    FlReader *self = fl_reader_unchecked(fl_state_get(module), reader);
    if (self == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    return fl_reader_attributes(self);
}

/* --- registration -------------------------------------------------------- */

static const char use_reader_doc[] =
    "_use_stream_reader(type, /)\n--\n\n"
    "Set the class of native readers, a subclass of NativeReader.";

static PyObject *
use_reader(PyObject *module, PyObject *type)
{
    /* Called once, when fastloop.streams is imported: C cannot import it,
       since it needs this module.  Until then no reader is upgraded. */
    FlState *state = fl_state_get(module);
    if (!PyType_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "a class is required");
        return NULL;
    }
    Py_XSETREF(state->native_reader, Py_NewRef(type));
    Py_RETURN_NONE;
}

/* METH_FASTCALL functions have another signature than PyCFunction; the cast in
   between silences -Wcast-function-type. */
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
