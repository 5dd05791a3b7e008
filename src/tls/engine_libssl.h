/* The TLS engine that calls libssl's own functions.

   Its conditions: CPython's _ssl uses an OpenSSL whose functions can be found
   at run time, there is a GIL, and no Python of the application has to run
   while records are read (_is_plain() of _loop/_tls.py).  Without a GIL,
   _ssl protects an SSL with a lock that we cannot take, so engine_object.c
   serves there.

   We link nothing and use no header of OpenSSL.  The functions are looked up
   with dlsym in the shared object that contains _ssl and in the libraries it
   is linked with.  The library belongs to the process, not to an interpreter,
   so what is found is shared: function pointers, one ex_data index and one BIO
   method.

   OpenSSL itself provides the SSL: it calls us for each SSL that is created
   (CRYPTO_get_ex_new_index).  The last one of this thread is accepted only if
   its ex_data holds the SSLObject's _sslobj, which CPython stores there.

   Rejected: an offset into CPython's struct, because it would be a guess; the
   info, msg and keylog callbacks, because setting them replaces the
   user's. */
#ifndef FL_TLS_ENGINE_LIBSSL_H
#define FL_TLS_ENGINE_LIBSSL_H

#include "tls/engine.h"

/* Look libssl's functions up; whether all were found.  Only the first call of
   the process searches, as that registers an index which OpenSSL keeps, and
   its result never changes.  `file` is
   _ssl.__file__.  Forgets the last SSL that this thread has created.  Any
   thread may call this. */
bool fl_libssl_find(const char *file);

/* Make libssl's functions serve an engine whose SSLObject this thread has
   created since fl_libssl_find returned true; `owner` is the SSLObject's
   _sslobj, to which the caller has a reference.  The last SSL that this
   thread has created may be another one.  Then no other thread may have freed
   it, because its ex_data is read.  1: done, and the SSL has our BIO; 0: the
   last SSL is not the owner's, nothing has changed; -1 with an exception. */
int fl_tls_engine_take_ssl(FlTlsEngine *engine, PyObject *owner);

#endif
