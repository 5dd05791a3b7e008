/* The life of a byte going out: write, hold, send, wait for the kernel.

   The first write of a callback goes to the kernel at once, as asyncio's does.
   Later ones are corked: they stay in the queue and leave with one call when
   the callback returns.  Where the last callback that wrote to the connection
   did so several times (an HTTP header, then its body), the first one is
   corked too: that saves a system call a response.

   1. One connection of a loop corks at a time (loop->holder), and what it has
      corked is sent before anything else of the loop is: bytes leave in the
      order they were written, of several connections too.  What sends goes by
      fl_loop_expect_io; a way out to another loop, thread or process, and what
      sends in Python, by fl_loop_flush_corked_here.
   2. Writes are corked only inside a callback and by the thread that runs the
      loop, up to CORKED_BYTES or the high-water mark, whichever is less; not
      where others have the descriptor, for what they send passes no gate; and
      not by a child of the process that made the loop, which may end by
      os._exit.  While they are, the kernel has refused nothing: all of the
      queue is corked.
   3. Corked bytes count as sent: whoever ends or inspects the stream flushes
      first, and get_write_buffer_size does not count them.
   4. To flush is to send and no more: it calls no protocol and ends no stream.
      What an empty queue brings about is done by events (end_waiting).
   5. bytes are referenced, everything else is copied: the caller may change
      its buffer when write returns.

   What is corked waits for the callback.  A callback that writes several times
   to a connection and then blocks until another thread, another loop or
   another process has got those bytes waits for ever, where asyncio works,
   unless it gets there by a way out of invariant 1; so does one whose only
   write was corked because the callback before wrote several times.  One that
   goes on for long has its later writes late, and one that ends the process
   (os._exit, os.exec*, a signal) has them lost.

   Rejected; of uvicorn the CPU time of a request is meant, of httptools and of
   FastAPI:
   - To send the first write at once, always: +18 % and +10 %, for the body of
     each response is a second send.
   - To cork from the first write on, always: within noise of this, and it has
     a callback wait that wrote once, and loses what os._exit follows.
   - To cork until the iteration ends, as uvloop: bytes wait for strangers'
     callbacks, and each way out of an iteration must be guarded.
   - To cork nothing for a while after a callback of more than 1 ms: on a busy
     machine it was mostly so, with 958 sends in place of 208 for bursts of
     ten messages by websockets.
   - To flush where is_closing asks, as StreamWriter.drain does: websockets and
     aiohttp ask at each message, 2004 sends in place of 208. */
#include "transport/stream_write.h"

#include "base/list.h"
#include "core/fd_set.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/poller.h"
#include "core/registration.h"
#include "py/compat.h"
#include "py/errors.h"
#include "transport/flow.h"
#include "transport/messages.h"
#include "transport/stream.h"
#include "transport/stream_fd.h"
#include "transport/write_queue.h"

#include <errno.h>
#include <sys/uio.h>

/* Enough for any burst worth one call; well under the system's limit. */
#define MOST_VECTORS            64
/* Writes after a loss before asyncio begins to warn about them. */
#define QUIET_WRITES_AFTER_LOSS 5
/* The most that is corked. */
#define CORKED_BYTES            (64 * 1024)

/* --- the kernel ---------------------------------------------------------- */

/* Would-block counts as success with nothing sent. */
static int
sent_or_error(FlStream *self, ssize_t result, size_t *sent_bytes)
{
    if (result >= 0) {
        FL_METER(self->loop, bytes_out, (uint64_t)result);
        *sent_bytes = (size_t)result;
        return 0;
    }
    *sent_bytes = 0;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0
                                                                     : -errno;
}

static int
send_one(FlStream *self, const char *data, size_t size_bytes,
         size_t *sent_bytes)
{
    fl_loop_expect_io(self->loop);
    return sent_or_error(self, send(self->fd, data, size_bytes, FL_SEND_FLAGS),
                         sent_bytes);
}

/* One call either way; of a single vector send costs the kernel less. */
static int
send_vectors(FlStream *self, struct iovec *vectors, int count,
             size_t *sent_bytes)
{
    if (count == 1) {
        return send_one(self, vectors->iov_base, vectors->iov_len, sent_bytes);
    }
    struct msghdr message = {
        .msg_iov = vectors,
        .msg_iovlen = (size_t)count,
    };
    fl_loop_expect_io(self->loop);
    return sent_or_error(self, sendmsg(self->fd, &message, FL_SEND_FLAGS),
                         sent_bytes);
}

/* Send from the queue until it is empty or the kernel takes no more.  0 or a
   negative errno. */
static int
drain_queue(FlStream *self)
{
    FlWriteQueue *write_queue = &self->write_queue;
    int code = fl_stream_check_fd(self);
    while (code == 0 && !fl_write_queue_is_empty(write_queue)) {
        struct iovec vectors[MOST_VECTORS];
        int count = fl_write_queue_vectors(write_queue, vectors, MOST_VECTORS);
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
            break;
        }
    }
    return code;
}

/* A send failed: connection_lost is queued. */
static void
write_failed(FlStream *self, int code)
{
    PyObject *raised = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
    PyObject *exc = fl_errno_exception(code);
    if (exc == NULL) {
        exc = PyErr_GetRaisedException();
    }
    fl_stream_force_close(self, exc);
    Py_DECREF(exc);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

static int
shut_down_writing(FlStream *self)
{
    self->eof_sent = true;
    int code = fl_stream_check_fd(self);
    if (code < 0) {
        return code;
    }
    fl_loop_expect_io(self->loop);
    return shutdown(self->fd, SHUT_WR) < 0 ? -errno : 0;
}

/* What the kernel did not take waits for it. */
static void
wait_for_kernel(FlStream *self)
{
    int code = fl_stream_update_registration(self);
    if (code < 0) {
        write_failed(self, code);
    }
    else if (self->reg != NULL) {
        /* A poll that is on, for another thread writes, knows nothing yet. */
        fl_poller_wake_anythread(self->reg->poller);
    }
}

/* Send what is queued; what is left waits for the kernel. */
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

/* --- holding ------------------------------------------------------------- */

/* Note a write, and say whether it is to be corked.  Another thread's never
   is: asyncio's transports send it, and the loop may sleep, or the callback
   that runs may wait for that thread. */
static bool
should_cork(FlStream *self)
{
    FlLoop *loop = self->loop;
    if (!FL_HAVE_GIL || !loop->in_batch || self->exposed
        || (loop->off & FL_OFF_CORK))
    {
        return false;
    }
    if (self->write_dispatch == loop->dispatch) {
        self->wrote_again = true;
    }
    else {
        self->write_dispatch = loop->dispatch;
        self->corks_first = self->wrote_again;
        self->wrote_again = false;
    }
    return (self->wrote_again || self->corks_first)
           && fl_loop_of_thread(loop->state) == loop
           && !fl_loop_is_inherited(loop);
}

static bool
fits_cork(const FlStream *self, size_t size_bytes)
{
    uint64_t limit = CORKED_BYTES;
    if (self->high_water_bytes < limit) {
        limit = self->high_water_bytes;
    }
    return self->write_queue.size_bytes + size_bytes <= limit;
}

/* What is queued, all of it, waits for the callback's end. */
static void
hold(FlStream *self)
{
    FlLoop *loop = self->loop;
    if (!fl_stream_is_corked(self)) {
        FL_CHECK(loop->cork == NULL, "one stream holds at a time");
        FL_CHECK(self->phase < FL_STREAM_LOST, "it may still write");
        loop->cork = &self->cork;
    }
}

void
fl_stream_flush_corked(FlCork *cork)
{
    FlStream *self = FL_LIST_ENTRY(cork, FlStream, cork);
    if (fl_loop_is_inherited(self->loop)) {
        fl_write_queue_clear(&self->write_queue); /* the parent sends it */
    }
    else {
        send_queue(self);
    }
}

void
fl_stream_flush(FlStream *self)
{
    if (fl_stream_is_corked(self)) {
        fl_loop_flush_corked(self->loop);
    }
}

void
fl_stream_expose_fd(FlStream *self)
{
    if (self->loop != NULL && !fl_loop_on_other_thread(self->loop)) {
        fl_stream_flush(self);
    }
    self->exposed = true;
}

/* --- write --------------------------------------------------------------- */

/* Raise if nothing may be written now. */
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

int
fl_stream_drop_after_loss(FlStream *self)
{
    if (self->phase < FL_STREAM_LOST) {
        return 0;
    }
    /* asyncio counts the loss itself as the first. */
    if (++self->writes_after_loss >= QUIET_WRITES_AFTER_LOSS) {
        return fl_stream_warn_lost(self) < 0 ? -1 : 1;
    }
    return 1;
}

/* What is written: `bytes` is the exact bytes object, or NULL when the data is
   the caller's to change. */
typedef struct {
    const char *data;
    size_t size_bytes;
    PyObject *bytes;
} Payload;

/* Queue what was not sent.  0 or -1 with MemoryError. */
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

/* Before a write: send what is held and may not be held any longer, so that
   nothing is overtaken.  Whether something waits for the kernel then. */
static bool
make_way(FlStream *self, bool may_cork)
{
    FlLoop *loop = self->loop;
    if (fl_stream_is_corked(self) ? !may_cork : !fl_loop_on_other_thread(loop))
    {
        fl_loop_flush_corked(loop);
    }
    return !fl_stream_is_corked(self)
           && !fl_write_queue_is_empty(&self->write_queue);
}

static int
write_payload(FlStream *self, const Payload *payload)
{
    size_t size = payload->size_bytes, sent = 0;
    int code = size == 0 ? 1 : fl_stream_drop_after_loss(self);
    if (code != 0) {
        return code < 0 ? -1 : 0;
    }
    bool may_cork = should_cork(self) && fits_cork(self, size);
    bool waiting = make_way(self, may_cork);
    if (self->phase >= FL_STREAM_LOST) {
        return 0; /* what was held could not be sent */
    }
    if (!waiting && !may_cork) {
        code = fl_stream_check_fd(self);
        if (code == 0) {
            code = send_one(self, payload->data, size, &sent);
        }
        if (code < 0) {
            write_failed(self, code);
            return 0;
        }
        if (sent == size) {
            return 0;
        }
    }
    if (queue_payload(self, payload, sent) < 0) {
        return -1;
    }
    if (may_cork && !waiting) {
        hold(self);
    }
    else {
        wait_for_kernel(self);
    }
    return 0;
}

/* Exact bytes for any buffer: a new reference. */
static PyObject *
as_bytes(PyObject *data)
{
    Py_buffer view;
    if (PyBytes_CheckExact(data)) {
        return Py_NewRef(data);
    }
    if (!PyObject_CheckBuffer(data)) {
        PyErr_Format(
            PyExc_TypeError,
            "memoryview: a bytes-like object is required, not '%.200s'",
            Py_TYPE(data)->tp_name);
        return NULL;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_FULL_RO) < 0) {
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, view.len);
    if (bytes != NULL
        && PyBuffer_ToContiguous(PyBytes_AS_STRING(bytes), &view, view.len,
                                 'C')
               < 0)
    {
        Py_CLEAR(bytes);
    }
    PyBuffer_Release(&view);
    return bytes;
}

/* A buffer in one piece is sent from where it lies; what waits is copied. */
static int
write_buffer(FlStream *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_FULL_RO) < 0) {
        return -1;
    }
    Payload payload = {view.buf, (size_t)view.len, NULL};
    PyObject *copy = NULL;
    int code = 0;
    if (!PyBuffer_IsContiguous(&view, 'C')) {
        copy = as_bytes(data);
        if (copy == NULL) {
            code = -1;
        }
        else {
            payload.data = PyBytes_AS_STRING(copy);
            payload.bytes = copy;
        }
    }
    if (code == 0) {
        code = write_payload(self, &payload);
    }
    Py_XDECREF(copy);
    PyBuffer_Release(&view);
    return code;
}

static void
refuse(PyObject *data)
{
    PyObject *name = PyType_GetName(Py_TYPE(data));
    if (name != NULL) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a " FL_WRITABLE_TYPES
                     " object, not '%U'",
                     name);
        Py_DECREF(name);
    }
}

PyObject *
fl_stream_write(FlStream *self, PyObject *data)
{
    bool exact = PyBytes_CheckExact(data);
    if (!exact && !PyBytes_Check(data) && !PyByteArray_Check(data)
        && !PyMemoryView_Check(data))
    {
        refuse(data);
        return NULL;
    }
    if (check_writable(self, "write") < 0) {
        return NULL;
    }
    int code;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (exact) {
        Payload payload = {PyBytes_AS_STRING(data),
                           (size_t)PyBytes_GET_SIZE(data), data};
        code = write_payload(self, &payload);
    }
    else {
        code = write_buffer(self, data);
    }
    Py_END_CRITICAL_SECTION();
    /* Here, where the caller's buffer is not exported any more: the protocol
       may clear it. */
    if (code < 0 || fl_stream_maybe_pause(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

int
fl_stream_write_memory(FlStream *self, const char *data, size_t size_bytes)
{
    Payload payload = {data, size_bytes, NULL};
    return check_writable(self, "write") < 0
                   || write_payload(self, &payload) < 0
               ? -1
               : fl_stream_maybe_pause(self);
}

/* --- writelines ---------------------------------------------------------- */

/* The items as a new list of exact, non-empty bytes: all or nothing. */
static PyObject *
bytes_list(PyObject *lines)
{
    PyObject *iterator = PyObject_GetIter(lines);
    PyObject *list = iterator == NULL ? NULL : PyList_New(0);
    PyObject *item;
    while (list != NULL && (item = PyIter_Next(iterator)) != NULL) {
        PyObject *bytes = as_bytes(item);
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

/* Append all as one write; then let them go, unless they are corked. */
static int
write_list(FlStream *self, PyObject *list)
{
    bool may_cork = should_cork(self);
    bool waiting = make_way(self, may_cork);
    int code = 0;
    if (self->phase >= FL_STREAM_LOST) {
        return 0;
    }
    for (Py_ssize_t at = 0; code == 0 && at < PyList_GET_SIZE(list); at++) {
        code = fl_write_queue_append(&self->write_queue,
                                     PyList_GET_ITEM(list, at), 0);
    }
    if (waiting) {
        wait_for_kernel(self);
    }
    else if (may_cork && fits_cork(self, 0)) {
        hold(self);
    }
    else if (fl_stream_is_corked(self)) {
        fl_stream_flush(self);
    }
    else {
        send_queue(self);
    }
    return code;
}

PyObject *
fl_stream_writelines(FlStream *self, PyObject *lines)
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
        code = fl_stream_drop_after_loss(self);
        if (code == 0) {
            code = write_list(self, list);
        }
        Py_END_CRITICAL_SECTION();
        code = code == 0 ? fl_stream_maybe_pause(self) : code;
    }
    Py_DECREF(list);
    if (code < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- the end of writing -------------------------------------------------- */

/* 0 or a negative errno. */
static int
write_end(FlStream *self)
{
    if (fl_stream_is_closing(self) || self->eof_written) {
        return 0;
    }
    fl_stream_flush(self);
    if (fl_stream_is_closing(self)) {
        return 0; /* that failed */
    }
    self->eof_written = true;
    return fl_write_queue_is_empty(&self->write_queue)
               ? shut_down_writing(self)
               : 0;
}

PyObject *
fl_stream_write_eof(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    int code;
    Py_BEGIN_CRITICAL_SECTION(self);
    code = write_end(self);
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        (void)fl_raise_errno(code);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* All that waited was sent: watch for that no more, and do what waited. */
static int
end_waiting(FlStream *self)
{
    int code;
    Py_BEGIN_CRITICAL_SECTION(self);
    self->awaits_room = false;
    code = fl_stream_update_registration(self);
    Py_END_CRITICAL_SECTION();
    if (code == 0 && self->empty_waiter != NULL
        && fl_stream_set_if_pending(self, self->empty_waiter,
                                    self->state->names.set_result, Py_None)
               < 0)
    {
        return -1;
    }
    if (code == 0 && self->phase == FL_STREAM_CLOSING) {
        return fl_stream_call_connection_lost(self);
    }
    /* resume_writing may have sent it itself. */
    bool eof_waits = self->eof_written && !self->eof_sent;
    if (code == 0 && eof_waits && self->phase == FL_STREAM_OPEN) {
        code = shut_down_writing(self);
    }
    if (code < 0) {
        write_failed(self, code);
    }
    return 0;
}

static bool
has_sent_all(FlStream *self)
{
    bool sent;
    Py_BEGIN_CRITICAL_SECTION(self);
    sent = fl_write_queue_is_empty(&self->write_queue);
    Py_END_CRITICAL_SECTION();
    return sent;
}

int
fl_stream_write_ready(FlStream *self)
{
    if (self->phase >= FL_STREAM_LOST) {
        return 0;
    }
    if (has_sent_all(self)) {
        /* Still watched: sendfile waits for room, or resume_writing has left
           the loop by an exception. */
        return self->reg->wanted & FL_WRITABLE ? end_waiting(self) : 0;
    }
    int code;
    Py_BEGIN_CRITICAL_SECTION(self);
    code = drain_queue(self);
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        write_failed(self, code);
        return 0;
    }
    if (fl_stream_maybe_resume(self) < 0) {
        return -1;
    }
    /* resume_writing may have written, closed or aborted. */
    fl_stream_flush(self);
    return self->phase >= FL_STREAM_LOST || !has_sent_all(self)
               ? 0
               : end_waiting(self);
}
