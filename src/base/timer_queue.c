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
      line's first and last slots are never tombstones: pop_due and update_next
      take the head without a check.  A removal that leaves more tombstones
      than live slots, and more than MIN_TOMBSTONES, compacts the line:
      otherwise timers that are cancelled early would fill it for ever.
   3. When many heap nodes are due at once, all that are due move to the line,
      sorted (drain_heap).  One pop from a heap touches a node on each level,
      and each of these is a cache miss.
   4. Equal deadlines leave in the order of `sequence`, across both structures:
      asyncio runs such timers in the order in which they were scheduled.
   5. next_ns always equals the earlier deadline of the two heads.  It is
      cached because the loop reads it several times per iteration. */
#include "base/timer_queue.h"

#include "base/prefetch.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MIN_TOMBSTONES 64
/* drain_heap scans the whole heap.  So it runs only after this many pops from
   the heap at one time, and after this fraction (1/32) of the heap. */
#define DRAIN_MIN      64
#define DRAIN_FRACTION 32
/* The line's first position.  Not 0, because line_merge puts slots in front of
   the head. */
#define LINE_BEGIN     (SIZE_MAX / 8)
/* How many pops ahead a node is prefetched. */
#define PREFETCH_AHEAD 8
/* An empty queue frees an array with more slots than this: 384 KiB. */
#define MAX_IDLE_SLOTS 16384
/* The radix sort of sort_slots handles this many bits in one pass. */
#define DIGIT_BITS     8
#define DIGITS         (1 << DIGIT_BITS)

/* Both encodings are invariant 1. */
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

/* The order of the queue: invariant 4. */
static inline bool
slot_before(const FlTimerSlot *a, const FlTimerSlot *b)
{
    return a->deadline_ns < b->deadline_ns
           || (a->deadline_ns == b->deadline_ns && a->sequence < b->sequence);
}

/* Positions count slots and are not wrapped; the capacity is a power of two,
   so the mask wraps them here. */
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

/* Store a slot in the heap's array and keep invariant 1. */
static inline void
heap_put(FlTimerQueue *queue, size_t index, FlTimerSlot slot)
{
    queue->heap[index] = slot;
    slot.node->place = heap_place(index);
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

/* 0, or -ENOMEM with the heap unchanged. */
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
    sift_up(queue, queue->heap_size++, slot);
    return 0;
}

/* Remove the slot at `index`: the last slot of the array fills the gap. */
static void
heap_remove(FlTimerQueue *queue, size_t index)
{
    queue->heap[index].node->place = 0;
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

/* Copy the live slots to another array, in order, from LINE_BEGIN on.  The
   copy drops all tombstones. */
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

/* Make room for `count` slots in total.  0, or -ENOMEM with the line
   unchanged. */
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

/* Append a slot; the caller has checked that it keeps the line sorted.  0 or
   -ENOMEM. */
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

/* Drop all tombstones in place.  A slot only moves towards the head, so none
   is overwritten before it is read. */
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

/* Turn a slot into a tombstone, and keep invariant 2.  Compaction costs O(n),
   but only after at least n / 2 removals, so a removal costs O(1) on
   average. */
static void
line_remove(FlTimerQueue *queue, size_t position)
{
    FlTimerSlot *slot = line_slot(queue, position);
    slot->node->place = 0;
    slot->node = NULL;
    queue->line_removed++;
    line_trim(queue);
    if (queue->line_removed > MIN_TOMBSTONES
        && queue->line_removed * 2 > queue->line_tail - queue->line_head)
    {
        line_compact(queue);
    }
}

/* --- from the heap to the line ------------------------------------------- */

/* One pass of a radix sort: sort `from` into `to` by DIGIT_BITS bits of the
   64-bit key at `offset` of each slot.  The pass is stable, so later passes
   keep the order of earlier ones. */
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
    /* Turn the counts into the index at which each digit's slots begin. */
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

/* Sort slots by deadline, then by sequence: a radix sort, least significant
   digit first, so the sequence comes first.  Deadlines are not negative, so
   they sort as unsigned integers.  `other` has room for as many slots; the
   sorted array returned is either `slots` or `other`. */
static FlTimerSlot *
sort_slots(FlTimerSlot *slots, FlTimerSlot *other, size_t count)
{
    static const size_t offsets[] = {offsetof(FlTimerSlot, sequence),
                                     offsetof(FlTimerSlot, deadline_ns)};
    /* The bits in which the keys differ.  Most digits are equal in all keys:
       their passes are skipped. */
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
            /* Each pass moves all slots to the other array. */
            sort_by_digit(slots, other, count, offsets[key], shift);
            FlTimerSlot *sorted = other;
            other = slots;
            slots = sorted;
        }
    }
    return slots;
}

/* Merge sorted slots into the front of the line.  The merged part begins
   `count` positions before the old head and is written upwards.  So it never
   overwrites a slot of the line that is still to be read, and the merge ends
   as soon as all sorted slots are placed: the rest of the line is where it
   belongs.  The caller has made room. */
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
            if (at + PREFETCH_AHEAD < count) {
                fl_prefetch(sorted[at + PREFETCH_AHEAD].node);
            }
            *line_slot(queue, to) = sorted[at++];
        }
        FlTimerNode *node = line_slot(queue, to)->node;
        if (node != NULL) { /* a tombstone moves with its neighbours */
            node->place = line_place(to);
        }
    }
    line_trim(queue);
}

/* Rebuild the heap from the slots at `first` and above, in O(n): sift down
   every inner slot, the last one first. */
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
            sift_down(queue, at, queue->heap[at]);
        }
    }
}

/* Move all due nodes from the heap to the line, if there are enough of them to
   be worth it (invariant 3).  Without memory nothing moves, and pop_due goes
   on with single pops. */
static void
drain_heap(FlTimerQueue *queue, int64_t now_ns)
{
    size_t due = 0;
    for (size_t at = 0; at < queue->heap_size; at++) {
        due += queue->heap[at].deadline_ns <= now_ns;
    }
    /* Below these limits single pops are cheaper than a rebuild of the
       heap. */
    if (due < DRAIN_MIN || due < queue->heap_size / 8
        || line_grow(queue, queue->line_tail - queue->line_head + due) < 0)
    {
        return;
    }
    FlTimerSlot *other = malloc(due * sizeof(*other));
    if (other == NULL) {
        return;
    }
    /* Swap the due slots to the front of the array.  This breaks the heap and
       the places of its nodes; line_merge and heap_rebuild set both right. */
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

/* Count a pop from the heap.  True when pop_due has taken so many nodes from
   the heap for one now_ns that a scan of the rest is likely to pay. */
static bool
should_drain(FlTimerQueue *queue, int64_t now_ns)
{
    if (queue->popped_ns != now_ns) {
        /* A new batch: the loop calls pop_due with one now_ns per
           iteration. */
        queue->popped_ns = now_ns;
        queue->heap_popped = 0;
    }
    queue->heap_popped++;
    if (queue->heap_popped < DRAIN_MIN
        || queue->heap_popped < queue->heap_size / DRAIN_FRACTION)
    {
        return false;
    }
    /* Start again: if the scan finds too few, the next one comes only after as
       many more pops. */
    queue->heap_popped = 0;
    return true;
}

/* --- both ---------------------------------------------------------------- */

/* Free what a peak has left.  The queue must be empty. */
static void
release_memory(FlTimerQueue *queue)
{
    if (queue->line_capacity > MAX_IDLE_SLOTS) {
        free(queue->line);
        queue->line = NULL;
        queue->line_capacity = 0;
    }
    if (queue->heap_capacity > MAX_IDLE_SLOTS) {
        free(queue->heap);
        queue->heap = NULL;
        queue->heap_capacity = 0;
    }
}

/* Restore invariant 5 after a node was removed, and free the memory of a queue
   that became empty. */
static inline void
update_next(FlTimerQueue *queue)
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
        && (queue->line_capacity > MAX_IDLE_SLOTS
            || queue->heap_capacity > MAX_IDLE_SLOTS))
    {
        release_memory(queue);
    }
}

int
fl_timer_queue_push(FlTimerQueue *queue, FlTimerNode *node,
                    int64_t deadline_ns)
{
    FlTimerSlot slot = {deadline_ns, queue->sequence++, node};
    int code;
    node->deadline_ns = deadline_ns;
    /* An equal deadline may follow, because the new sequence is greater. */
    if (queue->line_head == queue->line_tail
        || line_slot(queue, queue->line_tail - 1)->deadline_ns <= deadline_ns)
    {
        code = line_push(queue, slot);
    }
    else {
        code = heap_push(queue, slot);
    }
    /* A push can only make the next deadline earlier. */
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
    if (node->place & 1) { /* invariant 1 */
        heap_remove(queue, node->place >> 1);
    }
    else {
        line_remove(queue, (node->place >> 1) - 1);
    }
    update_next(queue);
}

FlTimerNode *
fl_timer_queue_pop_due(FlTimerQueue *queue, int64_t now_ns)
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
    if (first == NULL || first->deadline_ns > now_ns) {
        return NULL;
    }
    FlTimerNode *node = first->node;
    if (in_heap) {
        heap_remove(queue, 0);
        /* Draining after the removal is safe: `node` is already out. */
        if (should_drain(queue, now_ns)) {
            drain_heap(queue, now_ns);
        }
    }
    else {
        node->place = 0;
        queue->line_head++;
        /* The object around the node is run soon after. */
        if (queue->line_tail - queue->line_head > PREFETCH_AHEAD) {
            fl_prefetch(
                line_slot(queue, queue->line_head + PREFETCH_AHEAD)->node);
        }
        line_trim(queue);
    }
    update_next(queue);
    return node;
}

FlTimerNode *
fl_timer_queue_pop_any(FlTimerQueue *queue)
{
    FlTimerNode *node = NULL;
    if (queue->heap_size > 0) {
        /* The last slot of the array: its removal needs no sifting. */
        node = queue->heap[--queue->heap_size].node;
        node->place = 0;
        update_next(queue);
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
        /* NULL: a tombstone. */
        int result = node == NULL ? 0 : visit(node, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
