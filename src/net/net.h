/* The network layer's registration: transports and listeners. */
#ifndef FL_NET_NET_H
#define FL_NET_NET_H

#include "py/state.h"

/* Create and add net's types and functions to the module.  0 or -1. */
int fl_net_register(PyObject *module, FlState *state);

/* Its parts: transport.c, datagram.c, listener.c, sockcall.c. */
int fl_transport_register(PyObject *module, FlState *state);
int fl_datagram_register(PyObject *module, FlState *state);
int fl_listener_register(PyObject *module, FlState *state);
int fl_sockcall_register(PyObject *module, FlState *state);

#endif
