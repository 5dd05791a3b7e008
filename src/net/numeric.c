/* Addresses that need no resolver: literals with a numeric port.

   getaddrinfo of '127.0.0.1' is what most programs ask for, and a thread for
   it costs more than the connection.

   1. What is answered here is exactly what socket.getaddrinfo would answer;
      everything else (names, scopes, flags, several kinds of socket) is left
      to it, by returning None. */
#include "net/net.h"

#include "loop/loop.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef struct {
    int family;
    int type;
    int proto;
    int flags;
} Hints;

/* Up to four integers; false, with nothing raised, when one is none. */
static bool
read_hints(PyObject *const *args, Hints *hints)
{
    int *fields[] = {&hints->family, &hints->type, &hints->proto,
                     &hints->flags};
    for (size_t at = 0; at < 4; at++) {
        long value = PyLong_Check(args[at]) ? PyLong_AsLong(args[at]) : -1;
        if (value < 0 || value > INT32_MAX) {
            PyErr_Clear(); /* socket.getaddrinfo says what is wrong */
            return false;
        }
        *fields[at] = (int)value;
    }
    return true;
}

/* The protocol a kind of socket implies, or -1 when more than one answer or
   none would be right. */
static int
implied_proto(const Hints *hints)
{
    int proto = hints->type == SOCK_STREAM  ? IPPROTO_TCP
                : hints->type == SOCK_DGRAM ? IPPROTO_UDP
                                            : -1;
    if (hints->flags & ~(AI_PASSIVE | AI_NUMERICHOST)) {
        return -1;
    }
    return hints->proto == 0 || hints->proto == proto ? proto : -1;
}

/* A port from an int or its decimal digits, or -1. */
static long
read_port(PyObject *object)
{
    long port = -1;
    if (PyLong_CheckExact(object)) {
        port = PyLong_AsLong(object);
    }
    else if (PyUnicode_CheckExact(object)) {
        Py_ssize_t size;
        const char *digits = PyUnicode_AsUTF8AndSize(object, &size);
        if (digits != NULL && size > 0 && size <= 5
            && strspn(digits, "0123456789") == (size_t)size)
        {
            port = strtol(digits, NULL, 10);
        }
    }
    PyErr_Clear(); /* socket.getaddrinfo says what is wrong */
    return port >= 0 && port <= 65535 ? port : -1;
}

/* The address tuple for a literal of an allowed family: a new reference, with
   the family in *family; NULL without an exception when it is no literal. */
static PyObject *
read_address(PyObject *host, long port, const Hints *hints, int *family)
{
    unsigned char packed[sizeof(struct in6_addr)];
    char text[INET6_ADDRSTRLEN];
    Py_ssize_t size;
    const char *literal = PyUnicode_AsUTF8AndSize(host, &size);
    if (literal == NULL) {
        PyErr_Clear(); /* a lone surrogate: the resolver refuses it */
        return NULL;
    }
    *family = strchr(literal, ':') != NULL ? AF_INET6 : AF_INET;
    if ((hints->family != AF_UNSPEC && hints->family != *family)
        || strlen(literal) != (size_t)size
        || inet_pton(*family, literal, packed) != 1)
    {
        return NULL;
    }
    if (*family == AF_INET) {
        return Py_BuildValue("Ol", host, port);
    }
    /* The resolver writes an IPv6 address its own way. */
    if (inet_ntop(AF_INET6, packed, text, sizeof(text)) == NULL) {
        return NULL;
    }
    return Py_BuildValue("slii", text, port, 0, 0);
}

static const char numeric_addresses_doc[] =
    "numeric_addresses(loop, host, port, family, type, proto, flags, /)\n"
    "--\n\n"
    "What socket.getaddrinfo would answer for a literal address and a\n"
    "numeric port with one kind of socket; None for everything else, and\n"
    "in the loop's debug mode.";

static PyObject *
numeric_addresses(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    FlState *state = fl_state_get(module);
    Hints hints;
    if (nargs != 7 || !PyObject_TypeCheck(args[0], state->loop_type)) {
        PyErr_SetString(PyExc_TypeError,
                        "numeric_addresses() takes a loop and six values");
        return NULL;
    }
    FlLoop *loop = FL_LOOP(args[0]);
    if (loop->debug || (loop->off & FL_OFF_LITERAL_DNS)
        || !PyUnicode_CheckExact(args[1]) || !read_hints(args + 3, &hints))
    {
        Py_RETURN_NONE;
    }
    int proto = implied_proto(&hints);
    long port = proto < 0 ? -1 : read_port(args[2]);
    if (port < 0) {
        Py_RETURN_NONE;
    }
    int family;
    PyObject *address = read_address(args[1], port, &hints, &family);
    if (address == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    return Py_BuildValue("[(OOisN)]",
                         family == AF_INET ? state->af_inet : state->af_inet6,
                         hints.type == SOCK_STREAM ? state->sock_stream
                                                   : state->sock_dgram,
                         proto, "", address);
}

static PyMethodDef functions[] = {
    {"numeric_addresses", (PyCFunction)(void (*)(void))numeric_addresses,
     METH_FASTCALL, numeric_addresses_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_numeric_register(PyObject *module, FlState *state)
{
    struct {
        const char *name;
        PyObject **slot;
    } constants[] = {
        {"AF_INET", &state->af_inet},
        {"AF_INET6", &state->af_inet6},
        {"SOCK_STREAM", &state->sock_stream},
        {"SOCK_DGRAM", &state->sock_dgram},
    };
    for (size_t at = 0; at < sizeof(constants) / sizeof(*constants); at++) {
        *constants[at].slot =
            PyObject_GetAttrString(state->streams, constants[at].name);
        if (*constants[at].slot == NULL) {
            return -1;
        }
    }
    return PyModule_AddFunctions(module, functions);
}
