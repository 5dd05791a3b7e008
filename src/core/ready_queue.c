/* The ready queue: memory of its chunks; visiting and clearing entries.

   1. A queue grows by small chunks, which stay in the nearest cache and are
      all that most loops need.  A queue that is long already grows by large
      ones.  These are mapped, so that freeing one returns its pages to the
      system.
   2. If the queue is empty when its only chunk is full, it starts that chunk
      again.  So a callback that reschedules itself needs no second chunk.
   3. Entries are no Python objects.  GC reaches what they own through the
      loop's tp_traverse (fl_ready_traverse).  A reference missing there keeps
      a garbage cycle alive for ever. */
#include "core/ready_queue.h"

#include "py/compat.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SMALL_ENTRIES 256
#define LARGE_ENTRIES 4096
/* A queue with this many entries grows by large chunks. */
#define LONG_QUEUE    1024
/* Spare chunks that an idle loop keeps: less than 1 MiB in all. */
#define SMALL_SPARES  8
#define LARGE_SPARES  3

#define SMALL_BYTES (SMALL_ENTRIES * sizeof(FlReady))
#define LARGE_BYTES (LARGE_ENTRIES * sizeof(FlReady))

/* The size of an entry with 64-bit pointers.  Chunks are aligned to it: no
   entry spans two cache lines. */
#define CACHE_LINE 64

/* aligned_alloc's alignment must be a power of two and its size a multiple of
   that.  With 32-bit pointers an entry's own size is neither, so the alignment
   is a constant and the chunk's size is checked against it. */
_Static_assert(SMALL_BYTES % CACHE_LINE == 0, "aligned_alloc would refuse");

/* Map all pages of a chunk at once where the system can.  A page fault for
   each would cost as much as running the callbacks. */
#ifdef MAP_POPULATE
#define MAP_NOW MAP_POPULATE
#else
#define MAP_NOW 0
#endif

/* The first slot of a chunk is its header. */
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

/* NULL with MemoryError. */
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

/* A spare chunk, or NULL. */
static FlReadyChunk *
pop_spare(FlSpareChunks *spare)
{
    FlReadyChunk *chunk = spare->first;
    if (chunk != NULL) {
        spare->first = chunk->next;
        spare->count--;
        chunk->next = NULL;
    }
    return chunk;
}

/* Keep an empty chunk as a spare, or free it where there are enough. */
static void
recycle(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    FlSpareChunks *spare = &queue->spare[chunk->large];
    if (spare->count == (chunk->large ? LARGE_SPARES : SMALL_SPARES)) {
        chunk_free(chunk);
        return;
    }
    chunk->next = spare->first;
    spare->first = chunk;
    spare->count++;
}

static void
start_tail(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    queue->tail_chunk = chunk;
    queue->tail_at = first_entry(chunk);
    queue->tail_end = chunk->end;
}

static void
start_head(FlReadyQueue *queue, FlReadyChunk *chunk)
{
    queue->head_chunk = chunk;
    queue->head_at = first_entry(chunk);
    queue->head_end = chunk->end;
}

int
fl_ready_init(FlReadyQueue *queue)
{
    memset(queue, 0, sizeof(*queue)); /* on failure head_chunk stays NULL */
    FlReadyChunk *chunk = chunk_new(false);
    if (chunk == NULL) {
        return -1;
    }
    start_head(queue, chunk);
    start_tail(queue, chunk);
    return 0;
}

void
fl_ready_free(FlReadyQueue *queue)
{
    free_chain(queue->head_chunk); /* up to the tail's */
    free_chain(queue->spare[0].first);
    free_chain(queue->spare[1].first);
    memset(queue, 0, sizeof(*queue));
}

int
fl_ready_grow(FlReadyQueue *queue)
{
    /* Invariant 2. */
    if (queue->head == queue->tail && queue->head_chunk == queue->tail_chunk) {
        start_head(queue, queue->head_chunk);
        start_tail(queue, queue->tail_chunk);
        return 0;
    }
    bool large = fl_ready_count(queue) >= LONG_QUEUE;
    FlReadyChunk *chunk = pop_spare(&queue->spare[large]);
    if (chunk == NULL) {
        chunk = chunk_new(large);
    }
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
    /* The head moves first: recycling may free the chunk. */
    FlReadyChunk *done = queue->head_chunk;
    start_head(queue, done->next);
    recycle(queue, done);
}

/* Walks the chunks from the head, of which only the first is entered in the
   middle.  Used by introspection alone, so its cost does not matter. */
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

/* How many of entry->args are references: one tuple stands for more than
   FL_READY_ARGS arguments. */
static inline uint32_t
owned_args(const FlReady *entry)
{
    return entry->nargs > FL_READY_ARGS ? 1 : entry->nargs;
}

int
fl_ready_unshare_context(FlReady *entry)
{
    if (entry->kind != FL_READY_SHARED) {
        return 0;
    }
    /* Not fl_context_copy: the entry is the caller's, so GC during the copy
       cannot release its context. */
    PyObject *own = PyContext_Copy(entry->context);
    if (own == NULL) {
        return -1;
    }
    entry->kind = FL_READY_CALL; /* so that a second call does nothing */
    Py_SETREF(entry->context, own);
    return 0;
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
    /* By count: the end of one chunk and the first entry of the next are the
       same position, so head_at may differ from tail_at in an empty queue. */
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
