/* The write queue: an array that is consumed from the front.

   1. Items between head and tail are owned bytes objects, none empty beyond
      what sent_bytes says of the first.
   2. Dropping a bytes object runs no Python code.  Dropping a pair's address
      may: the queue is consistent then, and looked at anew. */
#include "net/chunks.h"

#include <string.h>

void
fl_chunks_init(FlChunks *chunks)
{
    memset(chunks, 0, sizeof(*chunks));
    chunks->items = chunks->few;
    chunks->capacity = FL_CHUNKS_INLINE;
}

void
fl_chunks_clear(FlChunks *chunks)
{
    while (chunks->head < chunks->tail) {
        Py_DECREF(chunks->items[chunks->head++]);
    }
    if (chunks->items != chunks->few) {
        PyMem_Free(chunks->items);
    }
    fl_chunks_init(chunks);
}

static int
make_room(FlChunks *chunks)
{
    size_t count = chunks->tail - chunks->head;
    if (chunks->head > count) {
        memmove(chunks->items, chunks->items + chunks->head,
                count * sizeof(*chunks->items));
    }
    else {
        size_t capacity = chunks->capacity * 2;
        PyObject **items = PyMem_New(PyObject *, capacity);
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        memcpy(items, chunks->items + chunks->head, count * sizeof(*items));
        if (chunks->items != chunks->few) {
            PyMem_Free(chunks->items);
        }
        chunks->items = items;
        chunks->capacity = capacity;
    }
    chunks->head = 0;
    chunks->tail = count;
    return 0;
}

int
fl_chunks_append(FlChunks *chunks, PyObject *bytes, size_t sent_bytes)
{
    FL_CHECK(sent_bytes == 0 || fl_chunks_is_empty(chunks),
             "only the first chunk is sent in part");
    if (chunks->tail == chunks->capacity && make_room(chunks) < 0) {
        return -1;
    }
    chunks->items[chunks->tail++] = Py_NewRef(bytes);
    chunks->size_bytes += (size_t)PyBytes_GET_SIZE(bytes) - sent_bytes;
    if (sent_bytes > 0) {
        chunks->sent_bytes = sent_bytes;
    }
    return 0;
}

int
fl_chunks_vectors(const FlChunks *chunks, struct iovec *vectors, int limit)
{
    int count = 0;
    size_t skip = chunks->sent_bytes;
    for (size_t at = chunks->head; at < chunks->tail && count < limit; at++) {
        PyObject *bytes = chunks->items[at];
        vectors[count].iov_base = PyBytes_AS_STRING(bytes) + skip;
        vectors[count].iov_len = (size_t)PyBytes_GET_SIZE(bytes) - skip;
        skip = 0;
        count++;
    }
    return count;
}

void
fl_chunks_consume(FlChunks *chunks, size_t size_bytes)
{
    chunks->size_bytes -= size_bytes;
    size_bytes += chunks->sent_bytes;
    while (chunks->head < chunks->tail) {
        PyObject *bytes = chunks->items[chunks->head];
        size_t size = (size_t)PyBytes_GET_SIZE(bytes);
        if (size > size_bytes) {
            break;
        }
        size_bytes -= size;
        chunks->head++;
        Py_DECREF(bytes);
    }
    chunks->sent_bytes = size_bytes;
    if (chunks->head == chunks->tail) {
        /* Empty: a burst's memory is not kept on an idle connection. */
        fl_chunks_clear(chunks);
    }
}

int
fl_chunks_append_pair(FlChunks *chunks, PyObject *bytes, PyObject *address,
                      size_t size_bytes)
{
    /* Capacities and ends are even here: there is room for both or none. */
    if (chunks->tail == chunks->capacity && make_room(chunks) < 0) {
        return -1;
    }
    chunks->items[chunks->tail++] = Py_NewRef(bytes);
    chunks->items[chunks->tail++] = Py_NewRef(address);
    chunks->size_bytes += size_bytes;
    return 0;
}

PyObject *const *
fl_chunks_pair(const FlChunks *chunks, size_t index)
{
    size_t at = chunks->head + 2 * index;
    return at < chunks->tail ? chunks->items + at : NULL;
}

void
fl_chunks_drop_pair(FlChunks *chunks, size_t size_bytes)
{
    PyObject *bytes = chunks->items[chunks->head++];
    PyObject *address = chunks->items[chunks->head++];
    chunks->size_bytes -= size_bytes;
    if (chunks->head == chunks->tail) {
        fl_chunks_clear(chunks);
    }
    Py_DECREF(bytes);
    Py_DECREF(address);
}
