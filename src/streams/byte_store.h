/* A byte store: the bytes that a stream reader has received and not
   returned yet.

   The bytes are in up to FL_STORE_PIECES bytes objects, the *pieces*.  The
   store holds the only reference to each, but for one of a single byte, which
   may be CPython's shared object.  So a read that takes all of a piece of
   which nothing was read returns the object itself, without a copy.  There is
   more than one piece if bytes arrived that the last had no room for: the rest
   of a socket event, or data of at least 8 KiB.  They are merged into one for
   a search, for a read of more than the first piece, and for smaller data that
   has no room.

   Invariants, except between fl_byte_store_memory and fl_byte_store_filled:
   - An empty store has no pieces, and no piece is empty.
   - All pieces except the last are full.

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

/* The most pieces, and the most memory areas that one read from the socket
   fills: the free end of the last piece, and others. */
#define FL_STORE_PIECES 4

typedef struct {
    PyObject *pieces[FL_STORE_PIECES]; /* bytes objects */
    int count;                         /* of pieces that have bytes */
    int offered;           /* pieces after these: fl_byte_store_memory */
    Py_ssize_t start;      /* where unread bytes begin in the first piece */
    Py_ssize_t end;        /* where they end in the last; the rest is free */
    Py_ssize_t size_bytes; /* unread bytes in all pieces */
} FlByteStore;

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
   object.  NULL with MemoryError: the store is unchanged, except that a piece
   that could not be shrunk to its used size is lost. */
PyObject *fl_byte_store_take(FlByteStore *store, Py_ssize_t size_bytes);

/* Remove up to size_bytes bytes from the front.  May move the others, into
   less memory.  Cannot fail. */
void fl_byte_store_drop(FlByteStore *store, Py_ssize_t size_bytes);

/* The index of the first separator that begins at `from` or later.  -1 if
   there is none; -2 with MemoryError. */
Py_ssize_t fl_byte_store_find(FlByteStore *store, Py_ssize_t from,
                              const char *separator, Py_ssize_t size_bytes);

#endif
