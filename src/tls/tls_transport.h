/* The application's transport over TLS, like asyncio's _SSLProtocolTransport.

   It only parses arguments; lifecycle.c, tls_read.c and tls_write.c do the
   work.  It owns the FlTls.  Loop's thread only, but in a free-threaded build
   other threads may call its methods: tls_transport.c, invariant 2. */
#ifndef FL_TLS_TLS_TRANSPORT_H
#define FL_TLS_TLS_TRANSPORT_H

#include "tls/connection.h"

/* A transport of a TLS connection: a new reference, or NULL with an
   exception. */
FlTlsTransport *fl_tls_transport_new(FlTls *connection);

/* Add SSLTransport to the module.  0, or -1 with an exception set. */
int fl_tls_transport_register(PyObject *module, FlState *state);

#endif
