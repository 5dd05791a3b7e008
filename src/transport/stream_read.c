/* The life of a byte coming in: read, deliver, notice the end.

   One event reads into the loop's scratch and hands over an exact bytes
   object; a connection whose last read was large reads into the final object
   instead; a BufferedProtocol's own buffer is read into directly.  A receiver
   with memory of its own gets all of an event at once: that memory, and then
   the scratch, are filled by one call.

   1. The allocator must not map and unmap memory for every message, which
      takes five times as long as a read of 200 KiB: see make_scratch.
   2. A read that did not fill its buffer has emptied the socket: no further
      call is made.  One event delivers at most EVENT_BYTES, for fairness,
      and a read counts for READ_BYTES at least: a peer decides how much comes,
      and a protocol with a small buffer makes many reads of it.
   3. After each call into the protocol the stream may be paused, closed or
      have another protocol: the loop below looks again.  What that leaves in
      the socket has the kernel reset a connection that is closed, so a
      Protocol and a StreamReader get all of an event at once.
   4. Where a receiver says that bytes take long, the event ends and the next
      one reads few.  Each read that fills its room and is none of these
      doubles the room, up to HANDED_BYTES.
   5. No read waits, whatever the descriptor's flags are: any process that
      shares the socket can clear O_NONBLOCK. */
#include "transport/stream_read.h"

#include "base/codes.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/report.h"
#include "py/compat.h"
#include "py/errors.h"
#include "transport/native_protocol.h"
#include "transport/stream.h"
#include "transport/stream_error.h"
#include "transport/stream_fd.h"

#include <errno.h>
#include <stdlib.h>

#define SCRATCH_BYTES EVENT_BYTES
/* What a receiver is handed of it at once. */
#define HANDED_BYTES  (64 * 1024)
/* A read of this much makes the next one large. */
#define BULKY_BYTES   (8 * 1024)
#define EVENT_BYTES   (256 * 1024)
/* Without a GIL a StreamReader over TLS is asyncio's own.  It pauses in
   mid-event, and what is then left in the socket is lost when the transport
   closes: each of TLS's reads takes all of an event. */
#define WHOLE_EVENTS  (!FL_HAVE_GIL)
/* What takes long is read 4 KiB at a time: HANDED_BYTES, halved so often. */
#define NARROWEST     4
/* The least that a read counts of them.  An event costs about as much as one
   read, so 16 reads make that small; they end well within a millisecond. */
#define READ_BYTES    (EVENT_BYTES / 16)

#define READ_FAILED "Fatal read error on socket transport"

typedef struct {
    size_t got_bytes;
    bool filled; /* there may be more */
    bool costly; /* and the next read is to be small */
} ReadResult;

/* Into several pieces of memory; as receive, after check_reader.  Runs no
   Python. */
static int
receive_pieces(FlStream *self, struct iovec *pieces, int count,
               ReadResult *result)
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    size_t size_bytes = 0;
    for (int at = 0; at < count; at++) {
        size_bytes += pieces[at].iov_len;
    }
    ssize_t got;
    do {
        got = count == 1
                  ? recv(self->fd, pieces->iov_base, size_bytes, MSG_DONTWAIT)
                  : recvmsg(self->fd, &message, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
    FL_METER(self->loop, bytes_in, (uint64_t)got);
    result->got_bytes = (size_t)got;
    result->filled = (size_t)got == size_bytes;
    return 0;
}

static bool
wants_more(const FlStream *self)
{
    return self->phase == FL_STREAM_OPEN && !self->paused && !self->read_eof;
}

/* Before a read for a protocol: whether the number is the stream's own still.
   That asks a given socket object, which may run Python, as get_buffer does:
   -EAGAIN if the stream is to be read no more, or for another protocol. */
static int
check_reader(FlStream *self, PyObject *protocol)
{
    int code = fl_stream_check_fd(self);
    bool left = !wants_more(self) || self->protocol != protocol;
    return code == 0 && left ? -EAGAIN : code;
}

/* 0 with got_bytes 0: end of file; -EAGAIN: nothing there. */
static int
receive(FlStream *self, PyObject *protocol, char *buffer, size_t size_bytes,
        ReadResult *result)
{
    struct iovec piece = {buffer, size_bytes};
    int code = check_reader(self, protocol);
    return code < 0 ? code : receive_pieces(self, &piece, 1, result);
}

/* --- end of file --------------------------------------------------------- */

/* As asyncio does it: programs put methods of their own in its place. */
static int
close_by_method(FlStream *self)
{
    FlLoop *loop = self->loop;
    PyObject *result =
        PyObject_CallMethodNoArgs((PyObject *)self, self->state->names.close);
    Py_XDECREF(result);
    return result == NULL ? fl_loop_report_callback(loop, NULL) : 0;
}

/* What the protocol says to the end of file: 1: stay open; 0; or -1 with an
   exception set. */
static int
ask_at_eof(FlStream *self)
{
    PyObject *protocol = Py_NewRef(self->protocol);
    int keep_open;
    if (self->native != NULL) {
        keep_open = self->native->eof_received(self->state, protocol);
    }
    else {
        PyObject *keep =
            PyObject_CallMethodNoArgs(protocol,
                                      self->loop->state->names.eof_received);
        keep_open = keep == NULL ? -1 : PyObject_IsTrue(keep);
        Py_XDECREF(keep);
    }
    Py_DECREF(protocol);
    return keep_open;
}

static int
deliver_eof(FlStream *self)
{
    if (FL_UNLIKELY(self->loop->debug)
        && fl_stream_log(self, "received EOF") < 0) {
        return fl_stream_fatal(self, "Fatal error: EOF could not be logged.");
    }
    int keep_open = ask_at_eof(self);
    if (keep_open < 0) {
        return fl_stream_fatal(
            self, "Fatal error: protocol.eof_received() call failed.");
    }
    if (self->phase != FL_STREAM_OPEN) {
        return 0;
    }
    if (!keep_open) {
        return close_by_method(self);
    }
    /* The protocol may go on writing; there is nothing left to read. */
    self->read_eof = true;
    int code = fl_stream_update_registration(self);
    return code < 0 ? fl_stream_fatal_errno(self, code, READ_FAILED) : 0;
}

#define DATA_FAILED "Fatal error: protocol.data_received() call failed."

/* See that the loop has its scratch.  0 or FL_NO_MEMORY. */
static int
make_scratch(FlLoop *loop)
{
    if (loop->scratch == NULL) {
        /* glibc maps each block of 128 KiB and more, until one that is larger
           than the block has been freed. */
        PyMem_RawFree(PyMem_RawMalloc(2 * EVENT_BYTES));
        loop->scratch = malloc(SCRATCH_BYTES);
    }
    return loop->scratch == NULL ? FL_NO_MEMORY : 0;
}

/* --- receivers ----------------------------------------------------------- */

/* Have the scratch after a receiver's memory, and of both no more than may be
   read at once.  How many pieces there are then. */
static int
add_scratch(const FlStream *self, struct iovec *pieces, int count)
{
    bool whole = self->native->get_memory != NULL
                 || (WHOLE_EVENTS && self->narrow == 0);
    size_t left = whole ? EVENT_BYTES : HANDED_BYTES >> self->narrow;
    for (int at = 0; at < count; at++) {
        if (pieces[at].iov_len > left) {
            pieces[at].iov_len = left;
        }
        left -= pieces[at].iov_len;
    }
    pieces[count].iov_base = self->loop->scratch;
    pieces[count].iov_len = left;
    return left > 0 ? count + 1 : count;
}

static int
deliver_scratch(FlStream *self, PyObject *protocol, ReadResult *result)
{
    int code =
        self->native->data_received(self->state, protocol, self->loop->scratch,
                                    result->got_bytes);
    if (code < 0) {
        return fl_stream_fatal(self, DATA_FAILED);
    }
    if (FL_UNLIKELY(code > 0)) {
        result->costly = true;
        self->narrow = NARROWEST;
    }
    else if (FL_UNLIKELY(self->narrow > 0) && result->filled) {
        self->narrow--;
    }
    return 0;
}

static int
receive_native(FlStream *self, PyObject *protocol, ReadResult *result)
{
    const FlNativeProtocol *native = self->native;
    struct iovec pieces[FL_NATIVE_PIECES + 1];
    int count = 0;
    /* Before there is memory: it may run Python, which may change that. */
    int code = check_reader(self, protocol);
    if (code == 0) {
        code = make_scratch(self->loop);
    }
    if (code == 0) {
        if (native->get_memory != NULL && self->last_read_bytes >= BULKY_BYTES)
        {
            count = native->get_memory(self->state, protocol,
                                       self->last_read_bytes, pieces);
        }
        code = receive_pieces(self, pieces, add_scratch(self, pieces, count),
                              result);
    }
    if (count > 0 && (code < 0 || result->got_bytes == 0)) {
        (void)native->memory_filled(self->state, protocol, pieces, 0);
    }
    if (code < 0) {
        return code == -EAGAIN
                   ? 0
                   : fl_stream_fatal_errno(self, code, READ_FAILED);
    }
    if (result->got_bytes == 0) {
        return deliver_eof(self);
    }
    self->last_read_bytes = result->got_bytes;
    if (count == 0) {
        return deliver_scratch(self, protocol, result);
    }
    code = native->memory_filled(self->state, protocol, pieces,
                                 result->got_bytes);
    return code < 0 ? fl_stream_fatal(self, DATA_FAILED) : 0;
}

/* --- Protocol ------------------------------------------------------------ */

/* All that an event may read, as one bytes object; NULL at end of file. */
static int
receive_bytes(FlStream *self, PyObject *protocol, PyObject **data,
              ReadResult *result)
{
    /* What is much is not copied. */
    bool direct = self->last_read_bytes >= BULKY_BYTES;
    int code = make_scratch(self->loop);
    if (code < 0) {
        return code;
    }
    PyObject *bytes = NULL;
    char *buffer = self->loop->scratch;
    if (direct) {
        bytes = PyBytes_FromStringAndSize(NULL, EVENT_BYTES);
        if (bytes == NULL) {
            PyErr_Clear(); /* it is a MemoryError; the code says so too */
            return FL_NO_MEMORY;
        }
        buffer = PyBytes_AS_STRING(bytes);
    }
    code = receive(self, protocol, buffer, EVENT_BYTES, result);
    if (code < 0 || result->got_bytes == 0) {
        Py_XDECREF(bytes);
        return code;
    }
    Py_ssize_t size = (Py_ssize_t)result->got_bytes;
    if (direct) {
        (void)_PyBytes_Resize(&bytes, size);
    }
    else {
        bytes = PyBytes_FromStringAndSize(buffer, size);
    }
    if (bytes == NULL) {
        PyErr_Clear(); /* likewise */
        return FL_NO_MEMORY;
    }
    *data = bytes;
    return 0;
}

static int
read_bytes(FlStream *self, PyObject *protocol, ReadResult *result)
{
    PyObject *data = NULL;
    int code = receive_bytes(self, protocol, &data, result);
    if (code == -EAGAIN) {
        return 0;
    }
    if (code < 0) {
        return fl_stream_fatal_errno(self, code, READ_FAILED);
    }
    if (data == NULL) {
        return deliver_eof(self);
    }
    self->last_read_bytes = result->got_bytes;
    PyObject *done = PyObject_CallMethodOneArg(
        protocol, self->loop->state->names.data_received, data);
    Py_DECREF(data);
    if (done == NULL) {
        return fl_stream_fatal(self, DATA_FAILED);
    }
    Py_DECREF(done);
    return 0;
}

/* --- BufferedProtocol ---------------------------------------------------- */

/* What asyncio says of a buffer that cannot be read into: recv_into() of its
   socket. */
static void
refuse_buffer(PyObject *buffer)
{
    if (fl_error_leaves_loop()) {
        return;
    }
    PyErr_Clear(); /* the words of whatever made the buffer */
    PyErr_Format(PyExc_TypeError,
                 "recv_into() argument 1 must be read-write bytes-like "
                 "object, not %.50s",
                 buffer == Py_None ? "None" : Py_TYPE(buffer)->tp_name);
}

/* The protocol's buffer, held in *view until the read is done.  0, or -1 with
   an exception set, and *message says what has failed. */
static int
get_buffer(FlStream *self, PyObject *protocol, Py_buffer *view,
           const char **message)
{
    PyObject *hint = PyLong_FromLong(-1);
    PyObject *buffer =
        hint == NULL ? NULL
                     : PyObject_CallMethodOneArg(
                         protocol, self->loop->state->names.get_buffer, hint);
    Py_XDECREF(hint);
    *message = "Fatal error: protocol.get_buffer() call failed.";
    if (buffer == NULL) {
        return -1;
    }
    Py_ssize_t size = PyObject_Size(buffer);
    int code = -1;
    if (size == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "get_buffer() returned an empty buffer");
    }
    else if (size > 0) {
        code = PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE);
        if (code < 0) {
            *message = READ_FAILED;
            refuse_buffer(buffer);
        }
    }
    Py_DECREF(buffer);
    return code;
}

static int
call_buffer_updated(FlStream *self, PyObject *protocol, size_t got_bytes)
{
    PyObject *count = PyLong_FromSize_t(got_bytes);
    PyObject *done =
        count == NULL
            ? NULL
            : PyObject_CallMethodOneArg(
                protocol, self->loop->state->names.buffer_updated, count);
    Py_XDECREF(count);
    if (done == NULL) {
        return fl_stream_fatal(
            self, "Fatal error: protocol.buffer_updated() call failed.");
    }
    Py_DECREF(done);
    return 0;
}

static int
read_into(FlStream *self, PyObject *protocol, ReadResult *result)
{
    Py_buffer view;
    const char *message;
    if (get_buffer(self, protocol, &view, &message) < 0) {
        return fl_stream_fatal(self, message);
    }
    int code = receive(self, protocol, view.buf, (size_t)view.len, result);
    PyBuffer_Release(&view);
    if (code == -EAGAIN) {
        return 0;
    }
    if (code < 0) {
        return fl_stream_fatal_errno(self, code, READ_FAILED);
    }
    if (result->got_bytes == 0) {
        return deliver_eof(self);
    }
    return call_buffer_updated(self, protocol, result->got_bytes);
}

/* --- all ----------------------------------------------------------------- */

int
fl_stream_read_ready(FlStream *self)
{
    size_t left = EVENT_BYTES;
    int code = 0;
    while (code == 0 && wants_more(self)) {
        ReadResult result = {0, false, false};
        PyObject *protocol = Py_NewRef(self->protocol);
        code = self->native != NULL ? receive_native(self, protocol, &result)
               : self->buffered     ? read_into(self, protocol, &result)
                                    : read_bytes(self, protocol, &result);
        Py_DECREF(protocol);
        if (FL_LIKELY(!result.filled) || result.costly) {
            break;
        }
        size_t cost = result.got_bytes;
        if (cost < READ_BYTES) {
            cost = READ_BYTES;
        }
        if (cost >= left) {
            break;
        }
        left -= cost;
    }
    return code;
}
