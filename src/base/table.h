/* A table of items by a small number, such as a descriptor's.

   The caller owns the table and its lock.  It grows by doubling and never
   shrinks: numbers are reused, the lowest first. */
#ifndef FL_BASE_TABLE_H
#define FL_BASE_TABLE_H

#include <stddef.h>

/* A table of *size items that is to have one for `number` (below INT_MAX)
   as well.  Returns it, moved maybe, with zeroed items behind the old ones
   and *size as it is now; or NULL without memory, and then the old table
   stays as it is.  `number` is not below *size. */
void *fl_table_grow(void *table, int *size, int index, size_t item_bytes);

#endif
