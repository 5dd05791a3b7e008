/* The life of a byte going out: plain bytes to records to the raw transport.

   1. What is written becomes records at once, as with asyncio: the raw
      transport's pause only keeps them here.  The backlog holds what cannot:
      writes before the handshake is over, or during a renegotiation.
   2. The records of a write, or of a writelines, leave with one call.
   3. Small buffers of one writelines share a record; asyncio makes one of
      each.
   4. Bytes leave in the order in which their writes were begun, also where one
      write is made in the midst of another (connection.h, "one at a time"): what
      is left of the first goes back before what was written meanwhile. */
#include "tls/tls_write.h"

#include "core/loop.h"
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

#define RECORD_BYTES            (16 * 1024)
/* Writes after a loss before asyncio begins to warn about them. */
#define QUIET_WRITES_AFTER_LOSS 5
#define FAILED                  "Fatal error on SSL protocol"

/* --- flow control -------------------------------------------------------- */

size_t
fl_tls_write_buffer_bytes(const FlTls *self)
{
    return self->backlog.size_bytes
           + (self->engine.type == NULL
                  ? 0
                  : self->engine.type->outgoing(&self->engine));
}

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
                   : fl_tls_call_cold(self, self->state->names.report_call,
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
    /* asyncio also pauses where nothing waits, by marks of 0, and resumes at
       the next look: whether there is one is chance. */
    if (size >= self->write_high_bytes && size > self->write_low_bytes
        && !self->protocol_paused)
    {
        self->protocol_paused = true;
        return call_writing(self, names->pause_writing,
                            "protocol.pause_writing() failed");
    }
    /* Who was paused before start_tls knows only the transport below, until
       it has returned. */
    bool early = self->paused_before
                 && (self->phase <= FL_TLS_HANDSHAKE || self->awaited > 0);
    if (size <= self->write_low_bytes && self->protocol_paused && !early) {
        self->protocol_paused = self->paused_before = false;
        return call_writing(self, names->resume_writing,
                            "protocol.resume_writing() failed");
    }
    return 0;
}

/* --- to the raw transport ------------------------------------------------ */

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
        code = fl_tls_done(done);
    }
    Py_DECREF(raw);
    return code;
}

static bool
may_send(const FlTls *self)
{
    return self->raw != NULL && self->phase != FL_TLS_UNWRAPPED
           && (self->send_all || !self->writing_paused)
           && self->engine.type->outgoing(&self->engine) > 0;
}

int
fl_tls_send(FlTls *self, bool all)
{
    FlTlsEngine *engine = &self->engine;
    self->send_all = self->send_all || all;
    if (self->sending || self->raw == NULL || self->phase == FL_TLS_UNWRAPPED)
    {
        return 0;
    }
    int code = 0;
    self->sending = true;
    while (code == 0 && may_send(self)) {
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

/* So many of the bytes were taken; fewer where the peer has to send first.
   -1 with an exception. */
static int
encrypt(FlTls *self, const char *data, size_t size_bytes, size_t *taken_bytes)
{
    FlTlsEngine *engine = &self->engine;
    *taken_bytes = 0;
    self->users++;
    self->busy = true;
    FlTlsResult result = FL_TLS_DONE;
    while (result == FL_TLS_DONE && *taken_bytes < size_bytes) {
        size_t taken;
        result = engine->type->write(engine, data + *taken_bytes,
                                     size_bytes - *taken_bytes, &taken);
        *taken_bytes += taken;
    }
    self->busy = false;
    fl_tls_end_use(self);
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
    bool blocked = self->busy;
    while (
        !blocked && !fl_write_queue_is_empty(backlog)
        && (self->phase == FL_TLS_WRAPPED || self->phase == FL_TLS_FLUSHING))
    {
        struct iovec vector;
        (void)fl_write_queue_vectors(backlog, &vector, 1);
        PyObject *head = Py_NewRef(fl_write_queue_head(backlog));
        size_t taken;
        int code = encrypt(self, vector.iov_base, vector.iov_len, &taken);
        /* The end of the connection clears the backlog. */
        if (code == 0 && fl_write_queue_head(backlog) == head) {
            fl_write_queue_consume(backlog, taken);
        }
        Py_DECREF(head);
        if (code < 0) {
            return -1;
        }
        blocked = taken < vector.iov_len;
    }
    return fl_tls_send(self, false);
}

/* What is written, of the caller: `bytes` is the object that holds all of the
   data, or NULL.  `taken_bytes` of it became records. */
typedef struct {
    const char *data;
    size_t size_bytes;
    PyObject *bytes;
    size_t taken_bytes;
} Piece;

/* The rest of a piece: before what waits if it was begun, else behind. */
static int
queue(FlTls *self, const Piece *piece, bool begun)
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
    int code = begun ? fl_write_queue_put_back(&self->backlog, bytes, taken)
                     : fl_write_queue_append(&self->backlog, bytes, taken);
    Py_DECREF(bytes);
    return code;
}

/* Records of the piece, or the backlog; nothing is sent yet.  `at_once`: it
   is all that is written, and need not go by the backlog. */
static int
add(FlTls *self, Piece *piece, bool at_once)
{
    bool begun = at_once && self->phase == FL_TLS_WRAPPED && !self->busy
                 && fl_write_queue_is_empty(&self->backlog);
    if (piece->size_bytes == 0) {
        return 0;
    }
    if (begun
        && encrypt(self, piece->data, piece->size_bytes, &piece->taken_bytes)
               < 0)
    {
        return -1;
    }
    bool ended = self->phase == FL_TLS_UNWRAPPED;
    return ended || piece->taken_bytes == piece->size_bytes
               ? 0
               : queue(self, piece, begun);
}

static int
add_bytes(FlTls *self, PyObject *bytes, bool at_once)
{
    Piece piece = {
        .data = PyBytes_AS_STRING(bytes),
        .size_bytes = (size_t)PyBytes_GET_SIZE(bytes),
        .bytes = bytes,
    };
    return add(self, &piece, at_once);
}

static int
add_object(FlTls *self, PyObject *data, bool at_once)
{
    if (PyBytes_CheckExact(data)) {
        return add_bytes(self, data, at_once);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_FULL_RO) < 0) {
        return -1;
    }
    int code;
    if (PyBuffer_IsContiguous(&view, 'C')) {
        Piece piece = {.data = view.buf, .size_bytes = (size_t)view.len};
        code = add(self, &piece, at_once);
    }
    else {
        PyObject *bytes = PyBytes_FromObject(data);
        code = bytes == NULL ? -1 : add_bytes(self, bytes, at_once);
        Py_XDECREF(bytes);
    }
    PyBuffer_Release(&view);
    return code;
}

/* Whether nothing can be written any more: 1 with asyncio's warning for the
   later ones, 0, -1. */
static int
drop_after_end(FlTls *self)
{
    if (self->phase == FL_TLS_WRAPPED || self->phase == FL_TLS_HANDSHAKE) {
        return 0;
    }
    if (self->writes_after_loss++ < QUIET_WRITES_AFTER_LOSS) {
        return 1;
    }
    int code =
        fl_tls_done(PyObject_CallMethodNoArgs(self->state->tls,
                                              self->state->names.warn_closed));
    return code < 0 ? -1 : 1;
}

/* What was added leaves, and what was written meanwhile.  `code` says how
   adding went. */
static int
finish(FlTls *self, int code)
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
    return finish(self, add_object(self, data, true));
}

/* --- writelines ---------------------------------------------------------- */

/* The items one after another in `memory`, as far as they are bytes and fit;
   *count is how many, *size_bytes how much. */
static void
join(PyObject *const *items, Py_ssize_t nitems, char *memory,
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

static int
add_list(FlTls *self, PyObject *list)
{
    char memory[RECORD_BYTES];
    Py_ssize_t at = 0;
    int code = 0;
    while (code == 0 && at < PyTuple_GET_SIZE(list)) {
        Py_ssize_t left = PyTuple_GET_SIZE(list) - at;
        Py_ssize_t count;
        Piece piece = {.data = memory};
        join(&PyTuple_GET_ITEM(list, at), left, memory, &count,
             &piece.size_bytes);
        if (count > 1) {
            code = add(self, &piece, count == PyTuple_GET_SIZE(list));
            at += count;
        }
        else {
            code = add_object(self, PyTuple_GET_ITEM(list, at),
                              PyTuple_GET_SIZE(list) == 1);
            at++;
        }
    }
    return code;
}

/* asyncio asks for each length first: that error is the caller's.  What has a
   length but no bytes ends the connection. */
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
    /* An iterator may be a generator, which may do anything. */
    PyObject *list = PySequence_Tuple(lines);
    if (list == NULL || check_items(list) < 0) {
        Py_XDECREF(list);
        return -1;
    }
    int code = 0;
    if (self->phase == FL_TLS_WRAPPED || self->phase == FL_TLS_HANDSHAKE) {
        code = finish(self, add_list(self, list));
    }
    Py_DECREF(list);
    return code;
}
