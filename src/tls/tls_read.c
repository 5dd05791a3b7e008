/* The life of a byte coming in: records to plain bytes to the protocol.

   1. All that one event of the raw transport brought is one data_received, in
      bytes of exactly its size.  Little goes by the C stack; much is read into
      the final object, which is made too large first and shrunk in place.
   2. What was decrypted before a bad record is delivered before the error;
      asyncio drops it.
   3. Records that reading makes (answers to a renegotiation or to a request
      for new keys, alerts) leave after each read.  A peer that asks for them
      and reads none is not read either, beyond ANSWERS_BYTES, nor during a
      shutdown. */
#include "tls/tls_read.h"

#include "core/loop.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "tls/engine.h"
#include "tls/connection.h"
#include "tls/deferred.h"
#include "tls/tls_calls.h"
#include "tls/tls_write.h"
#include "transport/native_protocol.h"

#define RECORD_BYTES  (16 * 1024)
/* So many bytes of records, and no more, are decrypted on the C stack. */
#define SMALL_BYTES   (8 * 1024)
/* The largest bytes object that stays under the allocator's threshold.
   Without a GIL it is larger than an event: WHOLE_EVENTS, stream_read.c. */
#define LARGE_BYTES   ((FL_HAVE_GIL ? 128 : 1024) * 1024 - 128)
#define ANSWERS_BYTES (64 * 1024)

/* What a run of an engine's reads gave. */
typedef struct {
    size_t got_bytes;
    FlTlsResult result; /* the last one: DONE when there is no more room */
} Filled;

static Filled
fill(FlTls *self, char *memory, size_t room_bytes)
{
    FlTlsEngine *engine = &self->engine;
    Filled filled = {0, FL_TLS_DONE};
    self->users++;
    self->busy = true;
    size_t before = self->writing_paused ? engine->type->outgoing(engine) : 0;
    while (filled.result == FL_TLS_DONE && filled.got_bytes < room_bytes) {
        size_t got;
        filled.result =
            engine->type->read(engine, memory + filled.got_bytes,
                               room_bytes - filled.got_bytes, &got);
        filled.got_bytes += got;
    }
    self->busy = false;
    size_t paid = 2 * filled.got_bytes;
    self->dry_bytes = self->dry_bytes > paid ? self->dry_bytes - paid : 0;
    /* An error ends the connection; it is pending, so no call is made here. */
    if (FL_UNLIKELY(self->writing_paused) && filled.result != FL_TLS_RAISED) {
        size_t after = engine->type->outgoing(engine);
        self->answers_bytes += after > before ? after - before : 0;
    }
    fl_tls_end_use(self);
    return filled;
}

/* asyncio gives all that an event brought to data_received at once.  A
   receiver is called several times, and one that pauses is given the rest all
   the same: else it is lost where the connection ends before it resumes. */
static bool
is_delivering(const FlTls *self)
{
    bool goes_on =
        self->native != NULL && self->pause_dispatch == self->loop->dispatch;
    return (!self->app_paused || goes_on) && self->awaited == 0
           && self->app_state != FL_TLS_APP_NEW
           && (self->phase == FL_TLS_WRAPPED
               || self->phase == FL_TLS_FLUSHING);
}

/* --- the end ------------------------------------------------------------- */

int
fl_tls_call_eof_received(FlTls *self)
{
    FlNames *names = &self->state->names;
    if (self->app_state != FL_TLS_APP_MADE || self->protocol == NULL) {
        return 0;
    }
    self->app_state = FL_TLS_APP_EOF;
    PyObject *protocol = Py_NewRef(self->protocol);
    int keep_open = -1;
    if (self->native != NULL) {
        keep_open = self->native->eof_received(self->state, protocol);
    }
    else {
        PyObject *keep =
            PyObject_CallMethodNoArgs(protocol, names->eof_received);
        keep_open = keep == NULL ? -1 : PyObject_IsTrue(keep);
        Py_XDECREF(keep);
    }
    Py_DECREF(protocol);
    if (keep_open > 0) {
        PyObject *warned =
            PyObject_CallMethodNoArgs(self->state->tls, names->warn_keep_open);
        keep_open = warned == NULL ? -1 : 0;
        Py_XDECREF(warned);
    }
    if (keep_open == 0) {
        return 0;
    }
    if (fl_error_leaves_loop()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int code =
        fl_tls_fatal_exception(self, exc, "Error calling eof_received()");
    Py_DECREF(exc);
    return code;
}

/* The peer's close_notify. */
static int
end_received(FlTls *self)
{
    return fl_tls_call_eof_received(self) < 0 ? -1
                                              : fl_tls_start_shutdown(self);
}

/* What follows a delivery: more to be read, the end, or an error.  `exc` is
   what the engine raised; stolen. */
static int
conclude(FlTls *self, const Filled *filled, PyObject *exc, bool *more)
{
    *more = filled->result == FL_TLS_DONE;
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
        return -1;
    }
    return filled->result == FL_TLS_END ? end_received(self) : 0;
}

/* --- Protocol ------------------------------------------------------------ */

static int
call_data_received(FlTls *self, PyObject *bytes)
{
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *done =
        PyObject_CallMethodOneArg(protocol, self->state->names.data_received,
                                  bytes);
    Py_DECREF(protocol);
    return fl_tls_done(done);
}

static int
call_native_protocol(FlTls *self, const char *data, size_t size_bytes)
{
    PyObject *protocol = Py_NewRef(self->protocol);
    int code =
        self->native->data_received(self->state, protocol, data, size_bytes);
    Py_DECREF(protocol);
    return code;
}

/* Deliver after the engine may have raised.  What the protocol raises counts
   more: it is the program's own. */
static int
deliver(FlTls *self, const char *data, PyObject *bytes, const Filled *filled,
        bool *more)
{
    PyObject *exc =
        filled->result == FL_TLS_RAISED ? PyErr_GetRaisedException() : NULL;
    int code = 0;
    if (filled->got_bytes > 0 && self->protocol != NULL) {
        PyObject *made = NULL;
        if (self->native == NULL && bytes == NULL) {
            made = bytes =
                PyBytes_FromStringAndSize(data, (Py_ssize_t)filled->got_bytes);
        }
        code = self->native != NULL
                   ? call_native_protocol(self, data, filled->got_bytes)
               : bytes == NULL ? -1
                               : call_data_received(self, bytes);
        Py_XDECREF(made);
    }
    if (code < 0) {
        Py_XDECREF(exc);
        return -1;
    }
    return conclude(self, filled, exc, more);
}

static int
read_small(FlTls *self, bool *more)
{
    char memory[SMALL_BYTES + RECORD_BYTES];
    Filled filled = fill(self, memory, sizeof(memory));
    return deliver(self, memory, NULL, &filled, more);
}

static int
read_large(FlTls *self, size_t room_bytes, bool *more)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room_bytes);
    if (bytes == NULL) {
        return -1;
    }
    Filled filled = fill(self, PyBytes_AS_STRING(bytes), room_bytes);
    PyObject *raised =
        filled.result == FL_TLS_RAISED ? PyErr_GetRaisedException() : NULL;
    if (filled.got_bytes < room_bytes
        && _PyBytes_Resize(&bytes, (Py_ssize_t)filled.got_bytes) < 0)
    {
        Py_XDECREF(raised);
        return -1;
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    int code = deliver(self, PyBytes_AS_STRING(bytes), bytes, &filled, more);
    Py_DECREF(bytes);
    return code;
}

static int
read_bytes(FlTls *self, bool *more)
{
    size_t incoming = self->engine.type->incoming(&self->engine);
    if (incoming <= SMALL_BYTES) {
        return read_small(self, more);
    }
    /* A record may have begun before. */
    size_t room = incoming + RECORD_BYTES;
    return read_large(self, room < LARGE_BYTES ? room : LARGE_BYTES, more);
}

/* --- BufferedProtocol ---------------------------------------------------- */

static int
get_buffer(FlTls *self, PyObject *protocol, Py_buffer *view)
{
    PyObject *hint =
        PyLong_FromSize_t(self->engine.type->incoming(&self->engine));
    PyObject *buffer =
        hint == NULL
            ? NULL
            : PyObject_CallMethodOneArg(protocol,
                                        self->state->names.get_buffer, hint);
    Py_XDECREF(hint);
    if (buffer == NULL) {
        return -1;
    }
    int code = PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE);
    Py_DECREF(buffer);
    if (code == 0 && view->len == 0) {
        PyBuffer_Release(view);
        PyErr_SetString(PyExc_RuntimeError,
                        "get_buffer() returned an empty buffer");
        return -1;
    }
    return code;
}

static int
call_buffer_updated(FlTls *self, PyObject *protocol, size_t got_bytes)
{
    PyObject *count = PyLong_FromSize_t(got_bytes);
    PyObject *done =
        count == NULL ? NULL
                      : PyObject_CallMethodOneArg(
                          protocol, self->state->names.buffer_updated, count);
    Py_XDECREF(count);
    return fl_tls_done(done);
}

static int
read_buffered(FlTls *self, PyObject *protocol, bool *more)
{
    Py_buffer view;
    if (get_buffer(self, protocol, &view) < 0) {
        return -1;
    }
    if (!is_delivering(self) || self->protocol != protocol) {
        PyBuffer_Release(&view); /* get_buffer paused, closed or left us */
        bool again = self->protocol != protocol && self->buffered;
        *more = !self->buffered;
        /* The next one may leave us to another in its turn. */
        return again ? fl_tls_put_off(self) : 0;
    }
    Filled filled = fill(self, view.buf, (size_t)view.len);
    PyObject *exc =
        filled.result == FL_TLS_RAISED ? PyErr_GetRaisedException() : NULL;
    PyBuffer_Release(&view);
    if (filled.got_bytes > 0
        && call_buffer_updated(self, protocol, filled.got_bytes) < 0)
    {
        Py_XDECREF(exc);
        return -1;
    }
    return conclude(self, &filled, exc, more);
}

/* The rest of what fills more than a buffer is for the next turn, as with
   asyncio, which however loses it where the connection ends before. */
static int
queue_read(FlTls *self)
{
    return fl_tls_call_soon(self, (PyObject *)self,
                            self->state->names._do_read, NULL);
}

/* --- both ---------------------------------------------------------------- */

static int
read_all(FlTls *self)
{
    bool more = true;
    while (more && is_delivering(self)) {
        more = false;
        if (!self->buffered) {
            if (read_bytes(self, &more) < 0) {
                return -1;
            }
            continue;
        }
        PyObject *protocol = Py_NewRef(self->protocol);
        int code = read_buffered(self, protocol, &more);
        Py_DECREF(protocol);
        if (code < 0) {
            return -1;
        }
        if (more && self->phase == FL_TLS_WRAPPED && self->buffered) {
            return queue_read(self);
        }
    }
    return 0;
}

static int
read_and_answer(FlTls *self)
{
    if (read_all(self) < 0) {
        return -1;
    }
    /* Though nobody reads: the last records of the handshake are among it,
       which asyncio keeps until something is written. */
    if (fl_tls_write_backlog(self) < 0) {
        return -1;
    }
    return fl_tls_control_reading(self);
}

int
fl_tls_read(FlTls *self)
{
    if (self->phase != FL_TLS_WRAPPED && self->phase != FL_TLS_FLUSHING) {
        return 0;
    }
    if (self->busy) {
        return fl_tls_put_off(self);
    }
    if (read_and_answer(self) < 0) {
        return fl_tls_fatal(self, "Fatal error on SSL protocol");
    }
    return 0;
}

FlTlsResult
fl_tls_discard(FlTls *self)
{
    char memory[RECORD_BYTES];
    Filled filled;
    do {
        filled = fill(self, memory, sizeof(memory));
    } while (filled.result == FL_TLS_DONE);
    return filled.result;
}

/* --- flow control -------------------------------------------------------- */

int
fl_tls_control_reading(FlTls *self)
{
    if (self->raw == NULL || self->phase == FL_TLS_UNWRAPPED) {
        return 0;
    }
    size_t waits = self->engine.type->incoming(&self->engine);
    bool flooded = self->writing_paused && self->answers_bytes > ANSWERS_BYTES;
    bool low = waits <= self->read_low_bytes;
    bool full = waits >= self->read_high_bytes && !low;
    if (self->phase == FL_TLS_SHUTDOWN) {
        /* Data is dropped, and the peer's answer may wait behind it. */
        full = false;
        low = true;
    }
    if (!self->raw_paused && (full || flooded)) {
        self->raw_paused = true;
        return fl_tls_call_raw(self, self->state->names.pause_reading);
    }
    if (self->raw_paused && low && !flooded) {
        self->raw_paused = false;
        return fl_tls_call_raw(self, self->state->names.resume_reading);
    }
    return 0;
}

int
fl_tls_raw_resumed(FlTls *self)
{
    self->writing_paused = false;
    self->answers_bytes = 0;
    int code = fl_tls_send(self, false);
    if (code == 0 && self->raw_paused) {
        code = fl_tls_control_reading(self);
    }
    /* The raw transport would only report it; but records are lost then. */
    return code < 0 ? fl_tls_fatal(self, "Fatal error on SSL protocol") : 0;
}

int
fl_tls_pause_reading(FlTls *self)
{
    self->app_paused = true;
    self->pause_dispatch = self->loop->dispatch;
    return 0;
}

int
fl_tls_resume_reading(FlTls *self)
{
    if (!self->app_paused) {
        return 0;
    }
    self->app_paused = false;
    return fl_tls_call_soon(self, (PyObject *)self, self->state->names._resume,
                            NULL);
}
