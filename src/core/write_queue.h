/* The write queue: what waits to be sent, in order.  It is corked, or the
   kernel refused it; in a TLS connection's backlog, it is not encrypted yet.
   An item is a bytes object, or in the queue of a datagram transport a tuple
   of a bytes object and an address of any type.

   The queue owns a reference to each item.  The first item may be partly sent.
   In a stream's queue each item has bytes to send, except between
   fl_write_queue_note_sent and fl_write_queue_consume.
   Functions that add make a reference of their own; they return 0, or -1
   with MemoryError set and the queue unchanged.

   Threads: the owner's.  The queue has no lock of its own.  Of a corked queue
   fl_write_queue_fill_iovec and fl_write_queue_note_sent also run in the
   thread that has taken it (cork.h). */
#ifndef FL_CORE_WRITE_QUEUE_H
#define FL_CORE_WRITE_QUEUE_H

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
    size_t sent_bytes; /* of the first items; see fl_write_queue_note_sent */
    /* Unsent bytes of all items, and FL_DATAGRAM_HEADER_BYTES more for each
       datagram.  Any thread reads it. */
    FL_ATOMIC size_t size_bytes;
} FlWriteQueue;

/* Make an empty queue.  It points into itself, so it must not be moved. */
void fl_write_queue_init(FlWriteQueue *write_queue);

/* Drop all items and free the array.  The queue can be used again. */
void fl_write_queue_clear(FlWriteQueue *write_queue);

/* Make room for one more item in a full array: move the items to its front, or
   double it. */
int fl_write_queue_make_room(FlWriteQueue *write_queue);

/* What an unsent item adds to size_bytes. */
static inline size_t
fl_write_queue_size_of(PyObject *item)
{
    return PyTuple_Check(item)
               ? (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(item, 0))
                     + FL_DATAGRAM_HEADER_BYTES
               : (size_t)PyBytes_GET_SIZE(item);
}

static inline bool
fl_write_queue_is_empty(const FlWriteQueue *write_queue)
{
    return write_queue->head == write_queue->tail;
}

/* Append an item, wholly unsent.  0, or -1 with MemoryError. */
static inline int
fl_write_queue_append(FlWriteQueue *write_queue, PyObject *item)
{
    if (FL_UNLIKELY(write_queue->tail == write_queue->capacity)
        && fl_write_queue_make_room(write_queue) < 0)
    {
        return -1;
    }
    write_queue->items[write_queue->tail++] = Py_NewRef(item);
    write_queue->size_bytes += fl_write_queue_size_of(item);
    return 0;
}

/* The only item, wholly unsent and not in an allocated array: borrowed; or
   NULL. */
static inline PyObject *
fl_write_queue_only(const FlWriteQueue *write_queue)
{
    return write_queue->head == 0 && write_queue->tail == 1
                   && write_queue->sent_bytes == 0
                   && write_queue->items == write_queue->inline_items
               ? write_queue->inline_items[0]
               : NULL;
}

/* Take out the item of fl_write_queue_only: the caller has its reference. */
static inline PyObject *
fl_write_queue_take_only(FlWriteQueue *write_queue)
{
    write_queue->tail = 0;
    write_queue->size_bytes = 0;
    return write_queue->inline_items[0];
}

/* Take back so many items that were appended last. */
void fl_write_queue_drop_last(FlWriteQueue *write_queue, unsigned count);

/* As fl_write_queue_append, but at the front, and the first sent_bytes of the
   item are already sent.  The present first item must be wholly unsent. */
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
static inline int
fl_write_queue_fill_iovec(const FlWriteQueue *write_queue,
                          struct iovec *vectors, int limit)
{
    int count = 0;
    size_t skip = write_queue->sent_bytes;
    for (unsigned at = write_queue->head;
         at < write_queue->tail && count < limit; at++)
    {
        PyObject *bytes = write_queue->items[at];
        size_t size = (size_t)PyBytes_GET_SIZE(bytes);
        if (FL_UNLIKELY(skip >= size)) { /* see fl_write_queue_note_sent */
            skip -= size;
            continue;
        }
        vectors[count].iov_base = PyBytes_AS_STRING(bytes) + skip;
        vectors[count].iov_len = size - skip;
        skip = 0;
        count++;
    }
    return count;
}

/* The first size_bytes unsent bytes were sent.  This drops no item and touches
   no reference count, so a thread without the GIL may call it.
   fl_write_queue_consume drops the items later. */
static inline void
fl_write_queue_note_sent(FlWriteQueue *write_queue, size_t size_bytes)
{
    FL_CHECK(size_bytes <= write_queue->size_bytes, "they were queued");
    write_queue->size_bytes -= size_bytes;
    write_queue->sent_bytes += size_bytes;
}

/* The same, and drop the items that are wholly sent. */
static inline void
fl_write_queue_consume(FlWriteQueue *write_queue, size_t size_bytes)
{
    fl_write_queue_note_sent(write_queue, size_bytes);
    while (write_queue->head < write_queue->tail) {
        PyObject *bytes = write_queue->items[write_queue->head];
        size_t size = (size_t)PyBytes_GET_SIZE(bytes);
        if (size > write_queue->sent_bytes) {
            return; /* partly sent: it stays */
        }
        write_queue->sent_bytes -= size;
        write_queue->head++;
        Py_DECREF(bytes);
    }
    if (write_queue->items == write_queue->inline_items) {
        write_queue->head = write_queue->tail = 0;
    }
    else { /* an idle connection must not keep the array of a burst */
        fl_write_queue_clear(write_queue);
    }
}

/* Take out the first item, which must be wholly unsent: the caller has its
   reference from now on.  NULL, without an exception, if the queue is
   empty. */
PyObject *fl_write_queue_take(FlWriteQueue *write_queue);

#endif
