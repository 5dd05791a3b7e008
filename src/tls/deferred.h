/* Work that a TLS connection postpones to a later iteration of the loop.

   Functions return 0, or -1 with an exception set.  Loop's thread only. */
#ifndef FL_TLS_DEFERRED_H
#define FL_TLS_DEFERRED_H

#include "tls/connection.h"

/* fl_tls_process, then fl_tls_settle. */
int fl_tls_process_and_settle(FlTls *self);
/* Have the engine copy the unread records, which may still lie in the
   caller's memory, and free its buffer if there are none. */
int fl_tls_settle(FlTls *self);

/* Call fl_tls_process_and_settle in the next iteration, because an engine call
   is running.  Queues at most one call; does nothing without a raw
   transport. */
int fl_tls_defer(FlTls *self);

/* Delaying the first data, invariant 1 of deferred.c.

   delay_begin starts the delay if there is a waiter; no data is delivered
   until it ends. */
void fl_tls_delay_begin(FlTls *self);
/* Resolve the waiter.  Data is delivered in the iteration after the one that
   runs the waiter's callbacks (3.11: one later), unless start_tls failed. */
int fl_tls_delay_wake(FlTls *self);
/* End the delay and deliver now. */
int fl_tls_delay_end(FlTls *self);

#endif
