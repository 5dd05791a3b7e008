/* Datagrams in, and what a datagram transport reports: one system call for
   several datagrams, then one datagram_received call for each.

   1. All datagrams of a read become Python objects before the first one is
      delivered.  They were read into the loop's shared buffer, and the
      protocol may run code that reads into it again.
   2. After each call into the protocol the transport may be closed or have
      another protocol, so the state is checked before each delivery.  Unlike
      asyncio's datagrams, the remaining ones are not in the kernel any more:
      they are delivered although the protocol has paused the transport, or has
      raised an exception that ends the run.  If it has closed the transport,
      they are dropped, as with asyncio. */
#include "transport/datagram.h"

#include "base/codes.h"
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

#define DATAGRAM_READ_FAILED "Fatal read error on datagram transport"

/* The most that an event reads: more would starve other callbacks. */
#define BATCH      16
/* asyncio's max_size: a larger datagram, of a Unix socket, is truncated. */
#define SLOT_BYTES ((size_t)256 * 1024)

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
   transports.  It takes 4 MiB of address space.  calloc maps that without
   clearing it, so only pages that were written to occupy memory. */
typedef struct FlDatagramBuffers {
    FlMessage headers[BATCH];
    struct iovec vectors[BATCH];
    struct sockaddr_storage names[BATCH];
    int used; /* headers whose msg_namelen the kernel has overwritten */
    char bytes[BATCH][SLOT_BYTES];
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

/* Allocate a loop's buffers: NULL if there is no memory. */
static FlDatagramBuffers *
buffers_new(void)
{
    FlDatagramBuffers *buffers = calloc(1, sizeof(*buffers));
    if (buffers == NULL) {
        return NULL;
    }
    for (int at = 0; at < BATCH; at++) {
        buffers->vectors[at] =
            (struct iovec){buffers->bytes[at], sizeof(buffers->bytes[at])};
        struct msghdr *header = &buffers->headers[at].msg_hdr;
        header->msg_iov = &buffers->vectors[at];
        header->msg_iovlen = 1;
        header->msg_name = &buffers->names[at];
    }
    buffers->used = BATCH;
    return buffers;
}

/* Receive several datagrams.  The number received, or a negative errno or
   FL_NO_MEMORY. */
static int
receive_batch(FlDatagram *self)
{
    FlLoop *loop = self->stream.loop;
    if (loop->datagram_buffers == NULL) {
        loop->datagram_buffers = buffers_new();
    }
    FlDatagramBuffers *buffers = loop->datagram_buffers;
    if (buffers == NULL) {
        return FL_NO_MEMORY;
    }
    for (int at = 0; at < buffers->used; at++) {
        buffers->headers[at].msg_hdr.msg_namelen = sizeof(buffers->names[at]);
    }
    int count;
    do {
        count =
            receive_messages(self->stream.fd, buffers->headers,
                             loop->off & FL_OFF_DATAGRAM_BATCH ? 1 : BATCH);
    } while (count < 0 && errno == EINTR);
    buffers->used = Py_MAX(count, 1); /* a failure may overwrite one, too */
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

/* A datagram that was received. */
typedef struct {
    PyObject *data;
    PyObject *sender;
} Received;

/* Invariant 1: make objects of the received datagrams and senders.  How many
   were made; if not all, an exception is set. */
static int
make_objects(FlDatagram *self, Received *received, int count)
{
    FlLoop *loop = self->stream.loop;
    const FlDatagramBuffers *buffers = loop->datagram_buffers;
    for (int at = 0; at < count; at++) {
        const FlMessage *message = &buffers->headers[at];
        FL_METER(loop, bytes_in, message->msg_len);
        PyObject *data =
            PyBytes_FromStringAndSize(buffers->bytes[at],
                                      (Py_ssize_t)message->msg_len);
        PyObject *sender = data == NULL
                               ? NULL
                               : sender_object(self, &buffers->names[at],
                                               message->msg_hdr.msg_namelen);
        if (sender == NULL) {
            Py_XDECREF(data);
            return at;
        }
        received[at] = (Received){data, sender};
    }
    return count;
}

/* --- the protocol -------------------------------------------------------- */

/* Call datagram_received, unless the transport is closing.  0, or -1 if an
   exception ends the run. */
static int
datagram_deliver(FlDatagram *self, const Received *received)
{
    if (self->stream.phase != FL_STREAM_OPEN) {
        return 0;
    }
    PyObject *name = self->stream.state->names.datagram_received;
    PyObject *protocol = fl_protocol_get(self, &self->stream.protocol).object;
    PyObject *args[] = {protocol, received->data, received->sender};
    int code = fl_call_done(PyObject_VectorcallMethod(name, args, 3, NULL));
    Py_DECREF(protocol);
    return code < 0 ? fl_datagram_report(self, name) : 0;
}

/* Deliver and drop all: invariant 2.  0, or -1 with the first exception that
   ends the run. */
static int
deliver_all(FlDatagram *self, const Received *received, int count)
{
    PyObject *leaving = NULL;
    for (int at = 0; at < count; at++) {
        if (datagram_deliver(self, &received[at]) < 0) {
            /* Set aside: Python code must not run with it raised. */
            (void)fl_error_keep_first(leaving, -1, (PyObject *)self);
            leaving = PyErr_GetRaisedException();
        }
        Py_DECREF(received[at].data);
        Py_DECREF(received[at].sender);
    }
    return fl_error_keep_first(leaving, 0, NULL);
}

int
fl_datagram_read_ready(FlDatagram *self)
{
    /* First: it may run Python, which may read into the loop's buffers, close
       the loop, which frees them, or end or pause the transport. */
    int count = fl_stream_check_fd(&self->stream);
    if (self->stream.phase != FL_STREAM_OPEN || self->stream.paused) {
        return 0;
    }
    if (count == 0) {
        count = receive_batch(self);
    }
    if (count == FL_NO_MEMORY) {
        fl_stream_fail(&self->stream, count);
        return 0;
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
    Received received[BATCH];
    int made;
    /* Without a GIL another thread's sendto reads last_sender. */
    Py_BEGIN_CRITICAL_SECTION(self);
    made = make_objects(self, received, count);
    Py_END_CRITICAL_SECTION();
    int code = made < count
                   ? fl_stream_fatal(&self->stream, DATAGRAM_READ_FAILED)
                   : 0;
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    code = deliver_all(self, received, made);
    return fl_error_keep_first(exc, code, (PyObject *)self);
}
