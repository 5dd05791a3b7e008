/* The life of a written byte: write, cork, send, wait for the kernel.

   What a callback writes is corked: it stays in the write queue until the
   callback returns, if that is an event (data_received), or else until the
   iteration ends.  So an HTTP header and its body leave by one system call.
   Sends in a row wake a peer that sleeps on another CPU once; a wake-up costs
   more than the rest of a send.  A tick of the coarse clock sends corked bytes
   sooner: after the callback that runs, or at its next write, and then that
   callback corks no more.  The rule has no memory: whether a write is corked
   does not depend on what earlier callbacks did.

   1. loop->cork.streams has the corked streams in the order of their first
      corked writes, and a flush sends them in that order.  Every write that
      is not corked first flushes all, and so does the loop before it sends
      anything else.  So a corked write may overtake only other corked writes.
      Every send in C first calls fl_loop_before_io.  Our sends in Python, and
      our ways to hand control to another loop, thread or process, call
      fl_loop_flush_corked_here.  asyncio's own transports call neither.
   2. Writes are corked only inside a callback, by the thread that runs the
      loop, and up to the lesser of CORKED_BYTES and the high-water mark.  Not
      where the application has the fd: its own sends would overtake corked
      bytes.  Not in a forked child of the loop's process, which may end by
      os._exit, nor in a daemon thread, which the end of the interpreter stops
      anywhere, nor in a loop that runs inside another loop's callback, which
      may write to either's streams.  The kernel has refused no byte of a
      corked queue.
   3. Corked bytes count as sent (get_write_buffer_size).  Code that ends or
      inspects the stream flushes first.
   4. A flush only sends: it calls no protocol and ends no stream.  What waits
      for an empty queue is left to an event (fl_stream_drained).  But a failed
      send may run Python: making its exception may run the GC, and debug mode
      records the stack.  That code finds the failed stream no longer corked
      and the others still corked, and may use each.  So a caller checks the
      phase of its own stream again.
   5. bytes objects are referenced and all else is copied, because the caller
      may change its buffer once write returns.

   README.md has the limits of corking, and what was rejected. */
#include "transport/stream_write.h"

#include "base/clock.h"
#include "base/codes.h"
#include "core/loop.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/write_queue.h"

#include <errno.h>
#include <sys/uio.h>

/* Enough for any burst worth one call, and well below IOV_MAX. */
#define MAX_VECTORS  64
/* The most bytes that are corked. */
#define CORKED_BYTES (64 * 1024)
#define WRONG_TYPE \
    "data argument must be a " FL_WRITABLE_TYPES " object, not '%U'"

#define NO_BUFFER "memoryview: a bytes-like object is required, not '%.200s'"

/* --- the kernel ---------------------------------------------------------- */

ssize_t
fl_stream_send(FlStream *self, struct iovec *pieces, int count)
{
    if (count == 1) { /* costs the kernel less than sendmsg */
        return send(self->fd, pieces->iov_base, pieces->iov_len,
                    FL_SEND_FLAGS);
    }
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    return sendmsg(self->fd, &message, FL_SEND_FLAGS);
}

/* One system call.  0 with the bytes sent, 0 of them if it would block; or a
   negative errno.  The caller has called fl_loop_before_io, or flushes. */
static int
send_vectors(FlStream *self, struct iovec *vectors, int count,
             size_t *sent_bytes)
{
    ssize_t sent = self->kind->send(self, vectors, count);
    *sent_bytes = 0;
    if (sent >= 0) {
        FL_METER(self->loop, bytes_out, (uint64_t)sent);
        *sent_bytes = (size_t)sent;
        return 0;
    }
    return fl_errno_would_block(errno) ? 0 : -errno;
}

/* Send from the queue until it is empty or the kernel's buffer is full.  0 or
   a negative errno.  Runs no Python: the caller has checked the fd of an
   exposed stream. */
static int
drain_queue(FlStream *self)
{
    FlWriteQueue *write_queue = &self->write_queue;
    int code = 0;
    while (!fl_write_queue_is_empty(write_queue)) {
        struct iovec vectors[MAX_VECTORS];
        int count =
            fl_write_queue_fill_iovec(write_queue, vectors, MAX_VECTORS);
        size_t offered = 0, sent;
        for (int at = 0; at < count; at++) {
            offered += vectors[at].iov_len;
        }
        code = send_vectors(self, vectors, count, &sent);
        if (code < 0) {
            break;
        }
        fl_write_queue_consume(write_queue, sent);
        if (sent < offered) {
            break; /* the kernel's buffer is full */
        }
    }
    return code;
}

static void
write_failed(FlStream *self, int code)
{
    if (self->kind->counts_failed_write) {
        fl_stream_add_lost_write(self);
    }
    fl_stream_fail(self, code, self->kind->write_failed);
}

/* Check the fd, then flush what was written before.  In this order, because
   the application's fileno() may write, and so cork.  1: send; 0: Python that
   ran has ended the stream; or a negative errno. */
static int
prepare_send(FlStream *self)
{
    int code = fl_stream_check_fd(self);
    if (code == 0 && self->phase < FL_STREAM_LOST) {
        fl_loop_before_io(self->loop);
    }
    return code < 0 ? code : self->phase < FL_STREAM_LOST;
}

/* Send EOF.  0 or a negative errno. */
static int
shut_down_writing(FlStream *self)
{
    self->eof_sent = true;
    int code = prepare_send(self);
    if (code <= 0) {
        return code;
    }
    return shutdown(self->fd, SHUT_WR) < 0 ? -errno : 0;
}

/* The kernel refused bytes: register for writability. */
static void
wait_for_kernel(FlStream *self)
{
    int code = fl_stream_update_registration(self);
    if (code < 0) {
        write_failed(self, code);
    }
}

/* Send the queue, as far as the kernel accepts it now. */
static void
send_queue(FlStream *self)
{
    int code = drain_queue(self);
    if (code < 0) {
        write_failed(self, code);
    }
    else if (!fl_write_queue_is_empty(&self->write_queue)) {
        wait_for_kernel(self);
    }
}

/* --- corking ------------------------------------------------------------- */

/* Stop corking if the coarse clock has ticked since the loop's first corked
   write: the callback is slow.  Returns whether the callback still corks. */
static bool
update_corking(FlLoop *loop)
{
    if (loop->cork.active && !fl_list_is_empty(&loop->cork.streams)
        && loop->cork.since_ns != fl_clock_coarse_ns())
    {
        loop->cork.active = false;
    }
    return loop->cork.active;
}

/* Whether this write, of this size, may be corked with the queue.  Not
   another thread's: the loop may be asleep, or the running callback may wait
   for that thread.  None without a GIL, where others may write meanwhile. */
static bool
may_cork(const FlStream *self, size_t size_bytes)
{
    FlLoop *loop = self->loop;
    uint64_t queued_bytes = self->write_queue.size_bytes + size_bytes;
    return FL_HAVE_GIL && loop->cork.enabled && !self->exposed
           && fl_loop_of_thread(loop->state) == loop && update_corking(loop)
           && queued_bytes <= CORKED_BYTES
           && queued_bytes <= self->high_water_bytes
           && !fl_loop_is_inherited(loop);
}

/* FlLoop's cork.send: send a stream's queue. */
static void
send_corked(FlList *link)
{
    FlStream *self = FL_LIST_ENTRY(link, FlStream, cork_link);
    if (fl_loop_is_inherited(self->loop)) {
        fl_write_queue_clear(&self->write_queue); /* the parent sends them */
        return;
    }
    self->loop->polls.skips_left = 0; /* as fl_loop_before_io */
    Py_INCREF(self); /* a failure runs the GC, which may find it unused */
    send_queue(self);
    Py_DECREF(self);
}

/* Cork the whole queue. */
static void
cork_queue(FlStream *self)
{
    FlLoop *loop = self->loop;
    if (fl_list_is_empty(&loop->cork.streams)) {
        loop->cork.since_ns = fl_clock_coarse_ns();
        loop->cork.send = send_corked;
    }
    if (!fl_stream_is_corked(self)) {
        FL_CHECK(self->phase < FL_STREAM_LOST, "a lost stream sends nothing");
        fl_list_append(&loop->cork.streams, &self->cork_link);
    }
}

/* --- write --------------------------------------------------------------- */

/* 0, or -1 with asyncio's exception if nothing may be written now. */
static int
check_writable(FlStream *self, const char *method)
{
    if (self->eof_written) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()",
                     method);
        return -1;
    }
    if (self->empty_waiter != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "unable to %s; sendfile is in progress", method);
        return -1;
    }
    return 0;
}

/* The data of a write.  `bytes` is the exact bytes object that has it, or NULL
   where the caller may change the data later. */
typedef struct {
    const char *data;
    size_t size_bytes;
    PyObject *bytes;
} Payload;

/* Queue the unsent part.  0, or -1 with MemoryError. */
static int
queue_payload(FlStream *self, const Payload *payload, size_t sent_bytes)
{
    if (payload->bytes != NULL) {
        return fl_write_queue_append(&self->write_queue, payload->bytes,
                                     sent_bytes);
    }
    PyObject *copy = PyBytes_FromStringAndSize(payload->data + sent_bytes,
                                               (Py_ssize_t)(payload->size_bytes
                                                            - sent_bytes));
    if (copy == NULL) {
        return -1;
    }
    int code = fl_write_queue_append(&self->write_queue, copy, 0);
    Py_DECREF(copy);
    return code;
}

/* Flush all, unless the write is corked.  Returns whether the kernel has
   refused earlier bytes, so that the write must queue behind them. */
static bool
flush_before_write(FlStream *self, bool corks)
{
    if (!corks) {
        fl_loop_before_io(self->loop);
    }
    return !fl_stream_is_corked(self)
           && !fl_write_queue_is_empty(&self->write_queue);
}

/* How a write begins: what it has to do with its data. */
typedef struct {
    bool corks;   /* join the corked queue */
    bool blocked; /* queue behind what the kernel refused */
    int failure;  /* of the fd or of a send: 0 or a negative errno */
} WriteStart;

/* Begin a write of this size: check the fd, then flush what the write would
   overtake.  Unless the write corks, both may run Python, which may write,
   call write_eof(), ask for the socket or let the loop's thread end the
   stream.  1; 0 if the stream is LOST by now; or -1 as check_writable. */
static int
begin_write(FlStream *self, const char *method, size_t size_bytes,
            WriteStart *start)
{
    *start = (WriteStart){.corks = may_cork(self, size_bytes)};
    start->failure = fl_stream_check_fd(self);
    start->blocked =
        self->phase < FL_STREAM_LOST && flush_before_write(self, start->corks);
    if (check_writable(self, method) < 0) {
        return -1;
    }
    return self->phase < FL_STREAM_LOST;
}

/* End a write: cork the queue, send it, or wait.  0, or -1 with RuntimeError:
   it has failed or has left bytes, and the loop is closed, which would neither
   report nor send. */
static int
end_write(FlStream *self, const WriteStart *start)
{
    if (start->blocked) {
        wait_for_kernel(self);
        return 0;
    }
    if (start->corks) {
        cork_queue(self);
        return 0;
    }
    if (start->failure < 0) {
        write_failed(self, start->failure);
    }
    else {
        send_queue(self);
    }
    bool unsent = self->phase >= FL_STREAM_LOST
                  || !fl_write_queue_is_empty(&self->write_queue);
    return unsent ? fl_stream_check_loop(self) : 0;
}

/* One write: drop it after a loss, cork it, send it, or queue it.  A send that
   fails queues connection_lost.  0, or -1 with MemoryError, what the warning
   about a lost connection raised, or as check_writable and end_write. */
static int
write_payload(FlStream *self, const Payload *payload)
{
    size_t size = payload->size_bytes, sent = 0;
    int code = size == 0 ? 1 : fl_stream_check_lost(self);
    if (code != 0) {
        return code < 0 ? -1 : 0;
    }
    WriteStart start;
    code = begin_write(self, "write", size, &start);
    if (code <= 0) {
        return code;
    }
    if (!start.blocked && !start.corks && start.failure == 0) {
        struct iovec vector = {(char *)payload->data, size};
        start.failure = send_vectors(self, &vector, 1, &sent);
        if (sent == size) {
            return 0;
        }
        start.blocked = start.failure == 0;
        if (start.blocked && fl_loop_check_open(self->loop) < 0) {
            return -1; /* as in asyncio, the rest is dropped */
        }
    }
    if ((start.blocked || start.failure == 0)
        && queue_payload(self, payload, sent) < 0)
    {
        return -1;
    }
    return end_write(self, &start);
}

static int
write_bytes(FlStream *self, PyObject *bytes)
{
    Payload payload = {PyBytes_AS_STRING(bytes),
                       (size_t)PyBytes_GET_SIZE(bytes), bytes};
    return write_payload(self, &payload);
}

/* Send a contiguous buffer in place; only an unsent part is copied. */
static int
write_buffer(FlStream *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_FULL_RO) < 0) {
        return -1;
    }
    int code = -1;
    if (PyBuffer_IsContiguous(&view, 'C')) {
        Payload payload = {view.buf, (size_t)view.len, NULL};
        code = write_payload(self, &payload);
    }
    else {
        PyObject *copy = fl_transport_as_bytes(data, NO_BUFFER);
        if (copy != NULL) {
            code = write_bytes(self, copy);
            Py_DECREF(copy);
        }
    }
    PyBuffer_Release(&view);
    return code;
}

PyObject *
fl_stream_write(FlStream *self, PyObject *data)
{
    bool exact = PyBytes_CheckExact(data);
    if ((!exact && fl_transport_check_data(data, WRONG_TYPE) < 0)
        || check_writable(self, "write") < 0)
    {
        return NULL;
    }
    int code;
    Py_BEGIN_CRITICAL_SECTION(self);
    code = exact ? write_bytes(self, data) : write_buffer(self, data);
    Py_END_CRITICAL_SECTION();
    /* Only now, with the caller's buffer released: pause_writing may resize
       it. */
    return fl_call_none(code == 0 ? fl_flow_check(self, true) : code);
}

int
fl_stream_write_memory(FlStream *self, const char *data, size_t size_bytes)
{
    Payload payload = {data, size_bytes, NULL};
    if (check_writable(self, "write") < 0) {
        return -1;
    }
    int code;
    Py_BEGIN_CRITICAL_SECTION(self);
    code = write_payload(self, &payload);
    Py_END_CRITICAL_SECTION();
    return code < 0 ? -1 : fl_flow_check(self, true);
}

/* --- writelines ---------------------------------------------------------- */

/* The items as a new list of exact, non-empty bytes objects; NULL with an
   exception, and then nothing is written. */
static PyObject *
bytes_list(PyObject *lines)
{
    PyObject *iterator = PyObject_GetIter(lines);
    PyObject *list = iterator == NULL ? NULL : PyList_New(0);
    PyObject *item;
    while (list != NULL && (item = PyIter_Next(iterator)) != NULL) {
        PyObject *bytes = fl_transport_as_bytes(item, NO_BUFFER);
        Py_DECREF(item);
        if (bytes == NULL
            || (PyBytes_GET_SIZE(bytes) > 0 && PyList_Append(list, bytes) < 0))
        {
            Py_CLEAR(list);
        }
        Py_XDECREF(bytes);
    }
    Py_XDECREF(iterator);
    if (PyErr_Occurred()) {
        Py_CLEAR(list);
    }
    return list;
}

/* Queue all items as one write, then cork or send the queue.  0, or -1 with
   MemoryError or as check_writable. */
static int
write_list(FlStream *self, PyObject *list)
{
    size_t size_bytes = 0;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(list); at++) {
        size_bytes += (size_t)PyBytes_GET_SIZE(PyList_GET_ITEM(list, at));
    }
    WriteStart start;
    int code = begin_write(self, "writelines", size_bytes, &start);
    if (code <= 0) {
        return code;
    }
    code = 0;
    for (Py_ssize_t at = 0; code == 0 && at < PyList_GET_SIZE(list); at++) {
        code = fl_write_queue_append(&self->write_queue,
                                     PyList_GET_ITEM(list, at), 0);
    }
    /* What was queued before memory ran out is sent all the same. */
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    return fl_error_keep_first(exc, end_write(self, &start), (PyObject *)self);
}

static PyObject *
writelines(FlStream *self, PyObject *lines)
{
    if (check_writable(self, "writelines") < 0) {
        return NULL;
    }
    PyObject *list = bytes_list(lines);
    if (list == NULL) {
        return NULL;
    }
    int code = 0;
    if (PyList_GET_SIZE(list) > 0) {
        Py_BEGIN_CRITICAL_SECTION(self);
        /* Again: the iterator may have called write_eof(). */
        code = check_writable(self, "writelines");
        if (code == 0) {
            code = fl_stream_check_lost(self);
        }
        if (code == 0) {
            code = write_list(self, list);
        }
        Py_END_CRITICAL_SECTION();
    }
    Py_DECREF(list);
    return fl_call_none(code == 0 ? fl_flow_check(self, true) : code);
}

/* --- the end of writing -------------------------------------------------- */

int
fl_stream_drained(FlStream *self)
{
    int code = 0;
    bool sent_all;
    /* Without a GIL another thread may be writing. */
    Py_BEGIN_CRITICAL_SECTION(self);
    sent_all = self->phase < FL_STREAM_LOST
               && fl_write_queue_is_empty(&self->write_queue);
    if (sent_all) {
        /* First, or the registration would still want it. */
        self->awaits_room = false;
        code = fl_stream_update_registration(self);
    }
    Py_END_CRITICAL_SECTION();
    if (!sent_all) {
        return 0;
    }
    if (code == 0 && self->empty_waiter != NULL
        && fl_stream_resolve_if_pending(self->loop, self->empty_waiter,
                                        self->state->names.set_result, Py_None)
               < 0)
    {
        return -1;
    }
    if (code == 0 && self->phase == FL_STREAM_CLOSING) {
        return fl_stream_call_connection_lost(self);
    }
    /* resume_writing may have called write_eof, which then sent it.  Without a
       GIL another thread may have written, and its bytes go first. */
    Py_BEGIN_CRITICAL_SECTION(self);
    if (code == 0 && self->eof_written && !self->eof_sent
        && self->phase == FL_STREAM_OPEN
        && fl_write_queue_is_empty(&self->write_queue))
    {
        code = shut_down_writing(self);
    }
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        write_failed(self, code);
    }
    return 0;
}

int
fl_stream_write_ready(FlStream *self)
{
    if (self->phase >= FL_STREAM_LOST) {
        return 0;
    }
    int code;
    bool resumes;
    Py_BEGIN_CRITICAL_SECTION(self); /* another thread may be writing */
    code = prepare_send(self);
    code = code > 0 ? drain_queue(self) : code;
    resumes = !self->kind->resumes_when_empty
              || fl_write_queue_is_empty(&self->write_queue);
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        write_failed(self, code);
        return 0;
    }
    if (resumes && fl_flow_check(self, false) < 0) {
        return -1;
    }
    /* resume_writing may have written, closed or aborted: check again. */
    fl_stream_flush_if_corked(self);
    return fl_stream_drained(self);
}

/* --- methods ------------------------------------------------------------- */

static PyObject *
write_eof(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    int code = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    fl_stream_flush_if_corked(self); /* may fail, and begin to close */
    if (!fl_stream_is_closing(self) && !self->eof_written) {
        /* fl_stream_drained sends it after the queue. */
        self->eof_written = true;
        if (fl_write_queue_is_empty(&self->write_queue)) {
            code = shut_down_writing(self);
        }
    }
    Py_END_CRITICAL_SECTION();
    return fl_call_none(code < 0 ? fl_raise_errno(code) : 0);
}

FL_ONE_ARGUMENT(FlStream, stream_write, "write", "data", fl_stream_write)
FL_ONE_ARGUMENT(FlStream, stream_writelines, "writelines", "list_of_data",
                writelines)

PyMethodDef fl_stream_methods[] = {
    FL_METHOD(
        "write", stream_write, FL_FASTCALL,
        "write($self, data)\n--\n\n"
        "Send a bytes, bytearray or memoryview object in order, without\n"
        "blocking.  The caller may change a mutable buffer afterwards.\n"
        "\n"
        "Raises TypeError for other types, RuntimeError after\n"
        "write_eof().  Implements asyncio's WriteTransport.write().\n"
        "The data may be sent later in the loop's iteration."),
    FL_METHOD("writelines", stream_writelines, FL_FASTCALL,
              "writelines($self, list_of_data)\n--\n\n"
              "Send an iterable of buffers with as few system calls as\n"
              "possible.  Implements asyncio's WriteTransport.writelines()."),
    /* Only the signature: help() then shows that of asyncio's class. */
    FL_METHOD("write_eof", write_eof, METH_NOARGS,
              "write_eof($self, /)\n--\n\n"),
    FL_METHOD("can_write_eof", fl_transport_true, METH_NOARGS,
              "can_write_eof($self, /)\n--\n\n"),
    {NULL, NULL, 0, NULL},
};
