/* Release what a TLS connection owns, at its end.

   Loop's thread only.  Everything here may run Python: destructors, and in
   fl_tls_release also functions of fastloop/_tls.py. */
#ifndef FL_TLS_RELEASE_H
#define FL_TLS_RELEASE_H

#include "tls/connection.h"

/* The raw transport is lost, with an exception or None (borrowed): enter LOST,
   drop what the peer has not got, queue the protocol's connection_lost.  0, or
   -1 with an exception set; the connection has ended all the same. */
int fl_tls_release(FlTls *self, PyObject *exc);

/* Drop the engine (but not its MemoryBIOs), the context and the extra info of
   an ended connection. */
void fl_tls_drop_engine(FlTls *self);
/* The same although the transport lives, if its close() was called when it was
   closed already (by close() or abort(), by the peer's close_notify or by the
   loss) and no engine call is running.  asyncio's transport drops its
   SSLProtocol then, and CPython's tests look whether the context is freed.  A
   raised exception stays. */
void fl_tls_drop_unused_engine(FlTls *self);

#endif
