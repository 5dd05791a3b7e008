/* Socket addresses as Python sees them. */
#ifndef FL_NET_SOCKADDR_H
#define FL_NET_SOCKADDR_H

#include "py/compat.h"

#include <sys/socket.h>

/* The object socket.getsockname() would return for an address: a tuple for
   AF_INET and AF_INET6, str or bytes for AF_UNIX.  None for other families,
   whose sockets only arrive with a Python object that knows better. */
PyObject *fl_sockaddr_object(const struct sockaddr_storage *address,
                             socklen_t size);

/* True for the families above. */
bool fl_sockaddr_is_known(const struct sockaddr_storage *address);

#endif
