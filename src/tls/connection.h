/* A TLS connection: the protocol of a raw transport and, at the same time, the
   implementation of the application's transport.

        raw transport  <->  FlTls  <->  FlTlsTransport and the application's
        (TLS records)                   protocol (plain bytes)

   It behaves as asyncio.sslproto.SSLProtocol does: same order of calls, same
   messages.  Each difference has a comment where it is implemented.  The raw
   transport may be one of our streams, another connection's FlTlsTransport
   (TLS in TLS) or any transport of asyncio.  FlTls calls its public methods
   and asyncio's _force_close().  Of one of our streams it also reads the
   context, calls a C function in place of write(), and after a failure drops
   what the socket has received.

   This file has the state alone.  Above it are, in this order, tls_write.c,
   tls_read.c and lifecycle.c, which goes from phase to phase; each calls only
   those below it.

   Phases:

     NEW         before connection_made                    -> HANDSHAKE
     HANDSHAKE   do_handshake() has not succeeded yet      -> WRAPPED
     WRAPPED     data flows in both directions             -> FLUSHING
     FLUSHING    received data is still delivered (but:
                 tls_read.c, 4)                            -> SHUTDOWN
     SHUTDOWN    close_notify goes both ways, unless the
                 raw transport has received EOF; then the
                 raw transport is closed                   -> LOST
     FAILED      the engine has failed: data decrypted before
                 is delivered, the alert is sent           -> UNWRAPPED
     UNWRAPPED   aborted or failed: nothing is delivered
                 or sent                                   -> LOST
     LOST        connection_lost was called

   From HANDSHAKE on each phase may also change to a later one of FAILED and
   UNWRAPPED, and every phase to LOST.

   Ownership: until connection_lost, the raw transport and FlTls own each
   other, and FlTls owns the application's protocol and transport.  The
   application's transport owns FlTls until it is freed itself, so that
   get_extra_info still answers after the connection has ended.

   Errors: functions return 0, or -1 with an exception set for the caller.  As
   in asyncio, such an exception propagates into the raw transport.  An error
   that ends the connection is reported by fl_tls_fatal (tls_write.h) instead.

   Every call into Python may end the connection, so each caller checks the
   phase again afterwards.  The caller owns a reference to each object that it
   passes to such a call.

   No nested engine calls: an engine call may run Python (an SSLObject
   subclass, a callback of the context, a finalizer), and that code may write,
   feed records or close.  It may also release the GIL, as the methods of
   SSLObject do, and then another thread may do the same.  While `engine_busy`
   is set, no other read, write, do_handshake or unwrap begins, and nothing is
   taken.  Only feed and settle, by the loop's thread, and the two lengths may
   be called.  Data written then goes to the backlog, which the outer call
   writes before it returns; all other work is deferred to the next iteration.
   `sending` does the same for records on their way to the raw transport: the
   outer call sends those that a nested call produces.

   Loop's thread only. */
#ifndef FL_TLS_CONNECTION_H
#define FL_TLS_CONNECTION_H

#include "core/loop.h"
#include "core/write_queue.h"
#include "py/compat.h"
#include "py/state.h"
#include "tls/engine.h"
#include "transport/native_protocol.h"
#include "transport/transport.h"

/* In the order of _STATES in _loop/_tls.py. */
typedef enum {
    FL_TLS_NEW,
    FL_TLS_HANDSHAKE,
    FL_TLS_WRAPPED,
    FL_TLS_FLUSHING,
    FL_TLS_SHUTDOWN,
    FL_TLS_FAILED,
    FL_TLS_UNWRAPPED,
    FL_TLS_LOST,
} FlTlsPhase;

/* Which calls the application's protocol has received. */
typedef enum {
    FL_TLS_APP_NEW,
    FL_TLS_APP_MADE,
    FL_TLS_APP_EOF,
} FlTlsAppState;

typedef struct FlTlsTransport FlTlsTransport;

typedef struct {
    PyObject_HEAD
    FL_TRANSPORT_DICT_FIELDS
    FlState *state;
    FlLoop *loop;
    FlTlsEngine engine;
    PyObject *raw;       /* NULL before connection_made and after the loss */
    FlProtocol protocol; /* the application's */
    FlTlsTransport *transport; /* the application's */
    /* Set by _loop/_tls.py; NULL before. */
    PyObject *waiter; /* future: the handshake is over; None if none */
    PyObject *ssl_context;
    PyObject *extra;   /* the dict behind get_extra_info */
    PyObject *timer;   /* the handshake's or the shutdown's TimerHandle */
    PyObject *failure; /* from FAILED on: connection_lost's exception */
    PyObject *handshake_timeout;
    PyObject *shutdown_timeout;
    FlWriteQueue backlog;        /* plain bytes, not encrypted yet */
    size_t passed_bytes;         /* of them; tls_write.c, invariant 1 */
    size_t reply_bytes;          /* unsent records that reading has produced */
    size_t discarded_bytes;      /* read and dropped during the shutdown */
    uint64_t paused_in_callback; /* callback_count when app_paused was set */
    FL_ATOMIC Py_ssize_t writes_after_loss;
    /* Counts down once an iteration after the handshake of start_tls: above 1
       nothing is delivered, at 1 data, but not the peer's end; 0: no hold.
       run_deferred is queued while it is not 0.  lifecycle.c, 3. */
    FL_ATOMIC unsigned hold_iterations;
    FlTlsPhase phase;
    FlTlsAppState app_state;
    bool engine_busy;          /* an engine call is running */
    bool delivering;           /* read_once decrypts or delivers */
    bool deferred;             /* fl_tls_defer has queued a call */
    bool sending;              /* a caller is in the loop of fl_tls_send */
    FL_ATOMIC bool app_paused; /* the application called pause_reading */
    bool raw_paused;           /* we called raw.pause_reading */
    bool writing_paused;       /* the raw transport called pause_writing */
    bool eof_received;         /* the raw transport's EOF was handled */
    bool eof_held;             /* or will be: lifecycle.c, 3 */
    /* fl_tls_start_shutdown has begun the shutdown, for close() or the peer's
       close_notify. */
    bool closing;
    bool close_notify_sent; /* unwrap() was called at least once */
} FlTls;

/* One until start_tls() has returned.  Three more until data is delivered: a
   task that awaits start_tls() by gather(), TaskGroup, shield(), wait() or
   wait_for() resumes in the second or third.  One between data and end. */
#define FL_TLS_HOLD_ITERATIONS 5u
/* The application has used its transport: data now, the end in the next. */
#define FL_TLS_HOLD_USED       2u

static inline void
fl_tls_set_phase(FlTls *self, FlTlsPhase phase)
{
    FL_CHECK(phase >= self->phase, "phases only advance");
    FL_CHECK(phase <= self->phase + 1 || phase == FL_TLS_LOST
                 || (phase >= FL_TLS_FAILED && self->phase != FL_TLS_NEW),
             "only the end skips phases");
    self->phase = phase;
}

static inline bool
fl_tls_holds_data(const FlTls *self)
{
    return self->hold_iterations > 1;
}

struct FlTlsTransport {
    FL_TRANSPORT_HEAD(unused1, unused2, unused3, unused4)
    FlTls *connection;
    FlWaterMark read_high_bytes, read_low_bytes;
    FL_ATOMIC bool closed;
};

#endif
