/* The ready queue: memory of its chunks; visiting and clearing entries. */
#include "core/ready_queue.h"

#include "py/compat.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A small chunk stays in the nearest cache. */
#define CHUNK_ENTRIES    256
#define CHUNK_BYTES      (CHUNK_ENTRIES * sizeof(FlReady))
#define CACHE_LINE_BYTES 64
/* Spare chunks that a burst keeps for the next one: 1 MiB at most, or four
   times that where a page has 64 KiB. */
#define MOST_SPARES      64

/* The first slot of a chunk is its header. */
static FlReady *
first_entry(FlReadyChunk *chunk)
{
    return (FlReady *)chunk + 1;
}

/* A spare chunk or a new one; NULL with MemoryError.  New chunks are mapped,
   so that freeing one returns its pages to the system.  No entry spans two
   cache lines, where it has 64 bytes: on 64-bit systems. */
static FlReadyChunk *
take_chunk(FlReadyQueue *queue)
{
    FlReadyChunk *chunk = queue->spare;
    if (chunk != NULL) {
        queue->spare = chunk->next;
        queue->spares--;
    }
    else {
        chunk = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANON, -1, 0);
        if (chunk == MAP_FAILED) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    chunk->next = NULL;
    return chunk;
}

static void
free_chunk(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    if (chunk == queue->first_chunk) {
        queue->first_chunk = NULL;
        free(chunk);
    }
    else {
        (void)munmap(chunk, CHUNK_BYTES);
    }
}

static void
free_chain(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    while (chunk != NULL) {
        FlReadyChunk *next = chunk->next;
        free_chunk(queue, chunk);
        chunk = next;
    }
}

/* The end of a chunk: past its last entry. */
static FlReady *
chunk_end(FlReadyChunk *chunk)
{
    return (FlReady *)chunk + CHUNK_ENTRIES;
}

static void
start_tail(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    queue->tail_chunk = chunk;
    queue->tail_at = first_entry(chunk);
    queue->tail_end = chunk_end(chunk);
}

static void
start_head(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    queue->head_chunk = chunk;
    queue->head_at = first_entry(chunk);
    queue->head_end = chunk_end(chunk);
}

int
fl_ready_init(FlReadyQueue *queue)
{
    memset(queue, 0, sizeof(*queue)); /* on failure head_chunk stays NULL */
    /* Not mapped, which is slower: many loops need no second chunk. */
    FlReadyChunk *chunk = aligned_alloc(CACHE_LINE_BYTES, CHUNK_BYTES);
    if (chunk == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    chunk->next = NULL;
    queue->first_chunk = chunk;
    start_head(queue, chunk);
    start_tail(queue, chunk);
    return 0;
}

void
fl_ready_free(FlReadyQueue *queue)
{
    free_chain(queue, queue->head_chunk); /* up to the tail's */
    free_chain(queue, queue->spare);
    memset(queue, 0, sizeof(*queue));
}

int
fl_ready_grow(FlReadyQueue *queue)
{
    /* Empty: start its only chunk again.  So a callback that reschedules
       itself needs no second one. */
    if (queue->head == queue->tail && queue->head_chunk == queue->tail_chunk) {
        start_head(queue, queue->head_chunk);
        start_tail(queue, queue->tail_chunk);
        return 0;
    }
    FlReadyChunk *chunk = take_chunk(queue);
    if (chunk == NULL) {
        return -1;
    }
    /* If the head stands at the end of the old chunk, the next pop moves it
       here (fl_ready_next_chunk). */
    queue->tail_chunk->next = chunk;
    start_tail(queue, chunk);
    return 0;
}

void
fl_ready_next_chunk(FlReadyQueue *queue)
{
    FlReadyChunk *done = queue->head_chunk;
    start_head(queue, done->next);
    if (queue->spares == MOST_SPARES) {
        free_chunk(queue, done);
        return;
    }
    done->next = queue->spare;
    queue->spare = done;
    queue->spares++;
}

/* Walks the chunks from the head, of which only the first is entered in the
   middle.  Used by introspection and by shuffled iterations alone, so its cost
   does not matter. */
FlReady *
fl_ready_find(const FlReadyQueue *queue, uint64_t position)
{
    uint64_t ahead = position - queue->head;
    FlReadyChunk *chunk = queue->head_chunk;
    FlReady *at = queue->head_at;
    while (ahead >= (uint64_t)(chunk_end(chunk) - at)) {
        ahead -= (uint64_t)(chunk_end(chunk) - at);
        chunk = chunk->next;
        at = first_entry(chunk);
    }
    return at + ahead;
}

/* How many of entry->args are references: one tuple stands for more than
   FL_READY_ARGS arguments. */
static inline uint32_t
owned_args(const FlReady *entry)
{
    return entry->nargs > FL_READY_ARGS ? 1 : entry->nargs;
}

void
fl_ready_clear(FlReady *entry)
{
    /* First: a destructor below may run Python that looks at the queue. */
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

static int
visit_entry(const FlReady *entry, visitproc visit, void *arg)
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
    /* By count: the end of one chunk and the first entry of the next are the
       same position, so head_at may differ from tail_at in an empty queue. */
    for (uint64_t left = fl_ready_count(queue); left > 0; left--) {
        if (at == chunk_end(chunk)) {
            chunk = chunk->next;
            at = first_entry(chunk);
        }
        int result = visit_entry(at++, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
