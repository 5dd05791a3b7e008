/* A byte store: what came and was not read yet, in few pieces of memory.

   Each is a bytes object of nobody else's, so that a reader which takes all of
   it is given the object itself.  The first is the chunk; what one event read
   beyond it may be in pieces of their own, until somebody needs all of it in
   one: a search, or a read of more than the chunk.

   Invariant, but between fl_byte_store_memory and fl_byte_store_filled: 0 <=
   start <= end <= the size of chunk; an empty store has no chunk; where there
   are pieces the chunk is not empty, and each but the last is full.

   Rejected: a bytearray, which gives bytes away only by copying. */
#ifndef FL_STREAMS_BYTE_STORE_H
#define FL_STREAMS_BYTE_STORE_H

#include "py/compat.h"

#include <sys/uio.h>

/* The largest bytes object that stays under the allocator's threshold. */
#define FL_LARGE_BYTES ((Py_ssize_t)(128 * 1024 - 128))

/* The most pieces of memory at once, the chunk's end among them. */
#define FL_STORE_PIECES 4

typedef struct {
    PyObject *chunk; /* NULL: empty */
    Py_ssize_t start;
    Py_ssize_t end;
    PyObject *pieces[FL_STORE_PIECES - 1];
    int piece_count;
    Py_ssize_t piece_bytes; /* in all pieces */
} FlByteStore;

static inline Py_ssize_t
fl_byte_store_size(const FlByteStore *store)
{
    return store->end - store->start + store->piece_bytes;
}

/* All there is, in one piece of memory.  NULL with MemoryError. */
const char *fl_byte_store_data(FlByteStore *store);

/* Add bytes at the end.  0 or -1 with MemoryError. */
int fl_byte_store_append(FlByteStore *store, const char *data,
                         Py_ssize_t size_bytes);

/* Room for bytes to come, in so many pieces of memory of size_bytes each, to
   be filled one after the other.  How many there are; 0: no memory for any,
   without an exception.  fl_byte_store_filled says how many bytes came into
   them, and into the piece after the last, which is the caller's, what they
   had no room for.  It returns 0, or -1 with MemoryError. */
int fl_byte_store_memory(FlByteStore *store, Py_ssize_t size_bytes, int count,
                         struct iovec *memory);
int fl_byte_store_filled(FlByteStore *store, const struct iovec *memory,
                         Py_ssize_t got_bytes);

/* Take up to so many bytes from the beginning: a bytes object, or NULL with
   MemoryError and the store as it was, or empty where it had to move. */
PyObject *fl_byte_store_take(FlByteStore *store, Py_ssize_t size_bytes);

/* Drop up to so many bytes from the beginning. */
void fl_byte_store_drop(FlByteStore *store, Py_ssize_t size_bytes);

/* Where a separator begins at or after a position; -1: nowhere; -2 with
   MemoryError. */
Py_ssize_t fl_byte_store_find(FlByteStore *store, Py_ssize_t from,
                              const char *separator, Py_ssize_t size_bytes);

#endif
