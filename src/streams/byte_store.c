/* What a stream reader holds until it is read. */
#include "streams/byte_store.h"

#include "py/compat.h"

#include <string.h>

static char *
bytes_at(const FlByteStore *store, Py_ssize_t at)
{
    return PyBytes_AS_STRING(store->chunk) + at;
}

static void
set_chunk(FlByteStore *store, PyObject *chunk, Py_ssize_t end)
{
    PyObject *before = store->chunk;
    store->chunk = chunk;
    store->start = 0;
    store->end = end;
    Py_XDECREF(before); /* bytes: runs nothing */
}

static int
grow(FlByteStore *store, Py_ssize_t extra_bytes)
{
    Py_ssize_t size = fl_byte_store_size(store);
    if (extra_bytes > PY_SSIZE_T_MAX / 4 - size) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t wanted = size + extra_bytes;
    if (size > 0 && wanted < 2 * size) {
        wanted = 2 * size; /* so that many small pieces cost no more */
    }
    PyObject *chunk = PyBytes_FromStringAndSize(NULL, wanted);
    if (chunk == NULL) {
        return -1;
    }
    memcpy(PyBytes_AS_STRING(chunk), fl_byte_store_data(store), (size_t)size);
    set_chunk(store, chunk, size);
    return 0;
}

char *
fl_byte_store_memory(FlByteStore *store, Py_ssize_t size_bytes,
                     Py_ssize_t *room)
{
    if (store->chunk == NULL
        || PyBytes_GET_SIZE(store->chunk) - store->end < size_bytes)
    {
        if (grow(store, size_bytes) < 0) {
            return NULL;
        }
    }
    *room = PyBytes_GET_SIZE(store->chunk) - store->end;
    return bytes_at(store, store->end);
}

void
fl_byte_store_filled(FlByteStore *store, Py_ssize_t got_bytes)
{
    store->end += got_bytes;
    if (store->end == store->start) {
        set_chunk(store, NULL, 0);
    }
}

int
fl_byte_store_append(FlByteStore *store, const char *data,
                     Py_ssize_t size_bytes)
{
    if (fl_byte_store_size(store) == 0) {
        /* Of the very size: likely it is taken as a whole. */
        PyObject *chunk = PyBytes_FromStringAndSize(data, size_bytes);
        if (chunk == NULL) {
            return -1;
        }
        set_chunk(store, chunk, size_bytes);
        return 0;
    }
    Py_ssize_t room;
    char *memory = fl_byte_store_memory(store, size_bytes, &room);
    if (memory == NULL) {
        return -1;
    }
    memcpy(memory, data, (size_t)size_bytes);
    store->end += size_bytes;
    return 0;
}

/* All of it, as the chunk itself. */
static PyObject *
take_chunk(FlByteStore *store)
{
    PyObject *chunk = store->chunk;
    Py_ssize_t end = store->end;
    store->chunk = NULL;
    store->start = store->end = 0;
    if (PyBytes_GET_SIZE(chunk) != end && _PyBytes_Resize(&chunk, end) < 0) {
        return NULL;
    }
    return chunk;
}

PyObject *
fl_byte_store_take(FlByteStore *store, Py_ssize_t size_bytes)
{
    Py_ssize_t size = fl_byte_store_size(store);
    if (size_bytes >= size && size > 0 && store->start == 0) {
        return take_chunk(store);
    }
    if (size_bytes > size) {
        size_bytes = size;
    }
    PyObject *taken =
        PyBytes_FromStringAndSize(fl_byte_store_data(store), size_bytes);
    if (taken != NULL) {
        fl_byte_store_drop(store, size_bytes);
    }
    return taken;
}

void
fl_byte_store_drop(FlByteStore *store, Py_ssize_t size_bytes)
{
    if (size_bytes >= fl_byte_store_size(store)) {
        set_chunk(store, NULL, 0);
    }
    else {
        store->start += size_bytes;
    }
}

Py_ssize_t
fl_byte_store_find(const FlByteStore *store, Py_ssize_t from,
                   const char *separator, Py_ssize_t size_bytes)
{
    Py_ssize_t size = fl_byte_store_size(store) - from;
    if (size < size_bytes) {
        return -1;
    }
    const char *data = fl_byte_store_data(store);
    const char *found =
        size_bytes == 1
            ? memchr(data + from, separator[0], (size_t)size)
            : memmem(data + from, (size_t)size, separator, (size_t)size_bytes);
    return found == NULL ? -1 : found - data;
}
