/* The Python interface of every transport: one set of asyncio's methods over a
   table of operations.

   Streams, datagram transports and TLS transports begin with the same fields
   (FL_TRANSPORT_HEAD), and their types have the same methods (transport.c).  A
   method parses its arguments, forwards the call to the loop's thread if it
   must, and calls an operation.  There are two tables:
   FlStream's, which datagram transports share (stream_transport.c), and that
   of TLS (tls/tls_transport.c).  Rejected: a common base type.  CPython calls
   a type's own methods faster than inherited ones.

   Owner: arguments are borrowed, results are new references, unless a comment
   says otherwise.
   Threads: the loop's thread.  Without a GIL another thread may call a public
   method, too: a method that is not thread-safe is then forwarded to the loop
   (transport.c).
   Errors: NULL or -1 with an exception set. */
#ifndef FL_TRANSPORT_TRANSPORT_H
#define FL_TRANSPORT_TRANSPORT_H

#include "core/loop.h"
#include "py/args.h"
#include "py/compat.h"
#include "py/state.h"

typedef struct FlTransport FlTransport;

/* May what was passed to a write be sent? */
typedef enum {
    FL_FAILED = -1, /* no: an exception is set */
    FL_DROP,        /* no: the connection has ended; as in asyncio, no error */
    FL_SEND,
} FlMaySend;

/* What a method does, by kind of transport.  The functions that return int
   return 0 or -1, unless a comment says otherwise. */
typedef struct {
    int (*close)(FlTransport *self);
    /* abort(), or with an exception, which may be NULL, _force_close(exc). */
    int (*force_close)(FlTransport *self, PyObject *exc);
    int (*is_closing)(FlTransport *self); /* 1, 0 or -1 */
    int (*set_paused)(FlTransport *self, bool paused);
    bool (*is_reading)(const FlTransport *self);
    int (*set_protocol)(FlTransport *self, PyObject *protocol);
    /* A new reference, or NULL without an exception. */
    PyObject *(*protocol)(FlTransport *self);
    /* A fallback of NULL was not given: it is None. */
    PyObject *(*get_extra)(FlTransport *self, PyObject *name,
                           PyObject *fallback);
    size_t (*write_buffer_bytes)(const FlTransport *self);
    /* The water marks have changed: pause the protocol if its buffer is above
       them.  TLS may resume it too. */
    int (*control_writing)(FlTransport *self);
} FlTransportOps;

/* A number of bytes that any thread may set (fl_water_mark_set). */
typedef FL_ATOMIC uint64_t FlWaterMark;

/* The slots of asyncio's base class come first, in its layout: _extra, then
   the four of _FlowControlMixin.  Our attributes hide those four, so each type
   stores objects of its own in them, to which it gives names here.  The
   descriptors of _FlowControlMixin still reach them, so C code must accept an
   object of any type there. */
#if PY_VERSION_HEX < 0x030C0000
#define FL_TRANSPORT_DICT_FIELDS \
    PyObject *dict;              \
    PyObject *weakrefs;
#else
#define FL_TRANSPORT_DICT_FIELDS
#endif
#define FL_TRANSPORT_HEAD(slot1, slot2, slot3, slot4)    \
    PyObject_HEAD                                        \
    PyObject *extra;                                     \
    PyObject *slot1, *slot2, *slot3, *slot4;             \
    FL_TRANSPORT_DICT_FIELDS                             \
    const FlTransportOps *ops;                           \
    FlState *state;                                      \
    FlLoop *loop; /* a stream that is CLOSED has none */ \
    FlWaterMark high_water_bytes, low_water_bytes;       \
    FL_ATOMIC bool protocol_paused; /* pause_writing was the last call */

struct FlTransport {
    FL_TRANSPORT_HEAD(slot1, slot2, slot3, slot4)
};

/* Queue self.method(argument), or self.method() if argument is NULL, for the
   loop's thread.  Does not wait for the call, so its result is lost.  None, or
   NULL with an exception set. */
PyObject *fl_transport_queue_to_loop(FlLoop *loop, PyObject *self,
                                     PyObject *method, PyObject *argument);

/* Set TypeError and return -1 unless write() accepts the data's type.  The
   format has one PyUnicode_FromFormat field for the name of that type. */
int fl_transport_check_data(PyObject *data, const char *format);

/* Report an exception to the loop's call_exception_handler with the keys that
   asyncio uses for a transport; unraisable if the transport has ended.
   0, or -1 with one that ends the run. */
int fl_transport_report(FlTransport *self, PyObject *exc, const char *message);

/* Call the protocol's pause_writing or resume_writing; do nothing if protocol
   is NULL.  Steals protocol.  Reports an exception: 0, or -1 with one that
   ends the run. */
int fl_transport_call_flow(FlTransport *self, PyObject *protocol, bool pause);

/* repr(): the class's name and these details, which it steals.  NULL: making
   them raised. */
PyObject *fl_transport_repr(FlTransport *self, PyObject *details);

/* Finalizers call this: asyncio's ResourceWarning. */
void fl_transport_warn_unclosed(FlTransport *self);

/* Define a method with one parameter, positional or keyword as in asyncio.
   The usual form, one positional argument, skips the parser. */
#define FL_ONE_ARGUMENT(type, function, name, parameter, call)              \
    static PyObject *function(type *self, PyObject *const *args,            \
                              Py_ssize_t nargs, PyObject *kwnames)          \
    {                                                                       \
        PyObject *value =                                                   \
            FL_LIKELY(nargs == 1 && kwnames == NULL)                        \
                ? args[0]                                                   \
                : fl_args_parse_one(name, parameter, args, nargs, kwnames); \
        return value == NULL ? NULL : call(self, value);                    \
    }

/* Slots of every transport type: what its instances have beside methods. */
extern PyMemberDef fl_transport_members[];
extern PyGetSetDef fl_transport_getset[];

/* Add a type of transports to the module: its full name, the size of its
   instances and its slots.  It also gets the methods of all transports.  Its
   base is the state's asyncio_transport, and perhaps a second class (NULL:
   none).  A new reference, or NULL. */
PyTypeObject *fl_transport_type_new(PyObject *module, const char *name,
                                    size_t size_bytes, PyType_Slot *slots,
                                    PyObject *mixin);

/* Add to a finished type; each table may be NULL.  0 or -1. */
int fl_transport_add_attributes(PyTypeObject *type, PyMethodDef *methods,
                                PyGetSetDef *getset);

/* The getter and setter of a water mark at this offset of the object.  As in
   asyncio it may be set to any number; one above INT64_MAX, which no buffer
   reaches, becomes that. */
PyObject *fl_water_mark_get(PyObject *owner, void *offset);
int fl_water_mark_set(PyObject *owner, PyObject *value, void *offset);

/* Methods without arguments, which private attributes have as getters, too. */
PyObject *fl_transport_is_closing(FlTransport *self, void *ignored);
PyObject *fl_transport_get_protocol(FlTransport *self, void *ignored);

/* The same, of what is always True. */
PyObject *fl_transport_true(PyObject *self, void *ignored);

#endif
