/* Writing: write, writelines, write_eof, writable events.

   A send that fails ends the connection as asyncio's _fatal_error does; write
   and writelines themselves do not raise for it.  So a caller checks the phase
   again after each of these calls.

   Threads: as in stream.h. */
#ifndef FL_TRANSPORT_STREAM_WRITE_H
#define FL_TRANSPORT_STREAM_WRITE_H

#include "py/compat.h"
#include "transport/stream.h"

/* Handle a writable event: send the queue.  Once it is empty, do what waited
   for that: resume_writing, sendfile's future, write_eof's EOF, the end of a
   closing stream.  0, or -1 to end the run. */
int fl_stream_write_ready(FlStream *self);

/* The end of a writable event: if the queue is sent, stop waiting for room and
   do what waited for that.  0, or -1 to end the run. */
int fl_stream_drained(FlStream *self);

/* transport.write(data): None, or NULL with an exception set. */
PyObject *fl_stream_write(FlStream *self, PyObject *data);

/* The methods of StreamTransport that write, and sendfile's _block_writes. */
extern PyMethodDef fl_stream_methods[];

#endif
