/* Socket addresses as Python sees them; the same text as the socket module's.

   1. An IPv6 address that is a link's keeps its scope as a number, as
      getsockname() gives it. */
#include "net/sockaddr.h"

#include "py/errors.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

static PyObject *
inet_object(const struct sockaddr_in *address)
{
    char text[INET_ADDRSTRLEN];
    if (inet_ntop(AF_INET, &address->sin_addr, text, sizeof(text)) == NULL) {
        (void)fl_raise_errno(-errno);
        return NULL;
    }
    return Py_BuildValue("si", text, (int)ntohs(address->sin_port));
}

static PyObject *
inet6_object(const struct sockaddr_in6 *address)
{
    char text[INET6_ADDRSTRLEN];
    if (inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof(text)) == NULL) {
        (void)fl_raise_errno(-errno);
        return NULL;
    }
    return Py_BuildValue("siII", text, (int)ntohs(address->sin6_port),
                         (unsigned)ntohl(address->sin6_flowinfo),
                         (unsigned)address->sin6_scope_id);
}

static PyObject *
unix_object(const struct sockaddr_un *address, socklen_t size)
{
    size_t header = offsetof(struct sockaddr_un, sun_path);
    size_t length = size > header ? size - header : 0;
    if (length > 0 && address->sun_path[0] == '\0') {
        /* Linux's abstract names are bytes of a given length. */
        return PyBytes_FromStringAndSize(address->sun_path,
                                         (Py_ssize_t)length);
    }
    return PyUnicode_DecodeFSDefaultAndSize(
        address->sun_path, (Py_ssize_t)strnlen(address->sun_path, length));
}

PyObject *
fl_sockaddr_object(const struct sockaddr_storage *address, socklen_t size)
{
    switch (address->ss_family) {
    case AF_INET:
        return inet_object((const struct sockaddr_in *)address);
    case AF_INET6:
        return inet6_object((const struct sockaddr_in6 *)address);
    case AF_UNIX:
        return unix_object((const struct sockaddr_un *)address, size);
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
