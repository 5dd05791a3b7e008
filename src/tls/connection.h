/* A TLS connection: the protocol of a raw transport and, at the same time, the
   implementation of the application's transport.

        raw transport  <->  FlTls  <->  FlTlsTransport and the application's
        (TLS records)                   protocol (plain bytes)

   It behaves as asyncio.sslproto.SSLProtocol does: same order of calls, same
   messages.  Each difference has a comment where it is implemented.  FlTls
   uses only the public operations of the raw transport, which may be one of
   our streams, another connection's FlTlsTransport (TLS in TLS) or any
   transport of asyncio.

   Phases:

     UNWRAPPED   before connection_made, and after the end -> HANDSHAKE
     HANDSHAKE   do_handshake() has not succeeded yet      -> WRAPPED
     WRAPPED     data flows in both directions             -> FLUSHING
     FLUSHING    received data is still delivered          -> SHUTDOWN
     SHUTDOWN    close_notify goes both ways, unless       -> UNWRAPPED
                 the raw transport has received EOF

   Every phase may also change to UNWRAPPED directly.

   Ownership: until connection_lost, the raw transport and FlTls own each
   other, and FlTls owns the application's protocol and transport.  The
   application's transport owns FlTls until it is freed itself, so that
   get_extra_info still answers after the connection has ended.

   Errors: functions return 0, or -1 with an exception set for the caller.  As
   in asyncio, such an exception propagates into the raw transport.  An error
   that ends the connection is reported by fl_tls_fatal instead.

   Every call into Python may end the connection, so each caller checks the
   phase again afterwards.  The caller owns a reference to each object that it
   passes to such a call.

   No nested engine calls: an engine call may run Python (an SSLObject
   subclass, a callback of the context, a finalizer), and that code may write,
   feed records or close.  While `engine_busy` is set, nothing else enters the
   engine.  Data written then goes to the backlog, which the outer call writes
   before it returns; all other work is deferred to the next iteration.
   `sending` does the same for records on their way to the raw transport: the
   outer call sends those that a nested call produces.

   Loop's thread only. */
#ifndef FL_TLS_CONNECTION_H
#define FL_TLS_CONNECTION_H

#include "core/loop.h"
#include "py/compat.h"
#include "py/state.h"
#include "tls/engine.h"
#include "transport/native_protocol.h"
#include "transport/write_queue.h"

typedef enum {
    FL_TLS_UNWRAPPED,
    FL_TLS_HANDSHAKE,
    FL_TLS_WRAPPED,
    FL_TLS_FLUSHING,
    FL_TLS_SHUTDOWN,
} FlTlsPhase;

/* Which calls the application's protocol has received. */
typedef enum {
    FL_TLS_APP_NEW,
    FL_TLS_APP_MADE,
    FL_TLS_APP_EOF,
    FL_TLS_APP_LOST,
} FlTlsAppState;

typedef struct FlTlsTransport FlTlsTransport;

typedef struct {
    PyObject_HEAD
    FlState *state;
    FlLoop *loop;
    FlTlsEngine engine;
    PyObject *raw;      /* the raw transport; NULL before and after */
    PyObject *protocol; /* the application's */
    const FlNativeProtocol *native; /* C functions of protocol, or NULL */
    FlTlsTransport *transport;      /* the application's */
    PyObject *waiter;  /* future: the handshake is over; NULL if none */
    PyObject *context; /* the SSLContext */
    PyObject *extra;   /* the dict behind get_extra_info */
    PyObject *timer;   /* the handshake's or the shutdown's TimerHandle */
    PyObject *handshake_timeout;
    PyObject *shutdown_timeout;
    PyObject *buffer; /* bytearray that get_buffer() lent to the raw one */
    PyObject *handshake_start; /* its loop.time(); debug mode only */
    FlWriteQueue backlog;      /* plain bytes, not encrypted yet */
    uint64_t write_high_bytes;
    uint64_t write_low_bytes;
    uint64_t read_high_bytes;
    uint64_t read_low_bytes;
    size_t reply_bytes;    /* unsent records that reading has produced */
    size_t overhead_bytes; /* records without data: adapter.c, invariant 3 */
    uint64_t paused_in_dispatch; /* loop->dispatch when app_paused was set */
    unsigned writes_after_loss;
    unsigned engine_users; /* running calls that need the engine to exist */
    unsigned delay_iterations; /* until the first data; see deferred.c */
    FlTlsPhase phase;
    FlTlsAppState app_state;
    bool engine_busy;       /* an engine call is running */
    bool deferred;          /* fl_tls_defer has queued a call */
    bool abandoned;         /* start_tls failed: deliver no first data */
    bool failed;            /* a fatal error ended it: deliver no data */
    bool sending;           /* a caller is in the loop of fl_tls_send */
    bool send_all;          /* send even if writing_paused */
    bool raw_is_stream;     /* raw is exactly our StreamTransport */
    bool buffered;          /* the protocol is a BufferedProtocol */
    bool app_paused;        /* the application called pause_reading */
    bool raw_paused;        /* we called raw.pause_reading */
    bool writing_paused;    /* the raw transport called pause_writing */
    bool protocol_paused;   /* we called protocol.pause_writing */
    bool paused_before_tls; /* the raw transport did, before start_tls */
    bool eof_received;      /* the raw transport reported EOF */
    bool closing;           /* this side began the shutdown */
    bool close_notify_sent; /* unwrap() was called at least once */
    bool lost;              /* connection_lost was called */
    bool closed_twice;      /* free the engine as soon as possible */
} FlTls;

/* asyncio.Transport's slots come first, in asyncio's order, because the type
   derives from it.  Ours follow. */
struct FlTlsTransport {
    PyObject_HEAD
    PyObject *extra;
    /* The slots of asyncio's _FlowControlMixin: _high_water, _loop,
       _low_water, _protocol_paused. */
    PyObject *high_water;
    PyObject *loop;
    PyObject *low_water;
    PyObject *unused_paused;
#if PY_VERSION_HEX < 0x030C0000
    PyObject *dict;
    PyObject *weakrefs;
#endif
    FlTls *connection; /* NULL once tp_clear has run */
    bool closed;
};

/* Set the raw transport and begin the handshake. */
int fl_tls_connection_made(FlTls *self, PyObject *raw);
/* The raw transport is lost; exc is an exception or None.  Queues the
   protocol's connection_lost and releases what the connection owns. */
int fl_tls_connection_lost(FlTls *self, PyObject *exc);

/* Feed and process records.  `data` need not outlive the call. */
int fl_tls_receive(FlTls *self, const char *data, size_t size_bytes);
/* The raw transport received EOF.  1: keep it open; 0: close it; -1. */
int fl_tls_receive_eof(FlTls *self);

/* Do the next step of the current phase: handshake, read, flush or shutdown.
   Does nothing when UNWRAPPED. */
int fl_tls_process(FlTls *self);

/* get_extra_info(name, fallback): looks in the dict, then asks the raw
   transport.  A new reference, or NULL with an exception. */
PyObject *fl_tls_get_extra(FlTls *self, PyObject *name, PyObject *fallback);

/* close() was called a second time.  asyncio's transport drops its
   SSLProtocol then.  Ours keeps FlTls, so that abort() still works, and frees
   the engine and the extra info, at once or when the connection is lost. */
void fl_tls_release_early(FlTls *self);
/* Free the engine, the context and the extra info. */
void fl_tls_drop_engine(FlTls *self);
/* A caller that needs the engine to survive a call into Python increments
   `engine_users` before it and calls this afterwards.  Frees the engine if
   that became due meanwhile.  Preserves a raised exception. */
void fl_tls_engine_release(FlTls *self);

/* asyncio's _start_shutdown().  Does nothing if already begun from here. */
int fl_tls_start_shutdown(FlTls *self);
/* asyncio's _abort(): end without close_notify.  With an exception (borrowed,
   NULL for none) calls the raw transport's _force_close(exc). */
int fl_tls_abort(FlTls *self, PyObject *exc);

#endif
