/* The life of a TLS connection: handshake, received data, shutdown, end.

   1. The peer may still send data after the application's close().  That data
      is read and dropped until the peer closes, MOST_DISCARDED bytes are
      dropped or the shutdown times out.  asyncio ends such a connection with
      an error.
   2. Data written before a shutdown is passed to the raw transport before that
      is closed, even if it has called pause_writing.  asyncio drops it.
   3. After the handshake of start_tls() nothing is delivered until the
      application has called a method of the new transport, or for three
      iterations after start_tls() has returned (FL_TLS_HOLD_ITERATIONS says
      which).  Until the task that awaits it has resumed, the application has
      only the old transport: a protocol that replied would write plain text
      to it.  The resume_writing of a protocol that was paused before start_tls
      waits too.  asyncio does not wait.  run_deferred delivers the data, and
      in the next iteration its end, EOF or close_notify: a task that the data
      wakes can still answer.
   4. A close() in another thread leaves the flush to the loop's thread.  This
      holds with a GIL too, as unwrap() releases it and the loop's thread could
      then feed records to the engine.  What other threads write is queued
      during the handshake and dropped in a shutdown. */
#include "tls/lifecycle.h"

#include "core/dispatch.h"
#include "core/loop.h"
#include "core/report.h"
#include "core/write_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"
#include "tls/connection.h"
#include "tls/engine.h"
#include "tls/tls_read.h"
#include "tls/tls_write.h"
#include "transport/stream.h"

/* --- work for a later iteration ------------------------------------------ */

static int process(FlTls *self);
static int tls_handle_eof(FlTls *self);

/* Process, then have the engine copy its unread records: they may lie in the
   caller's memory. */
static int
process_and_settle(FlTls *self)
{
    int code = process(self);
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    code = self->engine.type->settle(&self->engine);
    if (code < 0 && exc == NULL) {
        code = fl_tls_fatal(self, FL_TLS_FATAL_TEXT);
    }
    return fl_error_keep_first(exc, code, (PyObject *)self);
}

static int run_deferred(FlLoop *, PyObject *, PyObject *);

/* In the context of the raw transport's events, so that the protocol sees the
   same context variables in all its calls.  Only our stream has a context that
   we can read; for other transports the loop copies the current one. */
int
fl_tls_defer(FlTls *self)
{
    if (self->raw == NULL) {
        return 0;
    }
    if (fl_loop_check_open(self->loop) < 0) {
        return -1;
    }
    if (self->deferred) {
        return 0;
    }
    PyObject *context = Py_IS_TYPE(self->raw, self->state->stream_type)
                            ? ((FlStream *)self->raw)->context
                            : NULL;
    int code = fl_loop_queue_op(self->loop, run_deferred, (PyObject *)self,
                                NULL, context);
    self->deferred = code == 0;
    return code;
}

/* If a step raised an exception that ends the run, process the rest in the
   next iteration: the loop may run again, and no event may come for it.
   Returns `code`. */
static int
continue_later(FlTls *self, int code)
{
    if (code >= 0 || !fl_exception_ends_run()) {
        return code;
    }
    PyObject *exc = PyErr_GetRaisedException();
    return fl_error_keep_first(exc, fl_tls_defer(self), (PyObject *)self);
}

/* Continue, and count an iteration of the hold.  Its next one is queued after
   the calls, so that it comes after the tasks that they wake.  A raw transport
   ends the connection if the protocol raises.  Here none is the caller, so
   this function ends it. */
static int
run_deferred(FlLoop *loop, PyObject *object, PyObject *Py_UNUSED(ignored))
{
    FlTls *self = (FlTls *)object;
    self->deferred = false; /* before the calls, which may defer again */
    self->hold_iterations -= self->hold_iterations > 0;
    int code = process_and_settle(self);
    const char *failed = FL_BUFFER_FAILED;
    if (code == 0 && self->hold_iterations > 0) {
        code = fl_tls_defer(self);
    }
    else if (code == 0 && self->eof_held) {
        self->eof_held = false;
        failed = FL_EOF_FAILED;
        code = tls_handle_eof(self);
    }
    return code >= 0 || fl_tls_fatal(self, failed) == 0
               ? 0
               : fl_loop_report_callback(loop, NULL);
}

/* --- reading ------------------------------------------------------------- */

/* False if fl_tls_write_backlog would do nothing: it has nothing to encrypt or
   to send, and no protocol to resume. */
static inline bool
may_write(const FlTls *self)
{
    return fl_tls_write_buffer_bytes(self) > 0
           || (self->transport != NULL && self->transport->protocol_paused);
}

/* Read and answer while data flows.  An error ends the connection and is
   reported. */
static inline int
read_records(FlTls *self)
{
    if (self->phase != FL_TLS_WRAPPED && self->phase != FL_TLS_FLUSHING) {
        return 0;
    }
    /* A nested call: connection.h, "No nested engine calls". */
    if (self->engine_busy) {
        return fl_tls_defer(self);
    }
    FlTlsRead left = fl_tls_read(self);
    int code =
        left == FL_TLS_READ_CLOSED ? fl_tls_start_shutdown(self) : (int)left;
    /* Also while the application has paused reading.  What is sent may be the
       last records of the handshake, which asyncio keeps until a write. */
    if (code == 0 && may_write(self)) {
        code = fl_tls_write_backlog(self);
    }
    if (code == 0) {
        code = fl_tls_control_reading(self);
    }
    if (FL_LIKELY(code == 0)) {
        return 0;
    }
    return fl_exception_ends_run() ? continue_later(self, code)
                                   : fl_tls_fatal(self, FL_TLS_FATAL_TEXT);
}

/* --- handshake ----------------------------------------------------------- */

/* Call the SSLObject's do_handshake() or unwrap(). */
static FlTlsResult
call_sslobject(FlTls *self, PyObject *method)
{
    FL_CHECK(!self->engine_busy, "no nested engine calls");
    self->engine_busy = true;
    PyObject *done = PyObject_CallMethodNoArgs(self->engine.object, method);
    self->engine_busy = false;
    if (done != NULL) {
        Py_DECREF(done);
        return FL_TLS_DONE;
    }
    if (PyErr_ExceptionMatches(self->state->tls_again_errors)) {
        PyErr_Clear(); /* no error: the peer must send first */
        return FL_TLS_WANT_READ;
    }
    return FL_TLS_RAISED;
}

/* End the connection with the raised exception; -1 if that ends the run. */
static int
handshake_failed(FlTls *self)
{
    if (fl_exception_ends_run()) {
        return -1;
    }
    fl_tls_fail(self);
    if (self->raw != NULL && self->phase == FL_TLS_HANDSHAKE) {
        fl_tls_set_phase(self, FL_TLS_UNWRAPPED);
    }
    return fl_tls_end(self, self->state->names.report_handshake,
                      "SSL handshake failed");
}

/* Fill the dict behind get_extra_info.  An error of getpeercert() fails the
   handshake; the other errors are the caller's.  A subclass of SSLObject may
   end the connection in any of these calls. */
static int
store_extra(FlTls *self)
{
    FlNames *names = &self->state->names;
    PyObject *object = self->engine.object;
    PyObject *certificate =
        PyObject_CallMethodNoArgs(object, names->getpeercert);
    int code = certificate == NULL ? handshake_failed(self)
                                   : fl_tls_call(self, names->note_handshake,
                                                 object, certificate);
    Py_XDECREF(certificate);
    return code;
}

static int
call_connection_made(FlTls *self)
{
    /* Before the call: if it raises or closes, connection_lost must follow. */
    self->app_state = FL_TLS_APP_MADE;
    PyObject *transport = Py_NewRef((PyObject *)self->transport);
    FlProtocol protocol = fl_protocol_get(self, &self->protocol);
    /* connection_made itself is called by its method even if the protocol is
       native. */
    fl_protocol_before_made(self->state, &protocol);
    int code = fl_call_method(protocol.object,
                              self->state->names.connection_made, transport);
    Py_DECREF(protocol.object);
    Py_DECREF(transport);
    return code;
}

/* The handshake has succeeded: call the application's connection_made, resolve
   the waiter, read what has arrived already. */
static int
handshake_done(FlTls *self)
{
    fl_tls_set_phase(self, FL_TLS_WRAPPED);
    /* Before any call into Python: that could feed records. */
    bool by_start_tls = self->app_state == FL_TLS_APP_MADE;
    self->hold_iterations = by_start_tls ? FL_TLS_HOLD_ITERATIONS : 0;
    int code = store_extra(self);
    if (code < 0 || self->phase != FL_TLS_WRAPPED) {
        /* The waiter will not be resolved here, so nothing would end the
           hold. */
        self->hold_iterations = 0;
        return code < 0 ? -1 : process(self);
    }
    /* With start_tls the protocol has had its connection_made. */
    if (!by_start_tls && call_connection_made(self) < 0) {
        return fl_tls_fatal(
            self, "Fatal error: protocol.connection_made() call failed.");
    }
    /* Resolve the waiter.  Its callbacks run before the hold ends. */
    if ((self->waiter != Py_None
         && fl_tls_call(self, self->state->names.wake_waiter, Py_None, NULL)
                < 0)
        || (self->hold_iterations > 0 && fl_tls_defer(self) < 0))
    {
        self->hold_iterations = 0;
        return -1;
    }
    return read_records(self);
}

/* asyncio handles SSLError alone; other exceptions propagate. */
static int
do_handshake(FlTls *self)
{
    FlTlsResult result = call_sslobject(self, self->state->names.do_handshake);
    if (result == FL_TLS_WANT_READ) {
        return fl_tls_send(self);
    }
    if (result == FL_TLS_RAISED
        && !PyErr_ExceptionMatches(self->state->tls_error)) {
        return -1;
    }
    if (self->phase != FL_TLS_HANDSHAKE) {
        PyErr_Clear(); /* a callback of the context has closed it */
        return 0;
    }
    return result == FL_TLS_RAISED ? handshake_failed(self)
                                   : handshake_done(self);
}

PyObject *
fl_tls_connection_made(FlTls *self, PyObject *raw)
{
    if (self->phase == FL_TLS_LOST) {
        Py_RETURN_NONE; /* start_tls had queued this call when the end came */
    }
    fl_field_set(self, &self->raw, raw);
    fl_tls_set_phase(self, FL_TLS_HANDSHAKE);
    /* The timer first: the peer may never answer. */
    int code =
        fl_tls_call(self, self->state->names.handshake_begins, NULL, NULL);
    return fl_call_none(code < 0 ? -1 : process(self));
}

/* --- shutdown ------------------------------------------------------------ */

/* How much a peer may send after close(), in bytes. */
#define MOST_DISCARDED ((size_t)16 << 20)

/* Send close_notify and wait for the peer's.  SSLObject.unwrap() fails if data
   is left to read, so this first reads and drops all of it (invariant 1).
   unwrap() is called once when nothing is left, to send close_notify, and
   again only when the peer's close_notify has been read. */
static FlTlsResult
unwrap(FlTls *self)
{
    FlTlsResult result = fl_tls_discard(self);
    /* If `deferred`, records may have arrived during a read: come back. */
    bool may_unwrap = result == FL_TLS_END
                      || (result == FL_TLS_WANT_READ
                          && !self->close_notify_sent && !self->deferred);
    if (!may_unwrap || self->phase != FL_TLS_SHUTDOWN) {
        return result;
    }
    self->close_notify_sent = true;
    return call_sslobject(self, self->state->names.unwrap);
}

static int
do_shutdown(FlTls *self)
{
    if (self->engine_busy) {
        return fl_tls_defer(self);
    }
    /* After EOF the peer cannot reply any more. */
    FlTlsResult result = self->eof_received ? FL_TLS_DONE : unwrap(self);
    if (result == FL_TLS_WANT_READ && self->discarded_bytes > MOST_DISCARDED) {
        result = FL_TLS_DONE; /* a download that was given up */
    }
    if (result == FL_TLS_RAISED
        && !PyErr_ExceptionMatches(self->state->tls_error)) {
        return -1;
    }
    if (self->phase != FL_TLS_SHUTDOWN) {
        PyErr_Clear(); /* the SSLObject has ended the connection */
        return 0;
    }
    if (result == FL_TLS_RAISED) {
        return fl_tls_fatal(self, "Fatal error on transport");
    }
    if (result == FL_TLS_WANT_READ) {
        /* The reply must get in, so the raw transport must not be paused.  A
           StreamReader whose writer called start_tls() may have paused it.
           While we have paused it ourselves, it stays so. */
        if (fl_tls_send(self) < 0 || fl_tls_control_reading(self) < 0) {
            return -1;
        }
        return self->raw_paused || self->raw == NULL
                   ? 0
                   : fl_call_method(self->raw,
                                    self->state->names.resume_reading, NULL);
    }
    /* Invariant 2.  As in asyncio the protocol gets eof_received also after
       its own close(), if it has not had it. */
    self->writing_paused = false;
    if (fl_tls_send(self) < 0
        || (self->phase == FL_TLS_SHUTDOWN
            && fl_tls_call_eof_received(self) < 0))
    {
        return -1;
    }
    return self->phase != FL_TLS_SHUTDOWN
               ? 0
               : fl_tls_call(self, self->state->names.shutdown_done, NULL,
                             NULL);
}

/* Whether data waits for the application's resume_reading(). */
static bool
has_data_paused(FlTls *self)
{
    return self->app_paused
           && (self->engine.more
               || self->engine.type->incoming(&self->engine) > 0);
}

/* See do_flush. */
static int
tls_flush(FlTls *self)
{
    /* tls_read.c, invariant 4; a queued call brings no more either. */
    bool was_last = self->closing && self->delivering && !self->engine_busy;
    if (!was_last && read_records(self) < 0) {
        return -1;
    }
    if (self->phase != FL_TLS_FLUSHING) {
        return 0; /* the protocol has ended the connection */
    }
    if (self->engine_busy || (self->deferred && !was_last)) {
        return 0; /* the outer call or a queued one continues */
    }
    /* The peer's EOF must not cost a paused protocol its data.  One that has
       called close() gets no more data, so nothing is waited for. */
    if (!self->closing && has_data_paused(self)) {
        return 0; /* resume_reading continues */
    }
    if (fl_tls_write_backlog(self) < 0) {
        return fl_tls_fatal(self, FL_TLS_FATAL_TEXT);
    }
    if (self->phase != FL_TLS_FLUSHING) {
        return 0; /* sending has ended the connection */
    }
    fl_tls_set_phase(self, FL_TLS_SHUTDOWN);
    return do_shutdown(self);
}

/* Deliver received data, send written data, then shut down.  Returns early in
   FLUSHING whenever another call is certain to continue. */
static int
do_flush(FlTls *self)
{
    return continue_later(self, tls_flush(self));
}

int
fl_tls_start_shutdown(FlTls *self)
{
    /* asyncio also returns in FLUSHING.  Its connection never ends if the
       protocol has paused reading, the peer's EOF arrives, and the protocol
       then closes. */
    if (self->closing || self->phase < FL_TLS_HANDSHAKE
        || self->phase > FL_TLS_FLUSHING)
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
    fl_tls_set_phase(self, FL_TLS_FLUSHING);
    if (was_flushing && !self->app_paused) {
        return 0; /* a do_flush is on the stack or queued, and continues */
    }
    if (fl_tls_call(self, self->state->names.shutdown_begins, NULL, NULL) < 0)
    {
        /* Without its timer nothing may ever end the connection. */
        PyObject *exc = PyErr_GetRaisedException();
        int code = fl_tls_abort(self, NULL);
        if (code < 0 && self->loop->closed) {
            PyErr_Clear(); /* it raises the same: "Event loop is closed" */
            code = 0;
        }
        return fl_error_keep_first(exc, code, (PyObject *)self);
    }
    return fl_loop_runs_elsewhere(self->loop) ? fl_tls_defer(self)
                                              : do_flush(self);
}

/* --- calls of the raw transport ------------------------------------------ */

/* Do the next step of the current phase: handshake, read, flush, shutdown or
   end.  Does nothing when UNWRAPPED. */
static int
process(FlTls *self)
{
    switch (self->phase) {
    case FL_TLS_HANDSHAKE:
        return self->engine_busy ? fl_tls_defer(self) : do_handshake(self);
    case FL_TLS_WRAPPED:
        return read_records(self);
    case FL_TLS_FLUSHING:
        return do_flush(self);
    case FL_TLS_SHUTDOWN:
        return continue_later(self, do_shutdown(self));
    case FL_TLS_FAILED: /* the last delivery raised KeyboardInterrupt */
        PyErr_SetRaisedException(Py_NewRef(self->failure));
        return fl_tls_fatal(self, FL_TLS_FATAL_TEXT);
    case FL_TLS_NEW: /* records fed now stay in the engine */
    case FL_TLS_UNWRAPPED:
    case FL_TLS_LOST:
        break;
    }
    return 0;
}

int
fl_tls_receive(FlTls *self, const char *data, size_t size_bytes)
{
    FlTlsEngine *engine = &self->engine;
    if (self->phase >= FL_TLS_FAILED) {
        return 0; /* the raw transport is being closed: drop the records */
    }
    bool nested = self->engine_busy;
    self->engine_busy = true;
    int code = engine->type->feed(engine, data, size_bytes);
    self->engine_busy = nested;
    return code < 0 ? fl_tls_fatal(self, FL_TLS_FATAL_TEXT)
                    : process_and_settle(self);
}

/* FlNativeProtocol.data_received. */
static int
receive_data(FlState *Py_UNUSED(state), PyObject *object, const char *data,
             size_t size_bytes)
{
    return fl_tls_receive((FlTls *)object, data, size_bytes);
}

/* asyncio's eof_received() by phase.  1: keep the raw transport open, because
   data is still to be delivered; 0; -1. */
static int
receive_eof(FlTls *self)
{
    switch (self->phase) {
    case FL_TLS_HANDSHAKE:
        PyErr_SetNone(PyExc_ConnectionResetError);
        return handshake_failed(self);
    case FL_TLS_WRAPPED:
        fl_tls_set_phase(self, FL_TLS_FLUSHING);
        if (self->app_paused) {
            return 1; /* resume_reading delivers the data, then shuts down */
        }
        /* fall through */
    case FL_TLS_FLUSHING:
        if (do_flush(self) < 0) {
            return -1;
        }
        /* Still FLUSHING: do_flush has something left to deliver. */
        return self->phase == FL_TLS_FLUSHING;
    default:
        /* In a shutdown close_notify cannot come any more: finish. */
        return process(self);
    }
}

/* asyncio's eof_received().  Returns as receive_eof. */
static int
tls_handle_eof(FlTls *self)
{
    self->eof_received = true;
    int code = receive_eof(self);
    /* asyncio closes the raw transport and raises again. */
    if (code < 0 && self->raw != NULL
        && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *exc = PyErr_GetRaisedException();
        code = fl_call_method(self->raw, self->state->names.close, NULL);
        code = fl_error_keep_first(exc, code, (PyObject *)self);
    }
    return code;
}

int
fl_tls_receive_eof(FlTls *self)
{
    if (self->hold_iterations == 0) {
        return tls_handle_eof(self);
    }
    /* Invariant 3.  A raw transport that is TLS closes in any case. */
    self->eof_held = true;
    return !Py_IS_TYPE(self->raw, self->state->tls_transport_type);
}

/* No find_room: records are read to the stream's scratch buffer, from which
   the engine takes them directly. */
const FlNativeProtocol fl_tls_native = {
    .data_received = receive_data,
    .data_failed = FL_BUFFER_FAILED, /* _loop/_tls.py has this text */
};

/* --- the end ------------------------------------------------------------- */

/* As asyncio's connection_lost: what the peer has not got is dropped. */
static void
drop_records(FlTls *self)
{
    fl_write_queue_clear(&self->backlog);
    self->passed_bytes = 0;
    if (self->engine_busy) {
        return; /* they go with the engine */
    }
    PyObject *records = self->engine.type->take(&self->engine);
    if (records == NULL) {
        PyErr_Clear(); /* no memory: so do they */
    }
    Py_XDECREF(records);
}

/* In asyncio's order, by connection_lost of _loop/_tls.py: queue the
   protocol's connection_lost, resolve the waiter, cancel the timer. */
static int
tls_release(FlTls *self, PyObject *exc)
{
    /* A connection lost during the handshake only resolves the waiter, also
       after start_tls. */
    bool was_made =
        self->phase != FL_TLS_HANDSHAKE && self->app_state != FL_TLS_APP_NEW;
    /* Fields are set before any call that runs Python: a finalizer that reads
       them finds a connection that has ended. */
    PyObject *protocol = fl_protocol_get(self, &self->protocol).object;
    PyObject *raw = fl_field_get(self, &self->raw);
    PyObject *failure = self->failure;
    self->failure = NULL;
    FlTlsTransport *transport =
        (FlTlsTransport *)fl_field_get(self, (PyObject **)&self->transport);
    fl_tls_set_phase(self, FL_TLS_LOST);
    self->writes_after_loss++; /* as asyncio's _conn_lost */
    fl_protocol_set(self, &self->protocol, (FlProtocol){NULL});
    fl_field_set(self, &self->raw, NULL);
    fl_field_set(self, (PyObject **)&self->transport, NULL);
    if (transport != NULL) {
        transport->closed = true;
    }
    drop_records(self);
    Py_XDECREF(raw);
    Py_XDECREF(transport);
    int code = fl_tls_call(self, self->state->names.connection_lost,
                           was_made ? protocol : Py_None,
                           failure != NULL ? failure : exc);
    PyObject *raised = code < 0 ? PyErr_GetRaisedException() : NULL;
    Py_XDECREF(failure);
    Py_XDECREF(protocol);
    return fl_error_keep_first(raised, 0, (PyObject *)self);
}

PyObject *
fl_tls_connection_lost(FlTls *self, PyObject *exc)
{
    int code = 0;
    /* What is still held is delivered before the end.  That runs Python, which
       may call this function.  It may also have been called before:
       handshake_timed_out() of _loop/_tls.py queues a call of its own.
       Hence the check below. */
    if (self->hold_iterations > 0) {
        self->hold_iterations = 0;
        code = process_and_settle(self);
    }
    if (code == 0 && self->eof_held && self->phase >= FL_TLS_WRAPPED
        && self->phase <= FL_TLS_SHUTDOWN && !has_data_paused(self))
    {
        code = fl_tls_call_eof_received(self);
    }
    PyObject *raised = code < 0 ? PyErr_GetRaisedException() : NULL;
    code = self->phase == FL_TLS_LOST ? 0 : tls_release(self, exc);
    return fl_call_none(fl_error_keep_first(raised, code, (PyObject *)self));
}
