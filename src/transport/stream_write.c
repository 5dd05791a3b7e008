/* The methods that write: see stream_write.h.

   bytes objects are referenced and all else is copied, because the caller may
   change its buffer once write returns.  stream_send.c corks and sends. */
#include "transport/stream_write.h"

#include "core/cork.h"
#include "core/loop.h"
#include "core/write_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/stream_send.h"

#include <errno.h>
#include <sys/uio.h>

#define WRONG_TYPE \
    "data argument must be a " FL_WRITABLE_TYPES " object, not '%U'"

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
        return fl_write_queue_append(&self->out.queue, payload->bytes,
                                     sent_bytes);
    }
    PyObject *copy = PyBytes_FromStringAndSize(payload->data + sent_bytes,
                                               (Py_ssize_t)(payload->size_bytes
                                                            - sent_bytes));
    if (copy == NULL) {
        return -1;
    }
    int code = fl_write_queue_append(&self->out.queue, copy, 0);
    Py_DECREF(copy);
    return code;
}

/* A write that is not corked, after begin_write. */
typedef struct {
    bool blocked; /* queue behind what the kernel refused */
    int failure;  /* of the fd or of a send: 0 or a negative errno */
} UncorkedWrite;

/* Begin such a write, as fl_stream_prepare_send, which may run Python, which may write, call write_eof(), ask for the socket
   or let the loop's thread end the stream.  FAILED as check_writable. */
static FlMaySend
begin_write(FlStream *self, const char *method, UncorkedWrite *start)
{
    start->failure = fl_stream_prepare_send(self);
    start->blocked = !fl_write_queue_is_empty(&self->out.queue);
    return check_writable(self, method) < 0 ? FL_FAILED
           : self->phase < FL_STREAM_LOST   ? FL_SEND
                                            : FL_DROP;
}

/* End it: send the queue, or wait.  0, or -1 with RuntimeError: it has failed
   or has left bytes, and the loop is closed, which would neither report nor
   send. */
static int
end_write(FlStream *self, const UncorkedWrite *start)
{
    if (start->blocked) {
        fl_stream_wait_for_kernel(self);
        return 0;
    }
    if (start->failure < 0) {
        fl_stream_fail(self, start->failure);
    }
    else {
        fl_stream_send_queue(self);
    }
    bool unsent = self->phase >= FL_STREAM_LOST
                  || !fl_write_queue_is_empty(&self->out.queue);
    return unsent ? fl_stream_check_loop(self) : 0;
}

/* Send a write at once, or queue it.  Returns as write_payload. */
static int
send_payload(FlStream *self, const Payload *payload)
{
    size_t size = payload->size_bytes, sent = 0;
    UncorkedWrite start;
    FlMaySend may = begin_write(self, "write", &start);
    if (may != FL_SEND) {
        return may;
    }
    if (!start.blocked && start.failure == 0) {
        struct iovec vector = {(char *)payload->data, size};
        start.failure = fl_stream_send_once(self, &vector, 1, &sent);
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

/* One write: drop it after a loss, cork it, send it, or queue it.  A send that
   fails queues connection_lost.  0, or -1 with MemoryError, what the warning
   about a lost connection raised, or as check_writable and end_write. */
static inline int
write_payload(FlStream *self, const Payload *payload)
{
    size_t size = payload->size_bytes;
    FlMaySend may = size == 0 ? FL_DROP : fl_stream_may_send(self);
    if (FL_UNLIKELY(may != FL_SEND)) {
        return may;
    }
    if (!fl_stream_may_cork(self, size)) {
        return send_payload(self, payload);
    }
    if (queue_payload(self, payload, 0) < 0) {
        return -1;
    }
    fl_cork_add(&self->loop->cork, &self->out);
    return 0;
}

static inline int
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
        PyObject *copy = fl_transport_as_bytes(data);
        if (copy != NULL) {
            code = write_bytes(self, copy);
            Py_DECREF(copy);
        }
    }
    PyBuffer_Release(&view);
    return code;
}

/* The other cases. */
FL_NOINLINE static PyObject *
write_object(FlStream *self, PyObject *data)
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

/* Whether a write of these bytes needs none of what write_object does. */
static inline bool
is_corked(FlStream *self, PyObject *data)
{
    return PyBytes_CheckExact(data) && PyBytes_GET_SIZE(data) > 0
           && self->phase < FL_STREAM_LOST && !self->eof_written
           && self->empty_waiter == NULL
           && fl_stream_may_cork(self, (size_t)PyBytes_GET_SIZE(data));
}

PyObject *
fl_stream_write(FlStream *self, PyObject *data)
{
    if (FL_UNLIKELY(!is_corked(self, data))) {
        return write_object(self, data);
    }
    if (fl_write_queue_append(&self->out.queue, data, 0) < 0) {
        return NULL;
    }
    fl_cork_add(&self->loop->cork, &self->out);
    Py_RETURN_NONE;
}

/* --- writelines ---------------------------------------------------------- */

/* Queue all items as one write, then cork or send the queue.  0, or -1 with
   MemoryError or as check_writable. */
static int
write_list(FlStream *self, PyObject *list)
{
    size_t size_bytes = 0;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(list); at++) {
        size_bytes += (size_t)PyBytes_GET_SIZE(PyList_GET_ITEM(list, at));
    }
    UncorkedWrite start = {false, 0};
    bool corks = fl_stream_may_cork(self, size_bytes);
    FlMaySend may = corks ? FL_SEND : begin_write(self, "writelines", &start);
    if (may != FL_SEND) {
        return may;
    }
    int code = fl_transport_queue_list(&self->out.queue, list);
    /* What was queued before memory ran out is sent all the same. */
    if (corks) {
        fl_cork_add(&self->loop->cork, &self->out);
        return code;
    }
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    return fl_error_keep_first(exc, end_write(self, &start), (PyObject *)self);
}

static PyObject *
writelines(FlStream *self, PyObject *lines)
{
    if (check_writable(self, "writelines") < 0) {
        return NULL;
    }
    PyObject *list = fl_transport_bytes_list(lines);
    if (list == NULL) {
        return NULL;
    }
    int code = 0;
    if (PyList_GET_SIZE(list) > 0) {
        Py_BEGIN_CRITICAL_SECTION(self);
        /* Again: the iterator may have called write_eof(). */
        FlMaySend may = check_writable(self, "writelines") < 0
                            ? FL_FAILED
                            : fl_stream_may_send(self);
        code = may == FL_SEND ? write_list(self, list) : (int)may;
        Py_END_CRITICAL_SECTION();
    }
    Py_DECREF(list);
    return fl_call_none(code == 0 ? fl_flow_check(self, true) : code);
}

/* --- the end of writing -------------------------------------------------- */

/* Send EOF.  0 or a negative errno. */
static int
shut_down_writing(FlStream *self)
{
    self->eof_sent = true;
    int code = fl_stream_prepare_send(self);
    return code < 0 || self->phase >= FL_STREAM_LOST ? code
           : shutdown(self->fd, SHUT_WR) < 0         ? -errno
                                                     : 0;
}

int
fl_stream_drained(FlStream *self)
{
    int code = 0;
    bool sent_all;
    /* Without a GIL another thread may be writing. */
    Py_BEGIN_CRITICAL_SECTION(self);
    sent_all = self->phase < FL_STREAM_LOST
               && fl_write_queue_is_empty(&self->out.queue);
    if (sent_all) {
        /* First, or the registration would still want it. */
        self->waits_for_writable = false;
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
    /* resume_writing may have called write_eof, which then sent it.  Without a
       GIL another thread may have written, and its bytes go first. */
    Py_BEGIN_CRITICAL_SECTION(self);
    if (code == 0 && fl_write_queue_is_empty(&self->out.queue)) {
        if (self->phase == FL_STREAM_CLOSING) {
            fl_stream_force_close(self, NULL);
        }
        else if (self->eof_written && !self->eof_sent
                 && self->phase == FL_STREAM_OPEN) {
            code = shut_down_writing(self);
        }
    }
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        fl_stream_fail(self, code);
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
    Py_BEGIN_CRITICAL_SECTION(self); /* another thread may be writing */
    code = fl_stream_prepare_send(self);
    code = code == 0 ? fl_stream_drain_queue(self) : code;
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        fl_stream_fail(self, code);
        return 0;
    }
    if (fl_flow_check(self, false) < 0) {
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
        if (fl_write_queue_is_empty(&self->out.queue)) {
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
