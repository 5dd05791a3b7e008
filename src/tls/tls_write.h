/* Writing: plain bytes to records to the raw transport, and water marks.

   Functions return 0, or -1 with an exception set. */
#ifndef FL_TLS_TLS_WRITE_H
#define FL_TLS_TLS_WRITE_H

#include "tls/connection.h"

/* asyncio's write() and writelines(). */
int fl_tls_write(FlTls *self, PyObject *data);
int fl_tls_writelines(FlTls *self, PyObject *lines);
/* Make records of the backlog; and send what is made, unless the raw
   transport has enough (or `all`, at the end). */
int fl_tls_write_backlog(FlTls *self);
int fl_tls_send(FlTls *self, bool all);
size_t fl_tls_write_buffer_bytes(const FlTls *self);
/* pause_writing and resume_writing of the application's protocol. */
int fl_tls_control_writing(FlTls *self);

#endif
