/* The timer queue: a 4-ary heap.

   1. node->place is the node's heap index plus one, so that remove need not
      search; 0: in no queue.  Every move of a slot updates its node's place:
      otherwise remove would take out another node.
   2. Equal deadlines leave in the order of `sequence`: asyncio runs such
      timers in the order in which they were scheduled.
   3. next_s always equals the heap's first deadline.  It is cached because the
      loop reads it several times per iteration. */
#include "base/timer_queue.h"

#include "base/codes.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* An empty queue frees its array if that has more slots than this. */
#define MAX_IDLE_SLOTS 16384

/* Relaxed: another thread may ask fl_timer_node_is_queued(). */
static inline void
set_place(FlTimerNode *node, uint64_t place)
{
    __atomic_store_n(&node->place, place, __ATOMIC_RELAXED);
}

/* The order of the queue: invariant 2. */
static inline bool
slot_before(const FlTimerSlot *a, const FlTimerSlot *b)
{
    return a->deadline_s < b->deadline_s
           || (a->deadline_s == b->deadline_s && a->sequence < b->sequence);
}

void
fl_timer_queue_init(FlTimerQueue *queue)
{
    memset(queue, 0, sizeof(*queue));
    queue->next_s = INFINITY;
}

void
fl_timer_queue_free(FlTimerQueue *queue)
{
    free(queue->heap);
    fl_timer_queue_init(queue);
}

/* Store a slot in the heap's array and keep invariant 1. */
static inline void
heap_put(FlTimerQueue *queue, size_t index, FlTimerSlot slot)
{
    queue->heap[index] = slot;
    set_place(slot.node, index + 1);
}

/* Put `slot` at `index` or at an ancestor's place.  The slot at `index` is
   free to be overwritten: parents move down into it. */
static void
sift_up(FlTimerQueue *queue, size_t index, FlTimerSlot slot)
{
    while (index > 0) {
        size_t parent = (index - 1) / 4; /* its children: 4i+1 to 4i+4 */
        if (!slot_before(&slot, &queue->heap[parent])) {
            break;
        }
        heap_put(queue, index, queue->heap[parent]);
        index = parent;
    }
    heap_put(queue, index, slot);
}

/* Put `slot` at `index` or at a descendant's place: the earliest child of each
   level moves up. */
static void
sift_down(FlTimerQueue *queue, size_t index, FlTimerSlot slot)
{
    for (;;) {
        size_t first = index * 4 + 1;
        if (first >= queue->heap_size) {
            break;
        }
        size_t end = first + 4;
        /* The last inner slot may have fewer than four children. */
        if (end > queue->heap_size) {
            end = queue->heap_size;
        }
        size_t least = first;
        for (size_t child = first + 1; child < end; child++) {
            if (slot_before(&queue->heap[child], &queue->heap[least])) {
                least = child;
            }
        }
        if (!slot_before(&queue->heap[least], &slot)) {
            break;
        }
        heap_put(queue, index, queue->heap[least]);
        index = least;
    }
    heap_put(queue, index, slot);
}

/* 0, or FL_NO_MEMORY with the heap unchanged. */
static int
heap_push(FlTimerQueue *queue, FlTimerSlot slot)
{
    if (queue->heap_size == queue->heap_capacity) {
        size_t capacity = queue->heap_capacity ? queue->heap_capacity * 2 : 64;
        FlTimerSlot *heap =
            realloc(queue->heap, capacity * sizeof(*queue->heap));
        if (heap == NULL) {
            return FL_NO_MEMORY;
        }
        queue->heap = heap;
        queue->heap_capacity = capacity;
    }
    sift_up(queue, queue->heap_size++, slot);
    return 0;
}

/* Remove the slot at `index`: the last slot of the array fills the gap. */
static void
heap_remove(FlTimerQueue *queue, size_t index)
{
    set_place(queue->heap[index].node, 0);
    FlTimerSlot last = queue->heap[--queue->heap_size];
    if (index == queue->heap_size) {
        return; /* it was the last one itself */
    }
    /* `last` comes from another branch, so it may belong above the gap or
       below it. */
    if (index > 0 && slot_before(&last, &queue->heap[(index - 1) / 4])) {
        sift_up(queue, index, last);
    }
    else {
        sift_down(queue, index, last);
    }
}

/* Restore invariant 3 after a node was removed, and free the memory of a queue
   that became empty. */
static inline void
update_next(FlTimerQueue *queue)
{
    bool empty = queue->heap_size == 0;
    queue->next_s = empty ? INFINITY : queue->heap[0].deadline_s;
    if (empty && queue->heap_capacity > MAX_IDLE_SLOTS) {
        fl_timer_queue_free(queue);
    }
}

int
fl_timer_queue_push(FlTimerQueue *queue, FlTimerNode *node, double deadline_s)
{
    FlTimerSlot slot = {deadline_s, queue->sequence++, node};
    int code = heap_push(queue, slot);
    if (code == 0 && deadline_s < queue->next_s) {
        queue->next_s = deadline_s;
    }
    return code;
}

void
fl_timer_queue_remove(FlTimerQueue *queue, FlTimerNode *node)
{
    if (node->place != 0) {
        heap_remove(queue, (size_t)(node->place - 1));
        update_next(queue);
    }
}

FlTimerNode *
fl_timer_queue_pop(FlTimerQueue *queue)
{
    if (queue->heap_size == 0) {
        return NULL;
    }
    FlTimerNode *node = queue->heap[0].node;
    heap_remove(queue, 0);
    update_next(queue);
    return node;
}

FlTimerNode *
fl_timer_queue_each(const FlTimerQueue *queue, size_t *at)
{
    return *at < queue->heap_size ? queue->heap[(*at)++].node : NULL;
}
