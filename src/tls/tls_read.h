/* Reading: records to plain bytes to the protocol, and pausing.

   Functions return 0, or -1 with an exception set. */
#ifndef FL_TLS_TLS_READ_H
#define FL_TLS_TLS_READ_H

#include "tls/connection.h"

/* Deliver what can be delivered, then send what that made. */
int fl_tls_read(FlTls *self);
/* After the shutdown began: read and forget.  As an engine's read: END once
   the peer has closed, AGAIN before. */
FlTlsResult fl_tls_discard(FlTls *self);
/* eof_received of the application's protocol, once. */
int fl_tls_call_eof_received(FlTls *self);
/* pause_writing and resume_writing, of the raw transport. */
int fl_tls_raw_resumed(FlTls *self);
/* Pause or resume the raw transport as its limits say. */
int fl_tls_control_reading(FlTls *self);
int fl_tls_pause_reading(FlTls *self);
int fl_tls_resume_reading(FlTls *self);

#endif
