/* Socket addresses as Python sees them; the same text as the socket module's.

   1. An IPv6 address that is a link's keeps its scope as a number, as
      getsockname() gives it. */
#include "transport/sockaddr.h"

#include "py/compat.h"
#include "py/errors.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
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

FlName *
fl_name_new(const struct sockaddr_storage *name, socklen_t size)
{
    FlName *kept = malloc(sizeof(*kept) + size);
    if (kept == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    kept->size = size;
    memcpy(kept->bytes, name, size);
    return kept;
}

/* --- from Python --------------------------------------------------------- */

/* Only literal addresses of the plain types are read here.  A name takes a
   resolver, and what is wrong with an address is the socket module's to say:
   whatever is not read goes to that. */

void
fl_address_keep(FlAddress *address, PyObject *object,
                const struct sockaddr_storage *name, socklen_t size)
{
    memcpy(&address->name, name, size);
    address->size = size;
    Py_XSETREF(address->object, Py_NewRef(object));
}

/* The int at an index, or -1 when it is none or over the limit. */
static int64_t
item_integer(PyObject *tuple, Py_ssize_t index, int64_t limit)
{
    PyObject *item = PyTuple_GET_ITEM(tuple, index);
    if (!PyLong_CheckExact(item)) {
        return -1;
    }
    int overflow;
    int64_t value = PyLong_AsLongLongAndOverflow(item, &overflow);
    return overflow || value < 0 || value > limit ? -1 : value;
}

/* The host as C text when it is a str that has no other form. */
static const char *
host_text(PyObject *tuple)
{
    PyObject *host = PyTuple_GET_ITEM(tuple, 0);
    if (!PyUnicode_CheckExact(host) || !PyUnicode_IS_ASCII(host)) {
        return NULL;
    }
    const char *text = (const char *)PyUnicode_1BYTE_DATA(host);
    bool whole = strlen(text) == (size_t)PyUnicode_GET_LENGTH(host);
    return whole ? text : NULL;
}

static bool
read_inet(PyObject *tuple, struct sockaddr_in *name)
{
    const char *host = host_text(tuple);
    int64_t port = item_integer(tuple, 1, UINT16_MAX);
    if (PyTuple_GET_SIZE(tuple) != 2 || host == NULL || port < 0
        || inet_pton(AF_INET, host, &name->sin_addr) != 1)
    {
        return false;
    }
    name->sin_family = AF_INET;
    name->sin_port = htons((uint16_t)port);
    return true;
}

static bool
read_inet6(PyObject *tuple, struct sockaddr_in6 *name)
{
    Py_ssize_t size = PyTuple_GET_SIZE(tuple);
    const char *host = host_text(tuple);
    int64_t port = item_integer(tuple, 1, UINT16_MAX);
    int64_t flow = size > 2 ? item_integer(tuple, 2, 0xfffff) : 0;
    int64_t scope = size > 3 ? item_integer(tuple, 3, UINT32_MAX) : 0;
    if (size > 4 || host == NULL || port < 0 || flow < 0 || scope < 0
        || inet_pton(AF_INET6, host, &name->sin6_addr) != 1)
    {
        return false;
    }
    name->sin6_family = AF_INET6;
    name->sin6_port = htons((uint16_t)port);
    name->sin6_flowinfo = htonl((uint32_t)flow);
    name->sin6_scope_id = (uint32_t)scope;
    return true;
}

bool
fl_address_read(FlAddress *address, PyObject *object, int family)
{
    struct sockaddr_storage name = {0};
    socklen_t size = 0;
    if (!PyTuple_CheckExact(object) || PyTuple_GET_SIZE(object) < 2) {
        return false;
    }
    if (family == AF_INET && read_inet(object, (struct sockaddr_in *)&name)) {
        size = sizeof(struct sockaddr_in);
    }
    if (family == AF_INET6 && read_inet6(object, (struct sockaddr_in6 *)&name))
    {
        size = sizeof(struct sockaddr_in6);
    }
    if (size == 0) {
        return false;
    }
    fl_address_keep(address, object, &name, size);
    return true;
}

bool
fl_address_is_literal(PyObject *object)
{
    struct sockaddr_storage name = {0};
    if (!PyTuple_CheckExact(object)) {
        return false;
    }
    switch (PyTuple_GET_SIZE(object)) {
    case 2:
        return read_inet(object, (struct sockaddr_in *)&name);
    case 4:
        return read_inet6(object, (struct sockaddr_in6 *)&name);
    default:
        return false;
    }
}
