/* The write queue: bytes objects that wait for the kernel, in order.

   It owns a reference to each; the first may be sent in part.  append takes a
   new reference and fails with MemoryError, changing nothing.  One thread.

   Of a datagram transport it holds pairs instead, bytes and an address of any
   type, for which there are calls of their own. */
#ifndef FL_NET_CHUNKS_H
#define FL_NET_CHUNKS_H

#include "py/compat.h"

#include <sys/uio.h>

#define FL_CHUNKS_INLINE 4

typedef struct {
    PyObject **items; /* bytes; points at few or at allocated memory */
    PyObject *few[FL_CHUNKS_INLINE];
    size_t head; /* index of the first that waits */
    size_t tail; /* index behind the last */
    size_t capacity;
    size_t sent_bytes; /* of the first */
    size_t size_bytes; /* what waits in all */
} FlChunks;

void fl_chunks_init(FlChunks *chunks);

/* Drop everything and the memory. */
void fl_chunks_clear(FlChunks *chunks);

int fl_chunks_append(FlChunks *chunks, PyObject *bytes, size_t sent_bytes);

/* Point up to `limit` vectors at what waits; how many were filled. */
int fl_chunks_vectors(const FlChunks *chunks, struct iovec *vectors,
                      int limit);

/* The kernel took this many bytes. */
void fl_chunks_consume(FlChunks *chunks, size_t size_bytes);

/* The same for pairs: append one that counts size_bytes, look at one (borrowed
   references; NULL: there are no more), drop the first. */
int fl_chunks_append_pair(FlChunks *chunks, PyObject *bytes, PyObject *address,
                          size_t size_bytes);
PyObject *const *fl_chunks_pair(const FlChunks *chunks, size_t index);
void fl_chunks_drop_pair(FlChunks *chunks, size_t size_bytes);

static inline bool
fl_chunks_is_empty(const FlChunks *chunks)
{
    return chunks->head == chunks->tail;
}

#endif
