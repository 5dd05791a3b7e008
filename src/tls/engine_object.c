/* The engine that calls an SSLObject's methods.

   1. CPython's own read() is only called while records wait or a record is
      half read out: the exception that says "again" costs more than to ask.
   2. CPython's own methods are given memory as it lies, by a view that ends
      with the call: a frame that somebody keeps holds nothing then.
   3. What a subclass of SSLObject put in place of read() and write() is called
      as asyncio calls it: until it raises. */
#include "tls/engine_object.h"

#include "py/compat.h"
#include "py/state.h"
#include "tls/engine.h"

#include <string.h>

#define RECORD_BYTES (16 * 1024)

static size_t
pending_in(const FlTlsEngine *engine, PyObject *bio)
{
    PyObject *size = PyObject_GetAttr(bio, engine->state->names.pending);
    size_t bytes = size == NULL ? 0 : PyLong_AsSize_t(size);
    Py_XDECREF(size);
    if (PyErr_Occurred()) {
        /* For want of memory.  That something waits is the safe answer: the
           call that it leads to tells, and no other might come. */
        PyErr_Clear();
        return 1;
    }
    return bytes;
}

static size_t
object_incoming(const FlTlsEngine *engine)
{
    return pending_in(engine, engine->incoming);
}

static size_t
object_outgoing(const FlTlsEngine *engine)
{
    return pending_in(engine, engine->outgoing);
}

/* End a view, whatever was raised meanwhile. */
static void
end_view(const FlTlsEngine *engine, PyObject *view)
{
    PyObject *raised = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
    PyObject *done =
        PyObject_CallMethodNoArgs(view, engine->state->names.release);
    if (done == NULL) {
        PyErr_WriteUnraisable(view);
    }
    Py_XDECREF(done);
    Py_DECREF(view);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

static PyObject *
view_of(const char *data, size_t size_bytes)
{
    return PyMemoryView_FromMemory((char *)data, (Py_ssize_t)size_bytes,
                                   PyBUF_READ);
}

static int
object_feed(FlTlsEngine *engine, const char *data, size_t size_bytes)
{
    PyObject *view = view_of(data, size_bytes);
    PyObject *done = NULL;
    if (view != NULL) {
        done = PyObject_CallMethodOneArg(engine->incoming,
                                         engine->state->names.write, view);
        end_view(engine, view);
    }
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static int
object_settle(FlTlsEngine *Py_UNUSED(engine))
{
    return 0; /* a MemoryBIO copies */
}

/* What a failed call of the SSLObject means. */
static FlTlsResult
judge(const FlTlsEngine *engine)
{
    if (PyErr_ExceptionMatches(engine->state->tls_again_errors)) {
        PyErr_Clear(); /* no error: the engine waits for records */
        return FL_TLS_AGAIN;
    }
    if (PyErr_ExceptionMatches(engine->state->tls_zero_error)) {
        PyErr_Clear(); /* how an SSL that was shut down says it */
        return FL_TLS_END;
    }
    return FL_TLS_RAISED;
}

static FlTlsResult
object_read(FlTlsEngine *engine, char *memory, size_t room_bytes,
            size_t *got_bytes)
{
    *got_bytes = 0;
    size_t waits = engine->patched ? room_bytes : object_incoming(engine);
    if (waits == 0 && !engine->more) {
        return FL_TLS_AGAIN;
    }
    engine->more = false;
    /* CPython makes an object of that size first. */
    size_t ask = waits == 0 ? RECORD_BYTES : waits;
    if (ask > room_bytes) {
        ask = room_bytes;
    }
    PyObject *room = PyLong_FromSize_t(ask);
    PyObject *data =
        room == NULL
            ? NULL
            : PyObject_CallMethodOneArg(engine->object,
                                        engine->state->names.read, room);
    Py_XDECREF(room);
    if (data == NULL) {
        return judge(engine);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        Py_DECREF(data);
        return FL_TLS_RAISED;
    }
    FlTlsResult result = view.len == 0 ? FL_TLS_END : FL_TLS_DONE;
    if ((size_t)view.len > room_bytes) {
        PyErr_SetString(PyExc_RuntimeError,
                        "SSLObject.read() returned more than was asked for");
        result = FL_TLS_RAISED;
    }
    else if (view.len > 0) {
        memcpy(memory, view.buf, (size_t)view.len);
        *got_bytes = (size_t)view.len;
        engine->more = *got_bytes == ask;
    }
    PyBuffer_Release(&view);
    Py_DECREF(data);
    return result;
}

static FlTlsResult
object_write(FlTlsEngine *engine, const char *data, size_t size_bytes,
             size_t *taken_bytes)
{
    *taken_bytes = 0;
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)size_bytes);
    if (bytes == NULL) {
        return FL_TLS_RAISED;
    }
    PyObject *count =
        PyObject_CallMethodOneArg(engine->object, engine->state->names.write,
                                  bytes);
    Py_DECREF(bytes);
    if (count == NULL) {
        return judge(engine);
    }
    size_t taken = PyLong_AsSize_t(count);
    Py_DECREF(count);
    if (taken == (size_t)-1 && PyErr_Occurred()) {
        return FL_TLS_RAISED;
    }
    *taken_bytes = taken < size_bytes ? taken : size_bytes;
    return FL_TLS_DONE;
}

static int
object_take(FlTlsEngine *engine, FlTlsOutput *output)
{
    memset(output, 0, sizeof(*output));
    PyObject *bytes =
        PyObject_CallMethodNoArgs(engine->outgoing, engine->state->names.read);
    if (bytes == NULL) {
        return -1;
    }
    output->bytes = bytes;
    output->data = PyBytes_AS_STRING(bytes);
    output->size_bytes = (size_t)PyBytes_GET_SIZE(bytes);
    return 0;
}

static void
object_explain(FlTlsEngine *Py_UNUSED(engine))
{
}

static void
object_detach(FlTlsEngine *engine)
{
    PyObject *raised = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
    FlTlsOutput output;
    if (object_take(engine, &output) == 0) {
        fl_tls_output_free(&output);
    }
    else {
        PyErr_Clear(); /* what was to be dropped is dropped later */
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

const FlTlsEngineType fl_tls_engine_object = {
    .name = "sslobject",
    .feed = object_feed,
    .settle = object_settle,
    .read = object_read,
    .write = object_write,
    .incoming = object_incoming,
    .outgoing = object_outgoing,
    .take = object_take,
    .explain = object_explain,
    .detach = object_detach,
};
