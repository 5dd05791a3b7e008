/* get_extra_info: a dict that is filled as it is asked.

   The socket object is made when somebody asks for it; most connections need
   none. */
#ifndef FL_TRANSPORT_EXTRA_INFO_H
#define FL_TRANSPORT_EXTRA_INFO_H

#include "py/compat.h"
#include "py/state.h"
#include "transport/stream.h"

/* The dict behind get_extra_info; borrowed, NULL with MemoryError. */
PyObject *fl_stream_extra(FlStream *self);

/* What get_extra_info is called with, borrowed; otherwise is None where it is
   not given.  0, or -1 with TypeError set. */
int fl_extra_info_args(PyObject *args, PyObject *kwargs, PyObject **name,
                       PyObject **otherwise);

/* Put in it what get_extra_info makes when asked.  0, or -1 with an exception
   set. */
int fl_stream_fill_extra(FlStream *self);

/* A non-blocking socket object that owns a descriptor: a new reference, or
   NULL with an exception, and the descriptor is the caller's as before. */
PyObject *fl_socket_from_descriptor(FlState *state, int fd);

/* Close a descriptor no socket object owns.  SO_LINGER, which accepted sockets
   inherit, may make that wait, so the GIL is given up meanwhile. */
void fl_close_socket(int fd);

/* The socket object, which owns the descriptor from now on: a new reference,
   for making it may run anything.  NULL without an exception once the stream
   is closed. */
PyObject *fl_stream_own_socket(FlStream *self);

/* Ask the descriptor for sockname while it can tell, unless that was done. */
void fl_stream_keep_sockname(FlStream *self);

#endif
