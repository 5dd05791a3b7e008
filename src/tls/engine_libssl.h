/* The engine that reads and writes with libssl's own functions.

   It is had where CPython's _ssl uses an OpenSSL whose functions can be found,
   where there is a GIL, and where nothing of the program's must be called on
   the way (fastloop/_tls.py says what).  Without a GIL _ssl guards an SSL by a
   lock that is not ours to take, so the other engine serves there. */
#ifndef FL_TLS_ENGINE_LIBSSL_H
#define FL_TLS_ENGINE_LIBSSL_H

#include "tls/engine.h"

extern const FlTlsEngineType fl_tls_engine_libssl;

/* Turn an engine that has its SSLObject into this kind: `ssl` is the SSL that
   was noted while the SSLObject was made, `owner` the SSLObject's _sslobj, and
   no Python ran since.  1; 0 where the SSL is not the owner's, and nothing has
   changed; -1 with an exception. */
int fl_tls_engine_take_ssl(FlTlsEngine *engine, void *ssl, PyObject *owner);

#endif
