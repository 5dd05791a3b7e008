/* Opening a stream: it acquires and registers the fd, and queues
   connection_made.

   Owner: the caller keeps the fd if the open fails; else the stream
   has it (stream.h).
   Threads: the loop's, or any where a GIL orders them.
   Errors: NULL or -1 with an exception set. */
#ifndef FL_TRANSPORT_STREAM_OPEN_H
#define FL_TRANSPORT_STREAM_OPEN_H

#include "core/loop.h"
#include "transport/stream.h"

#include <sys/socket.h>

/* Arguments of fl_stream_open.  All are borrowed; NULL means none. */
typedef struct {
    /* A type other than StreamTransport, and its FlStream.run_events; see
       datagram_send.c. */
    PyTypeObject *type;
    int (*run_events)(FlStream *self, int events);
    PyObject *sock; /* a socket object; NULL: fd alone */
    bool fd_shared; /* other code may have that object */
    bool messages;  /* the socket is one of SCTP */
    int fd;
    PyObject *protocol;
    PyObject *waiter;
    PyObject *extra;
    PyObject *server;
    PyObject *context;                   /* NULL: a copy of the current one */
    const struct sockaddr_storage *peer; /* of an accepted connection */
    socklen_t peer_size;
} FlStreamOptions;

/* Open a stream and queue connection_made.  A new reference; or NULL with an
   exception set, and the fd is still the caller's. */
PyObject *fl_stream_open(FlLoop *loop, const FlStreamOptions *options);

/* Add the functions that connections.py connects with to the module.  0 or
   -1. */
int fl_stream_open_register(PyObject *module);

#endif
