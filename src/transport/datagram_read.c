/* Datagrams in: one system call for several, then one call into the protocol
   for each.

   A transport whose last read found a single datagram asks for two: that is a
   plain receive for who gets one at a time, and notices when more have come.
   Then it asks for a batch.

   1. Everything a call received is turned into objects before the protocol
      hears of the first: the buffer they were read into is the loop's, and the
      protocol may do anything.
   2. After each call into the protocol the transport may be paused, closed or
      have another protocol.  What asyncio would have left in the kernel then
      is kept and delivered first when reading goes on, or dropped with the
      transport.
   3. An event reads at most one datagram more than a batch, for fairness.
   4. A bytes object is as large as its datagram.  One longer than its slot
      is cut, where asyncio cuts it too: none of the network is. */
#include "transport/datagram_read.h"

#include "base/codes.h"
#include "core/dispatch.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "py/compat.h"
#include "py/errors.h"
#include "transport/datagram.h"
#include "transport/messages.h"
#include "transport/sockaddr.h"
#include "transport/stream.h"
#include "transport/stream_error.h"
#include "transport/stream_fd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READ_FAILED "Fatal read error on datagram transport"

/* The largest a network's can be, and a Unix socket's that asyncio reads. */
#define SLOT_BYTES      ((size_t)64 * 1024)
#define UNIX_SLOT_BYTES ((size_t)256 * 1024)
#define BUFFER_BYTES    (FL_DATAGRAM_BATCH * SLOT_BYTES)

/* Where a loop's datagrams are read to.  Only pages that were written to are
   in memory. */
typedef struct FlDatagramBuffers {
    FlMessage headers[FL_DATAGRAM_BATCH];
    struct iovec vectors[FL_DATAGRAM_BATCH];
    struct sockaddr_storage names[FL_DATAGRAM_BATCH];
    char bytes[BUFFER_BYTES];
} FlDatagramBuffers;

/* --- the kernel ---------------------------------------------------------- */

static FlDatagramBuffers *
get_buffers(FlLoop *loop)
{
    if (loop->datagram_buffers == NULL) {
        FlDatagramBuffers *buffers = malloc(sizeof(*buffers));
        if (buffers != NULL) {
            memset(buffers->headers, 0, sizeof(buffers->headers));
        }
        loop->datagram_buffers = buffers;
    }
    return loop->datagram_buffers;
}

static unsigned
most_to_read(const FlDatagram *self)
{
    if (self->stream.loop->off & FL_OFF_DATAGRAM_BATCH) {
        return 1;
    }
    if (!self->bursts) {
        return 2;
    }
    return self->family == AF_UNIX ? BUFFER_BYTES / UNIX_SLOT_BYTES
                                   : FL_DATAGRAM_BATCH;
}

/* How many came, or a negative errno. */
static int
receive(FlDatagram *self, FlDatagramBuffers *buffers, unsigned most)
{
    size_t slot_bytes = self->family == AF_UNIX ? UNIX_SLOT_BYTES : SLOT_BYTES;
    for (unsigned at = 0; at < most; at++) {
        struct msghdr *header = &buffers->headers[at].msg_hdr;
        buffers->vectors[at].iov_base = buffers->bytes + at * slot_bytes;
        buffers->vectors[at].iov_len = slot_bytes;
        header->msg_iov = &buffers->vectors[at];
        header->msg_iovlen = 1;
        header->msg_name = &buffers->names[at];
        header->msg_namelen = sizeof(buffers->names[at]);
    }
    int count = fl_stream_check_fd(&self->stream);
    if (count < 0) {
        return count;
    }
    do {
        count = fl_receive_messages(self->stream.fd, buffers->headers, most);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

/* --- objects ------------------------------------------------------------- */

/* Who sent a datagram: mostly whoever sent the one before. */
static PyObject *
sender_object(FlDatagram *self, const struct sockaddr_storage *name,
              socklen_t size)
{
    if (size == 0) {
        Py_RETURN_NONE; /* a Unix socket without a name */
    }
    FlAddress *sender = &self->sender;
    if (sender->object != NULL && size == sender->size
        && memcmp(name, &sender->name, size) == 0)
    {
        return Py_NewRef(sender->object);
    }
    PyObject *object = fl_sockaddr_object(name, size);
    if (object != NULL) {
        fl_address_keep(sender, object, name, size);
    }
    return object;
}

/* Objects for what was received.  0, or -1 with an exception set: then there
   are those before the one that failed. */
static int
take_received(FlDatagram *self, FlDatagramBuffers *buffers, int count)
{
    self->received_head = self->received_tail = 0;
    for (int at = 0; at < count; at++) {
        FL_METER(self->stream.loop, bytes_in, buffers->headers[at].msg_len);
        PyObject *data = PyBytes_FromStringAndSize(
            buffers->vectors[at].iov_base,
            (Py_ssize_t)buffers->headers[at].msg_len);
        PyObject *sender =
            data == NULL
                ? NULL
                : sender_object(self, &buffers->names[at],
                                buffers->headers[at].msg_hdr.msg_namelen);
        if (sender == NULL) {
            Py_XDECREF(data);
            return -1;
        }
        self->received[self->received_tail++] = data;
        self->received[self->received_tail++] = sender;
    }
    return 0;
}

void
fl_datagram_drop_received(FlDatagram *self)
{
    while (self->received_head < self->received_tail) {
        Py_DECREF(self->received[self->received_head++]);
    }
}

/* --- the protocol -------------------------------------------------------- */

static bool
wants_more(const FlDatagram *self)
{
    return self->stream.phase == FL_STREAM_OPEN && !self->stream.paused;
}

static int
deliver_one(FlDatagram *self)
{
    PyObject *protocol = Py_NewRef(self->stream.protocol);
    PyObject *data = self->received[self->received_head++];
    PyObject *sender = self->received[self->received_head++];
    PyObject *args[] = {protocol, data, sender};
    PyObject *done =
        PyObject_VectorcallMethod(self->stream.state->names.datagram_received,
                                  args, 3, NULL);
    Py_DECREF(protocol);
    Py_DECREF(data);
    Py_DECREF(sender);
    if (done == NULL) {
        return fl_datagram_report(self, self->stream.state->names._read_ready);
    }
    Py_DECREF(done);
    return 0;
}

/* Invariant 2.  0, or -1 to leave the loop. */
static int
deliver(FlDatagram *self)
{
    int code = 0;
    while (code == 0 && wants_more(self)
           && self->received_head < self->received_tail)
    {
        code = deliver_one(self);
    }
    if (fl_stream_is_closing(&self->stream)) {
        fl_datagram_drop_received(self);
    }
    else if (code < 0 && wants_more(self)) {
        PyObject *exc = PyErr_GetRaisedException();
        fl_error_keep_first(exc, fl_datagram_deliver_later(self),
                            (PyObject *)self);
    }
    return code;
}

static int
run_deliver(FlLoop *loop, PyObject *subject, PyObject *argument)
{
    (void)loop;
    (void)argument;
    return deliver((FlDatagram *)subject);
}

int
fl_datagram_deliver_later(FlDatagram *self)
{
    if (self->received_head == self->received_tail) {
        return 0;
    }
    return fl_loop_call_op(self->stream.loop, run_deliver, (PyObject *)self,
                           NULL, self->stream.context);
}

/* --- both ---------------------------------------------------------------- */

static int
read_failed(FlDatagram *self, int code)
{
    if (code == -EAGAIN || code == -EWOULDBLOCK) {
        return 0;
    }
    if (fl_datagram_report_errno(self, code) == 0) {
        return 0;
    }
    return fl_datagram_report(self, self->stream.state->names._read_ready);
}

/* Read once and deliver.  How many came, or -1 to leave the loop. */
static int
read_batch(FlDatagram *self, unsigned most)
{
    FlDatagramBuffers *buffers = get_buffers(self->stream.loop);
    if (buffers == NULL) {
        return fl_stream_fatal_errno(&self->stream, FL_NO_MEMORY, READ_FAILED);
    }
    int count = receive(self, buffers, most);
    if (count < 0) {
        return read_failed(self, count);
    }
    int code = take_received(self, buffers, count);
    if (code < 0) {
        code = fl_stream_fatal(&self->stream, READ_FAILED);
    }
    if (code == 0) {
        code = deliver(self);
    }
    return code < 0 ? -1 : count;
}

int
fl_datagram_read_ready(FlDatagram *self)
{
    if (deliver(self) < 0) {
        return -1;
    }
    /* The second time only after a read of two has found two. */
    for (int round = 0; round < 2 && wants_more(self); round++) {
        unsigned most = most_to_read(self);
        int count = read_batch(self, most);
        if (count < 0) {
            return -1;
        }
        bool again = most == 2 && count == 2;
        self->bursts = count >= 2;
        if (!again) {
            break;
        }
    }
    return 0;
}
