/* Conversion between socket addresses and Python's address objects.

   Owner: the caller owns every FlName and FlAddress.
   Threads: nothing is shared here; the owner of an FlAddress serializes its
   use.
   Errors: NULL with an exception set, except where stated. */
#ifndef FL_TRANSPORT_SOCKADDR_H
#define FL_TRANSPORT_SOCKADDR_H

#include "py/compat.h"

#include <sys/socket.h>

/* The object that socket.getsockname() would return for an address: a tuple
   for AF_INET and AF_INET6, str or bytes for AF_UNIX.  A new reference.
   None for other families: the caller asks the socket object, which it makes
   if there is none.  None, too, if the size is 0. */
PyObject *fl_sockaddr_object(const struct sockaddr_storage *address,
                             socklen_t size);

/* The size of a Unix socket's name in its address, perhaps with a final NUL; 0
   if it has none. */
size_t fl_sockaddr_path_bytes(const struct sockaddr_storage *address,
                              socklen_t size);

/* True for AF_INET, AF_INET6 and AF_UNIX. */
bool fl_sockaddr_is_known(const struct sockaddr_storage *address);

/* An address in the smallest possible allocation: a stream stores one per
   connection, and a struct sockaddr_storage would take 128 bytes. */
typedef struct {
    size_t size; /* of bytes: a struct sockaddr of the address's family */
    char bytes[];
} FlName;

/* A copy, to be released with free(); NULL if the size is 0, or with
   MemoryError set. */
FlName *fl_name_new(const struct sockaddr_storage *name, socklen_t size);

/* Only the first name->size bytes of the result may be read. */
static inline const struct sockaddr_storage *
fl_name_address(const FlName *name)
{
    return (const struct sockaddr_storage *)name->bytes;
}

/* A one-entry cache: the last address, as a Python object and as a struct
   sockaddr.  The next datagram often has the same address.  The object is
   immutable (a tuple of str and int, a str, or bytes), so an identity
   comparison suffices.  The cache owns a reference; NULL: empty. */
typedef struct {
    PyObject *object;
    struct sockaddr_storage name;
    socklen_t size;
} FlAddress;

/* True if an object is an address of this family, AF_INET or AF_INET6, in the
   form that asyncio's resolver returns: (numeric host, port), or for AF_INET6
   (numeric host, port, flow info, scope ID).  fl_address_parse accepts such an
   object.  Never fails. */
bool fl_address_is_literal(int family, PyObject *object);

/* Replace the cached address.  Takes a new reference to the object. */
void fl_address_store(FlAddress *address, PyObject *object,
                      const struct sockaddr_storage *name, socklen_t size);

/* Parse a numeric AF_INET or AF_INET6 address as the socket module would: a
   tuple of host and port, for AF_INET6 optionally flow info and scope ID, all
   of exact built-in types.  Runs no Python.
   On success the cache holds the address and the result is true.  Otherwise
   the cache is unchanged, no exception is set and the result is false: for
   host names, which need a resolver, a scope in the host text, other types and
   values out of range.  The caller passes such an address to the socket
   object, which raises the right exception. */
bool fl_address_parse(FlAddress *address, PyObject *object, int family);

#endif
