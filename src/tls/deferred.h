/* What a filter does in a later iteration.

   Functions return 0, or -1 with an exception set. */
#ifndef FL_TLS_DEFERRED_H
#define FL_TLS_DEFERRED_H

#include "tls/connection.h"

/* Go on with what the phase asks for, and let go of the memory of what was
   read out. */
int fl_tls_go_on(FlTls *self);
int fl_tls_settle(FlTls *self);

/* Have it go on in the next iteration: a call is in the engine. */
int fl_tls_put_off(FlTls *self);

/* No data is delivered from begin_awaiting on, if there is a waiter.
   wake_first wakes it, and data comes in the iteration after that in which its
   callbacks run, unless the filter is abandoned; stop_awaiting delivers at
   once. */
void fl_tls_begin_awaiting(FlTls *self);
int fl_tls_wake_first(FlTls *self);
int fl_tls_stop_awaiting(FlTls *self);

#endif
