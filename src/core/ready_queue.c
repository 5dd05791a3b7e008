/* The ready queue's memory: chunks that come and go, visiting, clearing.

   1. A small chunk is what most loops need, and stays in the nearest cache.  A
      queue that is long already grows by large ones, which are mapped: the
      system has their pages back when they are freed.
   2. A queue that is empty when its last chunk is full begins that chunk
      again, so a callback that schedules itself needs no second one.
   3. Entries are runnable data, not objects: the collector reaches what they
      own through the loop. */
#include "core/ready_queue.h"

#include "py/compat.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SMALL_ENTRIES 256
#define LARGE_ENTRIES 4096
/* A queue of so many grows by large chunks. */
#define LONG_QUEUE    1024
/* What an idle loop may keep: together under 1 MiB of entries. */
#define SMALL_KEPT    8
#define LARGE_KEPT    3

#define SMALL_BYTES (SMALL_ENTRIES * sizeof(FlReady))
#define LARGE_BYTES (LARGE_ENTRIES * sizeof(FlReady))

/* An entry, where a pointer has 64 bits: none lies in two lines then. */
#define CACHE_LINE 64

/* aligned_alloc takes a power of two and a multiple of it, and an entry's size
   is neither where a pointer has 32 bits. */
_Static_assert(SMALL_BYTES % CACHE_LINE == 0, "aligned_alloc would refuse");

/* Have all pages at once, where the system can: one by one they cost as much
   as the callbacks. */
#ifdef MAP_POPULATE
#define MAP_NOW MAP_POPULATE
#else
#define MAP_NOW 0
#endif

static FlReady *
first_entry(FlReadyChunk *chunk)
{
    return (FlReady *)chunk + 1;
}

static void *
map_large(void)
{
    void *memory = mmap(NULL, LARGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANON | MAP_NOW, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static FlReadyChunk *
chunk_new(bool large)
{
    FlReadyChunk *chunk =
        large ? map_large() : aligned_alloc(CACHE_LINE, SMALL_BYTES);
    if (chunk == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    chunk->next = NULL;
    chunk->end = (FlReady *)chunk + (large ? LARGE_ENTRIES : SMALL_ENTRIES);
    chunk->large = large;
    return chunk;
}

static void
chunk_free(FlReadyChunk *chunk)
{
    if (chunk->large) {
        (void)munmap(chunk, LARGE_BYTES);
    }
    else {
        free(chunk);
    }
}

static void
free_chain(FlReadyChunk *chunk)
{
    while (chunk != NULL) {
        FlReadyChunk *next = chunk->next;
        chunk_free(chunk);
        chunk = next;
    }
}

static FlReadyChunk *
take_spare(FlSpareChunks *spare)
{
    FlReadyChunk *chunk = spare->first;
    if (chunk != NULL) {
        spare->first = chunk->next;
        spare->count--;
        chunk->next = NULL;
    }
    return chunk;
}

static void
downgrade(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    FlSpareChunks *spare = &queue->spare[chunk->large];
    if (spare->count == (chunk->large ? LARGE_KEPT : SMALL_KEPT)) {
        chunk_free(chunk);
        return;
    }
    chunk->next = spare->first;
    spare->first = chunk;
    spare->count++;
}

static void
begin_at_tail(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    queue->tail_chunk = chunk;
    queue->tail_at = first_entry(chunk);
    queue->tail_end = chunk->end;
}

static void
begin_at_head(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    queue->head_chunk = chunk;
    queue->head_at = first_entry(chunk);
    queue->head_end = chunk->end;
}

int
fl_ready_init(FlReadyQueue *queue)
{
    memset(queue, 0, sizeof(*queue));
    FlReadyChunk *chunk = chunk_new(false);
    if (chunk == NULL) {
        return -1;
    }
    begin_at_head(queue, chunk);
    begin_at_tail(queue, chunk);
    return 0;
}

void
fl_ready_free(FlReadyQueue *queue)
{
    free_chain(queue->head_chunk);
    free_chain(queue->spare[0].first);
    free_chain(queue->spare[1].first);
    memset(queue, 0, sizeof(*queue));
}

int
fl_ready_grow(FlReadyQueue *queue)
{
    if (queue->head == queue->tail && queue->head_chunk == queue->tail_chunk) {
        begin_at_head(queue, queue->head_chunk);
        begin_at_tail(queue, queue->tail_chunk);
        return 0;
    }
    bool large = fl_ready_count(queue) >= LONG_QUEUE;
    FlReadyChunk *chunk = take_spare(&queue->spare[large]);
    if (chunk == NULL) {
        chunk = chunk_new(large);
    }
    if (chunk == NULL) {
        return -1;
    }
    queue->tail_chunk->next = chunk;
    begin_at_tail(queue, chunk);
    return 0;
}

void
fl_ready_next_chunk(FlReadyQueue *queue)
{
    FlReadyChunk *done = queue->head_chunk;
    begin_at_head(queue, done->next);
    downgrade(queue, done);
}

FlReady *
fl_ready_find(const FlReadyQueue *queue, uint64_t position)
{
    uint64_t ahead = position - queue->head;
    FlReadyChunk *chunk = queue->head_chunk;
    FlReady *at = queue->head_at;
    while (ahead >= (uint64_t)(chunk->end - at)) {
        ahead -= (uint64_t)(chunk->end - at);
        chunk = chunk->next;
        at = first_entry(chunk);
    }
    return at + ahead;
}

static inline uint32_t
owned_args(const FlReady *entry)
{
    return entry->nargs > FL_READY_ARGS ? 1 : entry->nargs;
}

int
fl_ready_own_context(FlReady *entry)
{
    if (entry->kind != FL_READY_SHARED) {
        return 0;
    }
    PyObject *own = PyContext_Copy(entry->context);
    if (own == NULL) {
        return -1;
    }
    entry->kind = FL_READY_CALL;
    Py_SETREF(entry->context, own);
    return 0;
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
    FlReadyChunk *chunk = queue->head_chunk;
    const FlReady *at = queue->head_at;
    for (uint64_t left = fl_ready_count(queue); left > 0; left--) {
        if (at == chunk->end) {
            chunk = chunk->next;
            at = first_entry(chunk);
        }
        int result = fl_ready_visit(at++, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
