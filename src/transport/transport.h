/* The Python face that stream and datagram transports share.

   Methods and attributes that need no more than an FlStream, as entries for
   the tables of both types: each type lists them itself, because CPython calls
   a type's own methods faster than inherited ones.  Loop's thread only. */
#ifndef FL_TRANSPORT_TRANSPORT_H
#define FL_TRANSPORT_TRANSPORT_H

#include "py/args.h"
#include "transport/stream.h"

/* Whether this is a thread that, for want of a GIL, must leave a call to the
   loop's thread.  The loop may be NULL. */
static inline bool
fl_transport_is_elsewhere(const FlLoop *loop)
{
    return !FL_HAVE_GIL && loop != NULL && fl_loop_on_other_thread(loop)
           && !fl_loop_is_inherited(loop);
}

/* Have the loop's thread call a method, with an argument or NULL.  None, or
   NULL with an exception set. */
PyObject *fl_transport_leave_to_loop(FlLoop *loop, PyObject *self,
                                     PyObject *method, PyObject *argument);

/* Whether this thread left a stream's method, which takes nothing, to the
   loop's; *result is what it returns then. */
#if FL_HAVE_GIL
static inline bool
fl_transport_is_left(FlStream *self, PyObject *method, PyObject **result)
{
    (void)self;
    (void)method;
    (void)result;
    return false;
}
#else
bool fl_transport_is_left(FlStream *self, PyObject *method, PyObject **result);
#endif

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

/* Entries of the tables. */
#define FL_KEYWORDS (METH_VARARGS | METH_KEYWORDS)
#define FL_FASTCALL (METH_FASTCALL | METH_KEYWORDS)
#define FL_METHOD(name, function, flags, doc)                   \
    {                                                           \
        name, (PyCFunction)(void (*)(void))function, flags, doc \
    }
/* The instance's __dict__. */
#define FL_DICT_GETTER                                                      \
    {                                                                       \
        "__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, \
            NULL                                                            \
    }
#define FL_COMMON_METHOD(name, c_name, flags) \
    FL_METHOD(#name, fl_transport_##c_name, flags, fl_transport_##c_name##_doc)
#define FL_COMMON_NOARGS(name, c_name) \
    FL_COMMON_METHOD(name, c_name, METH_NOARGS),
#define FL_COMMON_ONE(name, c_name) \
    FL_COMMON_METHOD(name, c_name, FL_FASTCALL),
#define FL_COMMON_KEYWORDS(name, c_name) \
    FL_COMMON_METHOD(name, c_name, FL_KEYWORDS),
#define FL_COMMON_METHODS                     \
    FL_TRANSPORT_NOARGS(FL_COMMON_NOARGS)     \
    FL_TRANSPORT_ONE(FL_COMMON_ONE)           \
    FL_TRANSPORT_KEYWORDS(FL_COMMON_KEYWORDS) \
    FL_COMMON_METHOD(get_extra_info, get_extra_info, FL_KEYWORDS)
/* A method of one parameter, which may be given by name as to asyncio's. */
#define FL_ONE(type, function, name, parameter, call)                       \
    PyObject *function(type *self, PyObject *const *args, Py_ssize_t nargs, \
                       PyObject *kwnames)                                   \
    {                                                                       \
        PyObject *value =                                                   \
            FL_LIKELY(nargs == 1 && kwnames == NULL)                        \
                ? args[0]                                                   \
                : fl_parse_one(name, parameter, args, nargs, kwnames);      \
        return value == NULL ? NULL : call(self, value);                    \
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
FL_TRANSPORT_NOARGS(FL_DECLARE_TWO)
FL_TRANSPORT_ONE(FL_DECLARE_ONE)
FL_TRANSPORT_KEYWORDS(FL_DECLARE_KEYWORDS)

FL_DECLARE_KEYWORDS(get_extra_info, get_extra_info)

/* For types whose own does more. */
FL_DECLARE_TWO(resume_reading, resume_reading)

/* The arguments of _fatal_error(exc, message), borrowed.  0 or -1. */
int fl_transport_parse_fatal(PyObject *args, PyObject *kwargs, PyObject **exc,
                             const char **message);

PyObject *fl_transport_repr(FlStream *self);

/* The slots of asyncio's transports that an FlStream begins with. */
extern const FlBaseSlot fl_transport_base_slots[];

/* Add StreamTransport to the module.  0 or -1. */
int fl_transport_register(PyObject *module, FlState *state);

#endif
