/* The life of a TLS connection: what the raw transport's calls, and the
   application's close(), do in each phase.

   The phases, the ownership and the rules for errors and nested calls are
   connection.h's.  Functions return 0, or -1 with an exception set, unless
   they say otherwise.  Each may call the protocol or the raw transport, and so
   may end the connection.  Loop's thread only. */
#ifndef FL_TLS_LIFECYCLE_H
#define FL_TLS_LIFECYCLE_H

#include "tls/connection.h"

/* The method connection_made(): set the raw transport and begin the
   handshake. */
PyObject *fl_tls_connection_made(FlTls *self, PyObject *raw);
/* The method connection_lost(): the raw transport is lost; exc is an exception
   or None.  Queues the protocol's connection_lost and releases what the
   connection owns. */
PyObject *fl_tls_connection_lost(FlTls *self, PyObject *exc);

/* Feed and process records.  `data` need not outlive the call. */
int fl_tls_receive(FlTls *self, const char *data, size_t size_bytes);
/* The raw transport of an FlTls received EOF.  1: keep it open; 0: close it;
   -1. */
int fl_tls_receive_eof(FlTls *self);
/* The native protocol of our streams: fl_tls_receive. */
extern const FlNativeProtocol fl_tls_native;

/* In the next iteration, process what was received until then.  It is not
   processed now because an engine call is running, input is held, a buffer
   was full, a step raised an exception that ends the run or, as in asyncio,
   resume_reading() was called.  Queues at most one call; does nothing without
   a raw transport.  0, or -1 with RuntimeError if the loop is closed, or
   MemoryError. */
int fl_tls_defer(FlTls *self);

/* asyncio's _start_shutdown(): begin the shutdown, or abort during the
   handshake.  Does nothing before the handshake, after an earlier call, and
   from SHUTDOWN on.  Any thread that has the GIL: lifecycle.c, 4. */
int fl_tls_start_shutdown(FlTls *self);

#endif
