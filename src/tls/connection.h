/* The TLS filter: a raw transport's protocol, and what the application's
   transport works on.

        raw transport  <->  FlTls  <->  FlTlsTransport and the application's
        (bytes of records)              protocol (plain bytes)

   It does what asyncio.sslproto.SSLProtocol does, in its order and with its
   texts; differences are named where they are made.  It knows the operations
   of a transport and not its insides: the raw one may be a stream of ours,
   another filter's transport (TLS in TLS) or any of asyncio's.

   Its life, in one enum:

     UNWRAPPED   before connection_made, and after the end -> HANDSHAKE
     HANDSHAKE                                             -> WRAPPED
     WRAPPED     data flows                                -> FLUSHING
     FLUSHING    data is still delivered                   -> SHUTDOWN
     SHUTDOWN    close_notify was sent or need not be      -> UNWRAPPED

   Each may become UNWRAPPED.

   Ownership: the raw transport owns the filter, the filter the raw transport,
   both protocols' side and the application's transport, until connection_lost.
   The application's transport owns the filter for good, so that
   get_extra_info answers after the end.

   Errors: functions return 0, or -1 with an exception that is the caller's:
   asyncio lets those pass through the raw transport too.  What the filter
   itself ends the connection for goes by fl_tls_fatal.

   Every call into Python may end the connection: the state is looked at again
   after each.  What is passed to such a call is owned by the caller.

   One at a time: the engine's calls may run Python (a class of the program's,
   a finalizer), which may write, bring records or close.  While a call is in
   the engine (`busy`) no other enters it: what is written goes to the backlog,
   which whoever is in the engine empties; all else is put off to the next
   iteration.  So it is with records for the raw transport: while some are
   handed over (`sending`), the others are sent by whoever does it.

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
} FlTlsState;

/* What the application's protocol was told. */
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
    PyObject *raw;      /* the transport below; NULL before and after */
    PyObject *protocol; /* the application's */
    const FlNativeProtocol *native; /* and its receiver, if it has one */
    FlTlsTransport *transport;      /* the application's */
    PyObject *waiter;               /* told when the handshake is over */
    PyObject *context;              /* the SSLContext */
    PyObject *extra;                /* a dict */
    PyObject *timer;                /* of the handshake or the shutdown */
    PyObject *handshake_timeout;
    PyObject *shutdown_timeout;
    PyObject *buffer;     /* for a raw transport that reads by get_buffer() */
    PyObject *began;      /* loop.time() of the handshake, in debug mode */
    FlWriteQueue backlog; /* plain bytes that are no records yet */
    uint64_t write_high_bytes;
    uint64_t write_low_bytes;
    uint64_t read_high_bytes;
    uint64_t read_low_bytes;
    size_t answers_bytes; /* records that reads made and that wait */
    size_t dry_bytes;     /* records that brought little data; see adapter.c */
    uint64_t pause_dispatch; /* the callback that set app_paused */
    unsigned writes_after_loss;
    unsigned users;   /* calls that use the engine: it stays until they end */
    unsigned awaited; /* iterations until data comes: deferred.h */
    FlTlsState phase;
    FlTlsAppState app_state;
    bool busy;            /* a call is in the engine */
    bool put_off;         /* something waits for the next iteration */
    bool abandoned;       /* start_tls failed: no data is delivered */
    bool sending;         /* records are being handed to the raw transport */
    bool send_all;        /* and none may be kept back */
    bool raw_is_stream;   /* exactly a StreamTransport of ours */
    bool buffered;        /* the protocol is a BufferedProtocol */
    bool app_paused;      /* pause_reading was called */
    bool raw_paused;      /* and by us on the raw transport */
    bool writing_paused;  /* the raw transport called pause_writing */
    bool protocol_paused; /* the protocol's pause_writing was called */
    bool paused_before;   /* and by the raw transport, before start_tls */
    bool eof_received;    /* the raw transport's end */
    bool closing;         /* a shutdown was begun from this side */
    bool notified;        /* close_notify was sent */
    bool lost;            /* connection_lost was called */
    bool forgotten;       /* close() was called twice: nobody asks any more */
} FlTls;

/* asyncio.Transport's slots, then ours. */
struct FlTlsTransport {
    PyObject_HEAD
    PyObject *extra;
    /* Of asyncio's _FlowControlMixin: _high_water, _loop, _low_water,
       _protocol_paused. */
    PyObject *high_water;
    PyObject *loop;
    PyObject *low_water;
    PyObject *unused_paused;
#if PY_VERSION_HEX < 0x030C0000
    PyObject *dict;
    PyObject *weakrefs;
#endif
    FlTls *connection; /* NULL once the collector took it */
    bool closed;
};

/* The raw transport is there: begin the handshake. */
int fl_tls_connection_made(FlTls *self, PyObject *raw);
/* And it is lost, with an exception or None. */
int fl_tls_connection_lost(FlTls *self, PyObject *exc);

/* Records came. */
int fl_tls_receive(FlTls *self, const char *data, size_t size_bytes);
/* The raw end came: 1 keep it open, 0 close it, -1. */
int fl_tls_receive_eof(FlTls *self);

/* Go on with what the phase asks for. */
int fl_tls_process(FlTls *self);

/* Call get_extra_info's dict and then the raw transport's. */
PyObject *fl_tls_get_extra(FlTls *self, PyObject *name, PyObject *fallback);

/* close() was called again.  asyncio's transport forgets its protocol then;
   this one keeps it, for abort(), but nothing large beyond the end. */
void fl_tls_forget(FlTls *self);
/* Let the engine and what get_extra_info answers go. */
void fl_tls_drop_engine(FlTls *self);
/* A call that uses the engine after it has called Python begins with
   `users++` and ends here: the engine goes then, if it is to. */
void fl_tls_end_use(FlTls *self);

/* As asyncio's _start_shutdown, and its _abort(exc), where exc may be NULL. */
int fl_tls_start_shutdown(FlTls *self);
int fl_tls_abort(FlTls *self, PyObject *exc);

#endif
