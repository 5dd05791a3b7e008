/* What every file of a TLS connection needs: calls of fastloop/_tls.py, the
   end without close_notify, and the end of the engine.

   Nothing here reads, writes or continues a phase: lifecycle.c does. */
#include "tls/connection.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"
#include "tls/engine.h"
#include "tls/engine_object.h"

int
fl_tls_call(FlTls *self, PyObject *function, PyObject *first, PyObject *second)
{
    return fl_call_done(PyObject_CallMethodObjArgs(
        self->state->tls, function, (PyObject *)self, first, second, NULL));
}

int
fl_tls_report(FlTls *self, PyObject *function, const char *text)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *message = PyUnicode_FromString(text);
    int code =
        message == NULL ? -1 : fl_tls_call(self, function, exc, message);
    Py_XDECREF(message);
    Py_DECREF(exc);
    return code;
}

/* --- the end ------------------------------------------------------------- */

void
fl_tls_stop(FlTls *self)
{
    if (self->raw != NULL && self->phase != FL_TLS_HANDSHAKE) {
        self->phase = FL_TLS_UNWRAPPED;
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
    self->phase = FL_TLS_UNWRAPPED;
    return fl_call_method(self->raw,
                          exc == NULL ? names->abort : names->_force_close,
                          exc);
}

/* --- the engine ---------------------------------------------------------- */

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
    self->engine.more = self->engine.patched = false;
    fl_field_set(self, &self->engine.object, NULL);
    Py_CLEAR(self->engine.owner);
    Py_CLEAR(self->context);
    fl_field_set(self, &self->extra, NULL);
}
