/* Flow control: pause_writing and resume_writing at the water marks.

   The protocol may do anything in either call, so a caller looks at the
   stream's phase again. */
#ifndef FL_TRANSPORT_FLOW_H
#define FL_TRANSPORT_FLOW_H

#include "transport/stream.h"

/* Have the metrics count what waits to be written now. */
void fl_stream_meter_waiting(FlStream *self);

/* Call pause_writing or resume_writing when the water marks say so.
   0, or -1 with an exception that leaves the loop. */
int fl_stream_maybe_pause(FlStream *self);
int fl_stream_maybe_resume(FlStream *self);

/* A water mark out of a number of any kind.  It has 64 bits everywhere, for
   programs read marks back.  0, or -1 with TypeError, OverflowError or
   ValueError. */
int fl_flow_mark(PyObject *object, int64_t *mark);

#endif
