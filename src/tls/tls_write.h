/* Writing: encrypt plain bytes, send the records, pause and resume the
   protocol.

   Functions return 0, or -1 with an exception set, unless they say otherwise.
   Loop's thread only.  Each may call the protocol or the raw transport, and so
   may end the connection. */
#ifndef FL_TLS_TLS_WRITE_H
#define FL_TLS_TLS_WRITE_H

#include "tls/connection.h"

/* asyncio's write() and writelines().  After the end of the connection they
   drop the data.  An encryption error ends the connection and is reported. */
int fl_tls_write(FlTls *self, PyObject *data);
int fl_tls_writelines(FlTls *self, PyObject *lines);
/* Encrypt the backlog as far as possible, then fl_tls_send(self, false). */
int fl_tls_write_backlog(FlTls *self);
/* Pass the engine's records to the raw transport, then check the water marks.
   While the raw transport has paused writing, records are sent only with
   `all`, at the end of the connection. */
int fl_tls_send(FlTls *self, bool all);
/* get_write_buffer_size(): plain bytes in the backlog and unsent records. */
size_t fl_tls_write_buffer_bytes(const FlTls *self);
/* Call pause_writing or resume_writing of the application's protocol if the
   buffer has crossed a water mark. */
int fl_tls_control_writing(FlTls *self);

#endif
