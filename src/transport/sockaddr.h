/* Socket addresses as Python sees them. */
#ifndef FL_TRANSPORT_SOCKADDR_H
#define FL_TRANSPORT_SOCKADDR_H

#include "py/compat.h"

#include <sys/socket.h>

/* The object socket.getsockname() would return for an address: a tuple for
   AF_INET and AF_INET6, str or bytes for AF_UNIX.  None for other families,
   whose sockets only arrive with a Python object that knows better. */
PyObject *fl_sockaddr_object(const struct sockaddr_storage *address,
                             socklen_t size);

/* True for the families above. */
bool fl_sockaddr_is_known(const struct sockaddr_storage *address);

/* A name in as little memory as it takes, for what keeps one a connection. */
typedef struct {
    size_t size; /* of what follows: a struct sockaddr of its family */
    char bytes[];
} FlName;

/* A copy that free() ends; NULL with MemoryError. */
FlName *fl_name_new(const struct sockaddr_storage *name, socklen_t size);

static inline const struct sockaddr_storage *
fl_name_address(const FlName *name)
{
    return (const struct sockaddr_storage *)name->bytes;
}

/* An address in both forms, kept because the next is often the same.  The
   object is one that cannot change: a tuple of str and int, str or bytes; NULL
   when nothing is kept.  Owned. */
typedef struct {
    PyObject *object;
    struct sockaddr_storage name;
    socklen_t size;
} FlAddress;

/* Whether an object is an IPv4 or IPv6 address as asyncio would resolve it to:
   fl_address_read reads it, and one of IPv6 has flow and scope. */
bool fl_address_is_literal(PyObject *object);

/* Keep another address; takes a new reference. */
void fl_address_keep(FlAddress *address, PyObject *object,
                     const struct sockaddr_storage *name, socklen_t size);

/* Read a literal address of the families AF_INET and AF_INET6 as the socket
   module would: a tuple of a numeric host, a port and, of AF_INET6, flow and
   scope.  false, with nothing raised, for all else: names, scopes in the host,
   other types, what is out of range.  On success the address is kept. */
bool fl_address_read(FlAddress *address, PyObject *object, int family);

#endif
