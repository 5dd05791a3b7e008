/* The ready queue's memory: growing, shrinking, visiting, clearing.

   1. Capacity is a power of two; positions map to slots by mask, so growing
      re-lays the live entries by their unchanged positions.
   2. Entries are runnable data, not objects: the collector reaches what they
      own through the loop. */
#include "core/ready_queue.h"

#include "py/compat.h"

#include <stdlib.h>
#include <string.h>

#define INITIAL_ENTRIES 256
/* 1 MiB of entries: what an idle loop may keep. */
#define KEPT_ENTRIES    16384

static FlReady *
entries_new(uint64_t count)
{
    return aligned_alloc(sizeof(FlReady), count * sizeof(FlReady));
}

int
fl_ready_init(FlReadyQueue *queue)
{
    queue->head = queue->tail = 0;
    queue->mask = INITIAL_ENTRIES - 1;
    queue->entries = entries_new(INITIAL_ENTRIES);
    if (queue->entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

void
fl_ready_free(FlReadyQueue *queue)
{
    free(queue->entries);
    queue->entries = NULL;
}

int
fl_ready_grow(FlReadyQueue *queue)
{
    uint64_t mask = queue->mask * 2 + 1;
    FlReady *entries = entries_new(mask + 1);
    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint64_t at = queue->head; at != queue->tail; at++) {
        entries[at & mask] = *fl_ready_at(queue, at);
    }
    free(queue->entries);
    queue->entries = entries;
    queue->mask = mask;
    return 0;
}

void
fl_ready_shrink(FlReadyQueue *queue)
{
    if (queue->mask < KEPT_ENTRIES || queue->head != queue->tail) {
        return;
    }
    FlReady *entries = entries_new(INITIAL_ENTRIES);
    if (entries != NULL) {
        free(queue->entries);
        queue->entries = entries;
        queue->mask = INITIAL_ENTRIES - 1;
    }
}

static inline uint32_t
owned_args(const FlReady *entry)
{
    return entry->nargs > FL_READY_ARGS ? 1 : entry->nargs;
}

void
fl_ready_clear(FlReady *entry)
{
    uint32_t kind = entry->kind;
    entry->kind = FL_READY_NONE;
    if (kind == FL_READY_NONE || kind == FL_READY_EVENT) {
        return;
    }
    for (uint32_t at = 0; at < owned_args(entry); at++) {
        Py_DECREF(entry->args[at]);
    }
    Py_DECREF(entry->callback);
    Py_XDECREF(entry->context);
}

int
fl_ready_visit(const FlReady *entry, visitproc visit, void *arg)
{
    if (entry->kind == FL_READY_NONE || entry->kind == FL_READY_EVENT) {
        return 0;
    }
    for (uint32_t at = 0; at < owned_args(entry); at++) {
        Py_VISIT(entry->args[at]);
    }
    Py_VISIT(entry->callback);
    Py_VISIT(entry->context);
    return 0;
}

int
fl_ready_traverse(const FlReadyQueue *queue, visitproc visit, void *arg)
{
    if (queue->entries == NULL) {
        return 0;
    }
    for (uint64_t at = queue->head; at != queue->tail; at++) {
        int result = fl_ready_visit(fl_ready_at(queue, at), visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
