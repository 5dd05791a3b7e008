/* The life of a received byte: read it, deliver it, detect EOF.

   A Protocol gets a bytes object.  A small read goes through the loop's
   scratch buffer and is copied from there.  After a large one the next read
   goes straight into the final object.  A BufferedProtocol's buffer is read
   into directly.  A native protocol gets a pointer to the scratch.  If it has
   find_room, it may provide memory after a large read.

   1. A read that did not fill its buffer has emptied the socket, so no further
      read is made.  For fairness an event makes no further read once it has
      delivered EVENT_BYTES, and each read counts as READ_BYTES at least.
      Otherwise a peer that sends much to a protocol with a small buffer would
      keep the loop busy.
   2. The protocol may pause or close the stream, or set another protocol, in
      any callback, so read_ready checks again after each.  If it then closes a
      connection with unread bytes in the socket, the kernel resets the
      connection, and the peer may lose the last bytes sent to it.  So a
      Protocol and a StreamReader get all of an event in one callback. */
#include "transport/stream_read.h"

#include "base/codes.h"
#include "core/loop.h"
#include "core/meter.h"
#include "core/poller.h"
#include "core/report.h"
#include "py/call.h"
#include "py/compat.h"
#include "transport/native_protocol.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/stream_write.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#define READ_FAILED   "Fatal read error on socket transport"
/* Once an event has delivered this much, it reads no more. */
#define EVENT_BYTES   (256 * 1024)
#define SCRATCH_BYTES EVENT_BYTES
/* The most that one recv takes.  While it copies, the kernel neither opens the
   TCP window nor takes what has arrived: with more the peer and we take
   turns. */
#define SLICE_BYTES   (128 * 1024)
/* The largest read for a native protocol without find_room; but see
   WHOLE_EVENTS.  One with find_room gets all of an event in one call. */
#define NATIVE_BYTES  (64 * 1024)
/* After a read of this size the next one is expected to be large too. */
#define LARGE_BYTES   (8 * 1024)
/* Without a GIL a StreamReader over TLS is asyncio's own.  It pauses between
   two reads of an event, and the bytes still in the socket are lost if the
   transport then closes.  So each read for TLS takes all of an event. */
#define WHOLE_EVENTS  (!FL_HAVE_GIL)
/* A read counts as this much of EVENT_BYTES at least.  The fixed cost of an
   event is about that of one read, so 16 reads make it small; they end well
   within a millisecond. */
#define READ_BYTES    (EVENT_BYTES / 16)
_Static_assert(SCRATCH_BYTES >= EVENT_BYTES, "an event's read fits into it");

typedef struct {
    size_t got_bytes;     /* 0 after a failure, too */
    bool filled;          /* the buffer is full, so there may be more */
    bool event_delivered; /* set before the read: the event has given data */
} ReadResult;

/* One slice.  What recv() returns, or a negative errno. */
FL_INLINE ssize_t
read_slice(const FlStream *self, char *buffer, size_t size_bytes)
{
    ssize_t got;
    /* MSG_DONTWAIT does not depend on O_NONBLOCK, which any process that
       shares the socket can clear. */
    do {
        got = recv(self->fd, buffer, size_bytes, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    return FL_LIKELY(got >= 0)           ? got
           : fl_errno_would_block(errno) ? -EAGAIN
                                         : -errno;
}

/* The first slice was whole: read on, until the buffer is full or a slice is
   not.  Returns the bytes of all.  Over SCTP the next slice would be another
   message. */
FL_NOINLINE static ssize_t
read_more_slices(FlStream *self, char *buffer, size_t size_bytes)
{
    size_t got = SLICE_BYTES, wanted = SLICE_BYTES;
    ssize_t count = self->messages ? 0 : SLICE_BYTES;
    while ((size_t)count == wanted && got < size_bytes) {
        wanted = Py_MIN(size_bytes - got, SLICE_BYTES);
        count = read_slice(self, buffer + got, wanted);
        got += count > 0 ? (size_t)count : 0;
    }
    if (count < 0 && count != -EAGAIN) {
        self->read_errno = (uint16_t)-count;
    }
    return (ssize_t)got;
}

/* Read.  0, with got_bytes 0 at EOF; -EAGAIN if the socket is empty; or
   another negative errno.  A failure behind bytes is the next read's: the
   kernel reports it once.  Runs no Python. */
FL_INLINE int
read_unchecked(FlStream *self, char *buffer, size_t size_bytes,
               ReadResult *result)
{
    if (FL_UNLIKELY(self->read_errno != 0)) {
        int code = -(int)self->read_errno;
        self->read_errno = 0;
        return code;
    }
    ssize_t got = read_slice(self, buffer, Py_MIN(size_bytes, SLICE_BYTES));
    if (FL_UNLIKELY(got < 0)) {
        return (int)got;
    }
    if (FL_UNLIKELY(got == SLICE_BYTES) && size_bytes > SLICE_BYTES) {
        got = read_more_slices(self, buffer, size_bytes);
    }
    FL_METER(self->loop, bytes_in, (uint64_t)got);
    result->got_bytes = (size_t)got;
    result->filled = (size_t)got == size_bytes;
    return 0;
}

/* Whether the stream may deliver, after any Python that has run. */
static bool
wants_more(const FlStream *self)
{
    return self->phase == FL_STREAM_OPEN && !self->paused && !self->read_eof;
}

/* Whether Python code has ended this read for this protocol. */
static bool
changed(FlStream *self, const FlProtocol *protocol)
{
    return !wants_more(self)
           || !fl_protocol_is(self, &self->protocol, protocol);
}

/* Call this before a read on behalf of a protocol.  -EBADF if the fd is no
   longer the stream's.  Checking the fd, and the caller's get_buffer, may run
   Python, which may pause or close the stream or set another protocol: then
   -EAGAIN, as if the socket were empty. */
FL_INLINE int
check_before_read(FlStream *self, const FlProtocol *protocol)
{
    int code = fl_stream_check_fd(self);
    return code == 0 && changed(self, protocol) ? -EAGAIN : code;
}

/* Check, then read. */
FL_INLINE int
read_area(FlStream *self, const FlProtocol *protocol, char *buffer,
          size_t size_bytes, ReadResult *result)
{
    int code = check_before_read(self, protocol);
    return code < 0 ? code : read_unchecked(self, buffer, size_bytes, result);
}

/* --- the end of a read --------------------------------------------------- */

static int
handle_eof(FlStream *self)
{
    FlProtocol protocol = fl_protocol_get(self, &self->protocol);
    int keep_open =
        fl_call_truth(protocol.object, self->state->names.eof_received);
    Py_DECREF(protocol.object);
    if (keep_open < 0) {
        return fl_stream_fatal(self, FL_EOF_FAILED);
    }
    if (self->phase != FL_STREAM_OPEN) {
        return 0; /* eof_received has closed it */
    }
    if (!keep_open) {
        /* By the Python method, as asyncio does, because applications override
           or patch it. */
        FlLoop *loop = self->loop; /* self->loop may be NULL after the call */
        PyObject *name = self->state->names.close;
        return fl_call_method((PyObject *)self, name, NULL) < 0
                   ? fl_loop_report_callback(loop, NULL)
                   : 0;
    }
    /* The protocol may go on writing.  Reading ends: a level-triggered
       registration would report the EOF in every iteration. */
    int code;
    Py_BEGIN_CRITICAL_SECTION(self); /* another thread may be writing */
    self->read_eof = true;
    code = fl_stream_update_registration(self);
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        fl_stream_fail(self, code);
    }
    return 0;
}

/* End a read that got no bytes: its code is 0 at EOF, a negative errno or
   FL_NO_MEMORY; -EAGAIN is no failure.  EOF behind data of the same event
   waits for the next event: what the data has scheduled runs first, and
   replies.  0, or -1 to end the run. */
static int
end_read(FlStream *self, int code, const ReadResult *result)
{
    if (code == 0) {
        /* Without a loop an application's buffer has ended the stream. */
        return result->event_delivered || self->loop == NULL
                   ? 0
                   : handle_eof(self);
    }
    if (code != -EAGAIN) {
        fl_stream_flush_if_corked(self); /* asyncio has sent them by now */
        fl_stream_fail(self, code);
    }
    return 0;
}

/* Allocate the loop's scratch buffer on first use.  0 or FL_NO_MEMORY. */
static int
make_scratch(FlLoop *loop)
{
    if (loop->scratch == NULL) {
        /* To map and unmap memory for every message takes five times as long
           as a read of 200 KiB.  glibc maps each block of 128 KiB and more,
           until a mapped block that is larger has been freed: that raises its
           threshold for good, and to twice as much the one above which it
           returns free memory.  The large blocks of some connections then stay
           in the heap. */
        PyMem_RawFree(PyMem_RawMalloc(16 * EVENT_BYTES));
        loop->scratch = malloc(SCRATCH_BYTES);
    }
    return loop->scratch == NULL ? FL_NO_MEMORY : 0;
}

/* --- native protocols ---------------------------------------------------- */

/* One read for a native protocol, and its callback.  0, or -1 to end the
   run. */
static int
read_native(FlStream *self, const FlProtocol *protocol, ReadResult *result)
{
    const FlNativeProtocol *native = protocol->native;
    size_t size =
        native->find_room != NULL || WHOLE_EVENTS ? EVENT_BYTES : NATIVE_BYTES;
    PyObject *owner;
    char *room = NULL;
    /* Before find_room: this may run Python, which may move that memory. */
    int code = check_before_read(self, protocol);
    if (code == 0) {
        code = make_scratch(self->loop);
    }
    /* A small read goes through the scratch and is copied. */
    if (code == 0 && native->find_room != NULL
        && self->last_read_bytes >= LARGE_BYTES)
    {
        room = native->find_room(self->state, protocol->object, size, &owner);
        if (room == NULL && PyErr_Occurred()) {
            return fl_stream_fatal(self, native->data_failed);
        }
        code = changed(self, protocol) ? -EAGAIN : 0;
    }
    if (code == 0) {
        char *buffer = room == NULL ? self->loop->scratch : room;
        code = read_unchecked(self, buffer, size, result);
    }
    size_t got = result->got_bytes;
    int called =
        room != NULL ? native->filled(self->state, owner, got, size - got)
        : got > 0    ? native->data_received(self->state, protocol->object,
                                             self->loop->scratch, got)
                     : 0;
    if (called < 0) {
        return fl_stream_fatal(self, native->data_failed);
    }
    if (got == 0) {
        return end_read(self, code, result);
    }
    self->last_read_bytes = (uint32_t)got;
    return 0;
}

/* --- Protocol ------------------------------------------------------------ */

/* Read all that one event may deliver, and call data_received.  0, or -1 to
   end the run. */
static int
read_bytes(FlStream *self, const FlProtocol *protocol, ReadResult *result)
{
    int code = make_scratch(self->loop);
    if (code < 0) {
        return end_read(self, code, result);
    }
    /* A large read goes into the final object, which saves a copy. */
    bool direct = self->last_read_bytes >= LARGE_BYTES;
    char *buffer = self->loop->scratch;
    PyObject *data = NULL;
    if (direct) {
        data = PyBytes_FromStringAndSize(NULL, EVENT_BYTES);
        if (data == NULL) {
            return fl_stream_fatal(self, READ_FAILED);
        }
        buffer = PyBytes_AS_STRING(data);
    }
    code = read_area(self, protocol, buffer, EVENT_BYTES, result);
    if (result->got_bytes == 0) {
        Py_XDECREF(data);
        return end_read(self, code, result);
    }
    Py_ssize_t size = (Py_ssize_t)result->got_bytes;
    if (direct) {
        (void)_PyBytes_Resize(&data, size); /* NULL if it fails */
    }
    else {
        data = fl_loop_copy_bytes(self->loop, buffer, size);
    }
    if (data == NULL) {
        return fl_stream_fatal(self, READ_FAILED);
    }
    self->last_read_bytes = (uint32_t)result->got_bytes;
    code = fl_call_method(protocol->object, self->state->names.data_received,
                          data);
    fl_loop_drop_bytes(self->loop, data);
    return code < 0 ? fl_stream_fatal(self, FL_DATA_FAILED) : 0;
}

/* --- BufferedProtocol ---------------------------------------------------- */

/* One read for a BufferedProtocol, and its callbacks.  0, or -1 to end the
   run. */
static int
read_into(FlStream *self, const FlProtocol *protocol, ReadResult *result)
{
    PyObject *buffer =
        fl_protocol_get_buffer(self->state, protocol->object, -1);
    if (buffer == NULL) {
        return fl_stream_fatal(
            self, "Fatal error: protocol.get_buffer() call failed.");
    }
    Py_buffer view;
    int code = PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE);
    Py_DECREF(buffer);
    if (code < 0) {
        return fl_stream_fatal(self, READ_FAILED);
    }
    size_t size = Py_MIN((size_t)view.len, EVENT_BYTES);
    code = read_area(self, protocol, view.buf, size, result);
    /* Before buffer_updated, which may resize the buffer. */
    PyBuffer_Release(&view);
    if (result->got_bytes == 0) {
        return end_read(self, code, result);
    }
    if (fl_protocol_buffer_updated(self->state, protocol->object,
                                   result->got_bytes)
        < 0)
    {
        return fl_stream_fatal(self, FL_BUFFER_FAILED);
    }
    return 0;
}

/* --- events -------------------------------------------------------------- */

/* Handle a readable event: read and deliver.  A failure ends the connection as
   asyncio's _fatal_error does.  0, or -1 to end the run. */
static int
read_ready(FlStream *self)
{
    size_t left = EVENT_BYTES;
    int code = 0;
    bool delivered = false;
    for (; code == 0 && wants_more(self); delivered = true) {
        ReadResult result = {.event_delivered = delivered};
        /* Owned: a callback may call set_protocol.  Looked up in each round
           for the same reason. */
        FlProtocol protocol = fl_protocol_get(self, &self->protocol);
        code = protocol.native != NULL ? read_native(self, &protocol, &result)
               : protocol.buffered     ? read_into(self, &protocol, &result)
                                       : read_bytes(self, &protocol, &result);
        Py_DECREF(protocol.object);
        if (FL_LIKELY(!result.filled)) {
            break; /* also at EOF and without data: then nothing is filled */
        }
        size_t cost = Py_MAX(result.got_bytes, READ_BYTES);
        if (cost >= left) {
            break;
        }
        left -= cost;
    }
    return code;
}

/* Reads first, as asyncio does.  Reading may end the stream: then its loop is
   NULL and nothing is left to write. */
int
fl_stream_run_events(FlStream *self, int events)
{
    int code = events & FL_READABLE ? read_ready(self) : 0;
    return code < 0 || !(events & FL_WRITABLE) || self->loop == NULL
               ? code
               : fl_stream_write_ready(self);
}
