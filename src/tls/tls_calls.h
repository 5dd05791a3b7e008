/* Calls that a TLS connection makes into Python, apart from its protocol's:
   the loop, the waiter, the raw transport and the functions of fastloop._tls.

   All return 0, or -1 with an exception set.  Each may run arbitrary Python,
   so the caller checks the phase afterwards.  Each owns the object that it
   calls during the call. */
#ifndef FL_TLS_TLS_CALLS_H
#define FL_TLS_TLS_CALLS_H

#include "tls/connection.h"

/* Call the function `name` of fastloop._tls with the connection and up to two
   objects (NULL ends the list). */
int fl_tls_call_module(FlTls *self, PyObject *name, PyObject *first,
                       PyObject *second);
/* Log a message, in which %r is the connection.  Callers check loop->debug. */
int fl_tls_log(FlTls *self, const char *text);

/* Call a method of the raw transport.  Does nothing if there is none. */
int fl_tls_call_raw(FlTls *self, PyObject *method);

/* loop.call_soon(object.method, argument); argument may be NULL. */
int fl_tls_call_soon(FlTls *self, PyObject *object, PyObject *method,
                     PyObject *argument);

/* Start or cancel the connection's only timer, the handshake's or later the
   shutdown's.  It calls the function `name` of fastloop._tls. */
int fl_tls_start_timer(FlTls *self, PyObject *seconds, PyObject *name);
int fl_tls_stop_timer(FlTls *self);

/* Resolve the waiter: with exc (borrowed), or with None if exc is NULL.  Does
   nothing if there is none or if it is cancelled. */
int fl_tls_wake_waiter(FlTls *self, PyObject *exc);

/* Call the raw transport's _force_close(exc); NULL stands for None.  Does
   nothing if there is no raw transport. */
int fl_tls_force_close(FlTls *self, PyObject *exc);

/* End the connection with the raised exception, as asyncio's _fatal_error
   does: close the raw transport with it, then report it.  An exception that is
   no Exception stays raised, for the raw transport: returns -1. */
int fl_tls_fatal(FlTls *self, const char *message);
/* The same for an exception object (borrowed) of any kind. */
int fl_tls_fatal_exception(FlTls *self, PyObject *exc, const char *message);

#endif
