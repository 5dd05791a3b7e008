/* A stream's end: fatal errors, connection_lost, release, the loss of its fd,
   and its GC slots, which the types of streams and datagrams share.
   The methods close() and abort() are in stream_transport.c.

   Owner: the caller owns a reference to the stream, because the loop's may be
   dropped.
   Threads: any for fl_stream_force_close and the fatal errors, since any may
   write, and for the GC slots.  The rest the loop's, or with a GIL any.
   Errors: nothing fails, unless a comment says otherwise. */
#ifndef FL_TRANSPORT_STREAM_CLOSE_H
#define FL_TRANSPORT_STREAM_CLOSE_H

#include "py/call.h"
#include "py/compat.h"
#include "transport/stream.h"

/* Call the server's _attach or _detach.  From 3.13 on they take the transport,
   which Server.close_clients needs.  0, or -1 with an exception. */
static inline int
fl_stream_call_server(FlStream *self, PyObject *server, PyObject *method)
{
    return fl_call_method(server, method,
                          FL_SERVER_KNOWS_TRANSPORTS ? (PyObject *)self
                                                     : NULL);
}

/* FlOpenTransportKind.abandon: the closed loop has unlinked the node.  A
   stream whose finalizer has run already is ended, with its fd. */
void fl_stream_abandon(FlOpenTransport *node);

/* Undo what fl_stream_open has done so far; steals the stream.  The fd
   is the caller's again, and open.  The raised exception stays. */
void fl_stream_undo_open(FlStream *self);

/* Three functions end a stream:

     fl_stream_fatal        by the raised exception, which is reported
     fl_stream_fail         by a failed call, which is not
     fl_stream_force_close  on request

   Each drops the queue, enters LOST and queues connection_lost with the
   exception, unless the stream is LOST already.  fl_stream_fatal first sends
   what is corked; the other two drop that as well. */

/* asyncio's _fatal_error(): an OSError is reported in debug mode alone.  0; or
   -1 with an exception that ends the run (KeyboardInterrupt, SystemExit), and
   the stream is not closed. */
int fl_stream_fatal(FlStream *self, const char *message);

/* The code is a negative errno or FL_NO_MEMORY.  A raised exception stays. */
void fl_stream_fail(FlStream *self, int code);

/* asyncio's _force_close(exc); exc is borrowed, or NULL. */
void fl_stream_force_close(FlStream *self, PyObject *exc);

/* FlOpenTransportKind.evict. */
void fl_stream_evict(FlOpenTransport *node);

/* FlOpenTransportKind.visits_own_ref: the stream waits for no event, so it
   visits the loop's reference to it as its own. */
bool fl_stream_visits_own_ref(const FlOpenTransport *node);

int fl_stream_traverse(FlStream *self, visitproc visit, void *arg);

/* Drops only what finalized garbage no longer needs; fl_stream_free drops the
   rest. */
int fl_stream_clear(FlStream *self);

/* Warns about a stream that was not closed.  Ends it, or queues that if this
   thread may not (stream_close.c, invariant 4). */
void fl_stream_finalize(FlStream *self);

void fl_stream_dealloc(FlStream *self);

/* The end of a dealloc: the stream was finalized, and the GC no longer tracks
   it. */
void fl_stream_free(FlStream *self);

#endif
