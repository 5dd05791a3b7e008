/* Python methods that stream and datagram transports share.

   They need nothing but an FlStream.  The macros below create their entries
   for the method tables of both types.
   Rejected: a common base type.  CPython calls a type's own methods faster
   than inherited ones.

   Owner: arguments are borrowed, results are new references.
   Threads: the loop's thread.  Without a GIL another thread may call a public
   method, too: a method that is not thread-safe is then forwarded to the loop
   (fl_transport_was_queued).
   Errors: NULL or -1 with an exception set. */
#ifndef FL_TRANSPORT_TRANSPORT_H
#define FL_TRANSPORT_TRANSPORT_H

#include "py/args.h"
#include "transport/stream.h"

/* True if this thread must forward a call to the loop's thread: there is no
   GIL, and another thread runs the loop.  The loop may be NULL.  A loop
   inherited by fork has no such thread in this process. */
static inline bool
fl_transport_on_other_thread(const FlLoop *loop)
{
    return !FL_HAVE_GIL && loop != NULL && fl_loop_on_other_thread(loop)
           && !fl_loop_is_inherited(loop);
}

/* Queue self.method(argument), or self.method() if argument is NULL, for the
   loop's thread.  Does not wait for the call, so its result is lost.  None, or
   NULL with an exception set. */
PyObject *fl_transport_queue_to_loop(FlLoop *loop, PyObject *self,
                                     PyObject *method, PyObject *argument);

/* Forward a method without arguments to the loop's thread if this thread must
   not run it.  True if so: the caller then returns *result, which is None or
   NULL with an exception set.  Always false with a GIL. */
#if FL_HAVE_GIL
static inline bool
fl_transport_was_queued(FlStream *self, PyObject *method, PyObject **result)
{
    (void)self;
    (void)method;
    (void)result;
    return false;
}
#else
bool fl_transport_was_queued(FlStream *self, PyObject *method,
                             PyObject **result);
#endif

/* The shared methods, by calling convention: X(Python name, C name).  The C
   functions are fl_transport_<C name>, their docstrings
   fl_transport_<C name>_doc. */
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

/* Entries of method tables.  The double cast of the function avoids a compiler
   warning: its signature depends on the flags. */
#define FL_KEYWORDS (METH_VARARGS | METH_KEYWORDS)
#define FL_FASTCALL (METH_FASTCALL | METH_KEYWORDS)
#define FL_METHOD(name, function, flags, doc)                   \
    {                                                           \
        name, (PyCFunction)(void (*)(void))function, flags, doc \
    }
/* The entry of a getset table for the instance's __dict__. */
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
/* All shared methods.  resume_reading is missing: DatagramTransport has its
   own version. */
#define FL_COMMON_METHODS                     \
    FL_TRANSPORT_NOARGS(FL_COMMON_NOARGS)     \
    FL_TRANSPORT_ONE(FL_COMMON_ONE)           \
    FL_TRANSPORT_KEYWORDS(FL_COMMON_KEYWORDS) \
    FL_COMMON_METHOD(get_extra_info, get_extra_info, FL_KEYWORDS)
/* Define a method with one parameter, positional or keyword as in asyncio.
   The usual form, one positional argument, skips the parser. */
#define FL_ONE(type, function, name, parameter, call)                       \
    PyObject *function(type *self, PyObject *const *args, Py_ssize_t nargs, \
                       PyObject *kwnames)                                   \
    {                                                                       \
        PyObject *value =                                                   \
            FL_LIKELY(nargs == 1 && kwnames == NULL)                        \
                ? args[0]                                                   \
                : fl_args_parse_one(name, parameter, args, nargs, kwnames); \
        return value == NULL ? NULL : call(self, value);                    \
    }
/* Declarations of the functions and docstrings listed above. */
#define FL_DECLARE_NOARGS(name, c_name)                             \
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
FL_TRANSPORT_NOARGS(FL_DECLARE_NOARGS)
FL_TRANSPORT_ONE(FL_DECLARE_ONE)
FL_TRANSPORT_KEYWORDS(FL_DECLARE_KEYWORDS)

FL_DECLARE_KEYWORDS(get_extra_info, get_extra_info)

/* For a type that extends this method. */
FL_DECLARE_NOARGS(resume_reading, resume_reading)

/* Parse the arguments of _fatal_error(exc, message=...): borrowed.  0, or -1
   with TypeError set. */
int fl_transport_parse_fatal(PyObject *args, PyObject *kwargs, PyObject **exc,
                             const char **message);

/* repr(): asyncio's format. */
PyObject *fl_transport_repr(FlStream *self);

/* The __slots__ of asyncio's transports.  They occupy the first fields of an
   FlStream: see fl_type_derive. */
extern const FlBaseSlot fl_transport_base_slots[];

/* Add the type StreamTransport to the module.  0, or -1 with an exception
   set. */
int fl_transport_register(PyObject *module, FlState *state);

#endif
