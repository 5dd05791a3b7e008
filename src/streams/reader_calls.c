/* The steps of read, readexactly, readuntil and readline.

   1. A step does what asyncio's method does between two awaits, in its order.
      Where that method would raise, the step returns None, and the method
      raises.
   2. Arguments are converted before the reader's state is fetched: conversion
      may run Python code (__index__), which may downgrade the reader.
   3. The caller passes waited=False in the first step of a call and True in
      those that follow an await.  As in asyncio, only the first step raises
      the reader's exception, and read waits at most once. */
#include "streams/reader_calls.h"

#include "py/args.h"
#include "py/compat.h"
#include "py/state.h"
#include "streams/native_reader.h"

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
    FlReader *self = fl_reader_of(state, reader);
    /* Later steps ignore an exception that was set since the waiter was
       woken: it is raised by the next call, as in asyncio. */
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
    if (wanted <= 0) {
        return use_asyncio(); /* b"", or ValueError */
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
        return fl_reader_take(self, wanted);
    }
    return self->eof ? use_asyncio() /* IncompleteReadError */
                     : fl_reader_wait(self, wanted);
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
        return fl_reader_wait(self, 0); /* how much it returns is unknown */
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
                                  : fl_reader_take(self, at + wanted_bytes);
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

static PyMethodDef functions[] = {
    FL_METHOD("_take", take_size, METH_FASTCALL, take_doc),
    FL_METHOD("_take_until", take_until, METH_FASTCALL, take_until_doc),
    {"_use_stream_reader", use_reader, METH_O, use_reader_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_reader_calls_register(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
