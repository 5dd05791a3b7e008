/* The ready queue: chunks of entries that own what they are to run.

   An entry is one cache line and never moves: a Handle that a caller still
   holds only points at its entry, and the entry points back, borrowed.  Who
   ends one side ends both, at the latest when the entry is taken out, for its
   slot is another's soon.  A position is a count of all entries ever pushed:
   it never repeats.

   A queue that grows gets one more chunk, a queue that empties a chunk keeps
   it for the next or gives it back: nothing is copied, and what a burst took
   is given back while it runs.

   One thread (with the GIL: whoever holds it).  Between reserve and commit no
   Python may run nor the GIL be given up, or two would fill one slot.  reserve
   may fail with no memory and then has taken nothing.

   Rejected: a ring that doubles, which copied every entry once and touched
   three times the memory that a burst needs. */
#ifndef FL_CORE_READY_QUEUE_H
#define FL_CORE_READY_QUEUE_H

#include "py/compat.h"

#include <stdint.h>

struct FlLoop;
struct FlHandle;
struct FlRegistration;

#define FL_READY_ARGS 4

typedef enum {
    FL_READY_NONE,   /* cancelled: skip */
    FL_READY_CALL,   /* callback(*args) in context */
    FL_READY_SHARED, /* CALL, but others share context: copy it first */
    FL_READY_STEP,   /* a C task's step or wake-up, which nobody can cancel */
    FL_READY_HANDLE, /* callback is a Handle of ours, run by its own fields */
    FL_READY_OTHER,  /* callback is any asyncio.Handle: call its _run() */
    FL_READY_EVENT,  /* a descriptor is ready: of.watch, nothing is owned */
    FL_READY_OP,     /* of.op(loop, callback, args[0]); context may be NULL */
} FlReadyKind;

/* A piece of the loop's own work.  subject and argument are borrowed for the
   call.  Returns 0, or -1 with an exception that must leave run_forever. */
typedef int (*FlReadyOp)(struct FlLoop *loop, PyObject *subject,
                         PyObject *argument);

typedef struct FlReady {
    uint32_t kind;
    uint32_t nargs; /* more than FL_READY_ARGS: args[0] is their tuple */
    union {
        struct FlHandle *handle; /* of a call: who points here, or NULL */
        struct FlRegistration *reg;
        FlReadyOp op;
    } of;
    PyObject *context;
    PyObject *callback; /* right before args: vectorcall's spare slot */
    PyObject *args[FL_READY_ARGS];
} FlReady;

/* In the place of a chunk's first entry. */
typedef struct FlReadyChunk {
    struct FlReadyChunk *next; /* towards the tail, or among the spare ones */
    FlReady *end;              /* past its last entry */
    bool large;
} FlReadyChunk;

/* Chunks without an entry that are kept for reuse. */
typedef struct {
    FlReadyChunk *first;
    unsigned count;
} FlSpareChunks;

typedef struct {
    FlReady *head_at;  /* the next entry to run is here, unless this is */
    FlReady *head_end; /* the end of its chunk */
    FlReady *tail_at;  /* likewise the next to push */
    FlReady *tail_end;
    uint64_t head;            /* position of the next entry to run */
    uint64_t tail;            /* position of the next entry to push */
    FlReadyChunk *head_chunk; /* NULL: not initialised, or freed */
    FlReadyChunk *tail_chunk;
    FlSpareChunks spare[2]; /* small and large ones */
} FlReadyQueue;

/* 0, or -1 with MemoryError set. */
int fl_ready_init(FlReadyQueue *queue);
void fl_ready_free(FlReadyQueue *queue);

/* Another chunk at the tail.  0, or -1 with MemoryError set. */
int fl_ready_grow(FlReadyQueue *queue);

/* The head's chunk has no more entries: go on to the next. */
void fl_ready_next_chunk(FlReadyQueue *queue);

/* The entry at a position from head to before tail. */
FlReady *fl_ready_find(const FlReadyQueue *queue, uint64_t position);

/* Give a call that was taken out a context of its own, if it shares one.  0,
   or -1 with MemoryError set. */
int fl_ready_own_context(FlReady *entry);

/* Release what an entry (a copy, or one in the queue) owns. */
void fl_ready_clear(FlReady *entry);

int fl_ready_visit(const FlReady *entry, visitproc visit, void *arg);
int fl_ready_traverse(const FlReadyQueue *queue, visitproc visit, void *arg);

static inline bool
fl_ready_is_call(const FlReady *entry)
{
    return entry->kind == FL_READY_CALL || entry->kind == FL_READY_SHARED;
}

static inline uint64_t
fl_ready_count(const FlReadyQueue *queue)
{
    return queue->tail - queue->head;
}

/* The slot for one more entry: the caller fills it and then moves the tail
   with fl_ready_commit.  NULL with MemoryError set. */
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
    queue->tail_at++;
    queue->tail++;
}

/* Queue a copy of an entry, which owns what it did from then on.  0, or -1
   with MemoryError set. */
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

/* Take the first entry out of a queue that has one.  It is the caller's, to be
   copied before anything is pushed. */
static inline FlReady *
fl_ready_take(FlReadyQueue *queue)
{
    if (FL_UNLIKELY(queue->head_at == queue->head_end)) {
        fl_ready_next_chunk(queue);
    }
    queue->head++;
    return queue->head_at++;
}

#endif
