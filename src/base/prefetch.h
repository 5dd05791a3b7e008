/* Prefetching memory into the cache before it is needed.

   Thousands of queued objects run in an order that is not the order of their
   addresses, so without this each access would miss the cache.  A prefetch of
   an invalid address does nothing, so the caller need not check it. */
#ifndef FL_BASE_PREFETCH_H
#define FL_BASE_PREFETCH_H

static inline void
fl_prefetch(const void *memory)
{
#ifdef __GNUC__
    __builtin_prefetch(memory, 1); /* 1: it will be written */
#else
    (void)memory;
#endif
}

#endif
