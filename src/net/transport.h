/* The Python face that stream and datagram transports share.

   Methods and attributes that need no more than an FlStream, as entries for
   the tables of both types: each type lists them itself, because CPython calls
   a type's own methods faster than inherited ones.  Loop's thread only. */
#ifndef FL_NET_TRANSPORT_H
#define FL_NET_TRANSPORT_H

#include "net/stream.h"

/* X(name in Python, name in C) for each method, by what it takes. */
#define FL_TRANSPORT_NOARGS(X)                \
    X(close, close)                           \
    X(abort, abort)                           \
    X(is_closing, is_closing)                 \
    X(pause_reading, pause_reading)           \
    X(is_reading, is_reading)                 \
    X(get_protocol, get_protocol)             \
    X(get_write_buffer_size, get_buffer_size) \
    X(get_write_buffer_limits, get_buffer_limits)
#define FL_TRANSPORT_ONE(X)      \
    X(_force_close, force_close) \
    X(set_protocol, set_protocol)
#define FL_TRANSPORT_KEYWORDS(X) \
    X(_fatal_error, fatal_error) \
    X(set_write_buffer_limits, set_buffer_limits)

/* The same for each attribute: to be read, and to be set as well. */
#define FL_TRANSPORT_GETTERS(X)          \
    X(_loop, loop)                       \
    X(_sock, sock)                       \
    X(_sock_fd, fd)                      \
    X(_server, server)                   \
    X(_closing, closing)                 \
    X(_conn_lost, conn_lost)             \
    X(_paused, paused)                   \
    X(_protocol_paused, protocol_paused) \
    X(_buffer, buffer)
#define FL_TRANSPORT_SETTERS(X) \
    X(_protocol, protocol)      \
    X(_extra, extra)            \
    X(_high_water, high_water)  \
    X(_low_water, low_water)

/* Entries of the tables. */
#define FL_KEYWORDS (METH_VARARGS | METH_KEYWORDS)
#define FL_FASTCALL (METH_FASTCALL | METH_KEYWORDS)
#define FL_METHOD(name, function, flags, doc)                   \
    {                                                           \
        name, (PyCFunction)(void (*)(void))function, flags, doc \
    }
#define FL_GETTER(name, function)                \
    {                                            \
        name, (getter)function, NULL, NULL, NULL \
    }
#define FL_SHARED_METHOD(name, c_name, flags) \
    FL_METHOD(#name, fl_transport_##c_name, flags, fl_transport_##c_name##_doc)
#define FL_SHARED_NOARGS(name, c_name) \
    FL_SHARED_METHOD(name, c_name, METH_NOARGS),
#define FL_SHARED_ONE(name, c_name) \
    FL_SHARED_METHOD(name, c_name, FL_FASTCALL),
#define FL_SHARED_KEYWORDS(name, c_name) \
    FL_SHARED_METHOD(name, c_name, FL_KEYWORDS),
#define FL_SHARED_METHODS                     \
    FL_TRANSPORT_NOARGS(FL_SHARED_NOARGS)     \
    FL_TRANSPORT_ONE(FL_SHARED_ONE)           \
    FL_TRANSPORT_KEYWORDS(FL_SHARED_KEYWORDS) \
    FL_SHARED_METHOD(get_extra_info, get_extra_info, FL_KEYWORDS)
#define FL_SHARED_GETTER(name, c_name) \
    FL_GETTER(#name, fl_transport_##c_name##_get),
#define FL_SHARED_SETTER(name, c_name)           \
    {#name, (getter)fl_transport_##c_name##_get, \
     (setter)fl_transport_##c_name##_set, NULL, NULL},
#define FL_SHARED_GETTERS                                                   \
    FL_TRANSPORT_GETTERS(FL_SHARED_GETTER)                                  \
    FL_TRANSPORT_SETTERS(FL_SHARED_SETTER)                                  \
    {                                                                       \
        "__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, \
            NULL                                                            \
    }

/* Declarations of the above. */
#define FL_DECLARE_TWO(name, c_name)                                \
    PyObject *fl_transport_##c_name(FlStream *self, PyObject *arg); \
    extern const char fl_transport_##c_name##_doc[];
#define FL_NAMED_ONE(function)                                \
    PyObject *function(FlStream *self, PyObject *const *args, \
                       Py_ssize_t nargs, PyObject *kwnames)
#define FL_DECLARE_ONE(name, c_name)     \
    FL_NAMED_ONE(fl_transport_##c_name); \
    extern const char fl_transport_##c_name##_doc[];
#define FL_DECLARE_KEYWORDS(name, c_name)                           \
    PyObject *fl_transport_##c_name(FlStream *self, PyObject *args, \
                                    PyObject *kwargs);              \
    extern const char fl_transport_##c_name##_doc[];
#define FL_DECLARE_GETTER(name, c_name) \
    PyObject *fl_transport_##c_name##_get(FlStream *self, void *closure);
#define FL_DECLARE_SETTER(name, c_name)                              \
    FL_DECLARE_GETTER(name, c_name)                                  \
    int fl_transport_##c_name##_set(FlStream *self, PyObject *value, \
                                    void *closure);

FL_TRANSPORT_NOARGS(FL_DECLARE_TWO)
FL_TRANSPORT_ONE(FL_DECLARE_ONE)
FL_TRANSPORT_KEYWORDS(FL_DECLARE_KEYWORDS)
FL_TRANSPORT_GETTERS(FL_DECLARE_GETTER)
FL_TRANSPORT_SETTERS(FL_DECLARE_SETTER)

FL_DECLARE_KEYWORDS(get_extra_info, get_extra_info)

/* Attributes that one of the types has. */
FL_DECLARE_GETTER(_eof, eof)
FL_DECLARE_GETTER(_empty_waiter, empty_waiter)
FL_DECLARE_GETTER(_buffer_size, buffer_size)

/* A water mark out of a number of any kind.  0, or -1 with TypeError,
   OverflowError or ValueError. */
int fl_transport_mark(PyObject *object, Py_ssize_t *mark);

/* For types whose own does more. */
FL_DECLARE_TWO(resume_reading, resume_reading)

PyObject *fl_transport_repr(FlStream *self);

/* The slots of asyncio's transports that an FlStream begins with. */
extern const FlBaseSlot fl_transport_base_slots[];

/* asyncio's class attributes: the most that its transports read at once, and
   one that is always True.  0 or -1. */
int fl_constants_register(PyTypeObject *type);

#endif
