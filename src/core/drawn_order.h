/* What asyncio leaves open, drawn from random bits: the order of one poll's
   events and of timers with one deadline, and how late an event is.

   For loops of fastloop.testing, which look for races in programs.  Other
   loops call none of this.

   Threads: the loop's thread only.  Nothing here fails or runs Python. */
#ifndef FL_CORE_DRAWN_ORDER_H
#define FL_CORE_DRAWN_ORDER_H

#include "base/list.h"
#include "core/loop.h"

/* Put the registrations that fired into a drawn order.  If puts_off, move some
   of them into `late`: their events are for a later iteration. */
void fl_drawn_events(FlLoop *loop, uint64_t bits, bool puts_off, FlList *late);

/* Put those with one deadline into a drawn order, among the timers that were
   queued last: from this position on. */
void fl_drawn_timers(FlLoop *loop, uint64_t bits, uint64_t position);

#endif
