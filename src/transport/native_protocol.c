/* Calls of protocols: see native_protocol.h. */
#include "transport/native_protocol.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"

int
fl_protocol_change(const FlState *state, void *owner, FlProtocol *field,
                   PyObject *object)
{
    int is_buffered = PyObject_IsInstance(object, state->buffered_protocol);
    if (is_buffered < 0) {
        return -1;
    }
    /* Exact: a subclass may override the methods. */
    PyObject *type = (PyObject *)Py_TYPE(object);
    FlProtocol found = {.object = object};
    found.native =
        type == state->asyncio_stream_protocol ? state->native_reader_protocol
        : type == (PyObject *)state->tls_adapter_type ? state->native_tls
                                                      : NULL;
    found.buffered = is_buffered && found.native == NULL;
    fl_protocol_set(owner, field, found);
    return 0;
}

void
fl_protocol_before_made(FlState *state, const FlProtocol *protocol)
{
    const FlNativeProtocol *native = protocol->native;
    if (native != NULL && native->before_connection_made != NULL) {
        native->before_connection_made(state, protocol->object);
    }
}

int
fl_protocol_buffer_updated(FlState *state, PyObject *protocol,
                           size_t got_bytes)
{
    PyObject *count = PyLong_FromSize_t(got_bytes);
    if (count == NULL) {
        return -1;
    }
    int code = fl_call_method(protocol, state->names.buffer_updated, count);
    Py_DECREF(count);
    return code;
}

PyObject *
fl_protocol_get_buffer(FlState *state, PyObject *protocol, Py_ssize_t hint)
{
    PyObject *hint_object = PyLong_FromSsize_t(hint);
    if (hint_object == NULL) {
        return NULL;
    }
    PyObject *buffer =
        PyObject_CallMethodOneArg(protocol, state->names.get_buffer,
                                  hint_object);
    Py_DECREF(hint_object);
    Py_ssize_t size = buffer == NULL ? -1 : PyObject_Size(buffer);
    if (size == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "get_buffer() returned an empty buffer");
    }
    if (size <= 0) {
        Py_CLEAR(buffer);
    }
    return buffer;
}
