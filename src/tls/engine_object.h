/* The engine that calls an SSLObject's methods: it works with any.

   Slower than engine_libssl.c by two objects a message.  It is what remains
   where that one cannot be had. */
#ifndef FL_TLS_ENGINE_OBJECT_H
#define FL_TLS_ENGINE_OBJECT_H

#include "tls/engine.h"

extern const FlTlsEngineType fl_tls_engine_object;

#endif
