/* Release what a TLS connection owns, after its raw transport was lost.

   1. Fields are set before any call that runs Python.  A finalizer may read
      them: it finds a connection that has ended.
   2. The engine stays with an application's transport that lives on, so that
      get_extra_info() still answers. */
#include "tls/release.h"

#include "core/write_queue.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"
#include "tls/connection.h"
#include "tls/engine.h"
#include "tls/engine_object.h"
#include "tls/tls_write.h"

void
fl_tls_drop_unused_engine(FlTls *self)
{
    if (self->close_repeated && self->phase == FL_TLS_LOST
        && !self->engine_busy) {
        PyObject *exc = PyErr_GetRaisedException();
        fl_tls_drop_engine(self);
        fl_error_restore(exc);
    }
}

void
fl_tls_drop_engine(FlTls *self)
{
    /* The application may have the SSLObject, and a caller's memory may be
       what it would read next. */
    if (self->engine.type->settle(&self->engine) < 0) {
        PyErr_Clear(); /* no memory: the unread records are lost */
    }
    self->engine.type = &fl_tls_engine_object; /* its invariant 4 */
    self->engine.more = self->engine.reads_until_raise = false;
    fl_field_set(self, &self->engine.object, NULL);
    Py_CLEAR(self->engine.owner);
    Py_CLEAR(self->context);
    fl_field_set(self, &self->extra, NULL);
}

/* As asyncio's connection_lost: what the peer has not got is dropped. */
static void
drop_records(FlTls *self)
{
    FlTlsOutput output;
    fl_write_queue_clear(&self->backlog);
    if (self->engine.type->take(&self->engine, &output) == 0) {
        fl_tls_output_free(&output);
    }
    else {
        PyErr_Clear(); /* no memory: they go with the engine */
    }
}

/* In asyncio's order, by connection_lost of fastloop/_tls.py: queue the
   protocol's connection_lost, resolve the waiter, cancel the timer. */
int
fl_tls_release(FlTls *self, PyObject *exc)
{
    /* A connection lost during the handshake only resolves the waiter, also
       after start_tls. */
    bool was_made =
        self->phase != FL_TLS_HANDSHAKE && self->app_state != FL_TLS_APP_NEW;
    /* Invariant 1. */
    PyObject *protocol = fl_protocol_get(self, &self->protocol).object;
    PyObject *raw = fl_field_get(self, &self->raw);
    PyObject *failure = self->failure;
    self->failure = NULL;
    FlTlsTransport *transport =
        (FlTlsTransport *)fl_field_get(self, (PyObject **)&self->transport);
    self->phase = FL_TLS_LOST;
    self->writes_after_loss++; /* as asyncio's _conn_lost */
    fl_protocol_set(self, &self->protocol, (FlProtocol){NULL});
    fl_field_set(self, &self->raw, NULL);
    fl_field_set(self, (PyObject **)&self->transport, NULL);
    if (transport != NULL) {
        transport->closed = true;
    }
    drop_records(self);
    Py_CLEAR(self->buffer);
    Py_XDECREF(raw);
    Py_XDECREF(transport);
    int code = fl_tls_call(self, self->state->names.connection_lost,
                           was_made ? protocol : Py_None,
                           failure != NULL ? failure : exc);
    PyObject *raised = code < 0 ? PyErr_GetRaisedException() : NULL;
    Py_XDECREF(failure);
    Py_XDECREF(protocol);
    fl_tls_drop_unused_engine(self);
    return fl_error_keep_first(raised, 0, (PyObject *)self);
}
