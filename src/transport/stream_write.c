/* The methods that write: see stream_write.h.

   bytes objects are referenced and all else is copied, because the caller may
   change its buffer once write returns.  stream_send.c corks and sends.

   Rejected: sending other buffers in place, and copying what the kernel does
   not accept.  On a busy loop most are corked, and so copied; a quiet one
   writes little. */
#include "transport/stream_write.h"

#include "core/loop.h"
#include "core/write_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/stream_send.h"

#include <errno.h>

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

/* A write that is not corked, after begin_write. */
typedef struct {
    bool blocked; /* queue behind what the kernel refused */
    int failure;  /* of the fd or of a send: 0 or a negative errno */
} UncorkedWrite;

/* Begin such a write.  fl_stream_prepare_send may run Python, which may write,
   call write_eof(), ask for the socket or let the loop's thread end the
   stream.  FAILED as check_writable. */
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

/* Queue bytes objects, none of them empty, as one write; then cork or send the
   queue.  A send that fails queues connection_lost.  0, or -1 with
   MemoryError, what the warning about a lost connection raised, or as
   check_writable and end_write. */
static int
write_items(FlStream *self, const char *method, PyObject *const *items,
            Py_ssize_t count)
{
    FlWriteQueue *queue = &self->out.queue;
    size_t size_bytes = 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        size_bytes += (size_t)PyBytes_GET_SIZE(items[at]);
    }
    FlMaySend may = size_bytes == 0 ? FL_DROP : fl_stream_may_send(self);
    bool corks = may == FL_SEND && fl_stream_may_cork(self, size_bytes);
    UncorkedWrite start = {false, 0};
    if (may == FL_SEND && !corks) {
        may = begin_write(self, method, &start);
    }
    if (may != FL_SEND) {
        return may;
    }
    int code = 0;
    Py_ssize_t at = 0;
    while (code == 0 && at < count) {
        code = fl_write_queue_append(queue, items[at++]);
    }
    if (code < 0) { /* all items or none */
        fl_write_queue_drop_last(queue, (unsigned)at - 1);
    }
    if (corks) {
        if (code == 0) {
            fl_stream_cork(self);
        }
        return code;
    }
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    return fl_error_keep_first(exc, end_write(self, &start), (PyObject *)self);
}

/* The cases that fl_stream_write does not handle itself. */
FL_NOINLINE static PyObject *
write_object(FlStream *self, PyObject *data)
{
    if ((!PyBytes_CheckExact(data)
         && fl_transport_check_data(data, WRONG_TYPE) < 0)
        || check_writable(self, "write") < 0)
    {
        return NULL;
    }
    PyObject *bytes = PyBytes_FromObject(data);
    if (bytes == NULL) {
        return NULL;
    }
    int code;
    Py_BEGIN_CRITICAL_SECTION(self);
    code = write_items(self, "write", &bytes, 1);
    Py_END_CRITICAL_SECTION();
    Py_DECREF(bytes);
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
    if (fl_write_queue_append(&self->out.queue, data) < 0) {
        return NULL;
    }
    fl_stream_cork(self);
    Py_RETURN_NONE;
}

/* --- writelines ---------------------------------------------------------- */

/* The items of writelines() as a new list of exact, non-empty bytes objects;
   NULL with an exception, and then nothing is to be written. */
static PyObject *
bytes_list(PyObject *lines)
{
    PyObject *iterator = PyObject_GetIter(lines);
    PyObject *list = iterator == NULL ? NULL : PyList_New(0);
    PyObject *item;
    while (list != NULL && (item = PyIter_Next(iterator)) != NULL) {
        PyObject *bytes =
            PyObject_CheckBuffer(item)
                ? PyBytes_FromObject(item)
                : PyErr_Format(PyExc_TypeError,
                               "memoryview: a bytes-like object is required, "
                               "not '%.200s'",
                               Py_TYPE(item)->tp_name);
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
            code = write_items(self, "writelines", PySequence_Fast_ITEMS(list),
                               PyList_GET_SIZE(list));
        }
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

/* Let nothing be written, for sendfile, until None is given.  The future is
   resolved once the queue is sent and the kernel has room.  True only asks
   whether something must be sent before. */
static PyObject *
block_writes(FlStream *self, PyObject *waiter)
{
    bool blocks = waiter != Py_None;
    if (blocks && check_writable(self, "sendfile") < 0) {
        return NULL;
    }
    if (blocks && self->loop == NULL) {
        return PyErr_Format(PyExc_ConnectionError, FL_STREAM_CLOSED_TEXT);
    }
    fl_stream_flush_if_corked(self); /* corked bytes leave before the file's */
    if (waiter == Py_True) {
        return PyBool_FromLong(!fl_write_queue_is_empty(&self->out.queue));
    }
    fl_field_set(self, &self->empty_waiter, blocks ? waiter : NULL);
    int code;
    Py_BEGIN_CRITICAL_SECTION(self); /* another thread may be writing */
    self->waits_for_writable = blocks;
    code = fl_stream_update_registration(self);
    self->waits_for_writable = blocks && code == 0;
    Py_END_CRITICAL_SECTION();
    if (code < 0) { /* writes go on */
        fl_field_set(self, &self->empty_waiter, NULL);
    }
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
    FL_METHOD("_block_writes", block_writes, METH_O,
              "_block_writes($self, waiter, /)\n--\n\n"),
    {NULL, NULL, 0, NULL},
};
