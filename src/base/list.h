/* Intrusive doubly linked list.

   A list's head and its nodes are the same struct.  An unlinked node points at
   itself, so removing it twice is harmless.  Nothing here allocates or fails.
   A list owns none of its nodes: the header of the struct that embeds a node
   states the owner.  There is no locking; the caller serializes access. */
#ifndef FL_BASE_LIST_H
#define FL_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct FlList {
    struct FlList *next;
    struct FlList *prev;
} FlList;

/* The struct that embeds `node` as its member `member`. */
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

/* Add an unlinked node at the end. */
static inline void
fl_list_append(FlList *head, FlList *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Unlink a node.  Does nothing if it is in no list. */
static inline void
fl_list_remove(FlList *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    fl_list_init(node);
}

/* Unlink and return the first node; NULL if the list is empty. */
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
