/* Errors of a stream: reported as asyncio's _fatal_error reports them.

   What the network did (an OSError) goes to connection_lost alone; any other
   exception is reported first.  Functions return 0, or -1 with an exception
   that must leave run_forever. */
#ifndef FL_TRANSPORT_STREAM_ERROR_H
#define FL_TRANSPORT_STREAM_ERROR_H

#include "transport/stream.h"

/* call_exception_handler for the raised exception with asyncio's keys for a
   transport.  0, or -1 to leave the loop. */
int fl_stream_report(FlStream *self, const char *message);

/* Report the raised exception as asyncio's transport._fatal_error does and
   force the stream closed.  0, or -1 if the exception must leave the loop
   (then it stays raised and the stream as it was). */
int fl_stream_fatal(FlStream *self, const char *message);

/* The same for an exception of any kind that is not raised. */
int fl_stream_fatal_exception(FlStream *self, PyObject *exc,
                              const char *message);

/* The same for a failed system call. */
int fl_stream_fatal_errno(FlStream *self, int code, const char *message);

#endif
