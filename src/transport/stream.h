/* Stream transports: TCP and Unix sockets.

   FlStream is the instance of StreamTransport, a true asyncio.Transport.  Its
   life, in one enum; every change goes through fl_stream_set_phase, which
   asserts that it goes on:

     OPENING   connection_made is queued           -> OPEN, CLOSING, LOST
     OPEN      reads unless paused or at EOF       -> CLOSING, LOST
     CLOSING   reads no more, writes what waits    -> LOST
     LOST      connection_lost is queued           -> CLOSED
     CLOSED    connection_lost was called, the descriptor is closed

   Ownership: from open to CLOSED the loop owns a reference (FlOwned), so an
   open transport of a live loop is garbage only where the loop waits for
   nothing of it (stream_gc.h).  The stream owns its
   protocol, server, context and descriptor; of `sock` and `fd` the socket
   object, when there is one, owns the descriptor.

   Errors: a failing start raises and leaves the descriptor to the caller; a
   failure later ends in connection_lost(exc).  Calls into Python return with
   the state consistent, and every caller looks at the phase again. */
#ifndef FL_TRANSPORT_STREAM_H
#define FL_TRANSPORT_STREAM_H

#include "core/loop.h"
#include "transport/native_protocol.h"
#include "transport/sockaddr.h"
#include "transport/write_queue.h"

#include <sys/socket.h>

typedef enum {
    FL_STREAM_OPENING,
    FL_STREAM_OPEN,
    FL_STREAM_CLOSING,
    FL_STREAM_LOST,
    FL_STREAM_CLOSED,
} FlStreamPhase;

typedef struct {
    PyObject_HEAD
    PyObject *extra; /* asyncio.Transport's only slot, _extra */
    /* Those of its _FlowControlMixin, which flow.c does without. */
    PyObject *unused[4];
#if PY_VERSION_HEX < 0x030C0000
    PyObject *dict;
    PyObject *weakrefs;
#endif
    FlState *state;
    FlLoop *loop; /* NULL once CLOSED */
    FlOwned owned;
    FlCork cork; /* loop->holder points here while writes are held */
    FlRegistration *reg;
    PyObject *sock; /* the socket object, made when somebody asks; or NULL */
    PyObject *protocol;
    const FlNativeProtocol *native; /* the protocol's, or NULL */
    PyObject *server;
    PyObject *context;
    PyObject *waiter;       /* told when connection_made was called */
    PyObject *empty_waiter; /* sendfile waits for the buffer, or for room */
    PyObject *queued_by; /* the stack of what queued its calls; debug mode */
    FlWriteQueue write_queue; /* what the kernel has not taken yet */
    FlName *peer;             /* NULL: none */
    FlName *sockname; /* once the descriptor cannot be asked any more */
    int fd;           /* -1 once it is closed */
    int last_fd; /* which it was: logs and asyncio's _sock_fd tell it still */
    FlStreamPhase phase;
    uint64_t high_water_bytes;
    uint64_t low_water_bytes;
    size_t metered_bytes;    /* what metrics count as waiting */
    size_t last_read_bytes;  /* of what came last */
    uint64_t write_dispatch; /* the callback that wrote last */
    unsigned writes_after_loss;
    unsigned narrow;  /* how often the room of a read is halved */
    bool wrote_again; /* that callback did so several times */
    bool corks_first; /* the one before it did: see stream_write.c */
    bool exposed;     /* others may have closed sock, or send on it */
    bool buffered;    /* the protocol is a BufferedProtocol */
    bool paused;
    bool awaits_room;     /* empty_waiter is for the kernel's next room */
    bool read_eof;        /* the peer's end was seen and kept open */
    bool eof_written;     /* write_eof was called */
    bool eof_sent;        /* and the socket was shut down */
    bool protocol_paused; /* pause_writing was called */
} FlStream;

/* What sendfile is told, in asyncio's words, when its transport ends. */
#define FL_STREAM_CLOSED_TEXT "Connection is closed by peer"

#define FL_HIGH_WATER_BYTES (64 * 1024)

static inline bool
fl_stream_is_closing(const FlStream *self)
{
    return self->phase >= FL_STREAM_CLOSING;
}

/* All that is queued is held, and nothing waits for the kernel. */
static inline bool
fl_stream_is_corked(const FlStream *self)
{
    return self->loop != NULL && self->loop->cork == &self->cork;
}

/* Forget what is held: the queue is dropped, or another sends it. */
static inline void
fl_stream_uncork(FlStream *self)
{
    if (fl_stream_is_corked(self)) {
        self->loop->cork = NULL;
    }
}

static inline bool
fl_stream_is_reading(const FlStream *self)
{
    return !fl_stream_is_closing(self) && !self->paused;
}

void fl_stream_set_phase(FlStream *self, FlStreamPhase phase);

/* What a stream is opened with; all borrowed, NULL where there is none. */
typedef struct {
    PyTypeObject *type; /* another than StreamTransport: see datagram.h */
    int (*on_events)(void *loop, FlRegistration *reg,
                     int events); /* and its */
    PyObject *sock;               /* a socket object, or fd alone */
    bool sock_private;            /* nobody else has that object */
    int fd;
    PyObject *protocol;
    PyObject *waiter;
    PyObject *extra;
    PyObject *server;
    PyObject *context;
    const struct sockaddr_storage *peer; /* of an accepted connection */
    socklen_t peer_size;
} FlStreamOptions;

/* Open a stream; on failure NULL with an exception set, and the descriptor is
   still the caller's. */
PyObject *fl_stream_open(FlLoop *loop, const FlStreamOptions *options);

int fl_stream_set_protocol(FlStream *self, PyObject *protocol);

/* Watch the descriptor no more, and give up its number. */
void fl_stream_unregister(FlStream *self);

/* Tell the watch what the stream wants now.  0 or a negative errno. */
int fl_stream_update_registration(FlStream *self);

/* asyncio's close(), and abort() and _force_close(exc), which drop what waits
   and queue connection_lost; exc is borrowed or NULL. */
void fl_stream_close(FlStream *self);
void fl_stream_force_close(FlStream *self, PyObject *exc);

/* Queue connection_lost(exc) (borrowed or NULL): phase LOST. */
void fl_stream_queue_connection_lost(FlStream *self, PyObject *exc);
/* The same at once, for an event after which a closing stream has nothing more
   to send: asyncio does not wait for another turn either.  -1: an exception
   that leaves the loop. */
int fl_stream_call_connection_lost(FlStream *self);

/* A watch's events: run(self, events) in the stream's context.  Returns as
   run does: 0, or -1 to leave the loop. */
int fl_stream_run_events(FlLoop *loop, FlRegistration *reg, int events,
                         int (*run)(FlStream *self, int events));

/* The end, of which the protocol is not told: CLOSED, and everything is let go
   of, the loop's reference last.  0, or -1 with the first exception. */
int fl_stream_finish(FlStream *self);

/* Call method(value) on a future that is not done yet: set_result or
   set_exception.  A failure is reported.  0, or -1 to leave the loop. */
int fl_stream_set_if_pending(FlStream *self, PyObject *waiter,
                             PyObject *method, PyObject *value);

/* Log asyncio's warning about writes to a lost connection. */
int fl_stream_warn_lost(FlStream *self);

/* In debug mode: log what befell the transport.  0, or -1 with an exception
   set. */
int fl_stream_log(FlStream *self, const char *event);

#endif
