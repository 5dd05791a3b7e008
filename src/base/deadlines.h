/* The timer queue: which deadline comes first.

   Contract: nodes are embedded in what they time and owned by it; the queue
   only points at them.  Deadlines that tie leave in the order they were
   pushed.  push fails with -ENOMEM and changes nothing; remove cannot fail and
   leaves no tombstone that outlives half of the queue.  One thread. */
#ifndef FL_BASE_DEADLINES_H
#define FL_BASE_DEADLINES_H

#include <stddef.h>
#include <stdint.h>

#define FL_DEADLINE_NEVER INT64_MAX

typedef struct FlDeadline {
    int64_t deadline_ns;
    size_t place; /* 0: in no queue; else where (see deadlines.c) */
} FlDeadline;

typedef struct {
    int64_t deadline_ns;
    uint64_t sequence;
    FlDeadline *node; /* NULL in the line: removed */
} FlDeadlineSlot;

typedef struct {
    FlDeadlineSlot *heap; /* 4-ary, smallest first */
    size_t heap_size;
    size_t heap_capacity;
    FlDeadlineSlot *line; /* deadlines that never decrease, a circle */
    size_t line_head;     /* absolute positions: slot is position & mask */
    size_t line_tail;
    size_t line_capacity;
    size_t line_removed; /* slots between head and tail whose node is NULL */
    uint64_t sequence;
    int64_t next_ns; /* of the next node, or FL_DEADLINE_NEVER */
} FlDeadlines;

void fl_deadlines_init(FlDeadlines *queue);

/* Frees the queue's memory; the nodes must be out of it or dead. */
void fl_deadlines_free(FlDeadlines *queue);

/* Queue a node that is in no queue, due at deadline_ns.  0 or -ENOMEM. */
int fl_deadlines_push(FlDeadlines *queue, FlDeadline *node,
                      int64_t deadline_ns);

/* Take a node out; nothing happens when it is in no queue. */
void fl_deadlines_remove(FlDeadlines *queue, FlDeadline *node);

/* The deadline of the next node, FL_DEADLINE_NEVER when there is none. */
static inline int64_t
fl_deadlines_next_ns(const FlDeadlines *queue)
{
    return queue->next_ns;
}

/* Take the next node out if it is due at now_ns; else NULL. */
FlDeadline *fl_deadlines_pop_due(FlDeadlines *queue, int64_t now_ns);

/* Take any node out, in no order; NULL when the queue is empty. */
FlDeadline *fl_deadlines_pop_any(FlDeadlines *queue);

/* How many nodes are queued. */
size_t fl_deadlines_count(const FlDeadlines *queue);

/* Call visit(node, arg) for each queued node until it returns non-zero, and
   return that; the queue must not change meanwhile. */
int fl_deadlines_visit(const FlDeadlines *queue,
                       int (*visit)(FlDeadline *node, void *arg), void *arg);

#endif
