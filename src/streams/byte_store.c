/* What a stream reader holds until it is read. */
#include "streams/byte_store.h"

#include "py/compat.h"

#include <string.h>

/* What comes after a full chunk gets a piece of its own from this size on:
   smaller ones are copied together, so that they stay few. */
#define PIECE_BYTES 8192

static char *
bytes_at(const FlByteStore *store, Py_ssize_t at)
{
    return PyBytes_AS_STRING(store->chunk) + at;
}

/* The chunk's part. */
static Py_ssize_t
chunk_size(const FlByteStore *store)
{
    return store->end - store->start;
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

/* --- pieces -------------------------------------------------------------- */

/* How many bytes of a piece are used, where so many are in it and behind. */
static Py_ssize_t
used_bytes(PyObject *piece, Py_ssize_t bytes)
{
    Py_ssize_t size = PyBytes_GET_SIZE(piece);
    return bytes < size ? bytes : size;
}

/* Whether a piece may be added. */
static bool
takes_piece(const FlByteStore *store)
{
    Py_ssize_t room = 0;
    for (int at = 0; at < store->piece_count; at++) {
        room += PyBytes_GET_SIZE(store->pieces[at]);
    }
    return room == store->piece_bytes
           && store->piece_count < FL_STORE_PIECES - 1;
}

/* The first piece's turn, if there is one, after all of the chunk. */
static void
next_chunk(FlByteStore *store)
{
    PyObject *chunk = NULL;
    Py_ssize_t size = 0;
    if (store->piece_count > 0) {
        chunk = store->pieces[0];
        size = used_bytes(chunk, store->piece_bytes);
        store->piece_bytes -= size;
        store->piece_count--;
        memmove(store->pieces, store->pieces + 1,
                (size_t)store->piece_count * sizeof(PyObject *));
    }
    set_chunk(store, chunk, size);
}

/* Have a chunk of so many bytes that begins with all there is.  0, or -1 with
   MemoryError. */
static int
rebuild(FlByteStore *store, Py_ssize_t size_bytes)
{
    PyObject *chunk = PyBytes_FromStringAndSize(NULL, size_bytes);
    if (chunk == NULL) {
        return -1;
    }
    Py_ssize_t at = 0;
    while (store->chunk != NULL) {
        Py_ssize_t size = chunk_size(store);
        memcpy(PyBytes_AS_STRING(chunk) + at, bytes_at(store, store->start),
               (size_t)size);
        at += size;
        next_chunk(store);
    }
    set_chunk(store, chunk, at);
    return 0;
}

/* Whether the chunk has all there is and room for so many bytes more. */
static bool
has_room(const FlByteStore *store, Py_ssize_t extra_bytes)
{
    return store->piece_count == 0 && store->chunk != NULL
           && PyBytes_GET_SIZE(store->chunk) - store->end >= extra_bytes;
}

/* Have room for so many bytes at the end of a chunk that has all.  0 or -1. */
static int
reserve(FlByteStore *store, Py_ssize_t extra_bytes)
{
    if (has_room(store, extra_bytes)) {
        return 0;
    }
    Py_ssize_t size = fl_byte_store_size(store);
    if (extra_bytes > PY_SSIZE_T_MAX / 4 - size) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t wanted = size + extra_bytes;
    if (wanted < 2 * size) {
        wanted = 2 * size; /* so that many small pieces cost no more */
    }
    return rebuild(store, wanted);
}

const char *
fl_byte_store_data(FlByteStore *store)
{
    if (store->piece_count > 0
        && rebuild(store, fl_byte_store_size(store)) < 0) {
        return NULL;
    }
    return store->chunk == NULL ? "" : bytes_at(store, store->start);
}

/* --- in ------------------------------------------------------------------ */

int
fl_byte_store_memory(FlByteStore *store, Py_ssize_t size_bytes, int count,
                     struct iovec *memory)
{
    if (reserve(store, size_bytes) < 0) {
        PyErr_Clear(); /* whoever asked has other memory */
        return 0;
    }
    memory[0].iov_base = bytes_at(store, store->end);
    memory[0].iov_len = (size_t)size_bytes;
    while (store->piece_count + 1 < count) {
        PyObject *piece = PyBytes_FromStringAndSize(NULL, size_bytes);
        if (piece == NULL) {
            PyErr_Clear(); /* likewise */
            break;
        }
        struct iovec *next = &memory[store->piece_count + 1];
        next->iov_base = PyBytes_AS_STRING(piece);
        next->iov_len = (size_t)size_bytes;
        store->pieces[store->piece_count++] = piece;
    }
    return store->piece_count + 1;
}

int
fl_byte_store_filled(FlByteStore *store, const struct iovec *memory,
                     Py_ssize_t got_bytes)
{
    Py_ssize_t room = (Py_ssize_t)memory[0].iov_len;
    Py_ssize_t used = got_bytes < room ? got_bytes : room;
    int asked = store->piece_count;
    store->end += used;
    if (chunk_size(store) == 0) {
        set_chunk(store, NULL, 0);
    }
    store->piece_count = 0;
    for (int at = 0; at < asked; at++) {
        got_bytes -= used;
        used = used_bytes(store->pieces[at], got_bytes);
        if (used > 0) {
            store->piece_bytes += used;
            store->piece_count++;
        }
        else {
            Py_DECREF(store->pieces[at]); /* bytes: runs nothing */
        }
    }
    got_bytes -= used;
    return got_bytes == 0
               ? 0
               : fl_byte_store_append(store, memory[asked + 1].iov_base,
                                      got_bytes);
}

int
fl_byte_store_append(FlByteStore *store, const char *data,
                     Py_ssize_t size_bytes)
{
    if (store->chunk == NULL
        || (!has_room(store, size_bytes) && size_bytes >= PIECE_BYTES
            && takes_piece(store)))
    {
        /* Of the very size: likely it is taken as a whole. */
        PyObject *piece = PyBytes_FromStringAndSize(data, size_bytes);
        if (piece == NULL) {
            return -1;
        }
        if (store->chunk == NULL) {
            set_chunk(store, piece, size_bytes);
        }
        else {
            store->pieces[store->piece_count++] = piece;
            store->piece_bytes += size_bytes;
        }
        return 0;
    }
    if (reserve(store, size_bytes) < 0) {
        return -1;
    }
    memcpy(bytes_at(store, store->end), data, (size_t)size_bytes);
    store->end += size_bytes;
    return 0;
}

/* --- out ----------------------------------------------------------------- */

/* All of the chunk, as the object itself. */
static PyObject *
take_chunk(FlByteStore *store)
{
    PyObject *chunk = Py_NewRef(store->chunk);
    Py_ssize_t end = store->end;
    next_chunk(store);
    if (PyBytes_GET_SIZE(chunk) != end && _PyBytes_Resize(&chunk, end) < 0) {
        return NULL;
    }
    return chunk;
}

PyObject *
fl_byte_store_take(FlByteStore *store, Py_ssize_t size_bytes)
{
    Py_ssize_t size = fl_byte_store_size(store);
    if (size_bytes > size) {
        size_bytes = size;
    }
    if (size_bytes > chunk_size(store) && fl_byte_store_data(store) == NULL) {
        return NULL;
    }
    if (size_bytes == chunk_size(store) && size_bytes > 0 && store->start == 0)
    {
        return take_chunk(store);
    }
    PyObject *taken = PyBytes_FromStringAndSize(
        size_bytes == 0 ? NULL : bytes_at(store, store->start), size_bytes);
    if (taken != NULL) {
        fl_byte_store_drop(store, size_bytes);
    }
    return taken;
}

void
fl_byte_store_drop(FlByteStore *store, Py_ssize_t size_bytes)
{
    while (store->chunk != NULL && size_bytes >= chunk_size(store)) {
        size_bytes -= chunk_size(store);
        next_chunk(store);
    }
    if (store->chunk != NULL) {
        store->start += size_bytes;
    }
}

Py_ssize_t
fl_byte_store_find(FlByteStore *store, Py_ssize_t from, const char *separator,
                   Py_ssize_t size_bytes)
{
    Py_ssize_t size = fl_byte_store_size(store) - from;
    if (size < size_bytes) {
        return -1;
    }
    const char *data = fl_byte_store_data(store);
    if (data == NULL) {
        return -2;
    }
    const char *found =
        size_bytes == 1
            ? memchr(data + from, separator[0], (size_t)size)
            : memmem(data + from, (size_t)size, separator, (size_t)size_bytes);
    return found == NULL ? -1 : found - data;
}
