/* Growth of a table: see table.h.

   1. The size must fit an int.  Where doubling would overflow, the size
      becomes INT32_MAX instead.  The loop below then ends because an index is
      below INT_MAX. */
#include "base/table.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ITEMS 64

void *
fl_table_grow(void *table, int *size, int index, size_t item_bytes)
{
    int grown = *size > 0 ? *size : FIRST_ITEMS;
    while (grown <= index) {
        grown = grown > INT32_MAX / 2 ? INT32_MAX : grown * 2;
    }
    char *items = realloc(table, (size_t)grown * item_bytes);
    if (items == NULL) {
        return NULL;
    }
    /* Callers take a zeroed item to mean an unused one. */
    memset(items + (size_t)*size * item_bytes, 0,
           (size_t)(grown - *size) * item_bytes);
    *size = grown;
    return items;
}
