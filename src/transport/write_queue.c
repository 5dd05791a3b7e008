/* The write queue: an array that is consumed from the front.

   1. Items between head and tail are owned bytes objects, none empty beyond
      what sent_bytes says of the first.
   2. Dropping a bytes object runs no Python code.  Dropping a pair's address
      may: the queue is consistent then, and looked at anew. */
#include "transport/write_queue.h"

#include "py/compat.h"

#include <limits.h>
#include <string.h>

void
fl_write_queue_init(FlWriteQueue *write_queue)
{
    memset(write_queue, 0, sizeof(*write_queue));
    write_queue->items = write_queue->few;
    write_queue->capacity = FL_WRITE_QUEUE_INLINE;
}

void
fl_write_queue_clear(FlWriteQueue *write_queue)
{
    while (write_queue->head < write_queue->tail) {
        Py_DECREF(write_queue->items[write_queue->head++]);
    }
    if (write_queue->items != write_queue->few) {
        PyMem_Free(write_queue->items);
    }
    fl_write_queue_init(write_queue);
}

static int
make_room(FlWriteQueue *write_queue)
{
    unsigned count = write_queue->tail - write_queue->head;
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
        if (write_queue->items != write_queue->few) {
            PyMem_Free(write_queue->items);
        }
        write_queue->items = items;
        write_queue->capacity = (unsigned)capacity;
    }
    write_queue->head = 0;
    write_queue->tail = count;
    return 0;
}

int
fl_write_queue_append(FlWriteQueue *write_queue, PyObject *bytes,
                      size_t sent_bytes)
{
    FL_CHECK(sent_bytes == 0 || fl_write_queue_is_empty(write_queue),
             "only the first item is sent in part");
    if (write_queue->tail == write_queue->capacity
        && make_room(write_queue) < 0) {
        return -1;
    }
    write_queue->items[write_queue->tail++] = Py_NewRef(bytes);
    write_queue->size_bytes += (size_t)PyBytes_GET_SIZE(bytes) - sent_bytes;
    if (sent_bytes > 0) {
        write_queue->sent_bytes = sent_bytes;
    }
    return 0;
}

int
fl_write_queue_put_back(FlWriteQueue *write_queue, PyObject *bytes,
                        size_t sent_bytes)
{
    FL_CHECK(write_queue->sent_bytes == 0, "only one item is sent in part");
    if (write_queue->head == 0) {
        if (write_queue->tail == write_queue->capacity
            && make_room(write_queue) < 0) {
            return -1;
        }
        memmove(write_queue->items + 1, write_queue->items,
                write_queue->tail * sizeof(*write_queue->items));
        write_queue->head++;
        write_queue->tail++;
    }
    write_queue->items[--write_queue->head] = Py_NewRef(bytes);
    write_queue->size_bytes += (size_t)PyBytes_GET_SIZE(bytes) - sent_bytes;
    write_queue->sent_bytes = sent_bytes;
    return 0;
}

int
fl_write_queue_vectors(const FlWriteQueue *write_queue, struct iovec *vectors,
                       int limit)
{
    int count = 0;
    size_t skip = write_queue->sent_bytes;
    for (unsigned at = write_queue->head;
         at < write_queue->tail && count < limit; at++)
    {
        PyObject *bytes = write_queue->items[at];
        vectors[count].iov_base = PyBytes_AS_STRING(bytes) + skip;
        vectors[count].iov_len = (size_t)PyBytes_GET_SIZE(bytes) - skip;
        skip = 0;
        count++;
    }
    return count;
}

void
fl_write_queue_consume(FlWriteQueue *write_queue, size_t size_bytes)
{
    write_queue->size_bytes -= size_bytes;
    size_bytes += write_queue->sent_bytes;
    while (write_queue->head < write_queue->tail) {
        PyObject *bytes = write_queue->items[write_queue->head];
        size_t size = (size_t)PyBytes_GET_SIZE(bytes);
        if (size > size_bytes) {
            break;
        }
        size_bytes -= size;
        write_queue->head++;
        Py_DECREF(bytes);
    }
    write_queue->sent_bytes = size_bytes;
    if (write_queue->head == write_queue->tail) {
        /* Empty: a burst's memory is not kept on an idle connection. */
        fl_write_queue_clear(write_queue);
    }
}

int
fl_write_queue_append_pair(FlWriteQueue *write_queue, PyObject *bytes,
                           PyObject *address, size_t size_bytes)
{
    /* Capacities and ends are even here: there is room for both or none. */
    if (write_queue->tail == write_queue->capacity
        && make_room(write_queue) < 0) {
        return -1;
    }
    write_queue->items[write_queue->tail++] = Py_NewRef(bytes);
    write_queue->items[write_queue->tail++] = Py_NewRef(address);
    write_queue->size_bytes += size_bytes;
    return 0;
}

PyObject *const *
fl_write_queue_pair(const FlWriteQueue *write_queue, size_t index)
{
    size_t at = write_queue->head + 2 * index;
    return at < write_queue->tail ? write_queue->items + at : NULL;
}

void
fl_write_queue_drop_pair(FlWriteQueue *write_queue, size_t size_bytes)
{
    PyObject *bytes = write_queue->items[write_queue->head++];
    PyObject *address = write_queue->items[write_queue->head++];
    write_queue->size_bytes -= size_bytes;
    if (write_queue->head == write_queue->tail) {
        fl_write_queue_clear(write_queue);
    }
    Py_DECREF(bytes);
    Py_DECREF(address);
}
