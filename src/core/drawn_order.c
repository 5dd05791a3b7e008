/* A drawn order: see drawn_order.h. */
#include "core/drawn_order.h"

#include "core/handle.h"
#include "core/ready_queue.h"
#include "core/registration.h"

/* An event is put off with a chance of one in so many, drawn at each poll. */
#define ONE_IN 3

/* The next number below `limit`, from a state of any bits (splitmix64). */
static uint64_t
draw(uint64_t *state, uint64_t limit)
{
    uint64_t bits = *state += 0x9E3779B97F4A7C15u;
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
    return (bits ^ (bits >> 31)) % limit;
}

void
fl_drawn_events(FlLoop *loop, uint64_t bits, bool puts_off, FlList *late)
{
    FlFdTable *table = loop->table;
    FlList drawn, *link;
    fl_list_init(&drawn);
    fl_fd_table_lock(table);
    for (uint64_t count = 0; (link = fl_list_pop(&table->fired)) != NULL;) {
        if (puts_off && draw(&bits, ONE_IN) == 0) {
            fl_list_append(late, link);
            continue;
        }
        /* Insert at a drawn place among those so far. */
        FlList *next = &drawn;
        for (uint64_t at = draw(&bits, ++count); at > 0; at--) {
            next = next->next;
        }
        fl_list_append(next, link);
    }
    while ((link = fl_list_pop(&drawn)) != NULL) {
        fl_list_append(&table->fired, link);
    }
    fl_fd_table_unlock(table);
}

static double
deadline_of(const FlReady *entry)
{
    return ((const FlTimerHandle *)entry->callback)->when_seconds;
}

void
fl_drawn_timers(FlLoop *loop, uint64_t bits, uint64_t position)
{
    FlReadyQueue *ready = &loop->ready;
    uint64_t first = position; /* of the entries with the same deadline */
    for (; position < ready->tail; position++) {
        FlReady *entry = fl_ready_find(ready, position);
        FL_CHECK(entry->kind == FL_READY_HANDLE, "another entry may not move");
        if (deadline_of(entry) != deadline_of(fl_ready_find(ready, first))) {
            first = position;
        }
        /* One step of a shuffle of those from `first` on. */
        uint64_t other = first + draw(&bits, position - first + 1);
        FlReady *partner = fl_ready_find(ready, other);
        FlReady copy = *partner;
        *partner = *entry;
        *entry = copy;
    }
}
