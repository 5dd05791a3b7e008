/* Intrusive doubly linked list.

   A list head and its members are the same struct; an unlinked node points at
   itself, so removing twice is harmless.  Nothing here allocates or fails, and
   no node owns another: the struct that embeds the node says who does. */
#ifndef FL_BASE_LIST_H
#define FL_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct FlList {
    struct FlList *next;
    struct FlList *prev;
} FlList;

#define FL_LIST_ENTRY(node, type, member) \
    ((type *)((char *)(node)-offsetof(type, member)))

static inline void
fl_list_init(FlList *node)
{
    node->next = node->prev = node;
}

static inline bool
fl_list_is_empty(const FlList *head)
{
    return head->next == head;
}

static inline void
fl_list_append(FlList *head, FlList *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void
fl_list_remove(FlList *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    fl_list_init(node);
}

/* The first node, unlinked; NULL from an empty list. */
static inline FlList *
fl_list_pop(FlList *head)
{
    FlList *node = head->next;
    if (node == head) {
        return NULL;
    }
    fl_list_remove(node);
    return node;
}

#endif
