/* The write queue: what waits to be sent, in order.  It is corked, or the
   kernel refused it; in a TLS connection's backlog, it is not encrypted yet.
   An item is a bytes object, or in the queue of a datagram transport a tuple
   of a bytes object and an address of any type.

   The queue owns a reference to each item.  The first item may be partly sent.
   Functions that add make a reference of their own; they return 0, or -1
   with MemoryError set and the queue unchanged.

   Threads: the owner's.  The queue has no lock of its own. */
#ifndef FL_TRANSPORT_WRITE_QUEUE_H
#define FL_TRANSPORT_WRITE_QUEUE_H

#include "py/compat.h"

#include <sys/uio.h>

/* Items that need no allocation: a header and a body. */
#define FL_WRITE_QUEUE_INLINE 2

typedef struct {
    PyObject **items; /* inline_items or an allocated array */
    PyObject *inline_items[FL_WRITE_QUEUE_INLINE];
    unsigned head; /* index of the first item */
    unsigned tail; /* index after the last item */
    unsigned capacity;
    size_t sent_bytes; /* of the first item */
    /* Unsent bytes of all items, and FL_DATAGRAM_HEADER_BYTES more for each
       datagram.  Any thread reads it. */
    FL_ATOMIC size_t size_bytes;
} FlWriteQueue;

/* Make an empty queue.  It points into itself, so it must not be moved. */
void fl_write_queue_init(FlWriteQueue *write_queue);

/* Drop all items and free the array.  The queue can be used again. */
void fl_write_queue_clear(FlWriteQueue *write_queue);

/* Append an item whose first sent_bytes are already sent.  That number may be
   above 0 only for the first item of a queue. */
int fl_write_queue_append(FlWriteQueue *write_queue, PyObject *item,
                          size_t sent_bytes);

/* The same at the front.  The present first item must be wholly unsent. */
int fl_write_queue_prepend(FlWriteQueue *write_queue, PyObject *item,
                           size_t sent_bytes);

/* The first item, borrowed; NULL if the queue is empty.  A caller that runs
   Python before it consumes the item needs a reference of its own, and must
   check that the item is still the first. */
static inline PyObject *
fl_write_queue_head(const FlWriteQueue *write_queue)
{
    return write_queue->head == write_queue->tail
               ? NULL
               : write_queue->items[write_queue->head];
}

/* Point up to `limit` vectors at the unsent bytes of a stream.  Returns how
   many were filled.  They are valid until the queue changes. */
int fl_write_queue_fill_iovec(const FlWriteQueue *write_queue,
                              struct iovec *vectors, int limit);

/* Remove this many bytes from the front: they were sent. */
void fl_write_queue_consume(FlWriteQueue *write_queue, size_t size_bytes);

/* Take out the first item, which must be wholly unsent: the caller has its
   reference from now on.  NULL, without an exception, if the queue is
   empty. */
PyObject *fl_write_queue_take(FlWriteQueue *write_queue);

static inline bool
fl_write_queue_is_empty(const FlWriteQueue *write_queue)
{
    return write_queue->head == write_queue->tail;
}

#endif
