/* A receiver: a protocol's calls as C functions.

   Bytes go by it from a stream to an object of ours, or of asyncio's that we
   know, without a frame of Python between.  A folder above this one registers
   its receiver when the module is made, for the instances of one type and not
   of its subclasses; a stream asks once, when it is given its protocol.

   A receiver does what the methods of the protocol would do, with their
   exceptions, and calls those that a program has put in their place: a stream
   never asks whether anything was patched.  It may run Python, so the stream
   may be paused, closed or have another protocol when it returns; the caller
   owns a reference to the protocol meanwhile.

   Loop's thread only.  Each function is given the state of the loop's module
   and the protocol.  Each but get_memory returns -1 with the
   exception raised, and the caller reports it as the method's: no receiver
   reports its own.

   One with get_memory is called once an event, with all that the event may
   read, as asyncio calls a protocol: whatever it wants or does, no part of
   that is left in the kernel.

   Rejected: a slot in the protocol's type, for types of asyncio's have
   none. */
#ifndef FL_TRANSPORT_NATIVE_PROTOCOL_H
#define FL_TRANSPORT_NATIVE_PROTOCOL_H

#include "py/compat.h"
#include "py/state.h"

#include <sys/uio.h>

#define FL_NATIVE_PIECES 4

struct FlNativeProtocol {
    /* There are size_bytes > 0 of data, valid during the call only.  0; 1:
       they took long for what they are, read less of them; or -1. */
    int (*data_received)(FlState *state, PyObject *protocol, const char *data,
                         size_t size_bytes);
    /* Optional, with the next one: where to read to instead, where likely so
       many bytes will come.  How many pieces of memory there are, at most
       FL_NATIVE_PIECES; 0: none now, and data goes to data_received.  Runs
       no Python and raises nothing. */
    int (*get_memory)(FlState *state, PyObject *protocol,
                      size_t expected_bytes, struct iovec *memory);
    /* Called once after each get_memory that gave some, with no other call
       between: so many bytes came, 0 if none did, into that memory, which may
       have been cut, and what it had no room for into the one piece after it,
       which is the caller's.  0 or -1, but never -1 for 0 bytes. */
    int (*memory_filled)(FlState *state, PyObject *protocol,
                         const struct iovec *memory, size_t got_bytes);
    /* 1: keep the transport open; 0: close it; or -1. */
    int (*eof_received)(FlState *state, PyObject *protocol);
    /* Optional: connection_made is about to be called, by its method.  Raises
       nothing. */
    void (*connecting)(FlState *state, PyObject *protocol);
};

typedef struct FlNativeProtocol FlNativeProtocol;

/* Have instances of a type that the state owns received so.  At most
   FL_NATIVE_PROTOCOLS types; never fails. */
void fl_native_protocol_register(FlState *state, PyTypeObject *type,
                                 const FlNativeProtocol *native);

/* The receiver of a protocol, or NULL: call its methods.  Runs no Python. */
const FlNativeProtocol *fl_native_protocol_of(const FlState *state,
                                              PyObject *protocol);

#endif
