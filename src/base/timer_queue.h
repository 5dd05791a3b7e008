/* The timer queue: a priority queue of deadlines.

   Ownership: a node is embedded in the object that it times, and that object
   owns it.  The queue only points at nodes.  A queued node must not be freed
   or moved.

   Order: the earliest deadline first; equal deadlines in the order in which
   they were pushed.  Deadlines are doubles in seconds, as in asyncio.  An
   application's own clock may have any unit and sign, so they are not
   converted to nanoseconds: that would round them, and change the order of
   timers.

   Failures: push returns FL_NO_MEMORY and changes no node.  The rest cannot
   fail.

   Memory: an empty queue keeps at most 384 KiB, whatever its peak was.

   Threads: none of its own; the caller serializes access. */
#ifndef FL_BASE_TIMER_QUEUE_H
#define FL_BASE_TIMER_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct FlTimerNode {
    /* The heap index plus one, so that remove need not search; 0: in no queue.
       Aligned: on 32 bits clang calls libatomic for one that is not. */
    _Alignas(8) uint64_t place;
} FlTimerNode;

typedef struct {
    double deadline_s;
    uint64_t sequence; /* breaks ties: the push's serial number */
    FlTimerNode *node;
} FlTimerSlot;

typedef struct {
    FlTimerSlot *heap; /* a 4-ary min-heap */
    size_t heap_size;
    size_t heap_capacity;
    uint64_t sequence; /* of the next push */
    double next_s;     /* the next deadline, as the loop reads it several times
                          per iteration; INFINITY: none */
} FlTimerQueue;

void fl_timer_queue_init(FlTimerQueue *queue);

/* Whether the node is in a queue.  Any thread. */
static inline bool
fl_timer_node_is_queued(const FlTimerNode *node)
{
    return __atomic_load_n(&node->place, __ATOMIC_RELAXED) != 0;
}

/* Free the queue's memory.  Nodes still in it keep a stale place, so they must
   not be used with a queue again. */
void fl_timer_queue_free(FlTimerQueue *queue);

/* Queue a node, which is in no queue, with a deadline that is not NaN.  0 or
   FL_NO_MEMORY. */
int fl_timer_queue_push(FlTimerQueue *queue, FlTimerNode *node,
                        double deadline_s);

/* Remove a node.  Does nothing if it is in no queue. */
void fl_timer_queue_remove(FlTimerQueue *queue, FlTimerNode *node);

/* The next deadline; INFINITY if the queue is empty.  A timer may have that
   deadline too: no clock reaches it. */
static inline double
fl_timer_queue_next_s(const FlTimerQueue *queue)
{
    return queue->next_s;
}

/* Remove and return the next node, or NULL if the queue is empty. */
FlTimerNode *fl_timer_queue_pop(FlTimerQueue *queue);

/* The number of queued nodes. */
static inline size_t
fl_timer_queue_count(const FlTimerQueue *queue)
{
    return queue->heap_size;
}

/* The queued nodes one by one, in no particular order, then NULL.  *at is 0 at
   first.  The queue must not change between the calls. */
FlTimerNode *fl_timer_queue_each(const FlTimerQueue *queue, size_t *at);

#endif
