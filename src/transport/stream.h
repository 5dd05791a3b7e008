/* The state of stream transports: TCP and Unix sockets.

   FlStream is the instance of StreamTransport, a real asyncio.Transport.  Its
   life is one enum:

     OPENING   connection_made is queued               -> OPEN, CLOSING, LOST
     OPEN      reads, unless paused or at EOF          -> CLOSING, LOST
     CLOSING   reads no more, still sends its queue    -> LOST
     LOST      connection_lost is queued               -> CLOSED
     CLOSED    connection_lost was called, the fd is closed

   Every change of the phase goes through fl_stream_set_phase, which asserts
   that the phase only advances; fl_stream_undo_open is the exception.  The
   finalizer takes a stream from any phase to CLOSED, or queues that
   (stream_close.c, invariant 4).

   Ownership: from open to CLOSED the loop owns a reference (FlOpenTransport).
   An open transport of a live loop is therefore garbage only where it waits
   for no event (stream_close.c, invariant 3).  The stream owns its protocol,
   server, context and fd.  Where there is a socket object (`sock`), that
   object owns the fd and `fd` only names it.

   Threads: events and connection_made run in the loop's thread.  With a GIL
   any thread that holds it may call the rest.  Without one the write queue,
   sock, protocol, extra and loop change inside the stream's critical section,
   the phase is atomic, and transport.c queues other threads' close, abort,
   pause_reading and resume_reading to the loop.

   Errors: an open that fails raises, and the fd stays the caller's.  A
   later failure ends in connection_lost(exc).  Each function leaves the stream
   consistent before it calls Python.  Python may pause, close or abort the
   stream, so every caller checks the phase again afterwards. */
#ifndef FL_TRANSPORT_STREAM_H
#define FL_TRANSPORT_STREAM_H

#include "core/cork.h"
#include "core/flush.h"
#include "core/loop.h"
#include "core/meter.h"
#include "core/sender.h"
#include "py/field.h"
#include "transport/native_protocol.h"
#include "transport/sockaddr.h"
#include "transport/transport.h"

typedef enum {
    FL_STREAM_OPENING,
    FL_STREAM_OPEN,
    FL_STREAM_CLOSING,
    FL_STREAM_LOST,
    FL_STREAM_CLOSED,
} FlStreamPhase;

typedef struct FlStream FlStream;

struct FlStream {
    /* The slots have: the server, whose _attach and _detach count connections;
       the future resolved after connection_made; sendfile's future, for an
       empty queue and room. */
    FL_TRANSPORT_HEAD(server, waiter, empty_waiter, unused)
    /* Small, because an idle connection's memory is mostly this struct: with
       the head's last field these fill three words. */
    FL_ATOMIC uint8_t phase;    /* FlStreamPhase */
    FL_ATOMIC bool fd_shared;   /* others may close the fd or send on it; or
                                   it is one of SCTP */
    FL_ATOMIC bool paused;      /* pause_reading was called */
    FL_ATOMIC bool eof_written; /* write_eof was called */
    bool eof_sent;              /* and the socket was shut down */
    bool read_eof;           /* reads no more: from EOF until resume_reading */
    bool waits_for_writable; /* empty_waiter waits for a writable event */
    FL_ATOMIC uint8_t writes_after_loss; /* stays at UINT8_MAX */
    bool messages;            /* SCTP: a recv takes one message at most */
    uint16_t read_errno;      /* behind the bytes of the last read, or 0 */
    uint32_t last_read_bytes; /* size of the last read */
    FL_ATOMIC int fd;         /* -1 once it is closed */
    FL_ATOMIC int
        last_fd; /* fd before that: logs and asyncio's _sock_fd show it */
    FlOpenTransport loop_node;     /* in loop->transports while open */
    FlRegistration *FL_ATOMIC reg; /* NULL once unregistered */
    /* Handle the registration's events: 0, or -1 to end the run.  Called in
       the stream's context. */
    int (*run_events)(FlStream *self, int events);
    PyObject *sock; /* the socket object, made on first use; or NULL */
    FlProtocol protocol;
    PyObject *context;       /* events and connection_* run in it */
    FlOutbox out;            /* what is corked, or refused by the kernel */
    FlName *peer, *sockname; /* when it opened; NULL: it had none */
    size_t metered_bytes;    /* its share of the metric bytes_waiting */
};

/* The exception sendfile gets when its transport ends; asyncio's text. */
#define FL_STREAM_CLOSED_TEXT "Connection is closed by peer"

#define FL_HIGH_WATER_BYTES (64 * 1024)

static inline bool
fl_stream_is_closing(const FlStream *self)
{
    return self->phase >= FL_STREAM_CLOSING;
}

/* Datagram transports are FlStreams too, but the metrics of connections do not
   count them. */
static inline bool
fl_stream_is_connection(const FlStream *self)
{
    return Py_IS_TYPE((PyObject *)self, self->state->stream_type);
}

/* Whether the write queue is corked.  Then it is corked as a whole: the kernel
   has refused none of it. */
static inline bool
fl_stream_is_corked(const FlStream *self)
{
    /* Without a GIL no stream is corked. */
    return FL_HAVE_GIL && self->loop != NULL
           && !fl_list_is_empty(&self->out.link);
}

/* The bytes that wait for the kernel.  Corked ones count as sent. */
static inline size_t
fl_stream_waiting_bytes(const FlStream *self)
{
    return fl_stream_is_corked(self) ? 0 : self->out.queue.size_bytes;
}

/* For a stream that ends, or loses its fd: no flush sends its queue. */
static inline void
fl_stream_uncork(FlStream *self)
{
    if (FL_UNLIKELY(fl_stream_is_corked(self))) {
        fl_cork_remove(&self->loop->cork, &self->out);
    }
}

/* If this stream has corked bytes, send those of all streams of its loop, in
   the order of each stream's first corked write.  Calls no protocol, keeps a
   raised exception, and does not end the stream at once: a failed send queues
   connection_lost.  Bytes that the kernel refuses stay queued. */
static inline void
fl_stream_flush_if_corked(FlStream *self)
{
    if (fl_stream_is_corked(self)) {
        fl_loop_flush_corked(self->loop);
    }
}

/* 0, or -1 with RuntimeError if the loop is closed: it will not send what is
   queued, nor report that the stream is lost. */
static inline int
fl_stream_check_loop(FlStream *self)
{
    /* Without a loop the stream has ended.  The loop may have begun to run
       during a call by another thread, and may be ending it now. */
    FlLoop *loop = (FlLoop *)fl_field_get(self, (PyObject **)&self->loop);
    int code = loop == NULL ? 0 : fl_loop_check_open(loop);
    Py_XDECREF(loop);
    return code;
}

/* Update the metric bytes_waiting by the change of this stream's queue. */
static inline void
fl_stream_meter_queue(FlStream *self)
{
    if (self->loop == NULL || FL_LIKELY(self->loop->metrics == NULL)
        || self->loop->closed)
    {
        return; /* fl_metrics_closed has reset a closed loop's counters */
    }
    /* The counter is the sum over all streams: add the difference.  A negative
       one wraps around, which unsigned addition undoes. */
    size_t waiting = fl_stream_waiting_bytes(self);
    FL_METER(self->loop, bytes_waiting,
             (uint64_t)waiting - (uint64_t)self->metered_bytes);
    self->metered_bytes = waiting;
}

/* Advance to a later phase.  From LOST on nothing is corked. */
void fl_stream_set_phase(FlStream *self, FlStreamPhase phase);

/* Set the registration to the events the stream wants in its present state.
   0 or a negative errno. */
int fl_stream_update_registration(FlStream *self);

/* The events that the stream waits for. */
static inline int
fl_stream_wanted(const FlStream *self)
{
    return self->reg != NULL ? self->reg->wanted : 0;
}

/* Open a new stream's registration on this fd.  A callback or transport that
   was left on the fd loses it (fl_fd_acquire).  0, or -1 with an exception
   set.  May run Python. */
int fl_stream_take_fd(FlStream *self, int fd);

/* Close the registration and release the fd in the loop's table, while it is
   open.  Corked bytes are not flushed any more. */
void fl_stream_unregister(FlStream *self);

/* FlOpenTransportKind.has_fd. */
bool fl_stream_has_fd(FlOpenTransport *node);

/* Query whether the socket object still has the fd: 0, or -EBADF.  May run
   Python, as fileno() may be the application's.  Raises nothing. */
int fl_stream_query_fd(FlStream *self);

/* Call this before system calls on the fd, and again after Python code ran.  A
   stream whose fd is not shared costs no query. */
static inline int
fl_stream_check_fd(FlStream *self)
{
    return self->fd_shared ? fl_stream_query_fd(self) : 0;
}

/* Application code has the fd from now on: flush now, cork nothing later, and
   have fl_stream_check_fd query the socket object before each system call. */
void fl_stream_share_fd(FlStream *self);

/* Call method(value), set_result or set_exception, on a future unless it is
   already resolved.  An exception is reported.  0, or -1 to end the run.  The
   loop is the caller's: the call may end the stream, which drops its own. */
int fl_stream_resolve_if_pending(FlLoop *loop, PyObject *waiter,
                                 PyObject *method, PyObject *value);

/* Count a write after the connection was lost: DROP, or FAILED.  As in
   asyncio, the fifth and later ones log a warning. */
FlMaySend fl_stream_count_lost_write(FlStream *self);

static inline FlMaySend
fl_stream_may_send(FlStream *self)
{
    return FL_LIKELY(self->phase < FL_STREAM_LOST)
               ? FL_SEND
               : fl_stream_count_lost_write(self);
}

/* Flow control.  With `pause`: call pause_writing if the queue is above the
   high-water mark.  Without: call resume_writing if it is at or below the
   low-water mark.  The two calls alternate.  Without a GIL another thread's
   pause is queued to the loop's thread.  The protocol may close, abort or
   write in either call, so this is the last thing its caller does, or the
   caller checks the phase again.  An exception is reported.  0, or -1 with one
   that ends the run. */
int fl_flow_check(FlStream *self, bool pause);

#endif
