/* Reading: decrypt records, deliver plain bytes, pause and resume reading.

   Functions return 0, or -1 with an exception set, unless they say otherwise.
   Loop's thread only.  Each may call the protocol, which may close the
   connection. */
#ifndef FL_TLS_TLS_READ_H
#define FL_TLS_TLS_READ_H

#include "tls/connection.h"

/* What is left to do after a delivery. */
typedef enum {
    FL_TLS_READ_FAILED = -1, /* an exception is set */
    FL_TLS_READ_DONE,
    FL_TLS_READ_CLOSED, /* the shutdown, because the peer has closed */
    FL_TLS_READ_MORE,   /* for tls_read.c alone: there may be more data */
} FlTlsRead;

/* Deliver what can be delivered.  Unless it failed, the caller then finishes
   the read: it sends the backlog and the records that reading has produced,
   and pauses or resumes reading.  Only while data flows (WRAPPED, FLUSHING)
   and no engine call is running. */
FlTlsRead fl_tls_read(FlTls *self);
/* During a shutdown: read and drop all data.  FL_TLS_END once the peer has
   closed, FL_TLS_WANT_READ before, FL_TLS_RAISED with an exception. */
FlTlsResult fl_tls_discard(FlTls *self);
/* Call eof_received of the application's protocol, at most once. */
int fl_tls_call_eof_received(FlTls *self);
/* The method resume_writing(): send the records that waited. */
PyObject *fl_tls_resume_writing(FlTls *self, PyObject *ignored);
/* Pause or resume reading of the raw transport, by the read marks and by how
   many bytes of replies wait because it has paused writing. */
int fl_tls_control_reading(FlTls *self);

#endif
