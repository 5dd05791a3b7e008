/* The timer queue: a 4-ary heap, and beside it a line for the common case.

   Most timers of a program share a few constant delays, so their deadlines
   come in non-decreasing order: such a push goes to the end of the line in
   O(1) and everything else to the heap.  The next node is the lesser of the
   two heads.

   1. place == 0: in no queue.  Odd: heap index (place >> 1).  Even: absolute
      line position plus one (place >> 1), so that it is never 0.
   2. The line's head slot always holds a node, unless the line is empty;
      removed slots elsewhere are at most half of it once it exceeds 64.
   3. Ties leave by sequence, across both structures.
   4. next_ns is the lesser of the two heads' deadlines: the loop asks for it
      several times a turn. */
#include "base/timer_queue.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LINE_REMOVED_MIN 64

static inline size_t
heap_place(size_t index)
{
    return (index << 1) | 1;
}

static inline size_t
line_place(size_t position)
{
    return (position + 1) << 1;
}

static inline bool
slot_before(const FlTimerSlot *a, const FlTimerSlot *b)
{
    return a->deadline_ns < b->deadline_ns
           || (a->deadline_ns == b->deadline_ns && a->sequence < b->sequence);
}

static inline FlTimerSlot *
line_slot(const FlTimerQueue *queue, size_t position)
{
    return &queue->line[position & (queue->line_capacity - 1)];
}

void
fl_timer_queue_init(FlTimerQueue *queue)
{
    memset(queue, 0, sizeof(*queue));
    queue->next_ns = FL_DEADLINE_NEVER;
}

void
fl_timer_queue_free(FlTimerQueue *queue)
{
    free(queue->heap);
    free(queue->line);
    fl_timer_queue_init(queue);
}

size_t
fl_timer_queue_count(const FlTimerQueue *queue)
{
    return queue->heap_size + (queue->line_tail - queue->line_head)
           - queue->line_removed;
}

/* --- heap ---------------------------------------------------------------- */

static inline void
heap_put(FlTimerQueue *queue, size_t index, FlTimerSlot slot)
{
    queue->heap[index] = slot;
    slot.node->place = heap_place(index);
}

static void
heap_up(FlTimerQueue *queue, size_t index, FlTimerSlot slot)
{
    while (index > 0) {
        size_t parent = (index - 1) / 4;
        if (!slot_before(&slot, &queue->heap[parent])) {
            break;
        }
        heap_put(queue, index, queue->heap[parent]);
        index = parent;
    }
    heap_put(queue, index, slot);
}

static void
heap_down(FlTimerQueue *queue, size_t index, FlTimerSlot slot)
{
    for (;;) {
        size_t first = index * 4 + 1;
        if (first >= queue->heap_size) {
            break;
        }
        size_t end = first + 4;
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

static int
heap_push(FlTimerQueue *queue, FlTimerSlot slot)
{
    if (queue->heap_size == queue->heap_capacity) {
        size_t capacity = queue->heap_capacity ? queue->heap_capacity * 2 : 64;
        FlTimerSlot *heap =
            realloc(queue->heap, capacity * sizeof(*queue->heap));
        if (heap == NULL) {
            return -ENOMEM;
        }
        queue->heap = heap;
        queue->heap_capacity = capacity;
    }
    heap_up(queue, queue->heap_size++, slot);
    return 0;
}

static void
heap_remove(FlTimerQueue *queue, size_t index)
{
    queue->heap[index].node->place = 0;
    FlTimerSlot last = queue->heap[--queue->heap_size];
    if (index == queue->heap_size) {
        return;
    }
    if (index > 0 && slot_before(&last, &queue->heap[(index - 1) / 4])) {
        heap_up(queue, index, last);
    }
    else {
        heap_down(queue, index, last);
    }
}

/* --- line ---------------------------------------------------------------- */

/* Move the live slots to `line`, in order, from position 0. */
static void
line_move(FlTimerQueue *queue, FlTimerSlot *line)
{
    size_t count = 0;
    for (size_t at = queue->line_head; at != queue->line_tail; at++) {
        FlTimerSlot slot = *line_slot(queue, at);
        if (slot.node != NULL) {
            slot.node->place = line_place(count);
            line[count++] = slot;
        }
    }
    queue->line_head = 0;
    queue->line_tail = count;
    queue->line_removed = 0;
}

static int
line_grow(FlTimerQueue *queue)
{
    size_t capacity = queue->line_capacity ? queue->line_capacity * 2 : 64;
    FlTimerSlot *line = malloc(capacity * sizeof(*line));
    if (line == NULL) {
        return -ENOMEM;
    }
    line_move(queue, line);
    free(queue->line);
    queue->line = line;
    queue->line_capacity = capacity;
    return 0;
}

static int
line_push(FlTimerQueue *queue, FlTimerSlot slot)
{
    if (queue->line_tail - queue->line_head == queue->line_capacity
        && line_grow(queue) < 0)
    {
        return -ENOMEM;
    }
    slot.node->place = line_place(queue->line_tail);
    *line_slot(queue, queue->line_tail++) = slot;
    return 0;
}

/* Restore invariant 2 at the head, and drop a removed tail. */
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

/* Close the gaps in place: slots only move towards the head. */
static void
line_compact(FlTimerQueue *queue)
{
    size_t to = queue->line_head;
    for (size_t at = queue->line_head; at != queue->line_tail; at++) {
        FlTimerSlot slot = *line_slot(queue, at);
        if (slot.node != NULL) {
            slot.node->place = line_place(to);
            *line_slot(queue, to++) = slot;
        }
    }
    queue->line_tail = to;
    queue->line_removed = 0;
}

static void
line_remove(FlTimerQueue *queue, size_t position)
{
    FlTimerSlot *slot = line_slot(queue, position);
    slot->node->place = 0;
    slot->node = NULL;
    queue->line_removed++;
    line_trim(queue);
    if (queue->line_removed > LINE_REMOVED_MIN
        && queue->line_removed * 2 > queue->line_tail - queue->line_head)
    {
        line_compact(queue);
    }
}

/* --- both ---------------------------------------------------------------- */

/* Restore invariant 4 after something was taken out. */
static inline void
find_next(FlTimerQueue *queue)
{
    int64_t next_ns = FL_DEADLINE_NEVER;
    if (queue->heap_size > 0) {
        next_ns = queue->heap[0].deadline_ns;
    }
    if (queue->line_head != queue->line_tail) {
        int64_t line_ns = line_slot(queue, queue->line_head)->deadline_ns;
        if (line_ns < next_ns) {
            next_ns = line_ns;
        }
    }
    queue->next_ns = next_ns;
}

int
fl_timer_queue_push(FlTimerQueue *queue, FlTimerNode *node,
                    int64_t deadline_ns)
{
    FlTimerSlot slot = {deadline_ns, queue->sequence++, node};
    int code;
    node->deadline_ns = deadline_ns;
    if (queue->line_head == queue->line_tail
        || line_slot(queue, queue->line_tail - 1)->deadline_ns <= deadline_ns)
    {
        code = line_push(queue, slot);
    }
    else {
        code = heap_push(queue, slot);
    }
    if (code == 0 && deadline_ns < queue->next_ns) {
        queue->next_ns = deadline_ns;
    }
    return code;
}

void
fl_timer_queue_remove(FlTimerQueue *queue, FlTimerNode *node)
{
    if (node->place == 0) {
        return;
    }
    if (node->place & 1) {
        heap_remove(queue, node->place >> 1);
    }
    else {
        line_remove(queue, (node->place >> 1) - 1);
    }
    find_next(queue);
}

FlTimerNode *
fl_timer_queue_pop_due(FlTimerQueue *queue, int64_t now_ns)
{
    bool in_heap = queue->heap_size > 0;
    FlTimerSlot *first = in_heap ? queue->heap : NULL;
    if (queue->line_head != queue->line_tail) {
        FlTimerSlot *slot = line_slot(queue, queue->line_head);
        if (first == NULL || slot_before(slot, first)) {
            first = slot;
            in_heap = false;
        }
    }
    if (first == NULL || first->deadline_ns > now_ns) {
        return NULL;
    }
    FlTimerNode *node = first->node;
    if (in_heap) {
        heap_remove(queue, 0);
    }
    else {
        node->place = 0;
        queue->line_head++;
        line_trim(queue);
    }
    find_next(queue);
    return node;
}

FlTimerNode *
fl_timer_queue_pop_any(FlTimerQueue *queue)
{
    FlTimerNode *node = NULL;
    if (queue->heap_size > 0) {
        node = queue->heap[--queue->heap_size].node;
        node->place = 0;
    }
    else if (queue->line_head != queue->line_tail) {
        node = line_slot(queue, queue->line_head)->node;
        fl_timer_queue_remove(queue, node);
    }
    find_next(queue);
    return node;
}

int
fl_timer_queue_visit(const FlTimerQueue *queue,
                     int (*visit)(FlTimerNode *node, void *arg), void *arg)
{
    for (size_t at = 0; at < queue->heap_size; at++) {
        int result = visit(queue->heap[at].node, arg);
        if (result != 0) {
            return result;
        }
    }
    for (size_t at = queue->line_head; at != queue->line_tail; at++) {
        FlTimerNode *node = line_slot(queue, at)->node;
        int result = node == NULL ? 0 : visit(node, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
