/* Datagrams out: sent at once, and what the kernel has no room for in batches.

   1. A datagram is tried when nothing waits, exactly once, with the system
      call asyncio makes; when it would block it is queued, and later ones wait
      behind it.
   2. An address that is a literal is read here; any other goes to the socket
      object's sendto, which knows names, and raises for what is none.
   3. A batch ends before such an address.  A datagram that failed is gone, the
      protocol is told, and the rest waits for the next event, as in asyncio.
   4. Where the system keeps to itself why a batch was cut short, its first
      unsent datagram is tried again and answers.  A connected Unix socket's
      answer would be another then, so its datagrams go one by one.
   5. Without an address a datagram goes to the peer the socket came with,
      which may have no name: one of a pair has none.  asyncio's transports
      end there.
   6. No Python runs between filling a batch and dropping what it sent. */
#include "transport/datagram_write.h"

#include "core/loop.h"
#include "core/metrics.h"
#include "py/compat.h"
#include "transport/datagram.h"
#include "transport/flow.h"
#include "transport/messages.h"
#include "transport/sockaddr.h"
#include "transport/stream.h"
#include "transport/stream_error.h"
#include "transport/stream_fd.h"
#include "transport/stream_write.h"
#include "transport/write_queue.h"

#include <errno.h>
#include <string.h>

#define WRITE_FAILED "Fatal write error on datagram transport"

/* How a datagram fared: what is negative is an exception for the caller. */
#define SENT           0
#define NO_ROOM        1
#define ERROR_REPORTED 2

static bool
is_no_room(int code)
{
    return code == EAGAIN || code == EWOULDBLOCK || code == EINTR
           || code == EALREADY || code == EINPROGRESS;
}

/* --- one datagram -------------------------------------------------------- */

static int
outcome(FlDatagram *self, ssize_t result)
{
    if (result >= 0) {
        return SENT;
    }
    if (is_no_room(errno)) {
        return NO_ROOM;
    }
    return fl_datagram_report_errno(self, -errno) < 0 ? -1 : ERROR_REPORTED;
}

/* The socket object, or something on the way to it, raised. */
static int
raised_outcome(FlDatagram *self)
{
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)
        || PyErr_ExceptionMatches(PyExc_InterruptedError))
    {
        PyErr_Clear(); /* asyncio's test, too, of what is to wait */
        return NO_ROOM;
    }
    if (PyErr_ExceptionMatches(PyExc_OSError)) {
        PyObject *exc = PyErr_GetRaisedException();
        int code = fl_datagram_call_error_received(self, exc);
        Py_DECREF(exc);
        return code < 0 ? -1 : ERROR_REPORTED;
    }
    return fl_stream_fatal(&self->stream, WRITE_FAILED) < 0 ? -1
                                                            : ERROR_REPORTED;
}

static int
send_by_object(FlDatagram *self, PyObject *data, PyObject *address)
{
    PyObject *sock = Py_NewRef(self->stream.sock);
    PyObject *result =
        PyObject_CallMethodObjArgs(sock, self->stream.state->names.sendto,
                                   data, address, NULL);
    Py_DECREF(sock);
    if (result == NULL) {
        return raised_outcome(self);
    }
    Py_DECREF(result);
    return SENT;
}

/* Whether the kernel knows where a datagram for this address goes. */
static bool
is_for_peer(const FlDatagram *self, PyObject *address)
{
    return self->connected
           || (address == Py_None && self->stream.peer != NULL);
}

/* An address in the system's form, NULL when the socket object must do it. */
static const FlAddress *
find_address(FlDatagram *self, PyObject *address)
{
    if (address == self->sender.object) {
        return &self->sender; /* an answer */
    }
    if (address != self->target.object
        && !fl_address_read(&self->target, address, self->family))
    {
        return NULL;
    }
    return &self->target;
}

/* The system call itself, with errno as it leaves it. */
static ssize_t
send_view(FlDatagram *self, const Py_buffer *view, const FlAddress *to)
{
    int fd = self->stream.fd;
    size_t size = (size_t)view->len;
    if (fl_stream_check_fd(&self->stream) < 0) {
        errno = EBADF;
        return -1;
    }
    fl_loop_expect_io(self->stream.loop);
    if (to == NULL) {
        return send(fd, view->buf, size, FL_SEND_FLAGS);
    }
    return sendto(fd, view->buf, size, FL_SEND_FLAGS,
                  (const struct sockaddr *)&to->name, to->size);
}

/* Send one datagram to an address that is known, or to the socket's peer. */
static int
send_data(FlDatagram *self, PyObject *data, PyObject *address)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return raised_outcome(self); /* it is not in one piece */
    }
    bool for_peer = is_for_peer(self, address);
    if (!for_peer
        && PySys_Audit("socket.sendto", "OO", self->stream.sock, address) < 0)
    {
        PyBuffer_Release(&view);
        return raised_outcome(self);
    }
    ssize_t sent = 0;
    if (self->stream.fd >= 0) { /* else a hook has ended the transport */
        /* Not before: a hook may have sent to somebody else. */
        const FlAddress *to = for_peer ? NULL : find_address(self, address);
        sent = send_view(self, &view, to);
    }
    int code = errno;
    if (sent > 0) {
        FL_METER(self->stream.loop, bytes_out, (uint64_t)sent);
    }
    /* The protocol, which hears of an error, may do as it likes with it. */
    PyBuffer_Release(&view);
    errno = code;
    return outcome(self, sent);
}

/* --- sendto -------------------------------------------------------------- */

/* Wait for the kernel behind what waits already.  0 or -1. */
static int
queue(FlDatagram *self, PyObject *data, PyObject *address)
{
    if (self->connected) {
        address = Py_None; /* nobody looks at it any more */
    }
    PyObject *bytes = PyBytes_FromObject(data);
    if (bytes == NULL) {
        return -1;
    }
    FlStream *stream = &self->stream;
    size_t size = (size_t)PyBytes_GET_SIZE(bytes) + FL_DATAGRAM_HEADER_BYTES;
    int code =
        fl_write_queue_append_pair(&stream->write_queue, bytes, address, size);
    Py_DECREF(bytes);
    if (code < 0) {
        return -1;
    }
    code = fl_stream_update_registration(stream);
    if (code < 0) {
        return fl_stream_fatal_errno(stream, code, WRITE_FAILED);
    }
    return fl_stream_maybe_pause(stream);
}

/* The address to send to, borrowed; NULL with ValueError set. */
static PyObject *
check_address(FlDatagram *self, PyObject *address)
{
    if (self->address == NULL) {
        return address;
    }
    int same = address == Py_None || address == self->address;
    if (!same) {
        same = PyObject_RichCompareBool(address, self->address, Py_EQ);
    }
    if (same == 0) {
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S",
                     self->address);
    }
    return same > 0 ? self->address : NULL;
}

/* What asyncio does with a transport that is lost: one that may send to
   anybody tries to, as long as there is a socket. */
static int
check_lost(FlDatagram *self)
{
    if (self->address != NULL) {
        return fl_stream_drop_after_loss(&self->stream);
    }
    if (self->stream.phase < FL_STREAM_CLOSED) {
        return 0;
    }
    PyErr_SetString(PyExc_AttributeError,
                    "'NoneType' object has no attribute 'sendto'");
    return -1;
}

static int
send_or_queue(FlDatagram *self, PyObject *data, PyObject *address)
{
    if (!fl_write_queue_is_empty(&self->stream.write_queue)) {
        return queue(self, data, address);
    }
    bool known =
        is_for_peer(self, address) || find_address(self, address) != NULL;
    int result = known ? send_data(self, data, address)
                       : send_by_object(self, data, address);
    if (result == NO_ROOM && self->stream.loop != NULL) {
        return queue(self, data, address);
    }
    return result < 0 ? -1 : 0;
}

static int
check_data(PyObject *data)
{
    if (PyBytes_Check(data) || PyByteArray_Check(data)
        || PyMemoryView_Check(data)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError,
                 "data argument must be a bytes-like object, not '%.200s'",
                 Py_TYPE(data)->tp_name);
    return -1;
}

static PyObject *
sendto_parsed(FlDatagram *self, PyObject *data, PyObject *address)
{
    if (check_data(data) < 0) {
        return NULL;
    }
    if (!FL_EMPTY_DATAGRAMS) {
        int some = PyObject_IsTrue(data);
        if (some <= 0) {
            return some < 0 ? NULL : Py_NewRef(Py_None);
        }
    }
    address = check_address(self, address);
    int code = address == NULL ? -1 : check_lost(self);
    if (code == 0) {
        Py_INCREF(address);
        Py_BEGIN_CRITICAL_SECTION(self);
        code = send_or_queue(self, data, address);
        Py_END_CRITICAL_SECTION();
        Py_DECREF(address);
    }
    return code < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *
fl_datagram_sendto(FlDatagram *self, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames)
{
    static const char *const names[] = {"data", "addr"};
    PyObject *values[] = {NULL, NULL};
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    bool wrong = nargs + named > 2;
    for (Py_ssize_t at = 0; !wrong && at < nargs; at++) {
        values[at] = args[at];
    }
    for (Py_ssize_t at = 0; !wrong && at < named; at++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, at);
        int index =
            PyUnicode_CompareWithASCIIString(name, names[0]) == 0 ? 0 : 1;
        wrong = values[index] != NULL
                || PyUnicode_CompareWithASCIIString(name, names[index]) != 0;
        values[index] = args[nargs + at];
    }
    if (wrong || values[0] == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "sendto() takes the arguments data and addr=None");
        return NULL;
    }
    return sendto_parsed(self, values[0],
                         values[1] == NULL ? Py_None : values[1]);
}

/* --- what waits ---------------------------------------------------------- */

typedef struct {
    FlMessage headers[FL_DATAGRAM_BATCH];
    struct iovec vectors[FL_DATAGRAM_BATCH];
    FlAddress targets[FL_DATAGRAM_BATCH];
} Batch;

static unsigned
most_to_send(const FlDatagram *self)
{
    bool one = (self->family == AF_UNIX && self->stream.peer != NULL)
               || (self->stream.loop->off & FL_OFF_DATAGRAM_BATCH);
    return one ? 1 : FL_DATAGRAM_BATCH;
}

/* Take in the index-th that waits; false when the batch ends before it. */
static bool
batch_add(FlDatagram *self, Batch *batch, unsigned index)
{
    PyObject *const *pair =
        fl_write_queue_pair(&self->stream.write_queue, index);
    if (pair == NULL) {
        return false;
    }
    struct msghdr *header = &batch->headers[index].msg_hdr;
    memset(header, 0, sizeof(*header));
    if (!is_for_peer(self, pair[1])) {
        const FlAddress *found = find_address(self, pair[1]);
        if (found == NULL) {
            return false;
        }
        FlAddress *target = &batch->targets[index];
        memcpy(&target->name, &found->name, found->size);
        header->msg_name = &target->name;
        header->msg_namelen = found->size;
    }
    batch->vectors[index].iov_base = PyBytes_AS_STRING(pair[0]);
    batch->vectors[index].iov_len = (size_t)PyBytes_GET_SIZE(pair[0]);
    header->msg_iov = &batch->vectors[index];
    header->msg_iovlen = 1;
    return true;
}

static void
drop_first(FlDatagram *self)
{
    FlWriteQueue *write_queue = &self->stream.write_queue;
    PyObject *data = fl_write_queue_pair(write_queue, 0)[0];
    fl_write_queue_drop_pair(write_queue, (size_t)PyBytes_GET_SIZE(data)
                                              + FL_DATAGRAM_HEADER_BYTES);
}

/* The first that waits has an address only the socket object can read. */
static int
send_first_by_object(FlDatagram *self)
{
    PyObject *const *pair = fl_write_queue_pair(&self->stream.write_queue, 0);
    PyObject *data = Py_NewRef(pair[0]), *address = Py_NewRef(pair[1]);
    int result = send_by_object(self, data, address);
    /* Python ran: the queue may have been dropped meanwhile. */
    pair = fl_write_queue_pair(&self->stream.write_queue, 0);
    if (result != NO_ROOM && pair != NULL && pair[0] == data) {
        drop_first(self);
    }
    Py_DECREF(data);
    Py_DECREF(address);
    return result;
}

/* Send the first few.  As a datagram fares, SENT also for some of them. */
static int
send_batch(FlDatagram *self)
{
    Batch batch;
    unsigned most = most_to_send(self), size = 0;
    while (size < most && batch_add(self, &batch, size)) {
        size++;
    }
    if (size == 0) {
        return send_first_by_object(self);
    }
    int code = -fl_stream_check_fd(&self->stream);
    int count = -1;
    if (code == 0) {
        count = fl_send_messages(self->stream.fd, batch.headers, size);
        code = count < 0 ? errno : 0;
    }
    if (count < 0 && is_no_room(code)) {
        return NO_ROOM;
    }
    /* The one that failed is gone, too. */
    for (int at = 0; at < (count < 0 ? 1 : count); at++) {
        if (count > 0) {
            FL_METER(self->stream.loop, bytes_out, batch.vectors[at].iov_len);
        }
        drop_first(self);
    }
    errno = code;
    return outcome(self, count);
}

/* Nothing waits any more: end what waited for that. */
static int
drained(FlStream *stream)
{
    int code = fl_stream_update_registration(stream);
    if (code < 0) {
        return fl_stream_fatal_errno(stream, code, WRITE_FAILED);
    }
    return stream->phase == FL_STREAM_CLOSING
               ? fl_stream_call_connection_lost(stream)
               : 0;
}

int
fl_datagram_write_ready(FlDatagram *self)
{
    FlStream *stream = &self->stream;
    int result = SENT;
    if (stream->phase >= FL_STREAM_LOST || stream->reg == NULL) {
        return 0;
    }
    fl_loop_expect_io(stream->loop);
    while (result == SENT && !fl_write_queue_is_empty(&stream->write_queue)) {
        Py_BEGIN_CRITICAL_SECTION(self);
        result = fl_write_queue_is_empty(&stream->write_queue)
                     ? SENT
                     : send_batch(self);
        Py_END_CRITICAL_SECTION();
    }
    if (result < 0
        && fl_datagram_report(self, stream->state->names._sendto_ready) < 0)
    {
        return -1;
    }
    bool failed = result < 0 || result == ERROR_REPORTED;
    if (failed && !fl_write_queue_is_empty(&stream->write_queue)) {
        return 0;
    }
    if (stream->phase < FL_STREAM_LOST && fl_stream_maybe_resume(stream) < 0) {
        return -1;
    }
    /* The protocol may have sent, closed or aborted. */
    if (stream->phase >= FL_STREAM_LOST
        || !fl_write_queue_is_empty(&stream->write_queue))
    {
        return 0;
    }
    return drained(stream);
}
