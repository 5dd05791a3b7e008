/* A table indexed by a small integer, such as a file descriptor.

   The caller owns the table, frees it with free(), and provides the locking.
   The table grows by doubling.  It never shrinks: the system reuses the lowest
   free fd, so the table stays as small as the most fds that were open. */
#ifndef FL_BASE_TABLE_H
#define FL_BASE_TABLE_H

#include <stddef.h>

/* Grow a table of *size items until it has an item at `index`, where
   *size <= index < INT_MAX.  Returns the table, which may have moved: the new
   items are zeroed, and *size is the new size.  Returns NULL if there is no
   memory: then the old table and *size are unchanged. */
void *fl_table_grow(void *table, int *size, int index, size_t item_bytes);

#endif
