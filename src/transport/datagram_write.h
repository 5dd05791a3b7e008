/* Sending datagrams: at once, or from the queue when the kernel has room. */
#ifndef FL_TRANSPORT_DATAGRAM_WRITE_H
#define FL_TRANSPORT_DATAGRAM_WRITE_H

#include "transport/datagram.h"

/* The descriptor is writable.  0, or -1 to leave the loop. */
int fl_datagram_write_ready(FlDatagram *self);

PyObject *fl_datagram_sendto(FlDatagram *self, PyObject *const *args,
                             Py_ssize_t nargs, PyObject *kwnames);

#endif
