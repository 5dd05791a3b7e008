/* Datagram transports: UDP and Unix sockets that keep messages apart.

   FlDatagram is the instance of DatagramTransport.  It begins with an FlStream
   and lives as one (phases, closing, water marks, extra info: stream.h), but
   for these fields:

     write_queue   pairs of a datagram and its address that the kernel had no
                   room for; they count their header as this Python does
     sock          is always there: what the C code cannot do, sending to a
                   name for one, the socket object does

   Ownership: the transport owns its address, what it received and has not
   delivered, and the addresses it keeps.

   Errors: what a system call says goes to error_received and changes nothing;
   other exceptions of a send (an address of the wrong type) end the transport
   as asyncio's _fatal_error does; what the protocol raises from a callback is
   reported, from sendto it is the caller's. */
#ifndef FL_TRANSPORT_DATAGRAM_H
#define FL_TRANSPORT_DATAGRAM_H

#include "transport/sockaddr.h"
#include "transport/stream.h"

/* Datagrams that one system call may move. */
#define FL_DATAGRAM_BATCH 16

typedef struct {
    FlStream stream;
    PyObject *address; /* the only one to send to, or NULL */
    int family;
    bool connected; /* the socket knows its peer: an address is not given */
    bool bursts;    /* the last read found more than one */
    /* Read and not delivered: data and sender in turn. */
    PyObject *received[2 * FL_DATAGRAM_BATCH];
    unsigned received_head;
    unsigned received_tail;
    FlAddress sender; /* of the last that came */
    FlAddress target; /* of the last that was sent */
} FlDatagram;

#define FL_DATAGRAM(stream) ((FlDatagram *)(stream))

/* Tell the protocol of a failed system call.  0, or -1 with what
   error_received raised, or what kept it from being called. */
int fl_datagram_call_error_received(FlDatagram *self, PyObject *exc);
int fl_datagram_report_errno(FlDatagram *self, int code);

/* Report what a method of the transport, by its asyncio name, raised as a
   callback.  0, or -1 to leave the loop. */
int fl_datagram_report(FlDatagram *self, PyObject *method);

/* Add DatagramTransport and its functions to the module.  0 or -1. */
int fl_datagram_register(PyObject *module, FlState *state);

#endif
