/* The unread bytes of a stream reader: see byte_store.h.

   1. Nobody else has a reference to the chunk or a piece.  take_chunk resizes
      the chunk in place, which requires exactly one reference.  The store
      gives its own reference up when it returns the object.
   2. Bytes are stored in order: the chunk, then the pieces.  New bytes go to
      the end of the chunk only while there are no pieces.
   3. Every piece except the last is full, so the number of used bytes in each
      piece follows from piece_bytes alone (bytes_in_piece).  A piece is
      therefore added only while all present ones are full. */
#include "streams/byte_store.h"

#include "py/compat.h"

#include <string.h>

/* Appended data of at least this size becomes a piece of its own if the chunk
   has no room.  Smaller data is copied into one chunk, which keeps the number
   of pieces low. */
#define PIECE_BYTES 8192

/* A position in the chunk. */
static char *
bytes_at(const FlByteStore *store, Py_ssize_t at)
{
    return PyBytes_AS_STRING(store->chunk) + at;
}

/* How many unread bytes the chunk has. */
static Py_ssize_t
chunk_size(const FlByteStore *store)
{
    return store->end - store->start;
}

/* Replace the chunk by one whose first `end` bytes are unread.  Steals the
   reference; NULL empties the store. */
static void
set_chunk(FlByteStore *store, PyObject *chunk, Py_ssize_t end)
{
    PyObject *before = store->chunk;
    store->chunk = chunk;
    store->start = 0;
    store->end = end;
    Py_XDECREF(before); /* a bytes object: frees memory, runs no code */
}

/* --- pieces -------------------------------------------------------------- */

/* How many bytes of a piece are used, if `bytes` bytes are in this piece and
   the pieces after it. */
static Py_ssize_t
bytes_in_piece(PyObject *piece, Py_ssize_t bytes)
{
    Py_ssize_t size = PyBytes_GET_SIZE(piece);
    return bytes < size ? bytes : size;
}

/* Whether a piece may be added: there is a free slot, and all present pieces
   are full (invariant 3). */
static bool
can_add_piece(const FlByteStore *store)
{
    Py_ssize_t room = 0;
    for (int at = 0; at < store->piece_count; at++) {
        room += PyBytes_GET_SIZE(store->pieces[at]);
    }
    return room == store->piece_bytes
           && store->piece_count < FL_STORE_PIECES - 1;
}

/* The chunk is used up: drop it and make the first piece the chunk, if there
   is one. */
static void
advance_chunk(FlByteStore *store)
{
    PyObject *chunk = NULL;
    Py_ssize_t size = 0;
    if (store->piece_count > 0) {
        chunk = store->pieces[0];
        size = bytes_in_piece(chunk, store->piece_bytes);
        store->piece_bytes -= size;
        store->piece_count--;
        memmove(store->pieces, store->pieces + 1,
                (size_t)store->piece_count * sizeof(PyObject *));
    }
    set_chunk(store, chunk, size);
}

/* Merge chunk and pieces into a new chunk object of size_bytes, which must be
   at least the store's size.  0, or -1 with MemoryError and the store
   unchanged. */
static int
rebuild(FlByteStore *store, Py_ssize_t size_bytes)
{
    PyObject *chunk = PyBytes_FromStringAndSize(NULL, size_bytes);
    if (chunk == NULL) {
        return -1;
    }
    /* From here on nothing can fail: the loop empties the store, object by
       object, into the new chunk. */
    Py_ssize_t at = 0;
    while (store->chunk != NULL) {
        Py_ssize_t size = chunk_size(store);
        memcpy(PyBytes_AS_STRING(chunk) + at, bytes_at(store, store->start),
               (size_t)size);
        at += size;
        advance_chunk(store);
    }
    set_chunk(store, chunk, at);
    return 0;
}

/* Whether the chunk has extra_bytes free, and no pieces follow it. */
static bool
has_room(const FlByteStore *store, Py_ssize_t extra_bytes)
{
    return store->piece_count == 0 && store->chunk != NULL
           && PyBytes_GET_SIZE(store->chunk) - store->end >= extra_bytes;
}

/* Make room for extra_bytes at the end of the chunk; merges the pieces.  0, or
   -1 with MemoryError and the store unchanged. */
static int
reserve(FlByteStore *store, Py_ssize_t extra_bytes)
{
    if (has_room(store, extra_bytes)) {
        return 0;
    }
    Py_ssize_t size = fl_byte_store_size(store);
    /* The doubling below must not overflow. */
    if (extra_bytes > PY_SSIZE_T_MAX / 4 - size) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t wanted = size + extra_bytes;
    if (wanted < 2 * size) {
        wanted =
            2 * size; /* grow geometrically: appending is O(1) amortized */
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
    /* Callers may pass the result to memchr: an empty store gives a valid
       pointer. */
    return store->chunk == NULL ? "" : bytes_at(store, store->start);
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
    /* The first area is the free end of the chunk, which has no pieces now. */
    memory[0].iov_base = bytes_at(store, store->end);
    memory[0].iov_len = (size_t)size_bytes;
    /* The other areas are pieces.  They are already in store->pieces, but
       count as empty until fl_byte_store_filled. */
    while (store->piece_count + 1 < count) {
        PyObject *piece = PyBytes_FromStringAndSize(NULL, size_bytes);
        if (piece == NULL) {
            PyErr_Clear(); /* fewer areas will do */
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
    int offered = store->piece_count;
    /* got_bytes is distributed over the areas in order: first the chunk. */
    store->end += used;
    /* Nothing was received and the chunk was made for this call: an empty
       store has no chunk. */
    if (chunk_size(store) == 0) {
        set_chunk(store, NULL, 0);
    }
    /* Keep the pieces that received bytes.  They come first, so each keeps
       its index. */
    store->piece_count = 0;
    for (int at = 0; at < offered; at++) {
        got_bytes -= used;
        used = bytes_in_piece(store->pieces[at], got_bytes);
        if (used > 0) {
            store->piece_bytes += used;
            store->piece_count++;
        }
        else {
            Py_DECREF(store->pieces[at]); /* a bytes object: runs no code */
        }
    }
    /* The rest is in the caller's buffer, the entry after the last area. */
    got_bytes -= used;
    return got_bytes == 0
               ? 0
               : fl_byte_store_append(store, memory[offered + 1].iov_base,
                                      got_bytes);
}

int
fl_byte_store_append(FlByteStore *store, const char *data,
                     Py_ssize_t size_bytes)
{
    if (store->chunk == NULL
        || (!has_room(store, size_bytes) && size_bytes >= PIECE_BYTES
            && can_add_piece(store)))
    {
        /* An object of exactly this size: if a read takes all of it,
           take_chunk returns it without a resize. */
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

/* Take the whole chunk: return the object itself, cut to its used size.
   NULL with MemoryError; the chunk is lost then. */
static PyObject *
take_chunk(FlByteStore *store)
{
    PyObject *chunk = Py_NewRef(store->chunk);
    Py_ssize_t end = store->end;
    advance_chunk(store);
    /* advance_chunk dropped the store's reference: ours is the only one, as
       _PyBytes_Resize requires.  On failure it frees the object. */
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
    /* More than the chunk is wanted: merge the pieces into it. */
    if (size_bytes > chunk_size(store) && fl_byte_store_data(store) == NULL) {
        return NULL;
    }
    /* The object itself can be returned only if the bytes begin at its
       start. */
    if (size_bytes == chunk_size(store) && size_bytes > 0 && store->start == 0)
    {
        return take_chunk(store);
    }
    /* Else copy.  The chunk may be NULL if no bytes are wanted. */
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
    /* An object of which all bytes are dropped is freed, so that an empty
       store has no chunk. */
    while (store->chunk != NULL && size_bytes >= chunk_size(store)) {
        size_bytes -= chunk_size(store);
        advance_chunk(store);
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
    /* A separator may span the chunk and a piece: search contiguous bytes. */
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
