/* An engine: what turns plain bytes into TLS records and back.

   There are two.  engine_libssl.c calls libssl on the SSL that CPython's
   SSLObject has; engine_object.c calls the SSLObject's own methods and works
   with whatever wrap_bio() returns.  Handshake and unwrap are the SSLObject's
   with both, so certificates are always checked by CPython.

   An engine owns the SSLObject and what it needs of it.  It is embedded in a
   filter (connection.h) and dies with it.  Records that came from the peer are
   `fed` and stay the caller's memory until `settle`; what goes to the peer
   gathers in the engine until `take`.

   Functions that return an FlTlsResult raise for FL_TLS_RAISED alone.  Loop's
   thread only.

   Rejected: a buffer of records in each connection: hundreds of KiB a
   connection are asyncio's price for it. */
#ifndef FL_TLS_ENGINE_H
#define FL_TLS_ENGINE_H

#include "py/compat.h"
#include "py/state.h"

typedef enum {
    FL_TLS_RAISED = -1,
    FL_TLS_DONE,
    FL_TLS_AGAIN, /* the peer has to send first */
    FL_TLS_END,   /* the peer has closed its side in good order */
} FlTlsResult;

/* Records for the peer, out of the engine: data is of one of the two others,
   which fl_tls_output_free lets go of. */
typedef struct {
    const char *data;
    size_t size_bytes;
    PyObject *bytes;
    char *memory;
} FlTlsOutput;

typedef struct FlTlsEngine FlTlsEngine;

typedef struct {
    const char *name; /* as get_extra_info("tls_engine") says it */
    /* Add records of the peer.  0 or -1 with MemoryError. */
    int (*feed)(FlTlsEngine *engine, const char *data, size_t size_bytes);
    /* Copy what is left of them.  0 or -1 with MemoryError. */
    int (*settle)(FlTlsEngine *engine);
    /* Plain bytes out of one record; at most room_bytes > 0. */
    FlTlsResult (*read)(FlTlsEngine *engine, char *memory, size_t room_bytes,
                        size_t *got_bytes);
    /* Plain bytes into records: so many of size_bytes > 0 were taken. */
    FlTlsResult (*write)(FlTlsEngine *engine, const char *data,
                         size_t size_bytes, size_t *taken_bytes);
    /* How many bytes of records wait to be read; to be taken. */
    size_t (*incoming)(const FlTlsEngine *engine);
    size_t (*outgoing)(const FlTlsEngine *engine);
    /* Take all that goes to the peer.  0 or -1 with an exception. */
    int (*take)(FlTlsEngine *engine, FlTlsOutput *output);
    /* After a method of the SSLObject has raised: raise MemoryError in its
       place if that was the reason. */
    void (*explain)(FlTlsEngine *engine);
    /* The connection is gone: no records in, none out.  The SSLObject stays
       as it is, for a program may have it. */
    void (*detach)(FlTlsEngine *engine);
} FlTlsEngineType;

struct FlTlsPipe;

struct FlTlsEngine {
    const FlTlsEngineType *type;
    FlState *state;
    PyObject *object; /* the SSLObject */
    /* of engine_object.c: two MemoryBIOs */
    PyObject *incoming;
    PyObject *outgoing;
    bool patched; /* read() and write() are not CPython's own */
    bool more;    /* the last read filled its room */
    /* of engine_libssl.c */
    PyObject *owner; /* of the SSL: the SSLObject's _sslobj */
    void *ssl;
    struct FlTlsPipe *pipe; /* the SSL's BIO owns it */
};

static inline void
fl_tls_output_free(FlTlsOutput *output)
{
    Py_CLEAR(output->bytes);
    PyMem_RawFree(output->memory);
    output->memory = NULL;
}

#endif
