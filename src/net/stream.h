/* Stream transports: TCP and Unix sockets.

   FlStream is the instance of StreamTransport, a true asyncio.Transport.  Its
   life, in one enum; every change goes through fl_stream_set_phase, which
   asserts this table:

     OPENING   connection_made is queued           -> OPEN, CLOSING, LOST
     OPEN      reads unless paused or at EOF       -> CLOSING, LOST
     CLOSING   reads no more, writes what waits    -> LOST
     LOST      connection_lost is queued           -> CLOSED
     CLOSED    connection_lost was called, the descriptor is closed

   Ownership: from open to CLOSED the loop owns a reference (FlOwned), so an
   open transport of a live loop is never garbage.  The stream owns its
   protocol, server, context and descriptor; of `sock` and `fd` the socket
   object, when there is one, owns the descriptor.

   Errors: a failing start raises and leaves the descriptor to the caller; a
   failure later ends in connection_lost(exc).  Calls into Python return with
   the state consistent, and every caller looks at the phase again. */
#ifndef FL_NET_STREAM_H
#define FL_NET_STREAM_H

#include "loop/loop.h"
#include "net/chunks.h"

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
    FlHeld held; /* loop->held points here while writes are held */
    FlWatch *watch;
    PyObject *sock; /* the socket object, made when somebody asks; or NULL */
    PyObject *protocol;
    PyObject *server;
    PyObject *context;
    PyObject *waiter;       /* told when connection_made was called */
    PyObject *empty_waiter; /* sendfile waits for the buffer, or for room */
    PyObject *queued_by; /* the stack of what queued its calls; debug mode */
    FlChunks chunks;     /* what the kernel has not taken yet */
    struct sockaddr_storage peer;
    socklen_t peer_size;
    int fd;     /* -1 once it is closed */
    int number; /* which it was: logs and asyncio's _sock_fd tell it still */
    FlStreamPhase phase;
    size_t high_water_bytes;
    size_t low_water_bytes;
    uint64_t write_dispatch; /* the callback that wrote last */
    unsigned writes_after_loss;
    int write_habit;  /* whether writes are held: see write.c */
    bool wrote_again; /* the last callback that wrote did so several times */
    bool given;       /* others may have closed sock */
    bool buffered;    /* the protocol is a BufferedProtocol */
    bool bulky;       /* the last read was large */
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
fl_stream_is_holding(const FlStream *self)
{
    return self->loop != NULL && self->loop->held == &self->held;
}

static inline bool
fl_stream_is_reading(const FlStream *self)
{
    return !fl_stream_is_closing(self) && !self->paused;
}

/* --- stream.c: life ------------------------------------------------------ */

void fl_stream_set_phase(FlStream *self, FlStreamPhase phase);

/* What a stream is opened with; all borrowed, NULL where there is none. */
typedef struct {
    PyTypeObject *type; /* another than StreamTransport: see datagram.h */
    int (*on_events)(void *loop, FlWatch *watch, int events); /* and its */
    PyObject *sock;    /* a socket object, or fd alone */
    bool sock_private; /* nobody else has that object */
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
void fl_stream_close_watch(FlStream *self);

/* Tell the watch what the stream wants now.  0 or a negative errno. */
int fl_stream_update_watch(FlStream *self);

/* asyncio's close(), and abort() and _force_close(exc), which drop what waits
   and queue connection_lost; exc is borrowed or NULL. */
void fl_stream_close(FlStream *self);
void fl_stream_force_close(FlStream *self, PyObject *exc);

/* Queue connection_lost(exc) (borrowed or NULL): phase LOST. */
void fl_stream_lose(FlStream *self, PyObject *exc);
/* The same at once, for an event after which a closing stream has nothing more
   to send: asyncio does not wait for another turn either.  -1: an exception
   that leaves the loop. */
int fl_stream_lose_now(FlStream *self);

/* Report the raised exception as asyncio's transport._fatal_error does and
   force the stream closed.  0, or -1 if the exception must leave the loop
   (then it stays raised and the stream as it was). */
int fl_stream_fatal(FlStream *self, const char *message);

/* The same for an exception of any kind that is not raised. */
int fl_stream_fatal_exception(FlStream *self, PyObject *exc,
                              const char *message);

/* The same for a failed system call. */
int fl_stream_fatal_errno(FlStream *self, int code, const char *message);

/* A watch's events: run(self, events) in the stream's context.  Returns as
   run does: 0, or -1 to leave the loop. */
int fl_stream_run_events(FlLoop *loop, FlWatch *watch, int events,
                         int (*run)(FlStream *self, int events));

int fl_stream_traverse(FlStream *self, visitproc visit, void *arg);
int fl_stream_clear(FlStream *self);
void fl_stream_finalize(FlStream *self);
void fl_stream_dealloc(FlStream *self);

/* Call method(value) on a future that is not done yet: set_result or
   set_exception.  A failure is reported.  0, or -1 to leave the loop. */
int fl_stream_settle(FlStream *self, PyObject *waiter, PyObject *method,
                     PyObject *value);

/* call_exception_handler for the raised exception with asyncio's keys for a
   transport.  0, or -1 to leave the loop. */
int fl_stream_report(FlStream *self, const char *message);

/* Log asyncio's warning about writes to a lost connection. */
int fl_stream_warn_lost(FlStream *self);

/* In debug mode: log what befell the transport.  0, or -1 with an exception
   set. */
int fl_stream_log(FlStream *self, const char *event);

/* --- stream_number.c ----------------------------------------------------- */

/* Before a call on the descriptor: 0, or -EBADF where the socket object that
   was given is closed, for the number may be another's by now. */
int fl_stream_ask_number(FlStream *self);

static inline int
fl_stream_check_number(FlStream *self)
{
    return self->given ? fl_stream_ask_number(self) : 0;
}

/* The loop's hooks, see FlOwned. */
int fl_stream_has_number(FlOwned *owned);
void fl_stream_lose_number(FlOwned *owned);

/* --- extra.c ------------------------------------------------------------- */

/* The dict behind get_extra_info; borrowed, NULL with MemoryError. */
PyObject *fl_stream_extra(FlStream *self);

/* Put in it what get_extra_info makes when asked.  0, or -1 with an exception
   set. */
int fl_stream_fill_extra(FlStream *self);

/* A non-blocking socket object that owns a descriptor: a new reference, or
   NULL with an exception, and the descriptor is the caller's as before. */
PyObject *fl_own_socket(FlState *state, int fd);

/* Close a descriptor no socket object owns.  SO_LINGER, which accepted sockets
   inherit, may make that wait, so the GIL is given up meanwhile. */
void fl_close_socket(int fd);

/* The socket object, which owns the descriptor from now on: a new reference,
   for making it may run anything.  NULL without an exception once the stream
   is closed. */
PyObject *fl_stream_own_socket(FlStream *self);

/* Put sockname and peername into `extra`, while the descriptor can tell. */
void fl_stream_remember_names(FlStream *self);

/* --- read.c -------------------------------------------------------------- */

/* The descriptor is readable: read, deliver.  0, or -1 to leave the loop. */
int fl_stream_read_ready(FlStream *self);

/* --- write.c ------------------------------------------------------------- */

/* The descriptor is writable: send what waits.  0, or -1 to leave the loop. */
int fl_stream_write_ready(FlStream *self);

/* Send what this callback's writes hold.  No protocol is called, a raised
   exception stays, and the stream does not end here: a failure to send queues
   connection_lost, and what the kernel refuses waits for it. */
void fl_stream_flush(FlStream *self);
void fl_stream_send_held(FlHeld *held); /* the stream's part of it */

/* The descriptor's number is in other hands from now on: send what is held,
   hold no more, and watch it as one that others may close. */
void fl_stream_give_number_out(FlStream *self);

/* Count a write after the loss, with asyncio's warning for the fifth and
   later ones.  1 if it is to be dropped, 0 if the connection is not lost, -1
   with an exception set. */
int fl_stream_drop_after_loss(FlStream *self);

PyObject *fl_stream_write(FlStream *self, PyObject *data);
PyObject *fl_stream_writelines(FlStream *self, PyObject *lines);
PyObject *fl_stream_write_eof(FlStream *self, PyObject *ignored);

/* flow.c: call pause_writing or resume_writing when the water marks say so.
   0, or -1 with an exception that leaves the loop. */
int fl_stream_maybe_pause(FlStream *self);
int fl_stream_maybe_resume(FlStream *self);

#endif
