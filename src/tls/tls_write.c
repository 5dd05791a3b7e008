/* Writing: from plain bytes to records to the raw transport.

   1. Data is encrypted when it is written, as in asyncio, but at most
      AHEAD_BYTES ahead of the raw transport: the rest waits in the backlog, as
      references to the bytes objects, until that resumes writing.  So bulk is
      encrypted in the CPU's cache, at the pace of the peer, and in memory that
      is used again.  The backlog also holds data that cannot be encrypted yet:
      written before the end of the handshake, during a renegotiation or during
      another engine call.
      Flow control stays asyncio's, which passes all that is written before the
      raw transport pauses to it at once: those bytes of the backlog count as
      passed, and not as buffered.
   2. Bytes leave in the order in which their write calls began, even if one
      write begins inside another (connection.h, "No nested engine calls").
      The rest of the outer write goes to the front of the backlog, before what
      the inner one has appended. */
#include "tls/tls_write.h"

#include "core/write_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "tls/connection.h"
#include "tls/engine.h"
#include "transport/stream.h"
#include "transport/stream_write.h"
#include "transport/transport.h"

#include <sys/socket.h>
#include <sys/uio.h>

/* The most plain bytes that are encrypted at once, and the records that are
   made while the raw transport takes none. */
#define AHEAD_BYTES              ((size_t)256 * 1024)
/* After so many the GIL is offered, if that is due. */
#define OFFER_BYTES              (8 * 1024)
/* asyncio logs a warning for writes after the loss beyond these. */
#define SILENT_WRITES_AFTER_LOSS 5

/* --- flow control -------------------------------------------------------- */

size_t
fl_tls_write_buffer_bytes(const FlTls *self)
{
    return self->backlog.size_bytes - self->passed_bytes
           + self->engine.type->outgoing(&self->engine);
}

int
fl_tls_control_writing(FlTls *self)
{
    FlTlsTransport *transport = self->transport;
    if (transport == NULL) {
        return 0; /* the connection is lost */
    }
    bool paused = transport->protocol_paused, pauses = paused;
    size_t size = fl_tls_write_buffer_bytes(self);
    if (size <= transport->low_water_bytes) {
        /* A protocol that was paused before start_tls() must not resume before
           that returns: it would write plain text to the raw transport. */
        pauses =
            paused
            && (self->phase <= FL_TLS_HANDSHAKE || fl_tls_holds_data(self));
    }
    else if (size >= transport->high_water_bytes) {
        /* Not reached with marks of 0 and an empty buffer: asyncio pauses
           then, and the check that would resume may never come. */
        pauses = true;
    }
    if (pauses == paused) {
        return 0;
    }
    transport->protocol_paused = pauses;
    return fl_transport_call_flow(
        (FlTransport *)transport,
        fl_protocol_get(self, &self->protocol).object, pauses);
}

/* --- to the raw transport ------------------------------------------------ */

static int
write_raw(FlTls *self, PyObject *bytes)
{
    PyObject *raw = Py_XNewRef(self->raw);
    if (raw == NULL) {
        return 0; /* Python in `take` ended the connection */
    }
    int code = Py_IS_TYPE(raw, self->state->stream_type)
                   ? fl_call_done(fl_stream_write((FlStream *)raw, bytes))
                   : fl_call_method(raw, self->state->names.write, bytes);
    Py_DECREF(raw);
    return code;
}

/* Checked again for each output: the last write may have paused or closed.
   While an engine call runs, also in another thread, its caller sends. */
static bool
can_send(const FlTls *self)
{
    return self->raw != NULL && self->phase != FL_TLS_UNWRAPPED
           && !self->writing_paused
           && self->engine.type->outgoing(&self->engine) > 0
           && !self->engine_busy;
}

/* A loop: the raw transport's write() may call back and make records. */
static int
send_records(FlTls *self)
{
    FlTlsEngine *engine = &self->engine;
    int code = 0;
    FL_CHECK(!self->sending, "the outer call sends");
    self->sending = true;
    while (code == 0 && can_send(self)) {
        PyObject *bytes = engine->type->take(engine);
        code = bytes == NULL ? -1 : write_raw(self, bytes);
        Py_XDECREF(bytes);
    }
    self->sending = false;
    return code;
}

int
fl_tls_send(FlTls *self)
{
    if (self->sending || self->raw == NULL || self->phase >= FL_TLS_FAILED) {
        return 0;
    }
    return send_records(self) < 0 ? -1 : fl_tls_control_writing(self);
}

/* --- errors -------------------------------------------------------------- */

int
fl_tls_call(FlTls *self, PyObject *function, PyObject *first, PyObject *second)
{
    return fl_call_done(PyObject_CallMethodObjArgs(
        self->state->tls, function, (PyObject *)self, first, second, NULL));
}

void
fl_tls_set_unwrapped(FlTls *self)
{
    if (self->raw != NULL && self->phase != FL_TLS_HANDSHAKE) {
        fl_tls_set_phase(self, FL_TLS_UNWRAPPED);
    }
}

/* The raw transport answers with connection_lost, in a later iteration if it
   is ours; from here on nothing is delivered or sent. */
int
fl_tls_abort(FlTls *self, PyObject *exc)
{
    FlNames *names = &self->state->names;
    if (self->raw == NULL) {
        return 0;
    }
    fl_tls_set_phase(self, FL_TLS_UNWRAPPED);
    return fl_call_method(self->raw,
                          exc == NULL ? names->abort : names->_force_close,
                          exc);
}

void
fl_tls_fail(FlTls *self)
{
    if (self->raw == NULL || self->phase >= FL_TLS_FAILED
        || !PyErr_ExceptionMatches(self->state->tls_error))
    {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    fl_tls_set_phase(self, FL_TLS_FAILED);
    Py_XSETREF(self->failure, Py_NewRef(exc));
    PyErr_SetRaisedException(exc);
}

/* Drop what the socket has received, at most as much as asyncio reads at once.
   The kernel resets a connection that is closed with unread bytes, and the
   peer may then not get the alert. */
FL_NOINLINE static void
drop_unread(FlTls *self)
{
    char memory[FL_TLS_RECORD_BYTES];
    FlStream *raw = (FlStream *)Py_XNewRef(self->raw);
    int reads = raw != NULL && Py_IS_TYPE(raw, self->state->stream_type)
                    ? 256 * 1024 / FL_TLS_RECORD_BYTES
                    : 0;
    while (reads-- > 0 && fl_stream_check_fd(raw) == 0
           && recv(raw->fd, memory, sizeof(memory), MSG_DONTWAIT) > 0)
    {
    }
    Py_XDECREF(raw);
}

/* Send the alert of a FAILED connection, which ends with `exc`.  Returns the
   exception that ends the run, a new reference, or NULL.  The protocol is
   not resumed if its buffer becomes empty. */
static PyObject *
send_alert(FlTls *self, PyObject *exc)
{
    Py_XSETREF(self->failure, Py_NewRef(exc));
    drop_unread(self);
    if (self->sending || send_records(self) == 0) {
        return NULL;
    }
    if (fl_exception_ends_run()) {
        return PyErr_GetRaisedException();
    }
    if (PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear(); /* no alert leaves: `exc` says why it ended */
    }
    else {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    return NULL;
}

int
fl_tls_end(FlTls *self, PyObject *function, const char *message)
{
    fl_tls_fail(self);
    PyObject *exc = PyErr_GetRaisedException();
    bool failed = self->phase == FL_TLS_FAILED;
    PyObject *leaving = failed ? send_alert(self, exc) : NULL;
    if (failed && self->phase != FL_TLS_FAILED) {
        Py_DECREF(exc); /* the raw transport's write() has ended it */
        return fl_error_keep_first(leaving, 0, (PyObject *)self);
    }
    fl_tls_set_unwrapped(self);
    PyObject *text = PyUnicode_FromString(message);
    PyObject *outer = fl_error_begin_handling(exc);
    int code = text == NULL ? -1 : fl_tls_call(self, function, exc, text);
    fl_error_end_handling(outer);
    Py_XDECREF(text);
    if (code < 0) { /* it may not have closed the raw transport */
        PyObject *raised = PyErr_GetRaisedException();
        code = fl_error_keep_first(raised, fl_tls_abort(self, exc),
                                   (PyObject *)self);
    }
    Py_DECREF(exc);
    return fl_error_keep_first(leaving, code, (PyObject *)self);
}

int
fl_tls_fatal(FlTls *self, const char *message)
{
    return fl_exception_ends_run()
               ? -1
               : fl_tls_end(self, self->state->names.fatal, message);
}

/* --- to records ---------------------------------------------------------- */

/* Encrypt; *taken_bytes of the data are records then, fewer than all if the
   peer must send first.  0, or -1 with an exception. */
static int
encrypt_bytes(FlTls *self, const char *data, size_t size_bytes,
              size_t *taken_bytes)
{
    FlTlsEngine *engine = &self->engine;
    *taken_bytes = 0;
    FL_CHECK(!self->engine_busy, "no nested engine calls");
    self->engine_busy = true;
    FlTlsResult result = FL_TLS_DONE;
    while (result == FL_TLS_DONE && *taken_bytes < size_bytes) {
        size_t taken, rest = size_bytes - *taken_bytes;
        result =
            engine->type->write(engine, data + *taken_bytes, rest, &taken);
        *taken_bytes += taken;
        if (FL_HAVE_GIL && FL_UNLIKELY(taken >= OFFER_BYTES)) {
            fl_gil_offer(&self->loop->gil);
        }
    }
    self->engine_busy = false;
    if (result == FL_TLS_END) {
        PyErr_SetString(self->state->tls_error, "TLS is shut down");
        result = FL_TLS_RAISED;
    }
    return result == FL_TLS_RAISED ? -1 : 0;
}

/* Whether the backlog may be encrypted: invariant 1.  At the end of the
   connection all of it is. */
static bool
may_encrypt(const FlTls *self)
{
    bool ends = self->phase == FL_TLS_FLUSHING;
    return (self->phase == FL_TLS_WRAPPED || ends)
           && !self->engine_busy /* else the outer call does it */
           && (ends || !self->writing_paused
               || (self->passed_bytes == 0
                   && self->engine.type->outgoing(&self->engine)
                          < AHEAD_BYTES));
}

/* Encrypt the head of the backlog, or a part of it.  1, 0 if the peer must
   send first, or -1 with an exception. */
static int
encrypt_head(FlTls *self)
{
    FlWriteQueue *backlog = &self->backlog;
    struct iovec data = {NULL, 0}; /* if it were empty */
    (void)fl_write_queue_fill_iovec(backlog, &data, 1);
    /* Owned: encrypt may run Python, which may end the connection and so clear
       the backlog. */
    PyObject *head = Py_NewRef(fl_write_queue_head(backlog));
    size_t size = Py_MIN(data.iov_len, AHEAD_BYTES), taken;
    int code = encrypt_bytes(self, data.iov_base, size, &taken);
    /* Another head: the backlog was cleared (nested writes append). */
    if (fl_write_queue_head(backlog) == head) {
        fl_write_queue_consume(backlog, taken);
        self->passed_bytes -= Py_MIN(self->passed_bytes, taken);
    }
    Py_DECREF(head);
    /* If not all was taken, the next read tries again. */
    return code < 0 ? -1 : taken == size;
}

int
fl_tls_write_backlog(FlTls *self)
{
    if (FL_LIKELY(fl_write_queue_is_empty(&self->backlog))) {
        return fl_tls_send(self);
    }
    if (!self->writing_paused && self->passed_bytes == 0) {
        self->passed_bytes = self->backlog.size_bytes;
    }
    PyObject *exc = NULL;
    int more = 1;
    while (more > 0) {
        /* This may call the protocol, which may write: then the nested call
           has sent the backlog.  What ends the run waits, as nothing else
           would continue here. */
        if (self->engine.type->outgoing(&self->engine) >= AHEAD_BYTES
            && fl_tls_send(self) < 0)
        {
            if (exc != NULL || !fl_exception_ends_run()) {
                more = -1;
                break;
            }
            exc = PyErr_GetRaisedException();
        }
        more = !fl_write_queue_is_empty(&self->backlog) && may_encrypt(self)
                   ? encrypt_head(self)
                   : 0;
    }
    if (!self->writing_paused) {
        self->passed_bytes = 0; /* the rest waits for the peer to send */
    }
    return fl_error_keep_first(exc, more < 0 ? -1 : fl_tls_send(self),
                               (PyObject *)self);
}

/* Encrypt the data, or as much as the peer allows, and queue the rest.  If an
   outer write is encrypting or queued, all of it is queued behind
   (invariant 2). */
static int
tls_write_bytes(FlTls *self, PyObject *bytes)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes), taken = 0;
    bool encrypt_now = self->phase == FL_TLS_WRAPPED
                       && fl_write_queue_is_empty(&self->backlog)
                       && size <= AHEAD_BYTES && may_encrypt(self);
    PyObject *exc = NULL;
    if (encrypt_now
        && encrypt_bytes(self, PyBytes_AS_STRING(bytes), size, &taken) < 0)
    {
        exc = PyErr_GetRaisedException();
    }
    int code = 0;
    /* encrypt may have run Python that ended the connection. */
    if (taken < size && self->phase < FL_TLS_UNWRAPPED) {
        code = encrypt_now
                   ? fl_write_queue_prepend(&self->backlog, bytes, taken)
                   : fl_write_queue_append(&self->backlog, bytes);
    }
    /* As in asyncio the rest is sent later, if exc does not end the
       connection. */
    return fl_error_keep_first(exc, code, (PyObject *)self);
}

static bool
accepts_data(const FlTls *self)
{
    return self->phase == FL_TLS_WRAPPED || self->phase == FL_TLS_HANDSHAKE;
}

/* Writes that come late log asyncio's warning. */
static FlMaySend
tls_may_send(FlTls *self)
{
    if (accepts_data(self)) {
        return FL_SEND;
    }
    if (self->writes_after_loss++ < SILENT_WRITES_AFTER_LOSS) {
        return FL_DROP;
    }
    int code =
        fl_call_method(self->state->tls, self->state->names.warn_closed, NULL);
    return code < 0 ? FL_FAILED : FL_DROP;
}

/* Send what was written and what nested writes have queued.  `code` is the
   outcome so far. */
static int
finish_write(FlTls *self, int code)
{
    if (code == 0 && self->phase == FL_TLS_WRAPPED) {
        code = fl_tls_write_backlog(self);
    }
    /* What a signal handler raises, and is no Exception, is the caller's. */
    return code < 0 && PyErr_ExceptionMatches(PyExc_Exception)
               ? fl_tls_fatal(self, FL_TLS_FATAL_TEXT)
               : code;
}

int
fl_tls_write(FlTls *self, PyObject *bytes)
{
    FlMaySend may = tls_may_send(self);
    if (may != FL_SEND) {
        return may;
    }
    return finish_write(self, tls_write_bytes(self, bytes));
}
