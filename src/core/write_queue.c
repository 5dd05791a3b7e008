/* The write queue: an array that is consumed from the front.

   Dropping a bytes object runs no Python.  Dropping a datagram's address may,
   so the queue is consistent before that, and the caller must read it anew
   afterwards. */
#include "core/write_queue.h"

#include "py/compat.h"

#include <limits.h>
#include <string.h>

void
fl_write_queue_init(FlWriteQueue *write_queue)
{
    write_queue->items = write_queue->inline_items;
    write_queue->capacity = FL_WRITE_QUEUE_INLINE;
    write_queue->head = write_queue->tail = 0;
    write_queue->sent_bytes = 0;
    write_queue->size_bytes = 0;
}

void
fl_write_queue_clear(FlWriteQueue *write_queue)
{
    while (write_queue->head < write_queue->tail) {
        /* head first: a datagram's address may run Python, which may see the
           queue. */
        Py_DECREF(write_queue->items[write_queue->head++]);
    }
    if (write_queue->items != write_queue->inline_items) {
        PyMem_Free(write_queue->items);
    }
    fl_write_queue_init(write_queue);
}

int
fl_write_queue_make_room(FlWriteQueue *write_queue)
{
    unsigned count = write_queue->tail - write_queue->head;
    /* Moving is worth it only where more than half of the array is free:
       otherwise a long queue would move all its items again and again. */
    if (write_queue->head > count) {
        memmove(write_queue->items, write_queue->items + write_queue->head,
                count * sizeof(*write_queue->items));
    }
    else {
        size_t capacity = (size_t)write_queue->capacity * 2;
        PyObject **items =
            capacity > UINT_MAX ? NULL : PyMem_New(PyObject *, capacity);
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        memcpy(items, write_queue->items + write_queue->head,
               count * sizeof(*items));
        /* The references have moved; only the array is freed. */
        if (write_queue->items != write_queue->inline_items) {
            PyMem_Free(write_queue->items);
        }
        write_queue->items = items;
        write_queue->capacity = (unsigned)capacity;
    }
    write_queue->head = 0;
    write_queue->tail = count;
    return 0;
}

void
fl_write_queue_drop_last(FlWriteQueue *write_queue, unsigned count)
{
    while (count-- > 0) {
        PyObject *item = write_queue->items[--write_queue->tail];
        write_queue->size_bytes -= fl_write_queue_size_of(item);
        Py_DECREF(item);
    }
}

int
fl_write_queue_prepend(FlWriteQueue *write_queue, PyObject *item,
                       size_t sent_bytes)
{
    FL_CHECK(write_queue->sent_bytes == 0, "only one item may be partly sent");
    if (write_queue->head == 0) {
        if (write_queue->tail == write_queue->capacity
            && fl_write_queue_make_room(write_queue) < 0)
        {
            return -1;
        }
        memmove(write_queue->items + 1, write_queue->items,
                write_queue->tail * sizeof(*write_queue->items));
        write_queue->head = 1;
        write_queue->tail++;
    }
    write_queue->items[--write_queue->head] = Py_NewRef(item);
    write_queue->size_bytes += fl_write_queue_size_of(item) - sent_bytes;
    write_queue->sent_bytes = sent_bytes;
    return 0;
}

PyObject *
fl_write_queue_take(FlWriteQueue *write_queue)
{
    if (fl_write_queue_is_empty(write_queue)) {
        return NULL;
    }
    PyObject *item = write_queue->items[write_queue->head++];
    write_queue->size_bytes -= fl_write_queue_size_of(item);
    if (fl_write_queue_is_empty(write_queue)) {
        fl_write_queue_clear(write_queue); /* frees a large array */
    }
    return item;
}
