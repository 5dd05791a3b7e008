/* Watches in the set: registrations of descriptors that others may close.

   What watch.c does of a shared watch, and what the loop and the poller have
   done of all of them.  The caller holds the lock of the numbers
   (fl_poller_lock_numbers), but for the three last functions.

   Errors are negative errnos. */
#ifndef FL_CORE_SHARED_WATCH_H
#define FL_CORE_SHARED_WATCH_H

#include "core/poller.h"
#include "core/watch.h"

static inline FlNumber *
fl_number_of(const FlWatch *watch)
{
    return &watch->poller->numbers[watch->fd];
}

/* Have a place in the table for a number. */
int fl_number_reserve(FlPoller *poller, int fd);

/* Let a watch have its number.  -EEXIST: another shared one has it. */
int fl_shared_open(FlWatch *watch);

/* Have the system tell of what is wanted now, by a registration that fires
   once. */
int fl_shared_apply(FlWatch *watch);

/* Register the number's present file, edge-triggered: see fl_watch_keep. */
int fl_shared_keep(FlWatch *watch);

/* After an event: arm what is registered.  A number that is another file's by
   now is not registered, and stays silent as in asyncio. */
void fl_shared_arm_again(FlWatch *watch);

/* --- of all of them, for the loop's thread ------------------------------- */

/* Note what fired in the set since the last poll. */
void fl_shared_collect(FlPoller *poller);

/* Arm anew the kept watches that wait and were not armed since they began, and
   have them fire; register what a new set had no room for. */
void fl_shared_check_unsure(FlPoller *poller);

/* Give the set, which is a new one, all watches that the old one had.  What
   it has no room for is unsure: fl_shared_check_unsure tries again.  A number
   that was found closed, or another file's, stays silent. */
void fl_shared_register_again(FlPoller *poller);

#endif
