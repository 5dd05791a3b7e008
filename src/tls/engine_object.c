/* The TLS engine that calls an SSLObject's methods.

   read() is called only if records are unread or the last read filled its
   room.  Otherwise it would raise SSLWantReadError, which costs more than the
   check. */
#include "tls/engine_object.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"
#include "tls/engine.h"

#include <string.h>

/* The length of a MemoryBIO.  Never fails, because the engine's incoming() and
   outgoing() have no way to. */
static size_t
bio_pending_bytes(const FlTlsEngine *engine, PyObject *bio)
{
    PyObject *size = PyObject_GetAttr(bio, engine->state->names.pending);
    size_t bytes = size == NULL ? 0 : PyLong_AsSize_t(size);
    Py_XDECREF(size);
    if (PyErr_Occurred()) {
        /* No memory.  The caller cannot report an error, and 0 could leave
           records unread for ever.  1 makes it call read() or take, which
           reports. */
        PyErr_Clear();
        return 1;
    }
    return bytes;
}

static size_t
object_incoming(const FlTlsEngine *engine)
{
    return bio_pending_bytes(engine, engine->incoming);
}

static size_t
object_outgoing(const FlTlsEngine *engine)
{
    return bio_pending_bytes(engine, engine->outgoing);
}

/* A copy: a frame that a traceback or a profiler keeps alive may still have
   the argument when the caller reuses its memory. */
static int
object_feed(FlTlsEngine *engine, const char *data, size_t size_bytes)
{
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size_bytes);
    int code = bytes == NULL
                   ? -1
                   : fl_call_method(engine->incoming,
                                    engine->state->names.write, bytes);
    Py_XDECREF(bytes);
    return code;
}

static int
object_settle(FlTlsEngine *Py_UNUSED(engine))
{
    return 0; /* object_feed has copied */
}

/* The result of an SSLObject method that raised. */
static FlTlsResult
object_failure(const FlTlsEngine *engine)
{
    if (PyErr_ExceptionMatches(engine->state->tls_again_errors)) {
        PyErr_Clear(); /* no error: the peer must send first */
        return FL_TLS_WANT_READ;
    }
    if (PyErr_ExceptionMatches(engine->state->tls_end_errors)) {
        PyErr_Clear(); /* the peer's close_notify */
        return FL_TLS_END;
    }
    return FL_TLS_RAISED;
}

static FlTlsResult
object_read(FlTlsEngine *engine, char *memory, size_t room_bytes,
            size_t *got_bytes)
{
    *got_bytes = 0;
    size_t waiting_bytes = object_incoming(engine);
    if (waiting_bytes == 0 && !engine->more) {
        return FL_TLS_WANT_READ;
    }
    engine->more = false; /* unless this read fills its room */
    /* CPython allocates a bytes object of the requested size, so request no
       more than the records can hold.  With none unread, a rest of one record
       may still be inside the SSL. */
    size_t wanted_bytes =
        waiting_bytes == 0 ? FL_TLS_RECORD_BYTES : waiting_bytes;
    wanted_bytes = Py_MIN(wanted_bytes, room_bytes);
    PyObject *room = PyLong_FromSize_t(wanted_bytes);
    PyObject *data =
        room == NULL
            ? NULL
            : PyObject_CallMethodOneArg(engine->object,
                                        engine->state->names.read, room);
    Py_XDECREF(room);
    if (data == NULL) {
        return object_failure(engine);
    }
    char *bytes;
    Py_ssize_t size;
    FlTlsResult result = FL_TLS_RAISED;
    if (PyBytes_AsStringAndSize(data, &bytes, &size) == 0) {
        /* An overridden read() may ignore its argument; never overrun
           `memory`.  As for asyncio, empty bytes are the end. */
        if ((size_t)size > room_bytes) {
            PyErr_SetString(PyExc_RuntimeError,
                            "SSLObject.read() returned more than requested");
        }
        else {
            result = size == 0 ? FL_TLS_END : FL_TLS_DONE;
            memcpy(memory, bytes, (size_t)size);
            *got_bytes = (size_t)size;
            engine->more = size > 0 && *got_bytes == wanted_bytes;
        }
    }
    Py_DECREF(data);
    return result;
}

static FlTlsResult
object_write(FlTlsEngine *engine, const char *data, size_t size_bytes,
             size_t *taken_bytes)
{
    *taken_bytes = 0;
    /* A copy: write() may be overridden and keep its argument. */
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size_bytes);
    if (bytes == NULL) {
        return FL_TLS_RAISED;
    }
    PyObject *count =
        PyObject_CallMethodOneArg(engine->object, engine->state->names.write,
                                  bytes);
    Py_DECREF(bytes);
    if (count == NULL) {
        return object_failure(engine);
    }
    size_t taken = PyLong_AsSize_t(count);
    Py_DECREF(count);
    if (taken == (size_t)-1 && PyErr_Occurred()) {
        return FL_TLS_RAISED;
    }
    /* An overridden write() may return any number. */
    *taken_bytes = taken < size_bytes ? taken : size_bytes;
    return FL_TLS_DONE;
}

static PyObject *
object_take(FlTlsEngine *engine)
{
    return PyObject_CallMethodNoArgs(engine->outgoing,
                                     engine->state->names.read);
}

/* The contract of each function is in engine.h. */
const FlTlsEngineType fl_tls_engine_object = {
    .name = "sslobject",
    .feed = object_feed,
    .settle = object_settle,
    .read = object_read,
    .write = object_write,
    .incoming = object_incoming,
    .outgoing = object_outgoing,
    .take = object_take,
};
