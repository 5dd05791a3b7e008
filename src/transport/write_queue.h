/* The write queue: bytes objects that are held or that the kernel refused, in
   order.

   It owns a reference to each; the first may be sent in part.  append takes a
   new reference and fails with MemoryError, changing nothing.  One thread.

   Of a datagram transport it holds pairs instead, bytes and an address of any
   type, for which there are calls of their own. */
#ifndef FL_TRANSPORT_WRITE_QUEUE_H
#define FL_TRANSPORT_WRITE_QUEUE_H

#include "py/compat.h"

#include <sys/uio.h>

/* A header and a body, or one pair. */
#define FL_WRITE_QUEUE_INLINE 2

typedef struct {
    PyObject **items; /* bytes; points at few or at allocated memory */
    PyObject *few[FL_WRITE_QUEUE_INLINE];
    unsigned head; /* index of the first that waits */
    unsigned tail; /* index behind the last */
    unsigned capacity;
    size_t sent_bytes; /* of the first */
    size_t size_bytes; /* what waits in all */
} FlWriteQueue;

void fl_write_queue_init(FlWriteQueue *write_queue);

/* Drop everything and the memory. */
void fl_write_queue_clear(FlWriteQueue *write_queue);

int fl_write_queue_append(FlWriteQueue *write_queue, PyObject *bytes,
                          size_t sent_bytes);

/* The same before all that waits, of which nothing was sent yet. */
int fl_write_queue_put_back(FlWriteQueue *write_queue, PyObject *bytes,
                            size_t sent_bytes);

/* The first item, borrowed; NULL: there is none.  Who calls Python before it
   consumes owns a reference and looks whether it is the first still. */
static inline PyObject *
fl_write_queue_head(const FlWriteQueue *write_queue)
{
    return write_queue->head == write_queue->tail
               ? NULL
               : write_queue->items[write_queue->head];
}

/* Point up to `limit` vectors at what waits; how many were filled. */
int fl_write_queue_vectors(const FlWriteQueue *write_queue,
                           struct iovec *vectors, int limit);

/* The kernel took this many bytes. */
void fl_write_queue_consume(FlWriteQueue *write_queue, size_t size_bytes);

/* The same for pairs: append one that counts size_bytes, look at one (borrowed
   references; NULL: there are no more), drop the first. */
int fl_write_queue_append_pair(FlWriteQueue *write_queue, PyObject *bytes,
                               PyObject *address, size_t size_bytes);
PyObject *const *fl_write_queue_pair(const FlWriteQueue *write_queue,
                                     size_t index);
void fl_write_queue_drop_pair(FlWriteQueue *write_queue, size_t size_bytes);

static inline bool
fl_write_queue_is_empty(const FlWriteQueue *write_queue)
{
    return write_queue->head == write_queue->tail;
}

#endif
