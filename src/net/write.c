/* The life of a byte going out: write, hold, send, wait for the kernel.

   The first write of a callback goes to the kernel at once, as asyncio's does.
   Later writes of the same callback are held in the queue and leave with one
   call when the callback returns.  A connection whose last callbacks each
   wrote several times (an HTTP header, then its body), or wrote from a task's
   step, has its first write held too: that saves a system call a response.
   What is small of such a one leaves when the turn ends: the answers of many
   tasks go out together, and a peer is woken once for all of them instead of
   once for each.

   1. Writes are held only inside a turn and by the thread that makes it, up to
      FL_HELD_BYTES or the high-water mark, whichever is less; `flush` is
      linked exactly while something is held, and then the kernel has refused
      nothing: all of the queue is held.  More than FL_TURN_BYTES leave with
      the callback, while the caches still have them.
   2. Held bytes count as sent: whoever ends or inspects the stream flushes
      first, and get_write_buffer_size does not count them.
   3. bytes are referenced, everything else is copied: the caller may change
      its buffer when write returns. */
#include "net/stream.h"

#include "py/errors.h"

#include <errno.h>
#include <sys/uio.h>

/* Enough for any burst worth one call; well under the system's limit. */
#define MOST_VECTORS            64
/* Writes after a loss before asyncio begins to warn about them. */
#define QUIET_WRITES_AFTER_LOSS 5
/* Callbacks in a row that gain by it, to have the first write held. */
#define HABIT                   2

#ifdef MSG_NOSIGNAL
#define SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)
#else
#define SEND_FLAGS MSG_DONTWAIT
#endif

#define WRITE_FAILED "Fatal write error on socket transport"

/* --- the kernel ---------------------------------------------------------- */

/* Would-block counts as success with nothing sent. */
static int
sent_or_error(ssize_t result, size_t *sent_bytes)
{
    if (result >= 0) {
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
    int code = fl_stream_check_number(self);
    if (code < 0) {
        return code;
    }
    fl_loop_expect_io(self->loop);
    return sent_or_error(send(self->fd, data, size_bytes, SEND_FLAGS),
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
    int code = fl_stream_check_number(self);
    if (code < 0) {
        return code;
    }
    fl_loop_expect_io(self->loop);
    return sent_or_error(sendmsg(self->fd, &message, SEND_FLAGS), sent_bytes);
}

/* Send from the queue until it is empty or the kernel takes no more.  0 or a
   negative errno. */
static int
send_chunks(FlStream *self)
{
    FlChunks *chunks = &self->chunks;
    while (!fl_chunks_is_empty(chunks)) {
        struct iovec vectors[MOST_VECTORS];
        int count = fl_chunks_vectors(chunks, vectors, MOST_VECTORS);
        size_t offered = 0, sent;
        for (int at = 0; at < count; at++) {
            offered += vectors[at].iov_len;
        }
        int code = send_vectors(self, vectors, count, &sent);
        if (code < 0) {
            return code;
        }
        fl_chunks_consume(chunks, sent);
        if (sent < offered) {
            break;
        }
    }
    return 0;
}

/* The stream is to be closed for an error of send. */
static int
write_failed(FlStream *self, int code)
{
    fl_list_remove(&self->flush.link);
    fl_chunks_clear(&self->chunks);
    return fl_stream_fatal_errno(self, code, WRITE_FAILED);
}

static int
shut_down_writing(FlStream *self)
{
    self->eof_sent = true;
    int code = fl_stream_check_number(self);
    if (code < 0) {
        return code;
    }
    fl_loop_expect_io(self->loop);
    return shutdown(self->fd, SHUT_WR) < 0 ? -errno : 0;
}

/* --- holding ------------------------------------------------------------- */

static bool
is_holding(const FlStream *self)
{
    return !fl_list_is_empty(&self->flush.link);
}

/* Note a write, and say whether it is to be held: by the loop's own thread
   alone.  A program may get away with another one on asyncio's transports, and
   then the loop may sleep, or a callback may wait for that thread. */
static bool
should_hold(FlStream *self)
{
    FlLoop *loop = self->loop;
    if (!loop->in_turn || (loop->off & FL_OFF_HOLD_WRITES)) {
        return false; /* nothing comes that would send it */
    }
    if (self->write_dispatch == loop->dispatch) {
        self->wrote_again = true;
        return fl_loop_is_here(loop);
    }
    if (!self->wrote_again) {
        self->write_habit = 0;
    }
    else if (self->write_habit < HABIT) {
        self->write_habit++;
    }
    self->wrote_again = fl_loop_in_step(loop);
    self->write_dispatch = loop->dispatch;
    return self->write_habit >= HABIT && fl_loop_is_here(loop);
}

static bool
fits_held(const FlStream *self, size_t size_bytes)
{
    size_t limit = FL_HELD_BYTES;
    if (self->high_water_bytes < limit) {
        limit = self->high_water_bytes;
    }
    return self->chunks.size_bytes + size_bytes <= limit;
}

static bool
may_wait_for_turn(const FlStream *self)
{
    return self->write_habit >= HABIT
           && self->chunks.size_bytes <= FL_TURN_BYTES;
}

static void
hold(FlStream *self)
{
    FlLoop *loop = self->loop;
    if (!may_wait_for_turn(self)) {
        fl_list_remove(&self->flush.link);
        fl_list_append(&loop->deferred, &self->flush.link);
    }
    else if (!is_holding(self)) {
        fl_loop_put_off_to_turn(loop, &self->flush);
    }
}

/* What the kernel did not take waits for it. */
static int
wait_for_kernel(FlStream *self)
{
    int code = fl_stream_update_watch(self);
    if (code < 0) {
        return write_failed(self, code);
    }
    if (self->watch != NULL) {
        /* A poll that is on, for another thread writes, knows nothing yet. */
        fl_poller_wake_anythread(self->watch->poller);
    }
    return 0;
}

/* Everything was sent: watch for that no more, and do what waited for it. */
static int
drained(FlStream *self)
{
    self->awaits_room = false;
    int code = fl_stream_update_watch(self);
    if (code < 0) {
        return write_failed(self, code);
    }
    if (self->empty_waiter != NULL
        && fl_stream_settle(self, self->empty_waiter,
                            self->state->names.set_result, Py_None)
               < 0)
    {
        return -1;
    }
    return self->phase == FL_STREAM_CLOSING ? fl_stream_lose_now(self) : 0;
}

/* Send what is held; the caller sees to it that the protocol is paused. */
static int
send_held(FlStream *self)
{
    fl_list_remove(&self->flush.link);
    int code = send_chunks(self);
    if (code < 0) {
        return write_failed(self, code);
    }
    return fl_chunks_is_empty(&self->chunks) ? drained(self)
                                             : wait_for_kernel(self);
}

int
fl_stream_flush(FlStream *self)
{
    if (!is_holding(self)) {
        return 0;
    }
    return send_held(self) < 0 ? -1 : fl_stream_maybe_pause(self);
}

int
fl_stream_run_flush(FlDeferred *deferred)
{
    FlStream *self = FL_LIST_ENTRY(&deferred->link, FlStream, flush.link);
    Py_INCREF(self);
    /* It was unlinked to be run; flush knows held bytes by the link. */
    fl_list_append(&self->loop->deferred, &self->flush.link);
    int code = fl_stream_flush(self);
    Py_DECREF(self);
    return code;
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

/* Queue what was not sent, and either hold it or wait for the kernel. */
static int
queue_payload(FlStream *self, const Payload *payload, size_t sent_bytes,
              bool held)
{
    int code;
    if (payload->bytes != NULL) {
        code = fl_chunks_append(&self->chunks, payload->bytes, sent_bytes);
    }
    else {
        PyObject *copy = PyBytes_FromStringAndSize(
            payload->data + sent_bytes,
            (Py_ssize_t)(payload->size_bytes - sent_bytes));
        code = copy == NULL ? -1 : fl_chunks_append(&self->chunks, copy, 0);
        Py_XDECREF(copy);
    }
    if (code < 0) {
        return -1;
    }
    if (held) {
        hold(self);
        return 0;
    }
    return wait_for_kernel(self);
}

static int
write_payload(FlStream *self, const Payload *payload)
{
    size_t size = payload->size_bytes;
    int code = size == 0 ? 1 : fl_stream_drop_after_loss(self);
    if (code != 0) {
        return code < 0 ? -1 : 0;
    }
    /* What another callback of this turn wrote may be held still: nothing
       goes past it. */
    bool held =
        should_hold(self) || (is_holding(self) && fl_loop_is_here(self->loop));
    if (is_holding(self) && !(held && fits_held(self, size))
        && send_held(self) < 0)
    {
        return -1;
    }
    if (self->phase >= FL_STREAM_LOST) {
        return 0; /* that failed */
    }
    bool waiting = !is_holding(self) && !fl_chunks_is_empty(&self->chunks);
    if (waiting || (held && fits_held(self, size))) {
        return queue_payload(self, payload, 0, !waiting);
    }
    size_t sent = 0;
    code = send_one(self, payload->data, size, &sent);
    if (code < 0) {
        return write_failed(self, code);
    }
    return sent == size ? 0 : queue_payload(self, payload, sent, false);
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
    if (exact) {
        Payload payload = {PyBytes_AS_STRING(data),
                           (size_t)PyBytes_GET_SIZE(data), data};
        code = write_payload(self, &payload);
    }
    else {
        code = write_buffer(self, data);
    }
    /* Here, where the caller's buffer is not exported any more: the protocol
       may clear it. */
    if (code < 0 || fl_stream_maybe_pause(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
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

/* Append all and hold them as one write; then let them go, unless the
   callback's habit says to wait for its end. */
static int
write_list(FlStream *self, PyObject *list)
{
    bool held = should_hold(self);
    bool waiting = !is_holding(self) && !fl_chunks_is_empty(&self->chunks);
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(list); at++) {
        if (fl_chunks_append(&self->chunks, PyList_GET_ITEM(list, at), 0) < 0)
        {
            return -1;
        }
        if (!waiting) {
            hold(self);
        }
    }
    if (waiting) {
        return wait_for_kernel(self) < 0 ? -1 : fl_stream_maybe_pause(self);
    }
    return held && fits_held(self, 0) ? 0 : fl_stream_flush(self);
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
        code = fl_stream_drop_after_loss(self);
        if (code == 0) {
            code = write_list(self, list);
        }
    }
    Py_DECREF(list);
    if (code < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- the end of writing -------------------------------------------------- */

PyObject *
fl_stream_write_eof(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    if (fl_stream_is_closing(self) || self->eof_written) {
        Py_RETURN_NONE;
    }
    if (fl_stream_flush(self) < 0) {
        return NULL;
    }
    if (fl_stream_is_closing(self)) {
        Py_RETURN_NONE;
    }
    self->eof_written = true;
    int code = 0;
    if (fl_chunks_is_empty(&self->chunks)) {
        code = shut_down_writing(self);
    }
    if (code < 0) {
        (void)fl_raise_errno(code);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* All that waited was sent: what was to follow it. */
static int
end_waiting(FlStream *self)
{
    if (drained(self) < 0) {
        return -1;
    }
    /* resume_writing may have sent it itself. */
    bool eof_waits = self->eof_written && !self->eof_sent;
    if (!eof_waits || self->phase != FL_STREAM_OPEN) {
        return 0;
    }
    int code = shut_down_writing(self);
    return code < 0 ? write_failed(self, code) : 0;
}

int
fl_stream_write_ready(FlStream *self)
{
    if (self->phase >= FL_STREAM_LOST || is_holding(self)) {
        return 0;
    }
    if (fl_chunks_is_empty(&self->chunks)) {
        /* Still watched: sendfile waits for room, or resume_writing has left
           the loop by an exception. */
        return self->watch->wanted & FL_WRITABLE ? end_waiting(self) : 0;
    }
    int code = send_chunks(self);
    if (code < 0) {
        return write_failed(self, code);
    }
    if (fl_stream_maybe_resume(self) < 0) {
        return -1;
    }
    /* resume_writing may have written, held, closed or aborted. */
    if (self->phase >= FL_STREAM_LOST || !fl_chunks_is_empty(&self->chunks)) {
        return 0;
    }
    return end_waiting(self);
}
