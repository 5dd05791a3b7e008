/* The type DatagramTransport, and open_datagram, which creates one.

   Owner, threads and errors: datagram.h. */
#ifndef FL_TRANSPORT_DATAGRAM_TRANSPORT_H
#define FL_TRANSPORT_DATAGRAM_TRANSPORT_H

#include "py/state.h"

/* Add DatagramTransport and its functions to the module.  0, or -1 with an
   exception set. */
int fl_datagram_register(PyObject *module, FlState *state);

#endif
