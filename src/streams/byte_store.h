/* A byte store: what came and was not read yet, in one piece of memory.

   The memory is a bytes object of nobody else's, so that a reader which takes
   all is given the object itself.  Invariant: 0 <= start <= end <= the size of
   chunk; an empty store has no chunk, unless memory was asked for.

   Rejected: a bytearray, which gives bytes away only by copying, and a list
   of chunks, which a search for a separator would have to join. */
#ifndef FL_STREAMS_BYTE_STORE_H
#define FL_STREAMS_BYTE_STORE_H

#include "py/compat.h"

/* The largest bytes object that stays under the allocator's threshold. */
#define FL_LARGE_BYTES ((Py_ssize_t)(128 * 1024 - 128))

typedef struct {
    PyObject *chunk; /* NULL: empty */
    Py_ssize_t start;
    Py_ssize_t end;
} FlByteStore;

static inline Py_ssize_t
fl_byte_store_size(const FlByteStore *store)
{
    return store->end - store->start;
}

static inline const char *
fl_byte_store_data(const FlByteStore *store)
{
    return store->chunk == NULL
               ? ""
               : PyBytes_AS_STRING(store->chunk) + store->start;
}

/* Add bytes at the end.  0 or -1 with MemoryError. */
int fl_byte_store_append(FlByteStore *store, const char *data,
                         Py_ssize_t size_bytes);

/* Room for at least so many bytes more at the end: where, and in *room how
   many.  NULL with MemoryError.  fl_byte_store_filled says how many came. */
char *fl_byte_store_memory(FlByteStore *store, Py_ssize_t size_bytes,
                           Py_ssize_t *room);
void fl_byte_store_filled(FlByteStore *store, Py_ssize_t got_bytes);

/* Take up to so many bytes from the beginning: a bytes object, or NULL with
   MemoryError and the store as it was, or empty where it had to move. */
PyObject *fl_byte_store_take(FlByteStore *store, Py_ssize_t size_bytes);

/* Drop up to so many bytes from the beginning. */
void fl_byte_store_drop(FlByteStore *store, Py_ssize_t size_bytes);

/* Where a separator begins at or after a position, or -1. */
Py_ssize_t fl_byte_store_find(const FlByteStore *store, Py_ssize_t from,
                              const char *separator, Py_ssize_t size_bytes);

#endif
