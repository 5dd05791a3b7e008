/* The timer queue: a 4-ary heap, and beside it a line for the common case.

   Most timers of a program share a few constant delays, so their deadlines
   come in non-decreasing order: such a push goes to the end of the line in
   O(1) and everything else to the heap.  The next node is the lesser of the
   two heads.

   1. place == 0: in no queue.  Odd: heap index (place >> 1).  Even: absolute
      line position plus one (place >> 1), so that it is never 0.
   2. The line's head slot always holds a node, unless the line is empty;
      removed slots elsewhere are at most half of it once it exceeds 64.
   3. Where a great part of the heap is due at once, all that is due moves to
      the front of the line, sorted: a heap gives one up by touching a node on
      each of its levels, and each is somewhere else in memory.
   4. Ties leave by sequence, across both structures.
   5. next_ns is the lesser of the two heads' deadlines: the loop asks for it
      several times a turn. */
#include "base/timer_queue.h"

#include "base/prefetch.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LINE_REMOVED_MIN 64
/* Taken one by one from the heap before the rest is looked at: at least so
   many, and at least this part of it. */
#define DRAIN_AFTER      64
#define DRAIN_PART       32
/* The line's first position: there is room in front of it. */
#define LINE_BEGIN       (SIZE_MAX / 8)
/* Nodes are asked for so many pops ahead. */
#define PREFETCHED       8
#define DIGIT_BITS       8
/* What an empty queue may keep of each kind: 384 KiB. */
#define SLOTS_KEPT       16384
#define DIGITS           (1 << DIGIT_BITS)

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
    queue->line_head = queue->line_tail = LINE_BEGIN;
}

void
fl_timer_queue_free(FlTimerQueue *queue)
{
    free(queue->heap);
    free(queue->line);
    fl_timer_queue_init(queue);
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

/* Move the live slots to `line`, in order, from its first position. */
static void
line_move(FlTimerQueue *queue, FlTimerSlot *line, size_t capacity)
{
    size_t to = LINE_BEGIN;
    for (size_t at = queue->line_head; at != queue->line_tail; at++) {
        FlTimerSlot slot = *line_slot(queue, at);
        if (slot.node != NULL) {
            slot.node->place = line_place(to);
            line[to++ & (capacity - 1)] = slot;
        }
    }
    queue->line_head = LINE_BEGIN;
    queue->line_tail = to;
    queue->line_removed = 0;
}

/* Have room for so many slots in all.  0 or -ENOMEM. */
static int
line_grow(FlTimerQueue *queue, size_t count)
{
    size_t capacity = queue->line_capacity ? queue->line_capacity : 64;
    while (capacity < count) {
        capacity *= 2;
    }
    if (capacity == queue->line_capacity) {
        return 0;
    }
    FlTimerSlot *line = malloc(capacity * sizeof(*line));
    if (line == NULL) {
        return -ENOMEM;
    }
    line_move(queue, line, capacity);
    free(queue->line);
    queue->line = line;
    queue->line_capacity = capacity;
    return 0;
}

static int
line_push(FlTimerQueue *queue, FlTimerSlot slot)
{
    if (queue->line_tail - queue->line_head == queue->line_capacity
        && line_grow(queue, queue->line_capacity + 1) < 0)
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

/* --- from the heap to the line ------------------------------------------- */

/* Sort by 8 bits of each key, from `from` to `to`; equal ones keep their
   order. */
static void
sort_by_digit(const FlTimerSlot *from, FlTimerSlot *to, size_t count,
              size_t offset, unsigned shift)
{
    size_t starts[DIGITS] = {0};
    for (size_t at = 0; at < count; at++) {
        uint64_t key;
        memcpy(&key, (const char *)&from[at] + offset, sizeof(key));
        starts[(key >> shift) % DIGITS]++;
    }
    size_t before = 0;
    for (size_t digit = 0; digit < DIGITS; digit++) {
        size_t here = starts[digit];
        starts[digit] = before;
        before += here;
    }
    for (size_t at = 0; at < count; at++) {
        uint64_t key;
        memcpy(&key, (const char *)&from[at] + offset, sizeof(key));
        to[starts[(key >> shift) % DIGITS]++] = from[at];
    }
}

/* Sort slots by deadline and sequence, neither of which is negative.  The
   answer is in `slots` or in `other`, which has room for as many. */
static FlTimerSlot *
sort_slots(FlTimerSlot *slots, FlTimerSlot *other, size_t count)
{
    static const size_t offsets[] = {offsetof(FlTimerSlot, sequence),
                                     offsetof(FlTimerSlot, deadline_ns)};
    uint64_t differ[2] = {0, 0};
    for (size_t at = 1; at < count; at++) {
        differ[0] |= slots[at].sequence ^ slots[0].sequence;
        differ[1] |=
            (uint64_t)slots[at].deadline_ns ^ (uint64_t)slots[0].deadline_ns;
    }
    for (size_t key = 0; key < 2; key++) {
        for (unsigned shift = 0; shift < 64; shift += DIGIT_BITS) {
            if ((differ[key] >> shift) % DIGITS == 0) {
                continue;
            }
            sort_by_digit(slots, other, count, offsets[key], shift);
            FlTimerSlot *sorted = other;
            other = slots;
            slots = sorted;
        }
    }
    return slots;
}

/* Put sorted slots in front of the line, or between its first ones. */
static void
line_merge(FlTimerQueue *queue, const FlTimerSlot *sorted, size_t count)
{
    size_t from = queue->line_head;
    size_t to = from - count;
    queue->line_head = to;
    for (size_t at = 0; at < count; to++) {
        FlTimerSlot *slot = line_slot(queue, from);
        if (from != queue->line_tail && slot_before(slot, &sorted[at])) {
            *line_slot(queue, to) = *slot;
            from++;
        }
        else {
            if (at + PREFETCHED < count) {
                fl_prefetch(sorted[at + PREFETCHED].node);
            }
            *line_slot(queue, to) = sorted[at++];
        }
        FlTimerNode *node = line_slot(queue, to)->node;
        if (node != NULL) {
            node->place = line_place(to);
        }
    }
    line_trim(queue);
}

/* The heap of what is left in its array from `first` on. */
static void
heap_rebuild(FlTimerQueue *queue, size_t first)
{
    queue->heap_size -= first;
    memmove(queue->heap, queue->heap + first,
            queue->heap_size * sizeof(*queue->heap));
    for (size_t at = 0; at < queue->heap_size; at++) {
        queue->heap[at].node->place = heap_place(at);
    }
    for (size_t at = queue->heap_size / 4 + 1; at-- > 0;) {
        if (at < queue->heap_size) {
            heap_down(queue, at, queue->heap[at]);
        }
    }
}

/* Move what is due from the heap to the line, if it is worth it: see
   invariant 3.  Where there is no memory for that, nothing changes. */
static void
drain_heap(FlTimerQueue *queue, int64_t now_ns)
{
    size_t due = 0;
    for (size_t at = 0; at < queue->heap_size; at++) {
        due += queue->heap[at].deadline_ns <= now_ns;
    }
    if (due < DRAIN_AFTER || due < queue->heap_size / 8
        || line_grow(queue, queue->line_tail - queue->line_head + due) < 0)
    {
        return;
    }
    FlTimerSlot *other = malloc(due * sizeof(*other));
    if (other == NULL) {
        return;
    }
    for (size_t at = 0, to = 0; to < due; at++) {
        if (queue->heap[at].deadline_ns <= now_ns) {
            FlTimerSlot slot = queue->heap[at];
            queue->heap[at] = queue->heap[to];
            queue->heap[to++] = slot;
        }
    }
    line_merge(queue, sort_slots(queue->heap, other, due), due);
    heap_rebuild(queue, due);
    free(other);
}

/* Whether pop_due, which is about to take a node from the heap, has met so
   many there that the rest is worth to be looked at. */
static bool
is_flooded(FlTimerQueue *queue, int64_t now_ns)
{
    if (queue->popped_ns != now_ns) {
        queue->popped_ns = now_ns;
        queue->heap_popped = 0;
    }
    queue->heap_popped++;
    if (queue->heap_popped < DRAIN_AFTER
        || queue->heap_popped < queue->heap_size / DRAIN_PART)
    {
        return false;
    }
    queue->heap_popped = 0;
    return true;
}

/* --- both ---------------------------------------------------------------- */

/* An empty queue keeps no memory of a flood. */
static void
downgrade(FlTimerQueue *queue)
{
    if (queue->line_capacity > SLOTS_KEPT) {
        free(queue->line);
        queue->line = NULL;
        queue->line_capacity = 0;
    }
    if (queue->heap_capacity > SLOTS_KEPT) {
        free(queue->heap);
        queue->heap = NULL;
        queue->heap_capacity = 0;
    }
}

/* Restore invariant 5 after something was taken out. */
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
    if (next_ns == FL_DEADLINE_NEVER
        && (queue->line_capacity > SLOTS_KEPT
            || queue->heap_capacity > SLOTS_KEPT))
    {
        downgrade(queue);
    }
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
        if (is_flooded(queue, now_ns)) {
            drain_heap(queue, now_ns);
        }
    }
    else {
        node->place = 0;
        queue->line_head++;
        if (queue->line_tail - queue->line_head > PREFETCHED) {
            fl_prefetch(line_slot(queue, queue->line_head + PREFETCHED)->node);
        }
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
        find_next(queue);
    }
    else if (queue->line_head != queue->line_tail) {
        node = line_slot(queue, queue->line_head)->node;
        fl_timer_queue_remove(queue, node);
    }
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
