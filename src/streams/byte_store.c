/* The unread bytes of a stream reader: see byte_store.h.

   Nobody else has a reference to a piece, except to one of a single byte,
   which may be CPython's shared object.  That one is full, so nothing writes
   to it or resizes it.  take_piece resizes a piece in place, which requires
   exactly one reference.  The store gives its own reference up when it returns
   the object. */
#include "streams/byte_store.h"

#include "py/compat.h"

#include <string.h>

/* Appended data of at least this size becomes a piece of its own if the last
   one has no room.  Smaller data is copied into one piece, which keeps their
   number low. */
#define APPENDED_MIN_BYTES 8192
/* A larger piece of which less than a quarter is unread is replaced: a silent
   peer must not keep a whole event's memory. */
#define WASTEFUL_BYTES     (16 * 1024)

/* Where the unread bytes of the first piece begin. */
static char *
first_bytes(const FlByteStore *store)
{
    return PyBytes_AS_STRING(store->pieces[0]) + store->start;
}

/* Where the free bytes of the last piece begin. */
static char *
free_bytes(const FlByteStore *store)
{
    return PyBytes_AS_STRING(store->pieces[store->count - 1]) + store->end;
}

/* How many unread bytes the first piece has. */
static Py_ssize_t
first_size(const FlByteStore *store)
{
    return store->count <= 1
               ? store->size_bytes
               : PyBytes_GET_SIZE(store->pieces[0]) - store->start;
}

/* How many free bytes the last piece has. */
static Py_ssize_t
free_size(const FlByteStore *store)
{
    return store->count == 0
               ? 0
               : PyBytes_GET_SIZE(store->pieces[store->count - 1])
                     - store->end;
}

/* Add a piece whose first `end` bytes are unread, to full ones.  Steals the
   reference. */
static void
push_piece(FlByteStore *store, PyObject *piece, Py_ssize_t end)
{
    store->pieces[store->count++] = piece;
    store->end = end;
    store->size_bytes += end;
}

/* Remove the first piece and return it. */
static PyObject *
pop_piece(FlByteStore *store)
{
    PyObject *piece = store->pieces[0];
    store->size_bytes -= first_size(store);
    store->start = 0;
    store->count--;
    memmove(store->pieces, store->pieces + 1,
            (size_t)store->count * sizeof(PyObject *));
    return piece;
}

/* Merge the pieces into a new one of size_bytes, which must be at least the
   store's size.  0, or -1 with MemoryError and the store unchanged. */
static int
rebuild(FlByteStore *store, Py_ssize_t size_bytes)
{
    PyObject *merged = PyBytes_FromStringAndSize(NULL, size_bytes);
    if (merged == NULL) {
        return -1;
    }
    Py_ssize_t end = 0;
    while (store->count > 0) {
        Py_ssize_t size = first_size(store);
        memcpy(PyBytes_AS_STRING(merged) + end, first_bytes(store),
               (size_t)size);
        end += size;
        Py_DECREF(pop_piece(store)); /* frees memory, runs no code */
    }
    push_piece(store, merged, end);
    return 0;
}

/* Make room for extra_bytes at the end of the last piece; may merge them.  0,
   or -1 with MemoryError and the store unchanged. */
static int
reserve(FlByteStore *store, Py_ssize_t extra_bytes)
{
    Py_ssize_t size = store->size_bytes;
    if (free_size(store) >= extra_bytes) {
        return 0;
    }
    /* Grow geometrically: appending is O(1) amortized. */
    return rebuild(store, extra_bytes > size ? size + extra_bytes : 2 * size);
}

const char *
fl_byte_store_data(FlByteStore *store)
{
    if (store->count > 1 && rebuild(store, store->size_bytes) < 0) {
        return NULL;
    }
    /* Callers may pass the result to memchr: an empty store gives a valid
       pointer. */
    return store->count == 0 ? "" : first_bytes(store);
}

/* --- in ------------------------------------------------------------------ */

int
fl_byte_store_memory(FlByteStore *store, Py_ssize_t size_bytes, int count,
                     struct iovec *memory)
{
    if (reserve(store, size_bytes) < 0) {
        PyErr_Clear(); /* the caller reads into its own buffer instead */
        return 0;
    }
    /* The first area is the free end of the last piece. */
    memory[0].iov_base = free_bytes(store);
    memory[0].iov_len = (size_t)size_bytes;
    /* The others are pieces, which do not count until fl_byte_store_filled.
       The last piece must be full before they do. */
    int areas = 1;
    while (areas < count && free_size(store) == size_bytes
           && store->count + store->offered < FL_STORE_PIECES)
    {
        PyObject *piece = PyBytes_FromStringAndSize(NULL, size_bytes);
        if (piece == NULL) {
            PyErr_Clear(); /* fewer areas will do */
            break;
        }
        memory[areas].iov_base = PyBytes_AS_STRING(piece);
        memory[areas++].iov_len = (size_t)size_bytes;
        store->pieces[store->count + store->offered++] = piece;
    }
    return areas;
}

int
fl_byte_store_filled(FlByteStore *store, const struct iovec *memory,
                     Py_ssize_t got_bytes)
{
    int offered = store->offered;
    PyObject **pieces = store->pieces + store->count;
    store->offered = 0;
    /* got_bytes is distributed over the areas in order. */
    Py_ssize_t left = got_bytes;
    Py_ssize_t used = Py_MIN(left, (Py_ssize_t)memory[0].iov_len);
    store->end += used;
    store->size_bytes += used;
    if (store->size_bytes == 0) {
        Py_DECREF(pop_piece(store)); /* it was made for this call */
    }
    /* Those that received bytes come first, so each keeps its place. */
    for (int at = 0; at < offered; at++) {
        left -= used;
        used = Py_MIN(left, PyBytes_GET_SIZE(pieces[at]));
        if (used > 0) {
            push_piece(store, pieces[at], used);
        }
        else {
            Py_DECREF(pieces[at]);
        }
    }
    /* The rest is in the caller's buffer, the entry after the last area. */
    left -= used;
    return left == 0
               ? 0
               : fl_byte_store_append(store, memory[offered + 1].iov_base,
                                      left);
}

int
fl_byte_store_append(FlByteStore *store, const char *data,
                     Py_ssize_t size_bytes)
{
    Py_ssize_t room = free_size(store);
    bool is_large = size_bytes >= APPENDED_MIN_BYTES && room == 0
                    && store->count < FL_STORE_PIECES;
    if (store->count == 0 || is_large) {
        /* An object of exactly this size: if a read takes all of it,
           take_piece returns it without a resize. */
        PyObject *piece = PyBytes_FromStringAndSize(data, size_bytes);
        if (piece == NULL) {
            return -1;
        }
        push_piece(store, piece, size_bytes);
        return 0;
    }
    if (reserve(store, size_bytes) < 0) {
        return -1;
    }
    memcpy(free_bytes(store), data, (size_t)size_bytes);
    store->end += size_bytes;
    store->size_bytes += size_bytes;
    return 0;
}

/* --- out ----------------------------------------------------------------- */

/* Take the first piece, of which nothing was read: return the object itself,
   cut to its used size.  NULL with MemoryError; the piece is lost then. */
static PyObject *
take_piece(FlByteStore *store)
{
    Py_ssize_t size = first_size(store);
    PyObject *piece = pop_piece(store);
    /* Ours is the only reference, as _PyBytes_Resize requires.  On failure it
       frees the object and sets the pointer to NULL. */
    if (PyBytes_GET_SIZE(piece) != size) {
        (void)_PyBytes_Resize(&piece, size);
    }
    return piece;
}

PyObject *
fl_byte_store_take(FlByteStore *store, Py_ssize_t size_bytes)
{
    size_bytes = Py_MIN(size_bytes, store->size_bytes);
    /* More than the first piece is wanted: merge them. */
    if (size_bytes > first_size(store) && fl_byte_store_data(store) == NULL) {
        return NULL;
    }
    /* The object itself can be returned only if the bytes begin at its
       start. */
    if (size_bytes == first_size(store) && size_bytes > 0 && store->start == 0)
    {
        return take_piece(store);
    }
    PyObject *taken =
        PyBytes_FromStringAndSize(size_bytes == 0 ? NULL : first_bytes(store),
                                  size_bytes);
    if (taken != NULL) {
        fl_byte_store_drop(store, size_bytes);
    }
    return taken;
}

void
fl_byte_store_drop(FlByteStore *store, Py_ssize_t size_bytes)
{
    while (store->count > 0 && size_bytes >= first_size(store)) {
        size_bytes -= first_size(store);
        Py_DECREF(pop_piece(store));
    }
    if (store->count == 0) {
        return;
    }
    store->start += size_bytes;
    store->size_bytes -= size_bytes;
    Py_ssize_t capacity = PyBytes_GET_SIZE(store->pieces[0]);
    if (store->count == 1 && capacity > WASTEFUL_BYTES
        && store->size_bytes < capacity / 4
        && rebuild(store, store->size_bytes) < 0)
    {
        PyErr_Clear(); /* it stays as it is */
    }
}

Py_ssize_t
fl_byte_store_find(FlByteStore *store, Py_ssize_t from, const char *separator,
                   Py_ssize_t size_bytes)
{
    Py_ssize_t size = store->size_bytes - from;
    if (size < size_bytes) {
        return -1;
    }
    /* A separator may span two pieces: search contiguous bytes.  Room for as
       many more: a long line is searched after each event. */
    if (store->count > 1 && rebuild(store, 2 * store->size_bytes) < 0) {
        return -2;
    }
    const char *data = fl_byte_store_data(store);
    const char *found =
        size_bytes == 1
            ? memchr(data + from, separator[0], (size_t)size)
            : memmem(data + from, (size_t)size, separator, (size_t)size_bytes);
    return found == NULL ? -1 : found - data;
}
