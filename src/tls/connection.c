/* A filter's life: handshake, shutdown, end, and its errors.

   1. The phase goes as connection.h says; whoever called Python looks at it again
      before going on (asyncio raises RuntimeError from close() there).
   2. The handshake's records that a failure makes, an alert, are not sent: as
      asyncio, whose peers see the connection end.
   3. Where the application's close() meets data that the peer still sends,
      that is read and dropped until the peer ends or the time is over;
      asyncio ends with an error.
   4. What was written before a shutdown is handed to the raw transport before
      that is closed, even if it has asked for a pause; asyncio drops it. */
#include "tls/connection.h"

#include "core/loop.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "tls/engine.h"
#include "tls/deferred.h"
#include "tls/tls_calls.h"
#include "tls/tls_read.h"
#include "tls/tls_write.h"
#include "transport/write_queue.h"

/* --- handshake ----------------------------------------------------------- */

static int
handshake_failed(FlTls *self)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    bool certificate =
        PyErr_ExceptionMatches(self->state->tls_certificate_error);
    PyObject *exc = PyErr_GetRaisedException();
    self->phase = FL_TLS_UNWRAPPED;
    int code = fl_tls_fatal_exception(
        self, exc,
        certificate ? "SSL handshake failed on verifying the certificate"
                    : "SSL handshake failed");
    if (code == 0) {
        code = fl_tls_wake_waiter(self, exc);
    }
    Py_DECREF(exc);
    return code;
}

/* extra[name] = sslobject.method() */
static int
note_answer(FlTls *self, PyObject *name, PyObject *method)
{
    PyObject *answer = PyObject_CallMethodNoArgs(self->engine.object, method);
    if (answer == NULL) {
        return -1;
    }
    int code = PyDict_SetItem(self->extra, name, answer);
    Py_DECREF(answer);
    return code;
}

static int
call_connection_made(FlTls *self)
{
    FlNames *names = &self->state->names;
    self->app_state = FL_TLS_APP_MADE;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *transport = Py_NewRef((PyObject *)self->transport);
    if (self->native != NULL && self->native->connecting != NULL) {
        self->native->connecting(self->state, protocol);
    }
    PyObject *made =
        PyObject_CallMethodOneArg(protocol, names->connection_made, transport);
    Py_DECREF(transport);
    Py_DECREF(protocol);
    return fl_tls_done(made);
}

/* Note what get_extra_info tells.  A method of the SSLObject's class may end
   the connection. */
static int
note_answers(FlTls *self)
{
    FlNames *names = &self->state->names;
    if (note_answer(self, names->peercert, names->getpeercert) < 0) {
        return handshake_failed(self);
    }
    if (self->loop->debug && self->began != NULL
        && fl_tls_call_cold(self, names->log_handshake, self->began, NULL) < 0)
    {
        return -1;
    }
    if (note_answer(self, names->cipher, names->cipher) < 0
        || note_answer(self, names->compression, names->compression) < 0)
    {
        return -1;
    }
    return PyDict_SetItem(self->extra, names->ssl_object, self->engine.object);
}

/* The handshake is done: make the application's connection. */
static int
handshake_done(FlTls *self)
{
    self->phase = FL_TLS_WRAPPED;
    fl_tls_begin_awaiting(self);
    int code = note_answers(self);
    if (code < 0 || self->phase != FL_TLS_WRAPPED) {
        self->awaited = 0;
        return code < 0 ? -1 : fl_tls_process(self);
    }
    if (self->app_state == FL_TLS_APP_NEW && call_connection_made(self) < 0) {
        self->awaited = 0;
        return fl_tls_fatal(
            self, "Fatal error: protocol.connection_made() call failed.");
    }
    return fl_tls_wake_first(self) < 0 ? -1 : fl_tls_read(self);
}

static int
shake_hands(FlTls *self)
{
    self->busy = true;
    PyObject *result =
        PyObject_CallMethodNoArgs(self->engine.object,
                                  self->state->names.do_handshake);
    self->busy = false;
    if (result == NULL) {
        self->engine.type->explain(&self->engine);
    }
    if (result == NULL
        && PyErr_ExceptionMatches(self->state->tls_again_errors)) {
        PyErr_Clear(); /* no error: the peer has to send first */
        return fl_tls_send(self, false);
    }
    if (result == NULL && !PyErr_ExceptionMatches(self->state->tls_error)) {
        return -1;
    }
    Py_XDECREF(result);
    PyObject *exc = result == NULL ? PyErr_GetRaisedException() : NULL;
    if (self->phase != FL_TLS_HANDSHAKE) {
        Py_XDECREF(exc); /* a callback of the context has ended it */
        return 0;
    }
    int code = fl_tls_stop_timer(self);
    if (exc == NULL) {
        return code < 0 ? -1 : handshake_done(self);
    }
    if (code < 0) {
        Py_DECREF(exc);
        return -1;
    }
    PyErr_SetRaisedException(exc);
    return handshake_failed(self);
}

static int
do_handshake(FlTls *self)
{
    if (self->busy) {
        return fl_tls_put_off(self);
    }
    self->users++;
    int code = shake_hands(self);
    fl_tls_end_use(self);
    return code;
}

int
fl_tls_connection_made(FlTls *self, PyObject *raw)
{
    FlNames *names = &self->state->names;
    if (self->lost) {
        return 0; /* start_tls has queued this call before the end */
    }
    PyObject *before = self->raw;
    self->raw = Py_NewRef(raw);
    self->raw_is_stream = Py_IS_TYPE(raw, self->state->stream_type);
    Py_XDECREF(before);
    if (self->loop->debug) {
        if (fl_tls_log(self, "%r starts SSL handshake") < 0) {
            return -1;
        }
        PyObject *now =
            PyObject_CallMethodNoArgs((PyObject *)self->loop, names->time);
        if (now == NULL) {
            return -1;
        }
        Py_XSETREF(self->began, now);
    }
    self->phase = FL_TLS_HANDSHAKE;
    if (fl_tls_start_timer(self, self->handshake_timeout,
                           names->handshake_timed_out)
        < 0)
    {
        return -1;
    }
    return do_handshake(self);
}

/* --- shutdown ------------------------------------------------------------ */

/* The raw transport closes when it has sent what it was given. */
static int
shutdown_done(FlTls *self)
{
    if (fl_tls_stop_timer(self) < 0) {
        return -1;
    }
    return self->raw == NULL
               ? 0
               : fl_tls_call_soon(self, self->raw, self->state->names.close,
                                  NULL);
}

static int
shutdown_failed(FlTls *self)
{
    PyObject *exc = PyErr_GetRaisedException();
    int code = fl_tls_stop_timer(self);
    if (code == 0) {
        code = fl_tls_fatal_exception(self, exc, "Fatal error on transport");
    }
    Py_DECREF(exc);
    return code;
}

/* Send close_notify and wait for the peer's.  asyncio's unwrap() fails where
   data comes in between: that is read and dropped before it is called. */
static FlTlsResult
unwrap(FlTls *self)
{
    FlTlsResult result = fl_tls_discard(self);
    if (result == FL_TLS_RAISED || (result == FL_TLS_AGAIN && self->notified))
    {
        return result;
    }
    if (self->put_off) {
        return FL_TLS_AGAIN; /* more may have come in the midst of a read */
    }
    self->notified = true;
    self->busy = true;
    PyObject *done = PyObject_CallMethodNoArgs(self->engine.object,
                                               self->state->names.unwrap);
    self->busy = false;
    if (done != NULL) {
        Py_DECREF(done);
        return FL_TLS_DONE;
    }
    self->engine.type->explain(&self->engine);
    if (PyErr_ExceptionMatches(self->state->tls_again_errors)) {
        PyErr_Clear(); /* no error: the peer has to answer */
        return FL_TLS_AGAIN;
    }
    return FL_TLS_RAISED;
}

static int
do_shutdown(FlTls *self)
{
    if (self->busy) {
        return fl_tls_put_off(self);
    }
    if (!self->eof_received) {
        self->users++;
        FlTlsResult result = unwrap(self);
        fl_tls_end_use(self);
        if (result == FL_TLS_AGAIN) {
            return fl_tls_send(self, false) < 0 ? -1
                                                : fl_tls_control_reading(self);
        }
        if (result == FL_TLS_RAISED) {
            return PyErr_ExceptionMatches(self->state->tls_error)
                       ? shutdown_failed(self)
                       : -1;
        }
    }
    if (fl_tls_send(self, true) < 0 || fl_tls_call_eof_received(self) < 0) {
        return -1;
    }
    return shutdown_done(self);
}

/* Deliver what came, send what was written, then shut down. */
static int
do_flush(FlTls *self)
{
    if (fl_tls_read(self) < 0) {
        return -1;
    }
    if (self->phase != FL_TLS_FLUSHING) {
        return 0; /* the protocol has ended it meanwhile */
    }
    if (self->busy || self->awaited > 0 || self->put_off) {
        return 0; /* it goes on by itself */
    }
    if (self->app_paused && !self->closing
        && (self->engine.more
            || self->engine.type->incoming(&self->engine) > 0))
    {
        return 0; /* the protocol has paused: it goes on by resume_reading */
    }
    if (fl_tls_write_backlog(self) < 0) {
        return fl_tls_fatal(self, "Fatal error on SSL protocol");
    }
    if (self->phase != FL_TLS_FLUSHING) {
        return 0;
    }
    self->phase = FL_TLS_SHUTDOWN;
    return do_shutdown(self);
}

int
fl_tls_start_shutdown(FlTls *self)
{
    /* asyncio returns while FLUSHING: closed by a protocol that has paused
       reading when the peer's end came, a connection then lives for ever. */
    if (self->phase == FL_TLS_UNWRAPPED || self->phase == FL_TLS_SHUTDOWN
        || self->closing)
    {
        return 0;
    }
    if (self->transport != NULL) {
        self->transport->closed = true;
    }
    if (self->phase == FL_TLS_HANDSHAKE) {
        return fl_tls_abort(self, NULL);
    }
    bool flushes = self->phase == FL_TLS_FLUSHING;
    self->closing = true;
    self->phase = FL_TLS_FLUSHING;
    if (flushes && !self->app_paused) {
        return 0; /* further up: it goes on by itself */
    }
    if (fl_tls_start_timer(self, self->shutdown_timeout,
                           self->state->names.shutdown_timed_out)
        < 0)
    {
        return -1;
    }
    return do_flush(self);
}

int
fl_tls_abort(FlTls *self, PyObject *exc)
{
    self->phase = FL_TLS_UNWRAPPED;
    if (self->raw == NULL) {
        return 0;
    }
    if (exc != NULL) {
        return fl_tls_force_close(self, exc);
    }
    return fl_tls_call_raw(self, self->state->names.abort);
}

/* --- what the raw transport tells ---------------------------------------- */

int
fl_tls_process(FlTls *self)
{
    switch (self->phase) {
    case FL_TLS_HANDSHAKE:
        return do_handshake(self);
    case FL_TLS_WRAPPED:
        return fl_tls_read(self);
    case FL_TLS_FLUSHING:
        return do_flush(self);
    case FL_TLS_SHUTDOWN:
        return do_shutdown(self);
    case FL_TLS_UNWRAPPED:
        break; /* kept: the handshake may not have begun */
    }
    return 0;
}

int
fl_tls_receive(FlTls *self, const char *data, size_t size_bytes)
{
    FlTlsEngine *engine = &self->engine;
    if (engine->type == NULL || self->lost
        || (self->phase == FL_TLS_UNWRAPPED && self->raw != NULL))
    {
        return 0; /* the raw transport is being closed: nobody reads it */
    }
    if (engine->type->feed(engine, data, size_bytes) < 0) {
        return fl_tls_fatal(self, "Fatal error on SSL protocol");
    }
    int code = fl_tls_process(self);
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    code = fl_tls_settle(self);
    if (code < 0 && exc == NULL) {
        code = fl_tls_fatal(self, "Fatal error on SSL protocol");
    }
    return fl_error_keep_first(exc, code, (PyObject *)self);
}

static int
receive_eof(FlTls *self)
{
    switch (self->phase) {
    case FL_TLS_HANDSHAKE:
        if (fl_tls_stop_timer(self) < 0) {
            return -1;
        }
        PyErr_SetNone(PyExc_ConnectionResetError);
        return handshake_failed(self);
    case FL_TLS_WRAPPED:
        self->phase = FL_TLS_FLUSHING;
        if (self->app_paused) {
            return 1;
        }
        if (do_flush(self) < 0) {
            return -1;
        }
        /* A protocol that paused meanwhile gets the rest later. */
        return self->phase == FL_TLS_FLUSHING;
    case FL_TLS_FLUSHING:
        if (self->busy || self->awaited > 0 || self->put_off) {
            return fl_tls_put_off(self) < 0 ? -1 : 1;
        }
        if (fl_tls_write_backlog(self) < 0) {
            return -1;
        }
        if (self->phase == FL_TLS_FLUSHING) {
            self->phase = FL_TLS_SHUTDOWN;
            return do_shutdown(self);
        }
        return 0;
    case FL_TLS_SHUTDOWN:
        return do_shutdown(self);
    case FL_TLS_UNWRAPPED:
        break;
    }
    return 0;
}

int
fl_tls_receive_eof(FlTls *self)
{
    self->eof_received = true;
    int code = 0;
    if (self->loop->debug) {
        code = fl_tls_log(self, "%r received EOF");
    }
    if (code == 0) {
        code = receive_eof(self);
    }
    if (code < 0 && self->raw != NULL
        && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *exc = PyErr_GetRaisedException();
        code = fl_tls_call_raw(self, self->state->names.close);
        code = fl_error_keep_first(exc, code, (PyObject *)self);
    }
    return code;
}

void
fl_tls_drop_engine(FlTls *self)
{
    FlTlsEngine *engine = &self->engine;
    if (engine->type != NULL) {
        engine->type->detach(engine);
    }
    engine->type = NULL;
    engine->ssl = NULL;
    engine->pipe = NULL;
    Py_CLEAR(engine->object);
    Py_CLEAR(engine->incoming);
    Py_CLEAR(engine->outgoing);
    Py_CLEAR(engine->owner);
    Py_CLEAR(self->context);
    Py_CLEAR(self->extra);
}

void
fl_tls_forget(FlTls *self)
{
    self->forgotten = true;
    if (self->lost && self->users == 0) {
        fl_tls_drop_engine(self);
    }
}

void
fl_tls_end_use(FlTls *self)
{
    self->users--;
    if (FL_UNLIKELY(self->lost && self->forgotten && self->users == 0)) {
        PyObject *exc = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
        fl_tls_drop_engine(self);
        if (exc != NULL) {
            PyErr_SetRaisedException(exc);
        }
    }
}

/* asyncio's order: the protocol's call is queued, everything is let go of, the
   waiter and the timers hear last. */
static int
lose(FlTls *self, PyObject *exc)
{
    FlNames *names = &self->state->names;
    int code = 0;
    fl_write_queue_clear(&self->backlog);
    self->writes_after_loss++;
    self->lost = true;
    if (self->transport != NULL) {
        self->transport->closed = true;
    }
    PyObject *protocol = self->protocol;
    self->protocol = NULL;
    self->native = NULL;
    if (self->phase != FL_TLS_HANDSHAKE
        && (self->app_state == FL_TLS_APP_MADE
            || self->app_state == FL_TLS_APP_EOF))
    {
        self->app_state = FL_TLS_APP_LOST;
        code = fl_tls_call_soon(self, protocol, names->connection_lost, exc);
    }
    PyObject *raised = code < 0 ? PyErr_GetRaisedException() : NULL;
    self->phase = FL_TLS_UNWRAPPED;
    if (self->forgotten && self->users == 0) {
        fl_tls_drop_engine(self);
    }
    else if (self->engine.type != NULL) {
        self->engine.type->detach(&self->engine);
    }
    PyObject *raw = self->raw;
    FlTlsTransport *transport = self->transport;
    self->raw = NULL;
    self->transport = NULL;
    Py_XDECREF(raw);
    Py_XDECREF(transport);
    Py_XDECREF(protocol);
    Py_CLEAR(self->buffer);
    code = fl_tls_wake_waiter(self, exc == Py_None ? NULL : exc);
    code = fl_error_keep_first(raised, code, (PyObject *)self);
    raised = code < 0 ? PyErr_GetRaisedException() : NULL;
    code = fl_tls_stop_timer(self);
    return fl_error_keep_first(raised, code, (PyObject *)self);
}

int
fl_tls_connection_lost(FlTls *self, PyObject *exc)
{
    /* What came before the end is delivered before it. */
    bool waits = self->awaited > 0 && !self->abandoned;
    int code = waits ? fl_tls_stop_awaiting(self) : 0;
    PyObject *raised = code < 0 ? PyErr_GetRaisedException() : NULL;
    code = self->lost ? 0 : lose(self, exc);
    return fl_error_keep_first(raised, code, (PyObject *)self);
}

/* --- extra info ---------------------------------------------------------- */

PyObject *
fl_tls_get_extra(FlTls *self, PyObject *name, PyObject *fallback)
{
    PyObject *found = NULL;
    PyObject *extra = Py_XNewRef(self->extra);
    int code = extra == NULL ? 0 : PyDict_GetItemRef(extra, name, &found);
    Py_XDECREF(extra);
    if (code < 0) {
        return NULL;
    }
    if (found != NULL) {
        return found;
    }
    int ours = PyUnicode_Check(name)
                   ? PyUnicode_CompareWithASCIIString(name, "tls_engine") == 0
                   : 0;
    if (ours && self->engine.type != NULL) {
        return PyUnicode_FromString(self->engine.type->name);
    }
    if (self->raw == NULL) {
        return Py_NewRef(fallback);
    }
    PyObject *raw = Py_NewRef(self->raw);
    found = PyObject_CallMethodObjArgs(raw, self->state->names.get_extra_info,
                                       name, fallback, NULL);
    Py_DECREF(raw);
    return found;
}
