/* The life of a byte coming in: read, deliver, notice the end.

   One event reads into the loop's scratch and hands over an exact bytes
   object; a connection whose last read was large reads into the final object
   instead; a BufferedProtocol's own buffer is read into directly.

   1. No read allocates 128 KiB or more: the allocator would map and unmap
      such a block for every message.
   2. A read that did not fill its buffer has emptied the socket: no further
      call is made.  One event delivers at most EVENT_BYTES, for fairness,
      and a read counts for READ_BYTES at least: a peer decides how much comes,
      and a protocol with a small buffer makes many reads of it.
      What a receiver leaves of these bytes it may pull later: to the
      program that is as if the event had read them.
   3. After each call into the protocol the stream may be paused, closed or
      have another protocol: the loop below looks again.
   4. Where a receiver says that bytes take long, the event ends and the next
      one reads few.  Each read that fills its room and is none of these
      doubles the room, up to all of the scratch.
   5. No read waits, whatever the descriptor's flags are: any process that
      shares the socket can clear O_NONBLOCK. */
#include "transport/stream_read.h"

#include "base/codes.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/report.h"
#include "py/compat.h"
#include "transport/receiver.h"
#include "transport/stream.h"
#include "transport/stream_error.h"
#include "transport/stream_number.h"

#include <errno.h>
#include <stdlib.h>

#define SCRATCH_BYTES (64 * 1024)
/* The largest bytes object that stays under the allocator's threshold. */
#define LARGE_BYTES   (128 * 1024 - 128)
/* A read of this much makes the next one large. */
#define BULKY_BYTES   (8 * 1024)
#define EVENT_BYTES   (256 * 1024)
/* What takes long is read 4 KiB at a time: the scratch, halved so often. */
#define NARROWEST     4
/* The least that a read counts of them.  An event costs about as much as one
   read, so 16 reads make that small; they end well within a millisecond. */
#define READ_BYTES    (EVENT_BYTES / 16)

#define READ_FAILED "Fatal read error on socket transport"

typedef struct {
    size_t got_bytes;
    bool filled; /* there may be more */
    bool enough; /* but it may wait */
    bool costly; /* and the next read is to be small */
} ReadResult;

/* As receive, after a check of the number.  Runs no Python. */
static int
receive_checked(FlStream *self, char *buffer, size_t size_bytes,
                ReadResult *result)
{
    ssize_t got;
    do {
        got = recv(self->fd, buffer, size_bytes, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
    FL_METER(self->loop, bytes_in, (uint64_t)got);
    result->got_bytes = (size_t)got;
    result->filled = (size_t)got == size_bytes;
    return 0;
}

/* 0 with got_bytes 0: end of file; -EAGAIN: nothing there. */
static int
receive(FlStream *self, char *buffer, size_t size_bytes, ReadResult *result)
{
    int code = fl_stream_check_number(self);
    return code < 0 ? code : receive_checked(self, buffer, size_bytes, result);
}

static bool
wants_more(const FlStream *self)
{
    return self->phase == FL_STREAM_OPEN && !self->paused && !self->read_eof;
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
    if (self->receiver != NULL) {
        keep_open = self->receiver->eof_received(self->state, protocol);
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
    int code = fl_stream_update_watch(self);
    return code < 0 ? fl_stream_fatal_errno(self, code, READ_FAILED) : 0;
}

#define DATA_FAILED "Fatal error: protocol.data_received() call failed."

/* Read into the loop's scratch: as receive_checked. */
static int
fill_scratch(FlStream *self, ReadResult *result)
{
    FlLoop *loop = self->loop;
    if (loop->scratch == NULL) {
        loop->scratch = malloc(SCRATCH_BYTES);
        if (loop->scratch == NULL) {
            return FL_NO_MEMORY;
        }
    }
    return receive_checked(self, loop->scratch, SCRATCH_BYTES >> self->narrow,
                           result);
}

/* --- receivers ----------------------------------------------------------- */

/* What came into the receiver's own memory.  As fl_stream_fatal. */
static int
deliver_filled(FlStream *self, PyObject *protocol, ReadResult *result)
{
    int code = self->receiver->memory_filled(self->state, protocol,
                                             result->got_bytes);
    if (code < 0) {
        return fl_stream_fatal(self, DATA_FAILED);
    }
    result->enough = code > 0;
    return 0;
}

static int
deliver_scratch(FlStream *self, PyObject *protocol, ReadResult *result)
{
    int code =
        self->receiver->data_received(self->state, protocol,
                                      self->loop->scratch, result->got_bytes);
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
    const FlReceiver *receiver = self->receiver;
    char *memory = NULL;
    size_t room = 0;
    /* Before there is memory: it may run Python, which may change that. */
    int code = fl_stream_check_number(self);
    if (code == 0 && receiver->get_memory != NULL
        && (self->bulky || !receiver->memory_for_bulk))
    {
        room = receiver->get_memory(self->state, protocol, &memory);
    }
    if (code == 0) {
        code = room > 0 ? receive_checked(self, memory, room, result)
                        : fill_scratch(self, result);
    }
    if (room > 0 && (code < 0 || result->got_bytes == 0)) {
        (void)receiver->memory_filled(self->state, protocol, 0);
    }
    if (code < 0) {
        return code == -EAGAIN
                   ? 0
                   : fl_stream_fatal_errno(self, code, READ_FAILED);
    }
    if (result->got_bytes == 0) {
        return deliver_eof(self);
    }
    self->bulky = result->got_bytes >= BULKY_BYTES;
    return room > 0 ? deliver_filled(self, protocol, result)
                    : deliver_scratch(self, protocol, result);
}

/* --- Protocol ------------------------------------------------------------ */

static int
receive_scratch(FlStream *self, PyObject **data, ReadResult *result)
{
    FlLoop *loop = self->loop;
    int code = fl_stream_check_number(self);
    if (code == 0) {
        code = fill_scratch(self, result);
    }
    if (code < 0 || result->got_bytes == 0) {
        return code;
    }
    *data = PyBytes_FromStringAndSize(loop->scratch,
                                      (Py_ssize_t)result->got_bytes);
    if (*data == NULL) {
        PyErr_Clear(); /* it is a MemoryError; the code says so too */
        return FL_NO_MEMORY;
    }
    return 0;
}

static int
receive_large(FlStream *self, PyObject **data, ReadResult *result)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, LARGE_BYTES);
    if (bytes == NULL) {
        PyErr_Clear(); /* likewise */
        return FL_NO_MEMORY;
    }
    int code = receive(self, PyBytes_AS_STRING(bytes), LARGE_BYTES, result);
    if (code < 0 || result->got_bytes == 0) {
        Py_DECREF(bytes);
        return code;
    }
    if (_PyBytes_Resize(&bytes, (Py_ssize_t)result->got_bytes) < 0) {
        PyErr_Clear(); /* likewise */
        return FL_NO_MEMORY;
    }
    *data = bytes;
    return 0;
}

static int
read_bytes(FlStream *self, ReadResult *result)
{
    PyObject *data = NULL;
    int code = self->bulky ? receive_large(self, &data, result)
                           : receive_scratch(self, &data, result);
    if (code == -EAGAIN) {
        return 0;
    }
    if (code < 0) {
        return fl_stream_fatal_errno(self, code, READ_FAILED);
    }
    if (data == NULL) {
        return deliver_eof(self);
    }
    self->bulky = result->got_bytes >= BULKY_BYTES;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *done = PyObject_CallMethodOneArg(
        protocol, self->loop->state->names.data_received, data);
    Py_DECREF(data);
    Py_DECREF(protocol);
    if (done == NULL) {
        return fl_stream_fatal(self, DATA_FAILED);
    }
    Py_DECREF(done);
    return 0;
}

/* --- BufferedProtocol ---------------------------------------------------- */

/* The protocol's buffer, held in *view until the read is done.  0 or -1 with
   an exception set. */
static int
get_buffer(FlStream *self, PyObject *protocol, Py_buffer *view)
{
    PyObject *hint = PyLong_FromLong(-1);
    PyObject *buffer =
        hint == NULL ? NULL
                     : PyObject_CallMethodOneArg(
                         protocol, self->loop->state->names.get_buffer, hint);
    Py_XDECREF(hint);
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
    }
    Py_DECREF(buffer);
    return code;
}

static int
tell_updated(FlStream *self, PyObject *protocol, size_t got_bytes)
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
    if (get_buffer(self, protocol, &view) < 0) {
        return fl_stream_fatal(
            self, "Fatal error: protocol.get_buffer() call failed.");
    }
    if (!wants_more(self)) {
        PyBuffer_Release(&view); /* get_buffer paused or closed us */
        return 0;
    }
    int code = receive(self, view.buf, (size_t)view.len, result);
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
    return tell_updated(self, protocol, result->got_bytes);
}

/* --- all ----------------------------------------------------------------- */

int
fl_stream_read_ready(FlStream *self)
{
    size_t left = EVENT_BYTES;
    int code = 0;
    self->pull_bytes = 0;
    while (code == 0 && wants_more(self)) {
        ReadResult result = {0, false, false, false};
        if (self->receiver != NULL || self->buffered) {
            PyObject *protocol = Py_NewRef(self->protocol);
            code = self->receiver != NULL
                       ? receive_native(self, protocol, &result)
                       : read_into(self, protocol, &result);
            Py_DECREF(protocol);
        }
        else {
            code = read_bytes(self, &result);
        }
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
        if (result.enough) {
            self->pull_bytes = left;
            break;
        }
    }
    return code;
}

Py_ssize_t
fl_stream_pull(FlStream *self, char *memory, size_t size_bytes)
{
    ReadResult result = {0, false, false};
    if (self->pull_bytes == 0 || !wants_more(self)) {
        return 0;
    }
    int code = receive(self, memory, size_bytes, &result);
    size_t cost =
        result.got_bytes < READ_BYTES ? READ_BYTES : result.got_bytes;
    self->pull_bytes =
        result.filled && cost < self->pull_bytes ? self->pull_bytes - cost : 0;
    /* The system tells an error once; an end of file it tells the event. */
    if (code < 0 && code != -EAGAIN
        && fl_stream_fatal_errno(self, code, READ_FAILED) < 0)
    {
        return -1;
    }
    return (Py_ssize_t)result.got_bytes;
}
