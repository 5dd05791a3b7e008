/* The ready queue: a ring buffer of entries that own what they are to run.

   An entry is one cache line.  It owns callback, arguments and context; a
   Handle that a caller still holds only points at its entry (by position, for
   the buffer may move) and the entry points back, borrowed.  A position is a
   count of all entries ever pushed: it never repeats, so a stale one is known
   by being outside [head, tail).

   One thread (with the GIL: whoever holds it).  Between reserve and commit no
   Python may run nor the GIL be given up, or two would fill one slot.  reserve
   may fail with no memory and then has taken nothing. */
#ifndef FL_CORE_READY_QUEUE_H
#define FL_CORE_READY_QUEUE_H

#include "py/compat.h"

#include <stdint.h>

struct FlLoop;
struct FlHandle;
struct FlWatch;

#define FL_READY_ARGS 4
#define FL_NOT_READY  UINT64_MAX

typedef enum {
    FL_READY_NONE,   /* cancelled: skip */
    FL_READY_CALL,   /* callback(*args) in context */
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

typedef struct {
    uint32_t kind;
    uint32_t nargs; /* more than FL_READY_ARGS: args[0] is their tuple */
    union {
        struct FlHandle *handle; /* CALL: who points here, or NULL */
        struct FlWatch *watch;
        FlReadyOp op;
    } of;
    PyObject *context;
    PyObject *callback; /* right before args: vectorcall's spare slot */
    PyObject *args[FL_READY_ARGS];
} FlReady;

typedef struct {
    FlReady *entries;
    uint64_t head; /* position of the next entry to run */
    uint64_t tail; /* position of the next entry to push */
    uint64_t mask; /* capacity - 1 */
} FlReadyQueue;

int fl_ready_init(FlReadyQueue *queue);
void fl_ready_free(FlReadyQueue *queue);

/* Double the buffer.  0, or -1 with MemoryError set. */
int fl_ready_grow(FlReadyQueue *queue);

/* Give memory back when an empty queue has grown large. */
void fl_ready_shrink(FlReadyQueue *queue);

/* Release what an entry (a copy, or one in the queue) owns. */
void fl_ready_clear(FlReady *entry);

int fl_ready_visit(const FlReady *entry, visitproc visit, void *arg);
int fl_ready_traverse(const FlReadyQueue *queue, visitproc visit, void *arg);

static inline uint64_t
fl_ready_count(const FlReadyQueue *queue)
{
    return queue->tail - queue->head;
}

static inline FlReady *
fl_ready_at(const FlReadyQueue *queue, uint64_t position)
{
    return &queue->entries[position & queue->mask];
}

/* The slot for one more entry: the caller fills it and then moves the tail
   with fl_ready_commit.  NULL with MemoryError set. */
static inline FlReady *
fl_ready_reserve(FlReadyQueue *queue)
{
    if (FL_UNLIKELY(queue->tail - queue->head > queue->mask)
        && fl_ready_grow(queue) < 0)
    {
        return NULL;
    }
    return fl_ready_at(queue, queue->tail);
}

static inline uint64_t
fl_ready_commit(FlReadyQueue *queue)
{
    return queue->tail++;
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
    (void)fl_ready_commit(queue);
    return 0;
}

#endif
