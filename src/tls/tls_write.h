/* Writing: encrypt plain bytes, send the records, pause and resume the
   protocol.

   Functions return 0, or -1 with an exception set, unless they say otherwise.
   Loop's thread only.  Each may call the protocol or the raw transport, and so
   may end the connection. */
#ifndef FL_TLS_TLS_WRITE_H
#define FL_TLS_TLS_WRITE_H

#include "tls/connection.h"

/* asyncio's write(), of a bytes object.  It drops the data before
   connection_made, and once the connection is closing: after close(), the
   peer's EOF or close_notify, or an error.  An error in encrypting ends the
   connection and is reported. */
int fl_tls_write(FlTls *self, PyObject *bytes);
/* Encrypt the backlog as far as possible, then fl_tls_send. */
int fl_tls_write_backlog(FlTls *self);
/* Unless the raw transport has paused writing, pass the engine's records to
   it; then check the water marks. */
int fl_tls_send(FlTls *self);

/* Call a function of _loop/_tls.py with the connection and up to two
   objects (NULL ends the list).  Runs Python. */
int fl_tls_call(FlTls *self, PyObject *function, PyObject *first,
                PyObject *second);
/* Five ways to end: fl_tls_set_unwrapped sets the phase alone; fl_tls_fail
   sets FAILED, for a raised SSLError, and closes nothing; fl_tls_abort ends
   the raw transport too; fl_tls_end fails, sends the alert and calls what
   closes and reports; fl_tls_fatal is that for any exception. */

/* asyncio's _abort(): end without close_notify.  With an exception (borrowed,
   NULL for none) calls the raw transport's _force_close(exc). */
int fl_tls_abort(FlTls *self, PyObject *exc);
/* From here on nothing is delivered or sent, unless the handshake has not
   succeeded yet: it keeps its phase, because a connection that is lost then
   was never made. */
void fl_tls_set_unwrapped(FlTls *self);

/* Begin the end of a connection if the raised exception is an SSLError: the
   phase is FAILED from here on.  The exception stays raised.  connection_lost
   gets it, unless fl_tls_end gets another one. */
void fl_tls_fail(FlTls *self);
/* End the connection with the raised exception, by `function` of
   _loop/_tls.py.  A connection that has FAILED first sends the alert that
   is in the engine, unless the raw transport has paused writing: it tells the
   peer the reason.  asyncio up to 3.15 does not send it (gh-98078).  If
   sending raises an exception that ends the run, that is raised after the end.
   An OSError is dropped: the peer does not receive any more. */
int fl_tls_end(FlTls *self, PyObject *function, const char *message);

#define FL_TLS_FATAL_TEXT "Fatal error on SSL protocol"

/* End the connection with the raised exception, as asyncio's _fatal_error
   does: close the raw transport with it, then report it.  An exception that
   ends the run stays raised, for the raw transport: returns -1. */
int fl_tls_fatal(FlTls *self, const char *message);

/* get_write_buffer_size(): plain bytes in the backlog and unsent records. */
size_t fl_tls_write_buffer_bytes(const FlTls *self);
/* Call pause_writing or resume_writing of the application's protocol if the
   buffer has crossed a water mark. */
int fl_tls_control_writing(FlTls *self);

#endif
