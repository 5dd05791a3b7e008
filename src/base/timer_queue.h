/* The timer queue: which deadline comes first.

   Contract: nodes are embedded in what they time and owned by it; the queue
   only points at them.  Deadlines that tie leave in the order they were
   pushed.  push fails with -ENOMEM and changes nothing; remove cannot fail and
   leaves no tombstone that outlives half of the queue.  pop_due may move many
   nodes at once, and does without the memory for that if there is none.  An
   empty queue keeps no memory of a flood.  One thread. */
#ifndef FL_BASE_TIMER_QUEUE_H
#define FL_BASE_TIMER_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#define FL_DEADLINE_NEVER INT64_MAX

typedef struct FlTimerNode {
    int64_t deadline_ns;
    size_t place; /* 0: in no queue; else where (see timer_queue.c) */
} FlTimerNode;

typedef struct {
    int64_t deadline_ns;
    uint64_t sequence;
    FlTimerNode *node; /* NULL in the line: removed */
} FlTimerSlot;

typedef struct {
    FlTimerSlot *heap; /* 4-ary, smallest first */
    size_t heap_size;
    size_t heap_capacity;
    FlTimerSlot *line; /* deadlines that never decrease, a circle */
    size_t line_head;  /* absolute positions: slot is position & mask */
    size_t line_tail;
    size_t line_capacity;
    size_t line_removed; /* slots between head and tail whose node is NULL */
    uint64_t sequence;
    int64_t next_ns;    /* of the next node, or FL_DEADLINE_NEVER */
    int64_t popped_ns;  /* what pop_due was last asked for, */
    size_t heap_popped; /* and how many it has taken from the heap for that */
} FlTimerQueue;

void fl_timer_queue_init(FlTimerQueue *queue);

/* Frees the queue's memory; the nodes must be out of it or dead. */
void fl_timer_queue_free(FlTimerQueue *queue);

/* Queue a node that is in no queue, due at deadline_ns.  0 or -ENOMEM. */
int fl_timer_queue_push(FlTimerQueue *queue, FlTimerNode *node,
                        int64_t deadline_ns);

/* Take a node out; nothing happens when it is in no queue. */
void fl_timer_queue_remove(FlTimerQueue *queue, FlTimerNode *node);

/* The deadline of the next node, FL_DEADLINE_NEVER when there is none. */
static inline int64_t
fl_timer_queue_next_ns(const FlTimerQueue *queue)
{
    return queue->next_ns;
}

/* Take the next node out if it is due at now_ns; else NULL. */
FlTimerNode *fl_timer_queue_pop_due(FlTimerQueue *queue, int64_t now_ns);

/* Take any node out, in no order; NULL when the queue is empty. */
FlTimerNode *fl_timer_queue_pop_any(FlTimerQueue *queue);

/* How many nodes are queued. */
static inline size_t
fl_timer_queue_count(const FlTimerQueue *queue)
{
    return queue->heap_size + (queue->line_tail - queue->line_head)
           - queue->line_removed;
}

/* Call visit(node, arg) for each queued node until it returns non-zero, and
   return that; the queue must not change meanwhile. */
int fl_timer_queue_visit(const FlTimerQueue *queue,
                         int (*visit)(FlTimerNode *node, void *arg),
                         void *arg);

#endif
