/* Conversion between socket addresses and Python's address objects.

   The text of an address is exactly the socket module's.  Programs compare
   addresses from get_extra_info with addresses from socket objects.  So the
   scope of an IPv6 address is the fourth item, and not in the host's text. */
#include "transport/sockaddr.h"

#include "py/compat.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* --- to Python ----------------------------------------------------------- */

size_t
fl_sockaddr_path_bytes(const struct sockaddr_storage *address, socklen_t size)
{
    size_t header = offsetof(struct sockaddr_un, sun_path);
    /* On Linux an unbound socket's address ends before sun_path. */
    size_t length = size > header ? size - header : 0;
#ifndef __linux__
    if (length > 0 && ((const struct sockaddr_un *)address)->sun_path[0] == 0)
    {
        length = 0; /* BSD has zeros there, and no abstract names */
    }
#else
    (void)address;
#endif
    return length;
}

static PyObject *
unix_object(const struct sockaddr_storage *name, socklen_t size)
{
    const struct sockaddr_un *address = (const struct sockaddr_un *)name;
    size_t length = fl_sockaddr_path_bytes(name, size);
    if (length > 0 && address->sun_path[0] == '\0') {
        /* An abstract name (Linux) is binary and may contain NUL, so its
           length comes from the address size.  Python shows it as bytes. */
        return PyBytes_FromStringAndSize(address->sun_path,
                                         (Py_ssize_t)length);
    }
    /* The kernel may or may not count the terminating NUL. */
    return PyUnicode_DecodeFSDefaultAndSize(
        address->sun_path, (Py_ssize_t)strnlen(address->sun_path, length));
}

PyObject *
fl_sockaddr_object(const struct sockaddr_storage *address, socklen_t size)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    char text[INET6_ADDRSTRLEN];
    if (size == 0) {
        Py_RETURN_NONE; /* macOS, of a connection that was reset meanwhile */
    }
    size = Py_MIN(size, sizeof(*address)); /* BSD gives a longer path's */
    switch (address->ss_family) {
    case AF_INET: /* inet_ntop fails only for want of space */
        (void)inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
        return Py_BuildValue("si", text, (int)ntohs(in->sin_port));
    case AF_INET6:
        (void)inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
        /* The socket module converts the flow info to host byte order.  The
           scope ID is in host byte order already. */
        return Py_BuildValue("siII", text, (int)ntohs(in6->sin6_port),
                             (unsigned)ntohl(in6->sin6_flowinfo),
                             (unsigned)in6->sin6_scope_id);
    case AF_UNIX: /* the only one of variable size */
        return unix_object(address, size);
    default:
        Py_RETURN_NONE;
    }
}

bool
fl_sockaddr_is_known(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET || address->ss_family == AF_INET6
           || address->ss_family == AF_UNIX;
}

FlName *
fl_name_new(const struct sockaddr_storage *name, socklen_t size)
{
    if (size == 0) {
        return NULL;
    }
    size = Py_MIN(size, sizeof(*name)); /* BSD gives a longer path's */
    FlName *copy = malloc(sizeof(*copy) + size);
    if (copy == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    copy->size = size;
    memcpy(copy->bytes, name, size);
    return copy;
}

/* --- from Python --------------------------------------------------------- */

void
fl_address_store(FlAddress *address, PyObject *object,
                 const struct sockaddr_storage *name, socklen_t size)
{
    memcpy(&address->name, name, size);
    address->size = size;
    /* The new reference is taken before the old one is dropped: both may be
       the same object. */
    Py_XSETREF(address->object, Py_NewRef(object));
}

/* The int at an index; -1 without an exception if the item is not an exact
   int, is negative or exceeds the limit.  A subclass of int could define
   __index__, which would run Python code. */
static int64_t
int_item(PyObject *tuple, Py_ssize_t index, int64_t limit)
{
    PyObject *item = PyTuple_GET_ITEM(tuple, index);
    if (!PyLong_CheckExact(item)) {
        return -1;
    }
    int overflow;
    int64_t value = PyLong_AsLongLongAndOverflow(item, &overflow);
    return overflow || value < 0 || value > limit ? -1 : value;
}

/* The host as a C string, borrowed from the tuple.  NULL without an exception
   unless it is an exact ASCII str: the socket module encodes other text with
   IDNA. */
static const char *
host_text(PyObject *tuple)
{
    PyObject *host = PyTuple_GET_ITEM(tuple, 0);
    if (!PyUnicode_CheckExact(host) || !PyUnicode_IS_ASCII(host)) {
        return NULL;
    }
    const char *text = (const char *)PyUnicode_1BYTE_DATA(host);
    /* C would read "127.0.0.1\0x" as a valid address. */
    bool no_nul = strlen(text) == (size_t)PyUnicode_GET_LENGTH(host);
    return no_nul ? text : NULL;
}

/* Parse a tuple of host and port, for AF_INET6 optionally flow info and scope
   ID: the size of *name, or 0. */
static socklen_t
parse_tuple(PyObject *tuple, int family, struct sockaddr_storage *name)
{
    struct sockaddr_in *in = (struct sockaddr_in *)name;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)name;
    Py_ssize_t count = PyTuple_CheckExact(tuple) ? PyTuple_GET_SIZE(tuple) : 0;
    if (count < 2 || count > (family == AF_INET6 ? 4 : 2)) {
        return 0;
    }
    const char *host = host_text(tuple);
    int64_t port = int_item(tuple, 1, UINT16_MAX);
    /* The flow info has 20 bits; the socket module rejects more, too. */
    int64_t flow = count > 2 ? int_item(tuple, 2, 0xfffff) : 0;
    int64_t scope = count > 3 ? int_item(tuple, 3, UINT32_MAX) : 0;
    if (host == NULL || port < 0 || flow < 0 || scope < 0) {
        return 0;
    }
    memset(name, 0, sizeof(*name));
    name->ss_family = (sa_family_t)family;
    if (family == AF_INET && inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_port = htons((uint16_t)port);
        return sizeof(*in);
    }
    if (family == AF_INET6 && inet_pton(AF_INET6, host, &in6->sin6_addr) == 1)
    {
        in6->sin6_port = htons((uint16_t)port);
        in6->sin6_flowinfo = htonl((uint32_t)flow);
        in6->sin6_scope_id = (uint32_t)scope;
        return sizeof(*in6);
    }
    return 0; /* not numeric, or the socket has another family */
}

bool
fl_address_parse(FlAddress *address, PyObject *object, int family)
{
    /* Parsed into a local: the cache stays as it was unless all is valid. */
    struct sockaddr_storage name;
    socklen_t size = parse_tuple(object, family, &name);
    FL_CHECK(!PyErr_Occurred(), "parsing raises nothing");
    if (size > 0) {
        fl_address_store(address, object, &name, size);
    }
    return size > 0;
}

bool
fl_address_is_literal(int family, PyObject *object)
{
    struct sockaddr_storage name; /* only whether it parses counts */
    /* asyncio's resolver returns four items for IPv6, so a shorter tuple still
       has to be resolved. */
    return parse_tuple(object, family, &name) > 0
           && PyTuple_GET_SIZE(object) == (family == AF_INET6 ? 4 : 2);
}
