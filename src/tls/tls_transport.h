/* The application's transport over TLS, asyncio's _SSLProtocolTransport.

   A thin face: what it does is the filter's.  It owns the filter.  Loop's
   thread only. */
#ifndef FL_TLS_TLS_TRANSPORT_H
#define FL_TLS_TLS_TRANSPORT_H

#include "tls/connection.h"

/* A transport of a filter: a new reference, or NULL with an exception. */
FlTlsTransport *fl_tls_transport_new(FlTls *connection);

/* Whom the filter delivers to from now on: a Protocol or a BufferedProtocol.
   0 or -1. */
int fl_tls_set_protocol(FlTls *connection, PyObject *protocol);

/* Add the type to the module.  0 or -1. */
int fl_tls_transport_register(PyObject *module, FlState *state);

#endif
