/* What a filter calls in Python that is not a protocol.

   All but fl_tls_none return 0, or -1 with an exception set. */
#ifndef FL_TLS_TLS_CALLS_H
#define FL_TLS_TLS_CALLS_H

#include "tls/connection.h"

/* A call's result, which is let go of. */
int fl_tls_done(PyObject *result);
/* And the other way round: a method's result, None or NULL. */
PyObject *fl_tls_none(int code);

/* Call a function of fastloop._tls with the filter and up to two objects. */
int fl_tls_call_cold(FlTls *self, PyObject *name, PyObject *first,
                     PyObject *second);
/* Log a text that names the filter by %r. */
int fl_tls_log(FlTls *self, const char *text);

/* Call a method of the raw transport, if there is one. */
int fl_tls_call_raw(FlTls *self, PyObject *method);

/* loop.call_soon(object.method, argument), which may be NULL. */
int fl_tls_call_soon(FlTls *self, PyObject *object, PyObject *method,
                     PyObject *argument);

/* The one timer: of the handshake, later of the shutdown.  `name` is of
   fastloop._tls. */
int fl_tls_start_timer(FlTls *self, PyObject *seconds, PyObject *name);
int fl_tls_stop_timer(FlTls *self);

/* Tell whoever waits for the handshake; exc is NULL or borrowed. */
int fl_tls_wake_waiter(FlTls *self, PyObject *exc);

/* _force_close(exc) of the raw transport, if it is there; exc may be NULL. */
int fl_tls_force_close(FlTls *self, PyObject *exc);

/* asyncio's _fatal_error for the raised exception, or for one that is not.
   What is no Exception stays raised: the raw transport deals with it. */
int fl_tls_fatal(FlTls *self, const char *message);
int fl_tls_fatal_exception(FlTls *self, PyObject *exc, const char *message);

#endif
