/* The life of a TLS connection: handshake, shutdown, end, errors.

   1. The phase changes as connection.h says.  A function that has called
      Python checks the phase before it goes on: the call may have closed the
      connection.  Going on would set a phase that is over (asyncio raises
      RuntimeError from close() in this case).
   2. An alert that a failed handshake has produced is not sent.  The peer sees
      the connection end without it, as with asyncio.
   3. The peer may still send data after the application's close().  That data
      is read and dropped until the peer closes or the shutdown times out.
      asyncio ends such a connection with an error.
   4. Data written before a shutdown is passed to the raw transport before that
      is closed, even if it has called pause_writing.  asyncio drops it.
   5. handshake_failed and fl_tls_fatal handle subclasses of Exception alone.
      CancelledError and KeyboardInterrupt stay raised and propagate into the
      raw transport, as in asyncio. */
#include "tls/connection.h"

#include "core/loop.h"
#include "py/call.h"
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

/* End the connection with the raised exception.  Invariants 2 and 5. */
static int
handshake_failed(FlTls *self)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    bool bad_certificate =
        PyErr_ExceptionMatches(self->state->tls_certificate_error);
    PyObject *exc = PyErr_GetRaisedException();
    self->phase = FL_TLS_UNWRAPPED; /* from here on fl_tls_send does nothing */
    int code = fl_tls_fatal_exception(
        self, exc,
        bad_certificate ? "SSL handshake failed on verifying the certificate"
                        : "SSL handshake failed");
    if (code == 0) {
        code = fl_tls_wake_waiter(self, exc);
    }
    Py_DECREF(exc);
    return code;
}

/* extra[name] = sslobject.method() */
static int
store_extra(FlTls *self, PyObject *name, PyObject *method)
{
    PyObject *value = PyObject_CallMethodNoArgs(self->engine.object, method);
    if (value == NULL) {
        return -1;
    }
    int code = PyDict_SetItem(self->extra, name, value);
    Py_DECREF(value);
    return code;
}

static int
call_connection_made(FlTls *self)
{
    FlNames *names = &self->state->names;
    /* Before the call: if it raises or closes, connection_lost must follow. */
    self->app_state = FL_TLS_APP_MADE;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *transport = Py_NewRef((PyObject *)self->transport);
    /* connection_made itself is called by its method even if the protocol is
       native; `before_connection_made` only prepares for it. */
    if (self->native != NULL && self->native->before_connection_made != NULL) {
        self->native->before_connection_made(self->state, protocol);
    }
    PyObject *result =
        PyObject_CallMethodOneArg(protocol, names->connection_made, transport);
    Py_DECREF(transport);
    Py_DECREF(protocol);
    return fl_call_done(result);
}

/* Fill the dict behind get_extra_info, in asyncio's order.  An error of
   getpeercert() fails the handshake; the other errors are the caller's.  A
   subclass of SSLObject may end the connection in any of these calls. */
static int
store_handshake_extra(FlTls *self)
{
    FlNames *names = &self->state->names;
    if (store_extra(self, names->peercert, names->getpeercert) < 0) {
        return handshake_failed(self);
    }
    if (self->loop->debug && self->handshake_start != NULL
        && fl_tls_call_module(self, names->log_handshake,
                              self->handshake_start, NULL)
               < 0)
    {
        return -1;
    }
    if (store_extra(self, names->cipher, names->cipher) < 0
        || store_extra(self, names->compression, names->compression) < 0)
    {
        return -1;
    }
    return PyDict_SetItem(self->extra, names->ssl_object, self->engine.object);
}

/* The handshake has succeeded: call the application's connection_made, resolve
   the waiter, read what has arrived already. */
static int
handshake_done(FlTls *self)
{
    self->phase = FL_TLS_WRAPPED;
    /* Before any call into Python, which could feed records: data must not
       reach the protocol before connection_made and the waiter. */
    fl_tls_delay_begin(self);
    int code = store_handshake_extra(self);
    if (code < 0 || self->phase != FL_TLS_WRAPPED) {
        /* The waiter will not be resolved here, so nothing would end the
           delay. */
        self->delay_iterations = 0;
        return code < 0 ? -1 : fl_tls_process(self);
    }
    /* With start_tls the protocol has had its connection_made. */
    if (self->app_state == FL_TLS_APP_NEW && call_connection_made(self) < 0) {
        self->delay_iterations = 0;
        return fl_tls_fatal(
            self, "Fatal error: protocol.connection_made() call failed.");
    }
    return fl_tls_delay_wake(self) < 0 ? -1 : fl_tls_read(self);
}

/* One call of SSLObject.do_handshake(), and what follows from its outcome.
   asyncio handles SSLError alone; other exceptions propagate. */
static int
run_handshake(FlTls *self)
{
    self->engine_busy = true;
    PyObject *result =
        PyObject_CallMethodNoArgs(self->engine.object,
                                  self->state->names.do_handshake);
    self->engine_busy = false;
    if (result == NULL) {
        self->engine.type->fix_error(&self->engine);
    }
    if (result == NULL
        && PyErr_ExceptionMatches(self->state->tls_again_errors)) {
        PyErr_Clear(); /* no error: the peer must send first */
        return fl_tls_send(self, false);
    }
    if (result == NULL && !PyErr_ExceptionMatches(self->state->tls_error)) {
        return -1;
    }
    Py_XDECREF(result);
    PyObject *exc = result == NULL ? PyErr_GetRaisedException() : NULL;
    if (self->phase != FL_TLS_HANDSHAKE) {
        Py_XDECREF(exc); /* a callback of the context has closed it */
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

/* The engine must outlive run_handshake, which goes on as far as delivering
   data to the protocol. */
static int
do_handshake(FlTls *self)
{
    if (self->engine_busy) {
        return fl_tls_defer(self);
    }
    self->engine_users++;
    int code = run_handshake(self);
    fl_tls_engine_release(self);
    return code;
}

int
fl_tls_connection_made(FlTls *self, PyObject *raw)
{
    FlNames *names = &self->state->names;
    if (self->lost) {
        return 0; /* start_tls had queued this call when the end came */
    }
    /* The old reference is released last: a finalizer may run. */
    PyObject *previous = self->raw;
    self->raw = Py_NewRef(raw);
    self->raw_is_stream = Py_IS_TYPE(raw, self->state->stream_type);
    Py_XDECREF(previous);
    if (self->loop->debug) {
        if (fl_tls_log(self, "%r starts SSL handshake") < 0) {
            return -1;
        }
        PyObject *now =
            PyObject_CallMethodNoArgs((PyObject *)self->loop, names->time);
        if (now == NULL) {
            return -1;
        }
        Py_XSETREF(self->handshake_start, now);
    }
    /* The timer first: the peer may never answer. */
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

/* Queue raw.close(), as asyncio does.  The raw transport sends its buffer
   before it closes. */
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

/* unwrap() raised an SSLError: end the connection with it. */
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

/* Send close_notify and wait for the peer's.  SSLObject.unwrap() fails if data
   is left to read, so this first reads and drops all of it (invariant 3).
   unwrap() is called once when nothing is left, to send close_notify, and
   again only when the peer's close_notify has been read. */
static FlTlsResult
unwrap(FlTls *self)
{
    FlTlsResult result = fl_tls_discard(self);
    if (result == FL_TLS_RAISED
        || (result == FL_TLS_AGAIN && self->close_notify_sent))
    {
        return result;
    }
    if (self->deferred) {
        return FL_TLS_AGAIN; /* records arrived during a read; come back */
    }
    self->close_notify_sent = true;
    self->engine_busy = true;
    PyObject *done = PyObject_CallMethodNoArgs(self->engine.object,
                                               self->state->names.unwrap);
    self->engine_busy = false;
    if (done != NULL) {
        Py_DECREF(done);
        return FL_TLS_DONE;
    }
    self->engine.type->fix_error(&self->engine);
    if (PyErr_ExceptionMatches(self->state->tls_again_errors)) {
        PyErr_Clear(); /* no error: the peer must reply */
        return FL_TLS_AGAIN;
    }
    return FL_TLS_RAISED;
}

static int
do_shutdown(FlTls *self)
{
    if (self->engine_busy) {
        return fl_tls_defer(self);
    }
    if (!self->eof_received) { /* else the peer cannot reply any more */
        self->engine_users++;
        FlTlsResult result = unwrap(self);
        fl_tls_engine_release(self);
        if (result == FL_TLS_AGAIN) {
            /* The raw transport may be paused: the reply must get in. */
            return fl_tls_send(self, false) < 0 ? -1
                                                : fl_tls_control_reading(self);
        }
        if (result == FL_TLS_RAISED) {
            return PyErr_ExceptionMatches(self->state->tls_error)
                       ? shutdown_failed(self)
                       : -1;
        }
    }
    /* Invariant 4.  As in asyncio the protocol gets eof_received also after
       its own close(), if it has not had it. */
    if (fl_tls_send(self, true) < 0 || fl_tls_call_eof_received(self) < 0) {
        return -1;
    }
    return shutdown_done(self);
}

/* Deliver received data, send written data, then shut down.  Returns early in
   FLUSHING whenever another call is certain to continue. */
static int
do_flush(FlTls *self)
{
    if (fl_tls_read(self) < 0) {
        return -1;
    }
    if (self->phase != FL_TLS_FLUSHING) {
        return 0; /* the protocol has ended the connection */
    }
    if (self->engine_busy || self->delay_iterations > 0 || self->deferred) {
        return 0; /* the outer call or a queued one continues */
    }
    /* The peer's EOF must not cost a paused protocol its data.  After its own
       close() it gets no more data, so nothing is waited for. */
    if (self->app_paused && !self->closing
        && (self->engine.more
            || self->engine.type->incoming(&self->engine) > 0))
    {
        return 0; /* resume_reading continues */
    }
    if (fl_tls_write_backlog(self) < 0) {
        return fl_tls_fatal(self, "Fatal error on SSL protocol");
    }
    if (self->phase != FL_TLS_FLUSHING) {
        return 0; /* sending has ended the connection */
    }
    self->phase = FL_TLS_SHUTDOWN;
    return do_shutdown(self);
}

int
fl_tls_start_shutdown(FlTls *self)
{
    /* asyncio also returns in FLUSHING.  There a protocol that has paused
       reading when the peer's EOF arrives, and then closes, leaves a
       connection that never ends. */
    if (self->phase == FL_TLS_UNWRAPPED || self->phase == FL_TLS_SHUTDOWN
        || self->closing)
    {
        return 0;
    }
    /* The shutdown may begin with the peer's close_notify: is_closing() must
       be true from here on. */
    if (self->transport != NULL) {
        self->transport->closed = true;
    }
    if (self->phase == FL_TLS_HANDSHAKE) {
        return fl_tls_abort(self, NULL);
    }
    bool was_flushing = self->phase == FL_TLS_FLUSHING;
    self->closing = true;
    self->phase = FL_TLS_FLUSHING;
    if (was_flushing && !self->app_paused) {
        return 0; /* a do_flush is on the stack or queued, and continues */
    }
    if (fl_tls_start_timer(self, self->shutdown_timeout,
                           self->state->names.shutdown_timed_out)
        < 0)
    {
        return -1;
    }
    return do_flush(self);
}

/* The raw transport answers with connection_lost, in a later iteration if it
   is ours; from here on nothing is delivered or sent. */
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

/* --- calls of the raw transport ------------------------------------------ */

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
        break; /* records fed before the handshake stay in the engine */
    }
    return 0;
}

int
fl_tls_receive(FlTls *self, const char *data, size_t size_bytes)
{
    FlTlsEngine *engine = &self->engine;
    /* UNWRAPPED with a raw transport is the end; without one the handshake has
       not begun (start_tls feeds what was read before it). */
    if (engine->type == NULL || self->lost
        || (self->phase == FL_TLS_UNWRAPPED && self->raw != NULL))
    {
        return 0; /* the raw transport is being closed: drop the records */
    }
    if (engine->type->feed(engine, data, size_bytes) < 0) {
        return fl_tls_fatal(self, "Fatal error on SSL protocol");
    }
    /* Settle even after an error: the engine still points into `data`, which
       is the caller's memory. */
    int code = fl_tls_process(self);
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    code = fl_tls_settle(self);
    if (code < 0 && exc == NULL) {
        code = fl_tls_fatal(self, "Fatal error on SSL protocol");
    }
    return fl_error_keep_first(exc, code, (PyObject *)self);
}

/* asyncio's eof_received() by phase.  1: keep the raw transport open, because
   data is still to be delivered; 0; -1. */
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
            return 1; /* resume_reading delivers the data, then shuts down */
        }
        if (do_flush(self) < 0) {
            return -1;
        }
        /* Still FLUSHING: do_flush has something left to deliver. */
        return self->phase == FL_TLS_FLUSHING;
    case FL_TLS_FLUSHING:
        /* The shutdown has begun already, by close() or by the peer's
           close_notify.  Unread data is not waited for, but what an outer or
           queued call is delivering now comes first. */
        if (self->engine_busy || self->delay_iterations > 0 || self->deferred)
        {
            return fl_tls_defer(self) < 0 ? -1 : 1;
        }
        if (fl_tls_write_backlog(self) < 0) {
            return -1;
        }
        if (self->phase == FL_TLS_FLUSHING) {
            self->phase = FL_TLS_SHUTDOWN;
            return do_shutdown(self);
        }
        return 0;
    case FL_TLS_SHUTDOWN: /* close_notify cannot come any more: finish */
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
    /* asyncio closes the raw transport and raises again. */
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
    /* Detached first: releasing the objects may run Python, and the
       application may own the SSLObject. */
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
fl_tls_release_early(FlTls *self)
{
    self->closed_twice = true;
    if (self->lost && self->engine_users == 0) {
        fl_tls_drop_engine(self);
    }
}

void
fl_tls_engine_release(FlTls *self)
{
    self->engine_users--;
    if (FL_UNLIKELY(self->lost && self->closed_twice
                    && self->engine_users == 0)) {
        /* Freeing the objects may run Python, which must not see the caller's
           exception. */
        PyObject *exc = PyErr_GetRaisedException();
        fl_tls_drop_engine(self);
        fl_error_restore(exc);
    }
}

/* The body of connection_lost, in asyncio's order: queue the protocol's
   connection_lost, release everything, then resolve the waiter and cancel the
   timer.  Each step runs whether or not an earlier one has failed; the first
   exception is the one that is raised. */
static int
end_connection(FlTls *self, PyObject *exc)
{
    FlNames *names = &self->state->names;
    int code = 0;
    fl_write_queue_clear(&self->backlog);
    self->writes_after_loss++; /* as asyncio's _conn_lost */
    self->lost = true;
    if (self->transport != NULL) {
        self->transport->closed = true;
    }
    PyObject *protocol = self->protocol;
    self->protocol = NULL;
    self->native = NULL;
    /* A connection lost during the handshake only resolves the waiter, also
       after start_tls. */
    if (self->phase != FL_TLS_HANDSHAKE
        && (self->app_state == FL_TLS_APP_MADE
            || self->app_state == FL_TLS_APP_EOF))
    {
        self->app_state = FL_TLS_APP_LOST;
        code = fl_tls_call_soon(self, protocol, names->connection_lost, exc);
    }
    PyObject *raised = code < 0 ? PyErr_GetRaisedException() : NULL;
    self->phase = FL_TLS_UNWRAPPED;
    if (self->closed_twice && self->engine_users == 0) {
        fl_tls_drop_engine(self);
    }
    else if (self->engine.type != NULL) { /* get_extra_info still needs it */
        self->engine.type->detach(&self->engine);
    }
    /* The fields are NULL before the first release, which may run a
       finalizer that looks at them. */
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
    /* Data that the delay still holds back is delivered before the end.  That
       runs Python, which may call this function: hence `lost` is checked. */
    bool is_delayed = self->delay_iterations > 0 && !self->abandoned;
    int code = is_delayed ? fl_tls_delay_end(self) : 0;
    PyObject *raised = code < 0 ? PyErr_GetRaisedException() : NULL;
    code = self->lost ? 0 : end_connection(self, exc);
    return fl_error_keep_first(raised, code, (PyObject *)self);
}

/* --- extra info ---------------------------------------------------------- */

PyObject *
fl_tls_get_extra(FlTls *self, PyObject *name, PyObject *fallback)
{
    PyObject *found = NULL;
    PyObject *extra = Py_XNewRef(self->extra);
    /* Owned: hashing `name` may run Python, which may free the dict. */
    int code = extra == NULL ? 0 : PyDict_GetItemRef(extra, name, &found);
    Py_XDECREF(extra);
    if (code < 0) {
        return NULL;
    }
    if (found != NULL) {
        return found;
    }
    int is_engine_name =
        PyUnicode_Check(name)
            ? PyUnicode_CompareWithASCIIString(name, "tls_engine") == 0
            : 0;
    /* Not in the dict: asyncio's has no such key. */
    if (is_engine_name && self->engine.type != NULL) {
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
