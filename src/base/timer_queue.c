/* The timer queue: a 4-ary heap. */
#include "base/timer_queue.h"

#include "base/codes.h"

#include <assert.h>
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

/* Store a slot in the heap's array. */
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

/* Set next_s after a node was removed, and free the memory of a queue
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
        size_t index = (size_t)(node->place - 1);
        assert(queue->heap[index].node == node && "each move sets the place");
        heap_remove(queue, index);
        update_next(queue);
    }
}

FlTimerNode *
fl_timer_queue_pop(FlTimerQueue *queue)
{
    if (queue->heap_size == 0) {
        return NULL;
    }
    assert(queue->next_s == queue->heap[0].deadline_s && "next_s is kept");
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
