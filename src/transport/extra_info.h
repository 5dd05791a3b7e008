/* get_extra_info: a dict filled on demand, and the stream's socket object.

   Owner: the stream owns the dict (`extra`) and the socket object (`sock`).
   The socket object is created on first request: most connections are served
   without one.  Once it exists, it owns the fd.
   Threads: any.
   Errors: NULL or -1 with an exception set, except where stated. */
#ifndef FL_TRANSPORT_EXTRA_INFO_H
#define FL_TRANSPORT_EXTRA_INFO_H

#include "py/compat.h"
#include "py/state.h"
#include "transport/stream.h"

/* FlTransportOps.get_extra. */
PyObject *fl_stream_get_extra(FlTransport *transport, PyObject *name,
                              PyObject *fallback);

/* Create every value that get_extra_info would create on request, and store it
   in the dict: for code that reads the dict directly.  0, or -1 with an
   exception set. */
int fl_stream_fill_extra(FlStream *self);

/* A new non-blocking socket object that owns the fd.  NULL with an exception
   set: then the caller still owns the fd. */
PyObject *fl_socket_from_fd(FlState *state, int fd);

/* Detach a socket object from its fd, which has another owner or is
   closed: the object must not close that fd.  A failure is unraisable. */
void fl_socket_detach(const FlState *state, PyObject *sock);

/* Close an fd that no socket object owns, after the loop's corked bytes
   were sent.  Keeps a raised exception.  Releases the GIL: close() may block
   when SO_LINGER is set, and an accepted socket inherits that option from its
   listening socket. */
void fl_close_socket(FlLoop *loop, int fd);

/* The socket object of a stream, created if necessary; it owns the fd
   from now on.  A new reference: creating the object may run Python code that
   closes the stream.  NULL without an exception if the stream is closed, NULL
   with an exception set if the object cannot be created. */
PyObject *fl_stream_get_socket(FlStream *self);

#endif
