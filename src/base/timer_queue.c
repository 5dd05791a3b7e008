/* The timer queue: a 4-ary heap, and a sorted ring buffer (the "line") for the
   common case.

   Most timers of an application share a few constant delays, so most deadlines
   arrive in non-decreasing order.  Such a push appends to the line in O(1).
   Any other push goes to the heap.  The next node is the earlier of the line's
   head and the heap's root.

   1. node->place says where a node is, so that remove need not search.  0: in
      no queue.  Odd: heap index (place >> 1).  Even: line position plus one
      (place >> 1); the one keeps it from being 0.  Every move of a slot
      updates its node's place: otherwise remove would take out another node.
   2. A node removed from the line leaves a tombstone (node == NULL).  The
      line's first and last slots are never tombstones: pop and update_next
      take the head without a check.  A removal that leaves more tombstones
      than live slots, and more than MIN_TOMBSTONES, compacts the line:
      otherwise timers that are cancelled early would fill it for ever.
   3. Equal deadlines leave in the order of `sequence`, across both structures:
      asyncio runs such timers in the order in which they were scheduled.
   4. next_s always equals the earlier deadline of the two heads.  It is
      cached because the loop reads it several times per iteration. */
#include "base/timer_queue.h"

#include "base/codes.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MIN_TOMBSTONES 64
/* An empty queue frees its arrays if they have more slots than this. */
#define MAX_IDLE_SLOTS 16384

/* Relaxed: another thread may ask fl_timer_node_is_queued(). */
static inline void
set_place(FlTimerNode *node, uint64_t place)
{
    __atomic_store_n(&node->place, place, __ATOMIC_RELAXED);
}

/* Invariant 1. */
static inline uint64_t
line_place(uint64_t position)
{
    return (position + 1) << 1;
}

/* The order of the queue: invariant 3. */
static inline bool
slot_before(const FlTimerSlot *a, const FlTimerSlot *b)
{
    return a->deadline_s < b->deadline_s
           || (a->deadline_s == b->deadline_s && a->sequence < b->sequence);
}

/* Positions count slots and are not wrapped; the capacity is a power of two,
   so the mask wraps them here. */
static inline FlTimerSlot *
line_slot(const FlTimerQueue *queue, uint64_t position)
{
    return &queue->line[position & (queue->line_capacity - 1)];
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
    free(queue->line);
    fl_timer_queue_init(queue);
}

/* --- heap ---------------------------------------------------------------- */

/* Store a slot in the heap's array and keep invariant 1. */
static inline void
heap_put(FlTimerQueue *queue, size_t index, FlTimerSlot slot)
{
    queue->heap[index] = slot;
    set_place(slot.node, (index << 1) | 1);
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

/* --- line ---------------------------------------------------------------- */

/* Move the live slots, in order, to an array that may be the line's own, and
   drop all tombstones.  A slot only moves towards the head, so in place none
   is overwritten before it is read. */
static void
line_move(FlTimerQueue *queue, FlTimerSlot *line, size_t capacity)
{
    uint64_t to = queue->line_head;
    for (uint64_t at = queue->line_head; at != queue->line_tail; at++) {
        FlTimerSlot slot = *line_slot(queue, at);
        if (slot.node != NULL) {
            set_place(slot.node, line_place(to));
            line[to++ & (capacity - 1)] = slot;
        }
    }
    queue->line_tail = to;
    queue->line_removed = 0;
}

/* Double the line's array.  0, or FL_NO_MEMORY with the line unchanged. */
static int
line_grow(FlTimerQueue *queue)
{
    size_t capacity = queue->line_capacity ? queue->line_capacity * 2 : 64;
    FlTimerSlot *line = malloc(capacity * sizeof(*line));
    if (line == NULL) {
        return FL_NO_MEMORY;
    }
    line_move(queue, line, capacity);
    free(queue->line);
    queue->line = line;
    queue->line_capacity = capacity;
    return 0;
}

/* Restore invariant 2 at both ends: drop the tombstones there. */
static void
line_trim(FlTimerQueue *queue)
{
    while (queue->line_head != queue->line_tail
           && line_slot(queue, queue->line_head)->node == NULL)
    {
        queue->line_head++;
        queue->line_removed--;
    }
    while (queue->line_head != queue->line_tail
           && line_slot(queue, queue->line_tail - 1)->node == NULL)
    {
        queue->line_tail--;
        queue->line_removed--;
    }
}

/* Turn a slot into a tombstone, and keep invariant 2.  Compaction costs O(n),
   but only after at least n / 2 removals, so a removal costs O(1) on
   average. */
static void
line_remove(FlTimerQueue *queue, uint64_t position)
{
    FlTimerSlot *slot = line_slot(queue, position);
    set_place(slot->node, 0);
    slot->node = NULL;
    queue->line_removed++;
    line_trim(queue);
    if (queue->line_removed > MIN_TOMBSTONES
        && queue->line_removed * 2 > queue->line_tail - queue->line_head)
    {
        line_move(queue, queue->line, queue->line_capacity);
    }
}

/* --- both ---------------------------------------------------------------- */

/* Restore invariant 4 after a node was removed, and free the memory of a queue
   that became empty. */
static inline void
update_next(FlTimerQueue *queue)
{
    double next_s = INFINITY;
    if (queue->heap_size > 0) {
        next_s = queue->heap[0].deadline_s;
    }
    if (queue->line_head != queue->line_tail) {
        double line_s = line_slot(queue, queue->line_head)->deadline_s;
        if (line_s < next_s) {
            next_s = line_s;
        }
    }
    queue->next_s = next_s;
    if (next_s == INFINITY && queue->heap_size == 0
        && queue->line_head == queue->line_tail
        && queue->line_capacity + queue->heap_capacity > MAX_IDLE_SLOTS)
    {
        fl_timer_queue_free(queue);
    }
}

int
fl_timer_queue_push(FlTimerQueue *queue, FlTimerNode *node, double deadline_s)
{
    FlTimerSlot slot = {deadline_s, queue->sequence++, node};
    int code = 0;
    /* An equal deadline may follow, because the new sequence is greater. */
    if (queue->line_head == queue->line_tail
        || line_slot(queue, queue->line_tail - 1)->deadline_s <= deadline_s)
    {
        if (queue->line_tail - queue->line_head == queue->line_capacity) {
            code = line_grow(queue);
        }
        if (code == 0) {
            set_place(node, line_place(queue->line_tail));
            *line_slot(queue, queue->line_tail++) = slot;
        }
    }
    else {
        code = heap_push(queue, slot);
    }
    /* A push can only make the next deadline earlier. */
    if (code == 0 && deadline_s < queue->next_s) {
        queue->next_s = deadline_s;
    }
    return code;
}

void
fl_timer_queue_remove(FlTimerQueue *queue, FlTimerNode *node)
{
    if (node->place == 0) {
        return;
    }
    if (node->place & 1) { /* invariant 1 */
        heap_remove(queue, (size_t)(node->place >> 1));
    }
    else {
        line_remove(queue, (node->place >> 1) - 1);
    }
    update_next(queue);
}

FlTimerNode *
fl_timer_queue_pop(FlTimerQueue *queue)
{
    /* The earlier one of the heap's root and the line's head. */
    bool in_heap = queue->heap_size > 0;
    FlTimerSlot *first = in_heap ? queue->heap : NULL;
    if (queue->line_head != queue->line_tail) {
        FlTimerSlot *slot = line_slot(queue, queue->line_head);
        if (first == NULL || slot_before(slot, first)) {
            first = slot;
            in_heap = false;
        }
    }
    if (first == NULL) {
        return NULL;
    }
    FlTimerNode *node = first->node;
    if (in_heap) {
        heap_remove(queue, 0);
    }
    else {
        set_place(node, 0);
        queue->line_head++;
        line_trim(queue);
    }
    update_next(queue);
    return node;
}

FlTimerNode *
fl_timer_queue_each(const FlTimerQueue *queue, size_t *at)
{
    FlTimerNode *node = NULL;
    if (*at < queue->heap_size) {
        return queue->heap[(*at)++].node;
    }
    size_t end =
        queue->heap_size + (size_t)(queue->line_tail - queue->line_head);
    while (node == NULL && *at < end) { /* NULL: a tombstone */
        size_t ahead = (*at)++ - queue->heap_size;
        node = line_slot(queue, queue->line_head + ahead)->node;
    }
    return node;
}
