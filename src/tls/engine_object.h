/* The TLS engine that calls an SSLObject's methods: it works with any.

   It costs two objects more per message than engine_libssl.c and serves where
   that one's conditions do not hold. */
#ifndef FL_TLS_ENGINE_OBJECT_H
#define FL_TLS_ENGINE_OBJECT_H

#include "tls/engine.h"

extern const FlTlsEngineType fl_tls_engine_object;

#endif
