/* Whether a stream's fd still belongs to it.

   An application may close the socket that it passed to a transport.  The
   system may then give the fd to another file.  The stream must not read,
   write or close that file: it ends with EBADF instead.  stream_fd.c says
   what cannot be noticed. */
#ifndef FL_TRANSPORT_STREAM_FD_H
#define FL_TRANSPORT_STREAM_FD_H

#include "core/loop.h"
#include "transport/stream.h"

/* Query whether the socket object still has the fd: 0, or -EBADF.  May run
   Python, as fileno() may be the application's.  Raises nothing. */
int fl_stream_query_fd(FlStream *self);

/* Call this before system calls on the fd, and again after Python code ran.  A
   stream whose fd was never exposed to the application costs no query. */
static inline int
fl_stream_check_fd(FlStream *self)
{
    return self->exposed && self->kind == FL_SOCKET ? fl_stream_query_fd(self)
                                                    : 0;
}

/* Application code has the fd from now on: flush now, cork nothing later, and
   have fl_stream_check_fd query the socket object before each system call. */
void fl_stream_expose_fd(FlStream *self);

/* Open a new stream's registration on this fd.  A callback or transport that
   was left on the fd loses it (fl_fd_acquire).  A pipe takes no fd from a
   user that still has it: it waits with a duplicate.  0, or -1 with an
   exception set.  May run Python. */
int fl_stream_take_fd(FlStream *self, int fd);

/* The loop's calls: FlOpenTransportKind states their contracts. */
bool fl_stream_has_fd(FlOpenTransport *owned);
int fl_stream_invalidate_fd(FlOpenTransport *owned);

#endif
