/* A byte store: the bytes that a stream reader has received and not
   returned yet.

   The bytes are in one bytes object, the *chunk*, and in up to
   FL_STORE_PIECES - 1 further bytes objects, the *pieces*, which follow it.
   The store holds the only reference to each.  So a read that takes all of the
   chunk returns the object itself, without a copy.  Pieces appear where one
   socket event delivered more than the chunk has room for.  They are merged
   into one chunk when somebody needs contiguous bytes: a search, or a read of
   more than the chunk.

   Invariants, except between fl_byte_store_memory and fl_byte_store_filled:
   - 0 <= start <= end <= the size of the chunk.
   - An empty store has no chunk (NULL).
   - If there are pieces, the chunk is not empty, and every piece except the
     last is full.

   Ownership: the store is embedded in its reader's state, which frees the
   objects with fl_byte_store_drop.

   Threads: the loop's thread, with the GIL.  No function runs Python code:
   only bytes objects are allocated and freed, and these are not tracked by
   the GC.

   Errors: MemoryError is the only exception.

   Rejected: a bytearray, as asyncio uses.  It hands bytes out only by copying
   them. */
#ifndef FL_STREAMS_BYTE_STORE_H
#define FL_STREAMS_BYTE_STORE_H

#include "py/compat.h"

#include <sys/uio.h>

/* The largest bytes object that stays under the allocator's threshold. */
#define FL_LARGE_BYTES ((Py_ssize_t)(128 * 1024 - 128))

/* The most memory areas that one read from the socket fills: the free end of
   the chunk and the pieces. */
#define FL_STORE_PIECES 4

typedef struct {
    PyObject *chunk;  /* bytes; NULL: the store is empty */
    Py_ssize_t start; /* of the unread bytes in the chunk */
    Py_ssize_t end;   /* of them; the rest of the chunk is free */
    PyObject *pieces[FL_STORE_PIECES - 1];
    int piece_count;
    Py_ssize_t piece_bytes; /* unread bytes in all pieces together */
} FlByteStore;

/* How many bytes the store has. */
static inline Py_ssize_t
fl_byte_store_size(const FlByteStore *store)
{
    return store->end - store->start + store->piece_bytes;
}

/* All bytes of the store, contiguous.  The pointer is valid until the next
   call that changes the store.  NULL with MemoryError; the store is then
   unchanged. */
const char *fl_byte_store_data(FlByteStore *store);

/* Append a copy of size_bytes > 0 bytes.  0, or -1 with MemoryError and the
   store unchanged. */
int fl_byte_store_append(FlByteStore *store, const char *data,
                         Py_ssize_t size_bytes);

/* Memory to read from the socket into.  The store offers up to `count` areas
   of size_bytes each, to be filled in order, and writes them to `memory`.
   Returns how many areas it offers; 0 if there is no memory, without an
   exception.

   Every successful call must be followed by fl_byte_store_filled, with no
   other call on the store between.  got_bytes says how many bytes were
   received in all.  The caller may have shortened the areas.  What did not fit
   into them is in the caller's own buffer, which it put into `memory` after
   the last area; the store copies those bytes.  0, or -1 with MemoryError if
   that copy fails. */
int fl_byte_store_memory(FlByteStore *store, Py_ssize_t size_bytes, int count,
                         struct iovec *memory);
int fl_byte_store_filled(FlByteStore *store, const struct iovec *memory,
                         Py_ssize_t got_bytes);

/* Remove up to size_bytes bytes from the front and return them as a bytes
   object.  NULL with MemoryError: the store is unchanged, except that a chunk
   that could not be shrunk to its used size is lost. */
PyObject *fl_byte_store_take(FlByteStore *store, Py_ssize_t size_bytes);

/* Remove up to size_bytes bytes from the front.  Cannot fail. */
void fl_byte_store_drop(FlByteStore *store, Py_ssize_t size_bytes);

/* The index of the first separator that begins at `from` or later.  -1 if
   there is none; -2 with MemoryError. */
Py_ssize_t fl_byte_store_find(FlByteStore *store, Py_ssize_t from,
                              const char *separator, Py_ssize_t size_bytes);

#endif
