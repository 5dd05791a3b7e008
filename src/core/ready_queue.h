/* The ready queue: a FIFO of entries, in chunks.

   Ownership: an entry owns the callback, the arguments and the context that it
   runs.  An entry never moves, and is one cache line on 64-bit systems.  A
   Handle that a caller still has points at its entry, and the entry points
   back; both pointers are borrowed.  Code that ends one side clears the other
   pointer too, at the latest when the entry is popped, since the slot is
   reused.

   A position counts all entries ever pushed.  It never repeats.

   A queue that grows gets one more chunk.  Chunks that empty are kept as
   spares for the next burst, up to 1 MiB.  No entry is copied to grow.

   Threads: one thread; with a GIL, any thread that has it.  Between
   fl_ready_reserve and fl_ready_commit no Python may run and the GIL must not
   be released.  Otherwise two callers would fill one slot.

   Failure: a function that allocates returns NULL or -1 with MemoryError and
   changes nothing.

   Rejected: a ring buffer that doubles.  It copied every entry once and
   touched three times the memory that a burst needs.  Keeping more spares
   until the loop waits: it saves one mmap and one munmap for 255 callbacks,
   where more than 16,000 wait at once again and again. */
#ifndef FL_CORE_READY_QUEUE_H
#define FL_CORE_READY_QUEUE_H

#include "py/compat.h"

#include <stdint.h>

struct FlLoop;
struct FlHandle;
struct FlRegistration;

#define FL_READY_ARGS 4

typedef enum {
    FL_READY_NONE,   /* skipped: cancelled or dropped */
    FL_READY_CALL,   /* callback(*args) in context */
    FL_READY_HANDLE, /* callback is our Handle: run the handle's fields */
    FL_READY_EVENT,  /* events of the registration of.reg; owns nothing */
    FL_READY_OP,     /* of.op(loop, callback, args[0]); context may be NULL */
} FlReadyKind;

/* An operation of the loop itself.  It borrows subject and argument for the
   call.  Returns 0, or -1 with an exception that ends the run. */
typedef int (*FlReadyOp)(struct FlLoop *loop, PyObject *subject,
                         PyObject *argument);

typedef struct FlReady {
    uint32_t kind;
    uint32_t nargs; /* more than FL_READY_ARGS: args[0] is their tuple */
    union {
        struct FlHandle *handle; /* of a call: its unfilled Handle, or NULL */
        struct FlRegistration *reg;
        FlReadyOp op;
    } of;
    PyObject *context;
    PyObject *callback; /* before args: vectorcall may overwrite args[-1] */
    PyObject *args[FL_READY_ARGS];
} FlReady;

/* A chunk's header, in the space of its first entry. */
typedef struct FlReadyChunk {
    struct FlReadyChunk *next; /* towards the tail, or the next spare */
} FlReadyChunk;

typedef struct {
    FlReady *head_at;  /* the next entry to run; if this equals head_end, it
                          is the next chunk's first */
    FlReady *head_end; /* the end of the head's chunk */
    FlReady *tail_at;  /* the next entry to push, in the same way */
    FlReady *tail_end;
    uint64_t head;            /* position of the next entry to run */
    uint64_t tail;            /* position of the next entry to push */
    FlReadyChunk *head_chunk; /* NULL: not initialized, or freed */
    FlReadyChunk *tail_chunk;
    FlReadyChunk *first_chunk; /* the one that is not mapped, or NULL */
    FlReadyChunk *spare;       /* a stack of empty chunks for reuse */
    unsigned spares;           /* how many */
} FlReadyQueue;

/* 0, or -1 with MemoryError set. */
int fl_ready_init(FlReadyQueue *queue);

/* Free the chunks.  The caller has popped and released the entries. */
void fl_ready_free(FlReadyQueue *queue);

/* Make room at a tail whose chunk is full.  0, or -1 with MemoryError set. */
int fl_ready_grow(FlReadyQueue *queue);

/* Move the head to the next chunk; its own has no more entries. */
void fl_ready_next_chunk(FlReadyQueue *queue);

/* The entry at a position: head <= position < tail. */
FlReady *fl_ready_find(const FlReadyQueue *queue, uint64_t position);

/* Release what an entry (a copy, or one in the queue) owns, and make it
   FL_READY_NONE. */
void fl_ready_clear(FlReady *entry);

/* For GC: visit what the queued entries own. */
int fl_ready_traverse(const FlReadyQueue *queue, visitproc visit, void *arg);

static inline uint64_t
fl_ready_count(const FlReadyQueue *queue)
{
    return queue->tail - queue->head;
}

/* The slot for the next entry.  The caller fills it and then calls
   fl_ready_commit.  NULL with MemoryError set. */
static inline FlReady *
fl_ready_reserve(FlReadyQueue *queue)
{
    if (FL_UNLIKELY(queue->tail_at == queue->tail_end)
        && fl_ready_grow(queue) < 0) {
        return NULL;
    }
    return queue->tail_at;
}

static inline void
fl_ready_commit(FlReadyQueue *queue)
{
    FL_CHECK(queue->tail_at != queue->tail_end, "a slot was reserved");
    queue->tail_at++;
    queue->tail++;
}

/* Queue a copy of an entry.  On success the copy takes over the references;
   on failure they stay the caller's.  0, or -1 with MemoryError set. */
static inline int
fl_ready_push(FlReadyQueue *queue, const FlReady *entry)
{
    FlReady *slot = fl_ready_reserve(queue);
    if (slot == NULL) {
        return -1;
    }
    *slot = *entry;
    fl_ready_commit(queue);
    return 0;
}

/* Pop the first entry of a non-empty queue.  The caller owns what it owns, and
   must copy it before anything is pushed: a push may reuse the slot. */
static inline FlReady *
fl_ready_pop(FlReadyQueue *queue)
{
    if (FL_UNLIKELY(queue->head_at == queue->head_end)) {
        fl_ready_next_chunk(queue);
    }
    FL_CHECK(queue->head < queue->tail, "the queue is not empty");
    queue->head++;
    return queue->head_at++;
}

#endif
