/* A TLS engine: converts plain bytes to TLS records and back.

   There are two.  engine_libssl.c calls libssl directly, on the SSL of
   CPython's SSLObject.  engine_object.c calls the SSLObject's own methods and
   works with any object that wrap_bio() returns.  With both, handshake and
   unwrap are the SSLObject's, so CPython always checks the certificates.

   Ownership: an engine is embedded in an FlTls.  It owns the SSLObject and
   what it needs of it until the FlTls is freed.  The application may own the
   SSLObject too, and use it after the connection has ended.
   `feed` borrows the caller's memory; after `settle` the engine has its own
   copy of the unread rest.  Records for the peer accumulate in the engine
   until `take`.

   Errors: a function that returns an FlTlsResult has set an exception only if
   it returns FL_TLS_RAISED.  Loop's thread only.

   Rejected: a record buffer in each connection.  asyncio has one, and it costs
   hundreds of KiB a connection. */
#ifndef FL_TLS_ENGINE_H
#define FL_TLS_ENGINE_H

#include "py/compat.h"
#include "py/state.h"

/* The most plain bytes that a TLS record can hold. */
#define FL_TLS_RECORD_BYTES (16 * 1024)

typedef enum {
    FL_TLS_RAISED = -1,
    FL_TLS_DONE,
    FL_TLS_WANT_READ, /* the peer must send first */
    FL_TLS_END,       /* the peer has sent close_notify */
} FlTlsResult;

typedef struct FlTlsEngine FlTlsEngine;

typedef struct {
    const char *name; /* the value of get_extra_info("tls_engine") */
    /* Append records of the peer; they may stay in the caller's memory until
       settle.  0, or -1 with an exception: MemoryError, or what write() of an
       application's own MemoryBIO raises. */
    int (*feed)(FlTlsEngine *engine, const char *data, size_t size_bytes);
    /* Copy the unread records out of the caller's memory.  0, or -1 with
       MemoryError: the unread records are lost then. */
    int (*settle)(FlTlsEngine *engine);
    /* Decrypt at most one record's plain bytes, at most room_bytes > 0. */
    FlTlsResult (*read)(FlTlsEngine *engine, char *memory, size_t room_bytes,
                        size_t *got_bytes);
    /* Encrypt; *taken_bytes of the size_bytes > 0 are records now. */
    FlTlsResult (*write)(FlTlsEngine *engine, const char *data,
                         size_t size_bytes, size_t *taken_bytes);
    /* How many bytes of records are unread; how many are ready to take. */
    size_t (*incoming)(const FlTlsEngine *engine);
    size_t (*outgoing)(const FlTlsEngine *engine);
    /* Take all records for the peer: a bytes object; or NULL with an
       exception: records are lost then, now or in an earlier call. */
    PyObject *(*take)(FlTlsEngine *engine);
} FlTlsEngineType;

struct FlTlsPipe;

struct FlTlsEngine {
    /* Other threads call its incoming and outgoing. */
    const FlTlsEngineType *FL_ATOMIC type;
    FlState *state;
    PyObject *object; /* the SSLObject */
    /* The SSLObject's MemoryBIOs; NULL with engine_libssl.c.  They live as
       long as the connection: other threads may ask for their lengths. */
    PyObject *incoming;
    PyObject *outgoing;
    bool more; /* the last read filled its room: read again */
    /* engine_libssl.c only. */
    PyObject *owner; /* owns the SSL: the SSLObject's _sslobj */
    void *ssl;
    struct FlTlsPipe *pipe; /* owned by the SSL's BIO */
};

#endif
