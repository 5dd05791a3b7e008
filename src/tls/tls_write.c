/* Writing: from plain bytes to records to the raw transport.

   1. Data is encrypted when it is written, as in asyncio.  While the raw
      transport has paused writing, the records stay in the engine.  The
      backlog only holds data that cannot be encrypted yet: written before the
      end of the handshake, during a renegotiation or during another engine
      call.  Several items of one writelines call pass through it too.
   2. All records of one write or writelines call are passed to the raw
      transport by one call.
   3. Small buffers of one writelines call share a record.  asyncio makes a
      record of each.
   4. Bytes leave in the order in which their write calls began, even if one
      write begins inside another (connection.h, "No nested engine calls").
      The rest of the outer write goes to the front of the backlog, before what
      the inner one has appended. */
#include "tls/tls_write.h"

#include "core/loop.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "tls/engine.h"
#include "tls/connection.h"
#include "tls/tls_calls.h"
#include "transport/stream.h"
#include "transport/stream_write.h"
#include "transport/write_queue.h"

#include <string.h>
#include <sys/uio.h>

/* The most plain bytes that a TLS record can hold. */
#define RECORD_BYTES             (16 * 1024)
/* asyncio logs a warning for writes after the loss beyond these. */
#define SILENT_WRITES_AFTER_LOSS 5
#define FAILED                   "Fatal error on SSL protocol"

/* --- flow control -------------------------------------------------------- */

size_t
fl_tls_write_buffer_bytes(const FlTls *self)
{
    return self->backlog.size_bytes
           + (self->engine.type == NULL
                  ? 0
                  : self->engine.type->outgoing(&self->engine));
}

/* Call pause_writing or resume_writing.  As in asyncio an exception is
   reported and does not end the connection, unless it leaves the loop. */
static int
call_writing(FlTls *self, PyObject *method, const char *message)
{
    if (self->protocol == NULL) {
        return 0;
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *result = PyObject_CallMethodNoArgs(protocol, method);
    Py_DECREF(protocol);
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    if (fl_error_leaves_loop()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *text = PyUnicode_FromString(message);
    int code = text == NULL
                   ? -1
                   : fl_tls_call_module(self, self->state->names.report_call,
                                        exc, text);
    Py_XDECREF(text);
    Py_DECREF(exc);
    return code;
}

int
fl_tls_control_writing(FlTls *self)
{
    FlNames *names = &self->state->names;
    size_t size = fl_tls_write_buffer_bytes(self);
    /* With marks of 0 asyncio pauses the protocol although nothing is
       buffered, and resumes it at the next check, which may never come.  Hence
       the second condition. */
    if (size >= self->write_high_bytes && size > self->write_low_bytes
        && !self->protocol_paused)
    {
        self->protocol_paused = true;
        return call_writing(self, names->pause_writing,
                            "protocol.pause_writing() failed");
    }
    /* A protocol that was paused before start_tls() must not resume before
       that returns: it would write plain text to the raw transport. */
    bool too_early =
        self->paused_before_tls
        && (self->phase <= FL_TLS_HANDSHAKE || self->delay_iterations > 0);
    if (size <= self->write_low_bytes && self->protocol_paused && !too_early) {
        self->protocol_paused = self->paused_before_tls = false;
        return call_writing(self, names->resume_writing,
                            "protocol.resume_writing() failed");
    }
    return 0;
}

/* --- to the raw transport ------------------------------------------------ */

/* Our stream takes plain memory; other transports get a bytes object. */
static int
write_raw(FlTls *self, const FlTlsOutput *output)
{
    PyObject *raw = Py_NewRef(self->raw);
    int code = 0;
    if (self->raw_is_stream && output->bytes == NULL) {
        code = fl_stream_write_memory((FlStream *)raw, output->data,
                                      output->size_bytes);
    }
    else {
        PyObject *bytes =
            output->bytes != NULL
                ? Py_NewRef(output->bytes)
                : PyBytes_FromStringAndSize(output->data,
                                            (Py_ssize_t)output->size_bytes);
        PyObject *done =
            bytes == NULL
                ? NULL
                : PyObject_CallMethodOneArg(raw, self->state->names.write,
                                            bytes);
        Py_XDECREF(bytes);
        code = fl_call_done(done);
    }
    Py_DECREF(raw);
    return code;
}

/* Checked again for each output: the last write may have paused or closed. */
static bool
can_send(const FlTls *self)
{
    return self->raw != NULL && self->phase != FL_TLS_UNWRAPPED
           && (self->send_all || !self->writing_paused)
           && self->engine.type->outgoing(&self->engine) > 0;
}

int
fl_tls_send(FlTls *self, bool all)
{
    FlTlsEngine *engine = &self->engine;
    /* Never reset: `all` marks the end.  Set before the check below, so that
       an outer call of this function also obeys it. */
    self->send_all = self->send_all || all;
    if (self->sending || self->raw == NULL || self->phase == FL_TLS_UNWRAPPED)
    {
        return 0;
    }
    /* A loop: the raw transport's write() may call back and make records. */
    int code = 0;
    self->sending = true;
    while (code == 0 && can_send(self)) {
        FlTlsOutput output;
        code = engine->type->take(engine, &output);
        if (code == 0) {
            code = write_raw(self, &output);
            fl_tls_output_free(&output);
        }
    }
    self->sending = false;
    return code < 0 ? -1 : fl_tls_control_writing(self);
}

/* --- to records ---------------------------------------------------------- */

/* Encrypt; *taken_bytes of the data are records then, fewer than all if the
   peer must send first.  0, or -1 with an exception. */
static int
encrypt(FlTls *self, const char *data, size_t size_bytes, size_t *taken_bytes)
{
    /* A write may run Python, which may end the connection and call close()
       twice: engine_users keeps the engine until then. */
    FlTlsEngine *engine = &self->engine;
    *taken_bytes = 0;
    self->engine_users++;
    self->engine_busy = true;
    FlTlsResult result = FL_TLS_DONE;
    while (result == FL_TLS_DONE && *taken_bytes < size_bytes) {
        size_t taken;
        result = engine->type->write(engine, data + *taken_bytes,
                                     size_bytes - *taken_bytes, &taken);
        *taken_bytes += taken;
    }
    self->engine_busy = false;
    fl_tls_engine_release(self);
    if (result == FL_TLS_END) {
        PyErr_SetString(self->state->tls_error, "TLS is shut down");
        result = FL_TLS_RAISED;
    }
    return result == FL_TLS_RAISED ? -1 : 0;
}

int
fl_tls_write_backlog(FlTls *self)
{
    FlWriteQueue *backlog = &self->backlog;
    bool blocked = self->engine_busy; /* then the outer call does it */
    while (
        !blocked && !fl_write_queue_is_empty(backlog)
        && (self->phase == FL_TLS_WRAPPED || self->phase == FL_TLS_FLUSHING))
    {
        struct iovec vector;
        (void)fl_write_queue_fill_iovec(backlog, &vector, 1);
        /* Owned: encrypt may run Python, which may end the connection and so
           clear the backlog. */
        PyObject *head = Py_NewRef(fl_write_queue_head(backlog));
        size_t taken;
        int code = encrypt(self, vector.iov_base, vector.iov_len, &taken);
        /* Another head: the backlog was cleared (nested writes append). */
        if (code == 0 && fl_write_queue_head(backlog) == head) {
            fl_write_queue_consume(backlog, taken);
        }
        Py_DECREF(head);
        if (code < 0) {
            return -1;
        }
        /* The peer must send first: fl_tls_read tries again. */
        blocked = taken < vector.iov_len;
    }
    return fl_tls_send(self, false);
}

/* Data to write; borrowed from the caller.  `bytes` is the bytes object that
   is exactly this data, or NULL: queueing it saves a copy. */
typedef struct {
    const char *data;
    size_t size_bytes;
    PyObject *bytes;
    size_t taken_bytes; /* encrypted so far */
} Piece;

/* Queue what is left of a piece.  If encrypt was tried (`encrypt_now`), it
   goes to the front of the backlog, which then holds nested writes alone
   (invariant 4).  Else it goes to the end. */
static int
queue_rest(FlTls *self, const Piece *piece, bool encrypt_now)
{
    size_t taken = piece->taken_bytes;
    PyObject *bytes = Py_XNewRef(piece->bytes);
    if (bytes == NULL) {
        bytes =
            PyBytes_FromStringAndSize(piece->data + taken,
                                      (Py_ssize_t)(piece->size_bytes - taken));
        taken = 0;
    }
    if (bytes == NULL) {
        return -1;
    }
    int code = encrypt_now
                   ? fl_write_queue_prepend(&self->backlog, bytes, taken)
                   : fl_write_queue_append(&self->backlog, bytes, taken);
    Py_DECREF(bytes);
    return code;
}

/* Encrypt a piece or append it to the backlog; finish_write sends.  Only a
   piece that is `alone`, all the data of its call, is encrypted directly.  If
   the first of several were, a nested write would be queued before the others
   (invariant 4). */
static int
write_piece(FlTls *self, Piece *piece, bool alone)
{
    bool encrypt_now = alone && self->phase == FL_TLS_WRAPPED
                       && !self->engine_busy
                       && fl_write_queue_is_empty(&self->backlog);
    if (piece->size_bytes == 0) {
        return 0;
    }
    if (encrypt_now
        && encrypt(self, piece->data, piece->size_bytes, &piece->taken_bytes)
               < 0)
    {
        return -1;
    }
    /* encrypt may have run Python that ended the connection. */
    bool is_over = self->phase == FL_TLS_UNWRAPPED;
    return is_over || piece->taken_bytes == piece->size_bytes
               ? 0
               : queue_rest(self, piece, encrypt_now);
}

static int
write_bytes(FlTls *self, PyObject *bytes, bool alone)
{
    Piece piece = {
        .data = PyBytes_AS_STRING(bytes),
        .size_bytes = (size_t)PyBytes_GET_SIZE(bytes),
        .bytes = bytes,
    };
    return write_piece(self, &piece, alone);
}

static int
write_object(FlTls *self, PyObject *data, bool alone)
{
    if (PyBytes_CheckExact(data)) {
        return write_bytes(self, data, alone);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_FULL_RO) < 0) {
        return -1;
    }
    /* PyBytes_FromObject copies any layout in C order. */
    int code;
    if (PyBuffer_IsContiguous(&view, 'C')) {
        Piece piece = {.data = view.buf, .size_bytes = (size_t)view.len};
        code = write_piece(self, &piece, alone);
    }
    else {
        PyObject *bytes = PyBytes_FromObject(data);
        code = bytes == NULL ? -1 : write_bytes(self, bytes, alone);
        Py_XDECREF(bytes);
    }
    PyBuffer_Release(&view);
    return code;
}

/* 1 if the connection accepts no more data; later such writes log asyncio's
   warning.  0 if it does; -1 with an exception. */
static int
drop_after_end(FlTls *self)
{
    if (self->phase == FL_TLS_WRAPPED || self->phase == FL_TLS_HANDSHAKE) {
        return 0;
    }
    if (self->writes_after_loss++ < SILENT_WRITES_AFTER_LOSS) {
        return 1;
    }
    int code = fl_call_done(PyObject_CallMethodNoArgs(
        self->state->tls, self->state->names.warn_closed));
    return code < 0 ? -1 : 1;
}

/* Send what write_piece has prepared and what nested writes have queued.
   `code` is write_piece's outcome. */
static int
finish_write(FlTls *self, int code)
{
    if (code == 0 && self->phase == FL_TLS_WRAPPED) {
        code = fl_tls_write_backlog(self);
    }
    return code < 0 ? fl_tls_fatal(self, FAILED) : 0;
}

int
fl_tls_write(FlTls *self, PyObject *data)
{
    int dropped = drop_after_end(self);
    if (dropped != 0) {
        return dropped < 0 ? -1 : 0;
    }
    return finish_write(self, write_object(self, data, true));
}

/* --- writelines ---------------------------------------------------------- */

/* Copy leading items into `memory` as long as they are bytes objects and fit
   one record (invariant 3); *count items, *size_bytes bytes. */
static void
join_small(PyObject *const *items, Py_ssize_t nitems, char *memory,
           Py_ssize_t *count, size_t *size_bytes)
{
    *count = 0;
    *size_bytes = 0;
    while (*count < nitems && PyBytes_CheckExact(items[*count])) {
        size_t size = (size_t)PyBytes_GET_SIZE(items[*count]);
        if (size > RECORD_BYTES - *size_bytes) {
            break;
        }
        memcpy(memory + *size_bytes, PyBytes_AS_STRING(items[*count]), size);
        *size_bytes += size;
        (*count)++;
    }
}

/* Write the items of a tuple: runs of small ones joined, the others one by
   one. */
static int
write_list(FlTls *self, PyObject *list)
{
    char memory[RECORD_BYTES]; /* queue_rest copies what is not encrypted */
    Py_ssize_t at = 0;
    int code = 0;
    while (code == 0 && at < PyTuple_GET_SIZE(list)) {
        Py_ssize_t remaining = PyTuple_GET_SIZE(list) - at;
        Py_ssize_t count;
        Piece piece = {.data = memory};
        join_small(&PyTuple_GET_ITEM(list, at), remaining, memory, &count,
                   &piece.size_bytes);
        if (count > 1) {
            code = write_piece(self, &piece, count == PyTuple_GET_SIZE(list));
            at += count;
        }
        else {
            code = write_object(self, PyTuple_GET_ITEM(list, at),
                                PyTuple_GET_SIZE(list) == 1);
            at++;
        }
    }
    return code;
}

/* asyncio first takes the length of each item and raises that error to the
   caller.  An item that has a length but is no buffer ends the connection
   later, in finish_write. */
static int
check_items(PyObject *list)
{
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(list); at++) {
        if (PyObject_Size(PyTuple_GET_ITEM(list, at)) < 0) {
            return -1;
        }
    }
    return 0;
}

int
fl_tls_writelines(FlTls *self, PyObject *lines)
{
    int dropped = drop_after_end(self);
    if (dropped != 0) {
        return dropped < 0 ? -1 : 0;
    }
    /* Iterating and len() may run Python, for example a generator, which may
       close the connection.  So iterate first and check the phase again. */
    PyObject *list = PySequence_Tuple(lines);
    if (list == NULL || check_items(list) < 0) {
        Py_XDECREF(list);
        return -1;
    }
    int code = 0;
    if (self->phase == FL_TLS_WRAPPED || self->phase == FL_TLS_HANDSHAKE) {
        code = finish_write(self, write_list(self, list));
    }
    Py_DECREF(list);
    return code;
}
