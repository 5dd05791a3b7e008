/* Asking for memory before it is needed.

   Objects that wait in thousands are run in an order that is not that of their
   addresses: each would be waited for.  A wrong address does no harm. */
#ifndef FL_BASE_PREFETCH_H
#define FL_BASE_PREFETCH_H

static inline void
fl_prefetch(const void *memory)
{
#ifdef __GNUC__
    __builtin_prefetch(memory, 1);
#else
    (void)memory;
#endif
}

#endif
