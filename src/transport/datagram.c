/* Datagrams in, and what a datagram transport reports: one system call for
   several datagrams, then one datagram_received call for each.

   A transport whose last read returned a single datagram requests two.  For
   single datagrams this costs hardly more than a plain receive, and the second
   one reveals a burst.  During a burst the transport requests a full batch.

   1. All datagrams of a read become Python objects before the first one is
      delivered.  They were read into the loop's shared buffer, and the
      protocol may run code that reads into it again.
   2. After each call into the protocol the transport may be paused, closed or
      have another protocol, so the state is checked before each delivery.
      asyncio would have left the remaining datagrams in the kernel.  Here the
      transport stores them, and delivers them before it reads again, or drops
      them when it closes.
   3. An event reads at most two datagrams and then one batch.  A busy socket
      must not starve other callbacks.
   4. A bytes object has exactly the size of its datagram.  A Unix datagram
      that is longer than its slot is truncated, at the size at which asyncio
      truncates it.  No UDP datagram is longer than its slot. */
#include "transport/datagram.h"

#include "base/codes.h"
#include "core/dispatch.h"
#include "core/loop.h"
#include "core/meter.h"
#include "core/report.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/sockaddr.h"
#include "transport/stream.h"
#include "transport/stream_close.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define READ_FAILED "Fatal read error on datagram transport"

/* Slots hold the largest UDP datagram, or asyncio's max_size: a Unix datagram
   can be larger. */
#define SLOT_BYTES      ((size_t)64 * 1024)
#define UNIX_SLOT_BYTES ((size_t)256 * 1024)
#define BUFFER_BYTES    (FL_DATAGRAM_BATCH * SLOT_BYTES)

#ifdef __linux__
typedef struct mmsghdr FlMessage;
#else
/* The fields of Linux's struct mmsghdr that we use, under the same names. */
typedef struct {
    struct msghdr msg_hdr;
    unsigned msg_len;
} FlMessage;
#endif

/* Receive several datagrams with one system call, or one where there is no
   recvmmsg, and never block.  The number received, at least one, or -1 with
   errno.  An error after the first is left for the next call. */
static int
receive_messages(int fd, FlMessage *messages, unsigned count)
{
#ifdef __linux__
    int got = recvmmsg(fd, messages, count, MSG_DONTWAIT, NULL);
    /* A sandbox may refuse it, as Docker with an old libseccomp the one of
       32-bit systems with 64-bit times. */
    if (got >= 0 || (errno != ENOSYS && errno != EPERM)) {
        return got;
    }
#endif
    (void)count;
    ssize_t got_bytes = recvmsg(fd, &messages->msg_hdr, MSG_DONTWAIT);
    messages->msg_len = (unsigned)got_bytes;
    return got_bytes < 0 ? -1 : 1;
}

/* The receive buffer of a loop, which owns it, shared by its datagram
   transports.  It takes 1 MiB of address space.  calloc maps that without
   clearing it, so only pages that were written to occupy memory. */
typedef struct FlDatagramBuffers {
    FlMessage headers[FL_DATAGRAM_BATCH];
    struct iovec vectors[FL_DATAGRAM_BATCH];
    struct sockaddr_storage names[FL_DATAGRAM_BATCH];
    char bytes[BUFFER_BYTES];
} FlDatagramBuffers;

/* --- reports ------------------------------------------------------------- */

int
fl_datagram_call_error_received(FlDatagram *self, PyObject *exc)
{
    PyObject *protocol = fl_protocol_get(self, &self->stream.protocol).object;
    if (protocol == NULL) {
        return 0; /* Python code in the failed call ended the transport */
    }
    PyObject *outer = fl_error_begin_handling(exc);
    int code = fl_call_method(protocol,
                              self->stream.state->names.error_received, exc);
    fl_error_end_handling(outer);
    Py_DECREF(protocol);
    return code;
}

int
fl_datagram_report_errno(FlDatagram *self, int code)
{
    PyObject *exc = fl_errno_exception(code);
    int result = exc == NULL ? -1 : fl_datagram_call_error_received(self, exc);
    Py_XDECREF(exc);
    return result;
}

int
fl_datagram_report(FlDatagram *self, PyObject *method)
{
    PyObject *protocol = fl_protocol_get(self, &self->stream.protocol).object;
    /* The call that raised may have ended the transport: no loop is left to
       report to. */
    if (self->stream.loop == NULL || protocol == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(protocol);
        return 0;
    }
    int code = fl_loop_report_call(self->stream.loop, protocol, method, NULL);
    Py_DECREF(protocol);
    return code;
}

/* --- the kernel ---------------------------------------------------------- */

/* How many datagrams the next read requests. */
static unsigned
read_limit(const FlDatagram *self)
{
    if (self->stream.loop->off & FL_OFF_DATAGRAM_BATCH) {
        return 1;
    }
    if (!self->in_burst) {
        return 2;
    }
    /* Unix slots are larger, so fewer fit into the buffer. */
    return self->family == AF_UNIX ? BUFFER_BYTES / UNIX_SLOT_BYTES
                                   : FL_DATAGRAM_BATCH;
}

/* Receive up to limit datagrams.  The number received, or a negative errno. */
static int
receive_batch(FlDatagram *self, FlDatagramBuffers *buffers, unsigned limit)
{
    size_t slot_bytes = self->family == AF_UNIX ? UNIX_SLOT_BYTES : SLOT_BYTES;
    for (unsigned at = 0; at < limit; at++) {
        /* Set again for each read: the kernel overwrites msg_namelen, and
           other transports use other slot sizes. */
        struct msghdr *header = &buffers->headers[at].msg_hdr;
        buffers->vectors[at].iov_base = buffers->bytes + at * slot_bytes;
        buffers->vectors[at].iov_len = slot_bytes;
        header->msg_iov = &buffers->vectors[at];
        header->msg_iovlen = 1;
        header->msg_name = &buffers->names[at];
        header->msg_namelen = sizeof(buffers->names[at]);
    }
    int count;
    do {
        count = receive_messages(self->stream.fd, buffers->headers, limit);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

/* --- objects ------------------------------------------------------------- */

/* The sender's address: a new reference, or NULL with an exception set.  Most
   datagrams have the same sender as the one before, so its object is reused.
   sendto then recognizes a reply by identity (find_address). */
static PyObject *
sender_object(FlDatagram *self, const struct sockaddr_storage *name,
              socklen_t size)
{
    if (size == 0) {
        Py_RETURN_NONE; /* an unbound Unix socket */
    }
    FlAddress *sender = &self->last_sender;
    if (sender->object != NULL && size == sender->size
        && memcmp(name, &sender->name, size) == 0)
    {
        return Py_NewRef(sender->object);
    }
    PyObject *object = fl_sockaddr_object(name, size);
    if (object != NULL) {
        fl_address_store(sender, object, name, size);
    }
    return object;
}

/* Invariant 1: store the received datagrams and senders as objects.  The
   previous ones have been delivered: fl_datagram_read_ready does not read
   before.  0, or -1 with an exception set; then those before the failure are
   stored. */
static int
store_received(FlDatagram *self, FlDatagramBuffers *buffers, int count)
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
    /* The head moves before the reference is dropped. */
    while (self->received_head < self->received_tail) {
        Py_DECREF(self->received[self->received_head++]);
    }
}

/* --- the protocol -------------------------------------------------------- */

/* True if the protocol may be called: not paused, closing or closed. */
static bool
can_deliver(const FlDatagram *self)
{
    return self->stream.phase == FL_STREAM_OPEN && !self->stream.paused;
}

/* Deliver the first stored datagram; the caller has checked that one may be.
   0, or -1 if an exception ends the run. */
static int
deliver_one(FlDatagram *self)
{
    PyObject *protocol = fl_protocol_get(self, &self->stream.protocol).object;
    /* Taken out before the call: a nested delivery must not see them. */
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
        return fl_datagram_report(self,
                                  self->stream.state->names.datagram_received);
    }
    Py_DECREF(done);
    return 0;
}

/* Deliver stored datagrams while the transport may: invariant 2.  0, or -1 if
   an exception ends the run. */
static int
deliver_received(FlDatagram *self)
{
    int code = 0;
    while (code == 0 && can_deliver(self)
           && self->received_head < self->received_tail)
    {
        code = deliver_one(self);
    }
    if (fl_stream_is_closing(&self->stream)) {
        fl_datagram_drop_received(self);
    }
    else if (code < 0 && can_deliver(self)) {
        /* The exception ends this run.  The rest is delivered in the next one:
           no event would report datagrams that are not in the kernel. */
        PyObject *exc = PyErr_GetRaisedException();
        fl_error_keep_first(exc, fl_datagram_deliver_later(self),
                            (PyObject *)self);
    }
    return code;
}

/* The queued operation of fl_datagram_deliver_later. */
static int
run_deliver(FlLoop *Py_UNUSED(loop), PyObject *subject,
            PyObject *Py_UNUSED(argument))
{
    return deliver_received((FlDatagram *)subject);
}

int
fl_datagram_deliver_later(FlDatagram *self)
{
    if (self->received_head == self->received_tail
        || fl_stream_is_closing(&self->stream))
    {
        return 0;
    }
    return fl_loop_queue_op(self->stream.loop, run_deliver, (PyObject *)self,
                            NULL, self->stream.context);
}

/* --- read events --------------------------------------------------------- */

/* Read once and deliver.  The number of datagrams read, or -1 if an exception
   ends the run. */
static int
read_batch(FlDatagram *self, unsigned limit)
{
    /* First: it may run Python, which may read into the loop's buffers, close
       the loop, which frees them, or end or pause the transport. */
    int count = fl_stream_check_fd(&self->stream);
    if (!can_deliver(self) || self->received_head < self->received_tail) {
        return 0;
    }
    FlLoop *loop = self->stream.loop;
    if (loop->datagram_buffers == NULL) {
        loop->datagram_buffers = calloc(1, sizeof(FlDatagramBuffers));
    }
    FlDatagramBuffers *buffers = loop->datagram_buffers;
    if (buffers == NULL) {
        fl_stream_fail(&self->stream, FL_NO_MEMORY);
        return 0;
    }
    if (count == 0) {
        count = receive_batch(self, buffers, limit);
    }
    if (count < 0 && fl_errno_would_block(-count)) {
        return 0; /* another process may have read the datagram */
    }
    if (count < 0) {
        return fl_datagram_report_errno(self, count) == 0
                   ? 0
                   : fl_datagram_report(
                       self, self->stream.state->names.error_received);
    }
    int code;
    /* Without a GIL another thread's sendto reads last_sender. */
    Py_BEGIN_CRITICAL_SECTION(self);
    code = store_received(self, buffers, count);
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        code = fl_stream_fatal(&self->stream, READ_FAILED);
    }
    if (code == 0) {
        code = deliver_received(self);
    }
    return code < 0 ? -1 : count;
}

int
fl_datagram_read_ready(FlDatagram *self)
{
    /* Datagrams of an earlier read come first.  If they cannot be delivered,
       can_deliver is false below and nothing is read. */
    if (deliver_received(self) < 0) {
        return -1;
    }
    /* Two rounds only if the first one requested two datagrams and got both:
       a burst may have begun, so the second round reads a batch. */
    for (int round = 0; round < 2 && can_deliver(self); round++) {
        unsigned limit = read_limit(self);
        int count = read_batch(self, limit);
        if (count < 0) {
            return -1;
        }
        bool again = limit == 2 && count == 2;
        self->in_burst = count >= 2;
        if (!again) {
            break;
        }
    }
    return 0;
}
