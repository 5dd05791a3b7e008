/* Reading: from records to plain bytes to the protocol.

   1. All data that one read of the raw transport has brought is delivered by
      one data_received call, in a bytes object of exactly its size.  With a
      GIL an event of a stream may make several reads of up to 64 KiB
      (NATIVE_BYTES of transport/stream_read.c).  Small amounts are decrypted
      on the C stack and copied.  Large ones are decrypted into the final
      object, which is allocated too large and shrunk in place.
   2. Data decrypted before a bad record is delivered before the error is
      raised.  asyncio drops it.
   3. Reading may produce records: replies to a renegotiation or a key update,
      and alerts.  They are sent after each read.  A peer that provokes replies
      and does not read them would fill our memory, so it is not read either
      once MAX_REPLY_BYTES wait.  This also holds during a shutdown.
   4. A data_received() that closes the transport is the last one.  asyncio's
      has got all there is by then.  A BufferedProtocol gets the rest, as with
      asyncio. */
#include "tls/tls_read.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"
#include "tls/connection.h"
#include "tls/engine.h"
#include "tls/tls_write.h"
#include "transport/native_protocol.h"

/* At most this many bytes of records are decrypted on the C stack. */
#define SMALL_BYTES     (8 * 1024)
/* With a GIL the largest bytes object below glibc's initial mmap threshold:
   make_scratch of transport/stream_read.c raises that, but perhaps not under
   another malloc.  Without a GIL an event must fit in one object:
   WHOLE_EVENTS there. */
#define LARGE_BYTES     ((FL_HAVE_GIL ? 128 : 1024) * 1024 - 128)
/* Invariant 3. */
#define MAX_REPLY_BYTES (64 * 1024)

/* The outcome of several reads of the engine. */
typedef struct {
    size_t got_bytes;
    FlTlsResult result; /* of the last read; DONE: no more room */
    PyObject *exc;      /* see decrypt_for_delivery */
} Decrypted;

/* Read until the memory is full or the engine has no more data.  The caller
   keeps `memory` valid: an engine call may run Python. */
FL_INLINE Decrypted
decrypt(FlTls *self, char *memory, size_t room_bytes)
{
    FlTlsEngine *engine = &self->engine;
    Decrypted decrypted = {0, FL_TLS_DONE, NULL};
    FL_CHECK(!self->engine_busy, "no nested engine calls");
    self->engine_busy = true;
    /* Only what cannot be sent now is counted. */
    size_t before = self->writing_paused ? engine->type->outgoing(engine) : 0;
    while (decrypted.result == FL_TLS_DONE && decrypted.got_bytes < room_bytes)
    {
        size_t got;
        decrypted.result =
            engine->type->read(engine, memory + decrypted.got_bytes,
                               room_bytes - decrypted.got_bytes, &got);
        decrypted.got_bytes += got;
    }
    self->engine_busy = false;
    /* outgoing() may call Python, which is not allowed with an exception
       raised.  The error ends the connection anyway. */
    if (FL_UNLIKELY(self->writing_paused) && decrypted.result != FL_TLS_RAISED)
    {
        size_t after = engine->type->outgoing(engine);
        self->reply_bytes += after > before ? after - before : 0;
    }
    return decrypted;
}

/* Whether the protocol may get data now; checked again after each delivery.

   asyncio delivers all data of an event by one data_received call.  Here
   there may be several (invariant 1).  A native protocol that pauses after the
   first still gets the rest of the event (`same_callback`): data that waits
   would be lost if the connection ended before it resumes. */
static bool
tls_can_deliver(const FlTls *self, const FlProtocol *protocol)
{
    bool same_callback =
        protocol->native != NULL
        && self->paused_in_callback == self->loop->callback_count;
    return (!self->app_paused || same_callback) && !fl_tls_holds_data(self)
           && self->app_state != FL_TLS_APP_NEW
           && (self->phase == FL_TLS_WRAPPED
               || self->phase == FL_TLS_FLUSHING);
}

/* --- the end ------------------------------------------------------------- */

int
fl_tls_call_eof_received(FlTls *self)
{
    if (self->app_state != FL_TLS_APP_MADE) {
        return 0;
    }
    FlProtocol protocol = fl_protocol_get(self, &self->protocol);
    if (protocol.object == NULL) {
        return 0;
    }
    self->app_state = FL_TLS_APP_EOF; /* before the call: only once */
    int keep_open =
        fl_call_truth(protocol.object, self->state->names.eof_received);
    Py_DECREF(protocol.object);
    if (keep_open > 0) { /* TLS has no half-close; asyncio logs a warning */
        keep_open = fl_call_method(self->state->tls,
                                   self->state->names.warn_keep_open, NULL);
    }
    if (keep_open == 0) {
        return 0;
    }
    return fl_tls_fatal(self, "Error calling eof_received()");
}

/* Decrypt what is to be delivered; the engine's exception is set aside
   meanwhile (invariant 2).  After an SSLError the connection has FAILED from
   here on: what the protocol writes or closes does not reach the engine. */
FL_INLINE Decrypted
decrypt_for_delivery(FlTls *self, char *memory, size_t room_bytes)
{
    Decrypted decrypted = decrypt(self, memory, room_bytes);
    if (decrypted.result == FL_TLS_RAISED) {
        fl_tls_fail(self);
        decrypted.exc = PyErr_GetRaisedException();
    }
    return decrypted;
}

/* After a delivery, whose outcome is `code`: raise the protocol's exception,
   which is the application's own, or else the engine's (stolen), or tell the
   protocol of the peer's close_notify. */
static FlTlsRead
finish_delivery(FlTls *self, const Decrypted *decrypted, int code)
{
    PyObject *exc = decrypted->exc;
    if (code == 0 && exc == NULL) {
        if (decrypted->result != FL_TLS_END) {
            return decrypted->result == FL_TLS_DONE ? FL_TLS_READ_MORE
                                                    : FL_TLS_READ_DONE;
        }
        if (self->hold_iterations > 0) {
            self->engine.more = true; /* lifecycle.c, invariant 3 */
            return FL_TLS_READ_DONE;
        }
        code = fl_tls_call_eof_received(self);
    }
    if (code < 0) {
        Py_XDECREF(exc);
        self->engine.more = true; /* the next read finds the end again */
        return FL_TLS_READ_FAILED;
    }
    if (exc == NULL) {
        return FL_TLS_READ_CLOSED;
    }
    if (self->phase >= FL_TLS_UNWRAPPED
        && PyErr_GivenExceptionMatches(exc, self->state->tls_error))
    {
        Py_DECREF(exc); /* the protocol has ended the connection */
        return FL_TLS_READ_DONE;
    }
    PyErr_SetRaisedException(exc);
    return FL_TLS_READ_FAILED;
}

/* --- Protocol ------------------------------------------------------------ */

/* Deliver decrypted bytes.  `used` is the protocol that the connection had
   when they were read.  0 or -1. */
static int
deliver(FlTls *self, const FlProtocol *used, PyObject *bytes)
{
    /* The engine may have run Python that ended the connection, or set
       another protocol. */
    FlProtocol protocol = fl_protocol_get(self, &self->protocol);
    int code = 0;
    if (PyBytes_GET_SIZE(bytes) > 0 && protocol.object != NULL) {
        /* A new BufferedProtocol gets the data after these. */
        const FlProtocol *to = protocol.buffered ? used : &protocol;
        code = to->native != NULL
                   ? to->native->data_received(self->state, to->object,
                                               PyBytes_AS_STRING(bytes),
                                               (size_t)PyBytes_GET_SIZE(bytes))
                   : fl_call_method(to->object,
                                    self->state->names.data_received, bytes);
    }
    Py_XDECREF(protocol.object);
    return code;
}

/* Not inlined: the protocol may run its loop again, and this buffer of 24 KiB
   must be off the stack by then.  It has one record more than SMALL_BYTES,
   because the last record may have been read in part before.  NULL with
   MemoryError. */
FL_NOINLINE static PyObject *
decrypt_small(FlTls *self, Decrypted *decrypted)
{
    char memory[SMALL_BYTES + FL_TLS_RECORD_BYTES];
    *decrypted = decrypt_for_delivery(self, memory, sizeof(memory));
    return PyBytes_FromStringAndSize(memory, (Py_ssize_t)decrypted->got_bytes);
}

/* NULL with MemoryError. */
static PyObject *
decrypt_large(FlTls *self, size_t room_bytes, Decrypted *decrypted)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room_bytes);
    if (bytes != NULL) {
        *decrypted =
            decrypt_for_delivery(self, PyBytes_AS_STRING(bytes), room_bytes);
        /* Nobody else has the object yet, as this requires. */
        (void)_PyBytes_Resize(&bytes, (Py_ssize_t)decrypted->got_bytes);
    }
    return bytes;
}

/* One data_received call: invariant 4. */
static FlTlsRead
read_once(FlTls *self, const FlProtocol *used)
{
    bool delivering = self->delivering, closing = self->closing;
    self->delivering = true;
    size_t incoming = self->engine.type->incoming(&self->engine);
    /* As in decrypt_small: room for a record that was read in part before. */
    size_t room = incoming + FL_TLS_RECORD_BYTES;
    Decrypted decrypted = {0};
    PyObject *bytes =
        incoming <= SMALL_BYTES
            ? decrypt_small(self, &decrypted)
            : decrypt_large(self, Py_MIN(room, LARGE_BYTES), &decrypted);
    int code = bytes == NULL ? -1 : deliver(self, used, bytes);
    Py_XDECREF(bytes);
    FlTlsRead left = finish_delivery(self, &decrypted, code);
    self->delivering = delivering;
    return left == FL_TLS_READ_MORE && self->closing != closing
               ? FL_TLS_READ_DONE
               : left;
}

/* --- BufferedProtocol ---------------------------------------------------- */

/* Fill one buffer of a BufferedProtocol and call buffer_updated.  The view is
   released before that call, which may resize the buffer. */
static FlTlsRead
read_buffered(FlTls *self, const FlProtocol *protocol)
{
    /* asyncio's hint is how many bytes of records are unread. */
    size_t hint = self->engine.type->incoming(&self->engine);
    PyObject *buffer = fl_protocol_get_buffer(self->state, protocol->object,
                                              (Py_ssize_t)hint);
    Py_buffer view;
    int code = buffer == NULL
                   ? -1
                   : PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE);
    Py_XDECREF(buffer);
    if (code < 0) {
        return FL_TLS_READ_FAILED;
    }
    bool same = fl_protocol_is(self, &self->protocol, protocol);
    if (!same || !tls_can_deliver(self, protocol)) {
        /* get_buffer() has paused, closed or set another protocol. */
        PyBuffer_Release(&view);
        return same ? FL_TLS_READ_DONE : FL_TLS_READ_MORE;
    }
    Decrypted decrypted =
        decrypt_for_delivery(self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (decrypted.got_bytes > 0) {
        code = fl_protocol_buffer_updated(self->state, protocol->object,
                                          decrypted.got_bytes);
    }
    return finish_delivery(self, &decrypted, code);
}

/* --- both ---------------------------------------------------------------- */

/* All there is, unless the protocol pauses or closes. */
FlTlsRead
fl_tls_read(FlTls *self)
{
    FlTlsRead left;
    do {
        /* Owned: a callback may set another protocol. */
        FlProtocol protocol = fl_protocol_get(self, &self->protocol);
        left = !tls_can_deliver(self, &protocol) ? FL_TLS_READ_DONE
               : protocol.buffered ? read_buffered(self, &protocol)
                                   : read_once(self, &protocol);
        Py_XDECREF(protocol.object);
    } while (left == FL_TLS_READ_MORE);
    return left;
}

/* The data goes nowhere, so one record's room is enough for any amount. */
FlTlsResult
fl_tls_discard(FlTls *self)
{
    char memory[FL_TLS_RECORD_BYTES];
    Decrypted decrypted;
    do {
        decrypted = decrypt(self, memory, sizeof(memory));
        self->discarded_bytes += decrypted.got_bytes;
        /* The engine may have run Python that ended the connection. */
    } while (decrypted.result == FL_TLS_DONE
             && self->phase == FL_TLS_SHUTDOWN);
    return decrypted.result;
}

/* --- flow control -------------------------------------------------------- */

int
fl_tls_control_reading(FlTls *self)
{
    if (self->raw == NULL || self->phase >= FL_TLS_FAILED) {
        return 0;
    }
    /* Without the raw transport's pause, unread records would pile up while
       the application has paused reading. */
    size_t incoming = self->engine.type->incoming(&self->engine);
    bool replies_full =
        self->writing_paused && self->reply_bytes > MAX_REPLY_BYTES;
    /* During a shutdown data is dropped, and the peer's close_notify comes
       after it.  `low` wins if both marks are 0: nothing would resume the
       transport. */
    bool low = incoming <= self->transport->read_low_bytes
               || self->phase == FL_TLS_SHUTDOWN;
    bool full = incoming >= self->transport->read_high_bytes && !low;
    bool pauses = replies_full || (self->raw_paused ? !low : full);
    if (pauses == self->raw_paused) {
        return 0;
    }
    self->raw_paused = pauses;
    FlNames *names = &self->state->names;
    return fl_call_method(self->raw,
                          pauses ? names->pause_reading
                                 : names->resume_reading,
                          NULL);
}

PyObject *
fl_tls_resume_writing(FlTls *self, PyObject *Py_UNUSED(ignored))
{
    self->writing_paused = false;
    self->reply_bytes = 0;
    int code = fl_tls_write_backlog(self);
    if (code == 0 && self->raw_paused) {
        code = fl_tls_control_reading(self);
    }
    /* The raw transport would only report an exception.  But records are lost
       then, so the connection must end. */
    return fl_call_none(code < 0 ? fl_tls_fatal(self, FL_TLS_FATAL_TEXT) : 0);
}
