/* The state of datagram transports, UDP sockets and Unix datagram sockets.
   datagram_read.c receives; datagram_send.c sends, and has the Python type.

   FlDatagram is the instance struct of DatagramTransport.  It begins with an
   FlStream and shares its life cycle (phases, closing, water marks, extra
   info: stream.h).  Two fields of that FlStream have another meaning here:

     out.queue     tuples of datagram and address that the kernel had no
                   buffer space for.  Each counts FL_DATAGRAM_HEADER_BYTES more
                   than its data, as asyncio of this Python version counts it
     sock          is never NULL while the transport is open: the socket object
                   does what C code cannot, such as sending to a host name

   Owner: the transport owns its fixed address and both address caches.
   Threads: the loop's thread.  sendto may be called by any thread; a critical
   section guards the write queue.
   Errors: a failed system call is reported to error_received, and the
   transport stays open.  Any other exception of a send (such as an address of
   the wrong type) ends the transport, as asyncio's _fatal_error does.  An
   exception of pause_writing, or of any callback that the loop called, goes to
   the exception handler.  An exception that error_received raises during
   sendto goes to the caller of sendto. */
#ifndef FL_TRANSPORT_DATAGRAM_H
#define FL_TRANSPORT_DATAGRAM_H

#include "transport/sockaddr.h"
#include "transport/stream.h"

typedef struct {
    FlStream stream;
    PyObject *address; /* the fixed remote address; NULL: any */
    int family;        /* of the socket; AF_UNSPEC if unknown */
    bool connected;    /* sends pass no address: the socket has a named peer */
    FlAddress last_sender; /* of the last datagram received */
    FlAddress last_target; /* of the last datagram sent */
} FlDatagram;

#define FL_DATAGRAM(stream) ((FlDatagram *)(stream))

/* Call the protocol's error_received(exc); _errno does so with the OSError for
   a negative errno.  0, or -1 with an exception set: error_received raised it,
   or the OSError could not be created. */
int fl_datagram_call_error_received(FlDatagram *self, PyObject *exc);
int fl_datagram_report_errno(FlDatagram *self, int code);

/* Report the raised exception to the exception handler, as raised by the
   protocol's method of this name.  0, or -1 if the exception ends the run. */
int fl_datagram_report(FlDatagram *self, PyObject *method);

/* The fd is readable: receive and deliver.  The caller owns a reference to
   the transport.  0, or -1 if an exception ends the run. */
int fl_datagram_read_ready(FlDatagram *self);

/* Add DatagramTransport and open_datagram(), which makes one, to the module.
   0, or -1 with an exception set. */
int fl_datagram_register(PyObject *module, FlState *state);

#endif
