/* Writing: write, writelines, write_eof, and sending what waits.

   A failure to send ends the connection as asyncio's _fatal_error does. */
#ifndef FL_TRANSPORT_STREAM_WRITE_H
#define FL_TRANSPORT_STREAM_WRITE_H

#include "core/loop.h"
#include "py/compat.h"
#include "transport/stream.h"

/* The descriptor is writable: send what waits.  0, or -1 to leave the loop. */
int fl_stream_write_ready(FlStream *self);

/* Send what this callback's writes hold.  No protocol is called, a raised
   exception stays, and the stream does not end here: a failure to send queues
   connection_lost, and what the kernel refuses waits for it. */
void fl_stream_flush(FlStream *self);
void fl_stream_flush_corked(FlCork *cork); /* the stream's part of it */

/* The descriptor's number is in other hands from now on: send what is held,
   hold no more, and watch it as one that others may close. */
void fl_stream_expose_fd(FlStream *self);

/* Count a write after the loss, with asyncio's warning for the fifth and
   later ones.  1 if it is to be dropped, 0 if the connection is not lost, -1
   with an exception set. */
int fl_stream_drop_after_loss(FlStream *self);

PyObject *fl_stream_write(FlStream *self, PyObject *data);
/* The same for memory, which is the caller's again when it returns.  0, or -1
   with an exception set. */
int fl_stream_write_memory(FlStream *self, const char *data,
                           size_t size_bytes);
PyObject *fl_stream_writelines(FlStream *self, PyObject *lines);
PyObject *fl_stream_write_eof(FlStream *self, PyObject *ignored);

#endif
