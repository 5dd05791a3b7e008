/* Calls of a protocol: of its methods, or of a native protocol's C functions.

   A native protocol takes bytes from a stream to an object of ours, or to an
   asyncio object whose layout we know, without a Python frame between.
   streams/ and tls/ each register one when the module is created.  It serves
   the instances of exactly one type, not of subclasses.  A transport looks it
   up once, when its protocol is set, and keeps both in one FlProtocol.

   A native protocol does what the protocol's methods would do and raises what
   they would raise.  It must itself call methods that an application has
   patched in, because streams do not check for patches.  It may run Python, so
   the stream may be paused or closed, or have another protocol, when it
   returns.  The caller owns a reference to the protocol during the call.

   Threads: the loop's only.  But any thread may set a transport's protocol,
   so the fields of an FlProtocol are read and written together
   (fl_protocol_get, fl_protocol_set), and a call of a protocol uses one copy.

   Errors: a function that returns int returns -1 with an exception raised.
   The caller reports it as an exception of the method; no native protocol
   reports its own.

   Rejected: a slot in the protocol's type.  asyncio's types have none. */
#ifndef FL_TRANSPORT_NATIVE_PROTOCOL_H
#define FL_TRANSPORT_NATIVE_PROTOCOL_H

#include "py/compat.h"
#include "py/field.h"
#include "py/state.h"

#define FL_DATA_FAILED   "Fatal error: protocol.data_received() call failed."
#define FL_BUFFER_FAILED "Fatal error: protocol.buffer_updated() call failed."
#define FL_EOF_FAILED    "Fatal error: protocol.eof_received() call failed."

struct FlNativeProtocol {
    /* Receive data, size_bytes > 0, which is valid during the call only.  0 or
       -1. */
    int (*data_received)(FlState *state, PyObject *protocol, const char *data,
                         size_t size_bytes);

    /* The message for an exception of data_received: it names the method of
       asyncio's protocol. */
    const char *data_failed;

    /* Optional, together with filled, for a protocol that gets all the bytes
       that one event may read in one call, as asyncio calls a protocol.  So no
       part of them stays in the kernel, whatever the protocol then does: a
       connection that is closed with unread bytes is reset.
       Memory for size_bytes, and its owner for filled.  NULL without an
       exception: the bytes go to data_received.  NULL with one: that method's
       error.  It may run Python before it makes the memory. */
    char *(*find_room)(FlState *state, PyObject *protocol, size_t size_bytes,
                       PyObject **owner);

    /* Called exactly once after each find_room that returned memory, with no
       other call in between.  got_bytes arrived, maybe 0; left_bytes of the
       memory are free.  Steals the owner.  0 or -1. */
    int (*filled)(FlState *state, PyObject *owner, size_t got_bytes,
                  size_t left_bytes);

    /* Optional.  Called just before the method connection_made.  Raises
       nothing. */
    void (*before_connection_made)(FlState *state, PyObject *protocol);
};

typedef struct FlNativeProtocol FlNativeProtocol;

/* A protocol, and how data reaches it: by `native` if that is not NULL, else
   by a BufferedProtocol's methods or by a Protocol's. */
typedef struct {
    PyObject *object;
    const FlNativeProtocol *native;
    bool buffered; /* a BufferedProtocol that is not native */
} FlProtocol;

/* A copy of the owner's protocol, whose object is a new reference or NULL. */
static inline FlProtocol
fl_protocol_get(void *owner, const FlProtocol *field)
{
    FlProtocol copy;
    Py_BEGIN_CRITICAL_SECTION(owner);
    copy = *field;
    Py_XINCREF(copy.object);
    Py_END_CRITICAL_SECTION();
    return copy;
}

/* Set the owner's protocol; `set` is borrowed, {NULL} for none. */
static inline void
fl_protocol_set(void *owner, FlProtocol *field, FlProtocol set)
{
    PyObject *old;
    Py_BEGIN_CRITICAL_SECTION(owner);
    old = field->object;
    *field = set;
    Py_XINCREF(set.object);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(old);
}

/* Set the owner's protocol to an object, and find out how data reaches it.
   Runs __instancecheck__.  0, or -1 with an exception set and nothing
   changed. */
int fl_protocol_change(const FlState *state, void *owner, FlProtocol *field,
                       PyObject *object);

/* Whether the owner's protocol is still the one of which `used` is a copy. */
static inline bool
fl_protocol_is(void *owner, const FlProtocol *field, const FlProtocol *used)
{
    bool same;
    Py_BEGIN_CRITICAL_SECTION(owner);
    same = field->object == used->object && field->native == used->native;
    Py_END_CRITICAL_SECTION();
    return same;
}

/* Each calls one method of a protocol, which may run any Python.  The caller
   owns a reference to the protocol.  They return 0, or -1 with an exception
   set, unless they say otherwise. */
int fl_protocol_buffer_updated(FlState *state, PyObject *protocol,
                               size_t got_bytes);
/* The buffer of a BufferedProtocol, not empty: a new reference, or NULL with
   an exception set. */
PyObject *fl_protocol_get_buffer(FlState *state, PyObject *protocol,
                                 Py_ssize_t hint);
/* Its preparation for connection_made, if it is native. */
void fl_protocol_before_made(FlState *state, const FlProtocol *protocol);

#endif
