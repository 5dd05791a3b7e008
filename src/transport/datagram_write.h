/* Sending datagrams: immediately, or from the write queue when the kernel has
   buffer space again.

   Owner: the transport owns the queued datagrams and their addresses.
   Threads: fl_datagram_write_ready the loop's thread, fl_datagram_sendto any.
   Errors: datagram.h. */
#ifndef FL_TRANSPORT_DATAGRAM_WRITE_H
#define FL_TRANSPORT_DATAGRAM_WRITE_H

#include "transport/datagram.h"

/* The descriptor is writable: send from the queue, and complete a close that
   waited for it.  The caller owns a reference to the transport.  0, or -1 if
   an exception ends the run. */
int fl_datagram_write_ready(FlDatagram *self);

/* The method sendto(data, addr=None).  None, or NULL with an exception set. */
PyObject *fl_datagram_sendto(FlDatagram *self, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *kwnames);

#endif
