/* Calls that a TLS connection makes into Python, apart from its protocol's.

   1. The target object is owned during its call: the call may end the
      connection, which releases the field that it came from.
   2. A field that a call consumes (`waiter`, `timer`) is NULL before the call.
      A nested call then does nothing, so a future is resolved once. */
#include "tls/tls_calls.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "tls/connection.h"

/* --- calls --------------------------------------------------------------- */

/* Rare events are Python functions (fastloop/_tls.py): their messages and
   checks stay in one place, and their speed does not matter. */
int
fl_tls_call_module(FlTls *self, PyObject *name, PyObject *first,
                   PyObject *second)
{
    return fl_call_done(PyObject_CallMethodObjArgs(
        self->state->tls, name, (PyObject *)self, first, second, NULL));
}

int
fl_tls_log(FlTls *self, const char *text)
{
    PyObject *string = PyUnicode_FromString(text);
    if (string == NULL) {
        return -1;
    }
    int code =
        fl_tls_call_module(self, self->state->names.log_event, string, NULL);
    Py_DECREF(string);
    return code;
}

/* By its method, not in C: the raw transport may be any transport. */
int
fl_tls_call_raw(FlTls *self, PyObject *method)
{
    if (self->raw == NULL) {
        return 0;
    }
    PyObject *raw = Py_NewRef(self->raw);
    PyObject *result = PyObject_CallMethodNoArgs(raw, method);
    Py_DECREF(raw);
    return fl_call_done(result);
}

int
fl_tls_call_soon(FlTls *self, PyObject *object, PyObject *method,
                 PyObject *argument)
{
    PyObject *owned = Py_NewRef(object); /* a lookup may run Python */
    PyObject *bound = PyObject_GetAttr(owned, method);
    Py_DECREF(owned);
    if (bound == NULL) {
        return -1;
    }
    /* By the loop's method: the application may override call_soon.  The
       loop's queue owns the call, so its handle is not needed. */
    PyObject *handle = PyObject_CallMethodObjArgs((PyObject *)self->loop,
                                                  self->state->names.call_soon,
                                                  bound, argument, NULL);
    Py_DECREF(bound);
    return fl_call_done(handle);
}

/* The timer owns `self` until it fires or is cancelled, so the function always
   gets a live connection. */
int
fl_tls_start_timer(FlTls *self, PyObject *seconds, PyObject *name)
{
    FlNames *names = &self->state->names;
    PyObject *function = PyObject_GetAttr(self->state->tls, name);
    if (function == NULL) {
        return -1;
    }
    PyObject *timer =
        PyObject_CallMethodObjArgs((PyObject *)self->loop, names->call_later,
                                   seconds, function, self, NULL);
    Py_DECREF(function);
    if (timer == NULL) {
        return -1;
    }
    /* The handshake's timer is cancelled before the shutdown's is started, so
       no running timer is replaced here. */
    Py_XSETREF(self->timer, timer);
    return 0;
}

/* By the handle's method: call_later may be the application's own. */
int
fl_tls_stop_timer(FlTls *self)
{
    PyObject *timer = self->timer;
    self->timer = NULL;
    if (timer == NULL) {
        return 0;
    }
    PyObject *result =
        PyObject_CallMethodNoArgs(timer, self->state->names.cancel);
    Py_DECREF(timer);
    return fl_call_done(result);
}

int
fl_tls_wake_waiter(FlTls *self, PyObject *exc)
{
    FlNames *names = &self->state->names;
    PyObject *waiter = self->waiter;
    self->waiter = NULL;
    if (waiter == NULL) {
        return 0;
    }
    /* asyncio checks cancelled(), not done(). */
    int code = 0;
    PyObject *cancelled = PyObject_CallMethodNoArgs(waiter, names->cancelled);
    int is_cancelled = cancelled == NULL ? -1 : PyObject_IsTrue(cancelled);
    Py_XDECREF(cancelled);
    if (is_cancelled < 0) {
        code = -1;
    }
    else if (is_cancelled == 0) {
        code = fl_call_done(PyObject_CallMethodOneArg(
            waiter, exc == NULL ? names->set_result : names->set_exception,
            exc == NULL ? Py_None : exc));
    }
    Py_DECREF(waiter);
    return code;
}

/* --- errors -------------------------------------------------------------- */

/* asyncio's private name; its own transports have it too. */
int
fl_tls_force_close(FlTls *self, PyObject *exc)
{
    if (self->raw == NULL) {
        return 0;
    }
    PyObject *raw = Py_NewRef(self->raw);
    PyObject *result =
        PyObject_CallMethodOneArg(raw, self->state->names._force_close,
                                  exc == NULL ? Py_None : exc);
    Py_DECREF(raw);
    return fl_call_done(result);
}

int
fl_tls_fatal_exception(FlTls *self, PyObject *exc, const char *message)
{
    /* The report names the raw transport, and closing it may clear the
       field. */
    PyObject *raw = Py_NewRef(self->raw == NULL ? Py_None : self->raw);
    /* Close first, then report: asyncio's order. */
    PyObject *text = PyUnicode_FromString(message);
    int code = text == NULL ? -1 : fl_tls_force_close(self, exc);
    if (code == 0) {
        /* It is closed now, but lost an iteration later. */
        self->failed = raw != Py_None;
        code = fl_call_done(PyObject_CallMethodObjArgs(
            self->state->tls, self->state->names.report_fatal, self, raw, exc,
            text, NULL));
    }
    Py_XDECREF(text);
    Py_DECREF(raw);
    return code;
}

int
fl_tls_fatal(FlTls *self, const char *message)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        /* The raw transport reports it and ends the connection, as in asyncio,
           unless it leaves the loop. */
        self->failed = self->failed || !fl_error_leaves_loop();
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int code = fl_tls_fatal_exception(self, exc, message);
    Py_DECREF(exc);
    return code;
}
