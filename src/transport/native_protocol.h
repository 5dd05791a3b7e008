/* Calls of a protocol: of its methods, or of a native protocol's C functions.

   A native protocol takes bytes from a stream to an object of ours, or to an
   asyncio object whose layout we know, without a Python frame between.
   streams/ and tls/ each register one when the module is created.  It serves
   the instances of exactly one type, not of subclasses.  A stream looks it up
   once, when its protocol is set.

   A native protocol does what the protocol's methods would do and raises what
   they would raise.  It must itself call methods that an application has
   patched in, because streams do not check for patches.  It may run Python, so
   the stream may be paused or closed, or have another protocol, when it
   returns.  The caller owns a reference to the protocol during the call.

   Threads: the loop's only.

   Errors: a function that returns int, except find_room, returns -1 with an
   exception raised.  The caller reports it as an exception of the method; no
   native protocol reports its own.

   A native protocol with find_room gets all the bytes that one event may read
   in one call, as asyncio calls a protocol.  So no part of them stays in the
   kernel, whatever the protocol then does: a connection that is closed with
   unread bytes is reset.

   Rejected: a slot in the protocol's type.  asyncio's types have none. */
#ifndef FL_TRANSPORT_NATIVE_PROTOCOL_H
#define FL_TRANSPORT_NATIVE_PROTOCOL_H

#include "py/compat.h"
#include "py/state.h"

#include <sys/uio.h>

/* The most pieces of memory that find_room may return. */
#define FL_NATIVE_PIECES 4

struct FlNativeProtocol {
    /* Receive data, size_bytes > 0, which is valid during the call only.
       0; 1 if it took long for its size: the next reads are smaller; or -1. */
    int (*data_received)(FlState *state, PyObject *protocol, const char *data,
                         size_t size_bytes);

    /* Optional, together with buffers_filled: provide memory to read into.
       About expected_bytes will probably arrive.  Returns the number of
       pieces, at most FL_NATIVE_PIECES; 0 for none now, and the bytes go to
       data_received.  Raises nothing.  It may run Python, as a descriptor
       or the GC: the caller then looks at the stream again. */
    int (*find_room)(FlState *state, PyObject *protocol, size_t expected_bytes,
                     struct iovec *memory);

    /* Called exactly once after each find_room that returned pieces, with no
       other call in between.  got_bytes arrived, or 0 if none did.  They fill
       the pieces in order; the caller may have shortened them.  The excess is
       in one more piece after the last, which belongs to the caller.  0 or -1,
       but never -1 for 0 bytes. */
    int (*buffers_filled)(FlState *state, PyObject *protocol,
                          const struct iovec *memory, size_t got_bytes);

    /* Optional: else the method is called.  1: keep the transport open; 0:
       close it; or -1. */
    int (*eof_received)(FlState *state, PyObject *protocol);

    /* Optional.  Called just before the method connection_made.  Raises
       nothing. */
    void (*before_connection_made)(FlState *state, PyObject *protocol);
};

typedef struct FlNativeProtocol FlNativeProtocol;

/* How data reaches a protocol: by *native if that is not NULL, else by a
   BufferedProtocol's methods or by a Protocol's.  A transport asks when its
   protocol is set.  0, or -1 with an exception set. */
int fl_protocol_kind(const FlState *state, PyObject *protocol,
                     const FlNativeProtocol **native, bool *buffered);

/* Each calls one method of a protocol, which may run any Python.  The caller
   owns a reference to the protocol.  They return 0, or -1 with an exception
   set, unless they say otherwise. */
int fl_protocol_buffer_updated(FlState *state, PyObject *protocol,
                               size_t got_bytes);
/* data_received with `bytes`, or with new ones of `data` if that is NULL. */
int fl_protocol_data_received(FlState *state, PyObject *protocol,
                              PyObject *bytes, const char *data,
                              size_t size_bytes);
/* The buffer of a BufferedProtocol, not empty: a new reference, or NULL with
   an exception set. */
PyObject *fl_protocol_get_buffer(FlState *state, PyObject *protocol,
                                 Py_ssize_t hint);
/* 1: keep the transport open; 0: close it; or -1.  `native` may be NULL. */
int fl_protocol_eof_received(FlState *state, PyObject *protocol,
                             const FlNativeProtocol *native);

#endif
