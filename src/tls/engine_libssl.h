/* The TLS engine that calls libssl's own functions.

   Its conditions: CPython's _ssl uses an OpenSSL whose functions can be found
   at run time, there is a GIL, and no Python of the application has to run
   while records are read (_is_plain() of fastloop/_tls.py).  Without a GIL,
   _ssl protects an SSL with a lock that we cannot take, so engine_object.c
   serves there. */
#ifndef FL_TLS_ENGINE_LIBSSL_H
#define FL_TLS_ENGINE_LIBSSL_H

#include "tls/engine.h"

/* Make libssl's functions serve an engine that has its SSLObject.  `ssl` is
   the last SSL created (libssl.h), `owner` the SSLObject's _sslobj.  The
   caller runs no Python between asking for `ssl` and this call, which could
   free it.  1: done, and the SSL has our BIO; 0: the SSL is not the owner's,
   nothing has changed; -1 with an exception. */
int fl_tls_engine_take_ssl(FlTlsEngine *engine, void *ssl, PyObject *owner);

#endif
