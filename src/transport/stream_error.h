/* Errors of a stream, reported as asyncio's _fatal_error reports them.

   An OSError goes to connection_lost alone, except a read pipe's.  Every other
   exception is first reported to the loop's exception handler.

   Threads: any, since any may write.
   Errors: functions return 0, or -1 with an exception that ends the run
   (KeyboardInterrupt, SystemExit). */
#ifndef FL_TRANSPORT_STREAM_ERROR_H
#define FL_TRANSPORT_STREAM_ERROR_H

#include "transport/stream.h"

/* Handle the raised exception as asyncio's transport._fatal_error does: report
   it, unless it is an OSError, and force the stream closed.  A pipe stays open
   after an exception of its protocol, except MemoryError.  On -1 an
   exception is raised and the stream is not closed. */
int fl_stream_fatal(FlStream *self, const char *message);

/* The same for an exception that is not raised, of any kind: KeyboardInterrupt
   and SystemExit are reported too. */
int fl_stream_fatal_exception(FlStream *self, PyObject *exc,
                              const char *message);

/* The same for a failed call: code is a negative errno or FL_NO_MEMORY. */
int fl_stream_fatal_errno(FlStream *self, int code, const char *message);

/* Queue connection_lost with a negative errno, which is not reported.  A
   raised exception stays. */
void fl_stream_fail(FlStream *self, int code);

#endif
