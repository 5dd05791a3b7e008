/* Native readers: asyncio.StreamReader objects whose state is in C.

   Upgrade.  When a connection of an exact asyncio.StreamReaderProtocol is
   made, its exact asyncio.StreamReader becomes a native reader: its class
   becomes fastloop.streams.StreamReader, a subclass of asyncio's, and its
   attributes move into an FlReader, which its __dict__ holds under the name
   _fastloop.  Applications still read and set the attributes, through
   descriptors (reader_type.c).

   Downgrade.  A native reader becomes a plain asyncio.StreamReader again, for
   good, and runs asyncio's own code, as soon as an application
   - reads a _buffer that is not empty, or keeps or fills an empty one,
   - reads or sets __dict__, sets __class__, or copies the reader,
   - gives an attribute a value that the state cannot represent, or
   - has replaced one of asyncio's methods on the class, or sets a method or
     an attribute of its own on the object.
   Everything else, errors included, is done by asyncio's inherited methods
   through those attributes: so they may run on a native reader.
   Reading an empty _buffer does not downgrade, because redis does that before
   each command: it is given an empty bytearray, and each later call checks
   that nobody kept or filled that object.

   Everything that runs Python code may downgrade the reader: a callback, a
   buffer's __buffer__, a transport's method.  A caller that goes on after such
   a call owns a reference to the FlReader and checks `downgraded`, or fetches
   the state again.

   Ownership: the reader's __dict__ owns the FlReader.  Functions return it
   borrowed.

   Threads: the loop's thread, with the GIL.  Without a GIL no reader is
   upgraded, because to change an object's class stops all threads.

   Errors: NULL or -1 with an exception set, unless stated otherwise.

   Rejected:
   - Own classes in place of asyncio's: applications already refer to
     asyncio's.
   - A native reader over asyncio's bytearray: it copies what it returns. */
#ifndef FL_STREAMS_NATIVE_READER_H
#define FL_STREAMS_NATIVE_READER_H

#include "py/state.h"
#include "streams/byte_store.h"

/* The state of one native reader: a Python object, so that the GC sees the
   references. */
typedef struct {
    PyObject_HEAD
    FlState *state;
    /* asyncio's attributes of these names.  See fl_reader_has. */
    PyObject *loop;
    PyObject *waiter; /* the future that a read awaits */
    PyObject *exception;
    PyObject *transport;
    /* The empty bytearray that was returned for _buffer, or NULL. */
    PyObject *empty_buffer;
    FlByteStore store; /* the unread bytes: asyncio's _buffer */
    /* asyncio's _limit.  Above twice as many bytes the transport is paused. */
    Py_ssize_t limit_bytes;
    /* How many bytes the waiting read returns at most; 0: unknown.  An
       application may have set another waiter since: this is only a hint. */
    Py_ssize_t wanted_bytes;
    /* So many bytes at the front contain no separator: the next step of the
       search begins after them. */
    Py_ssize_t searched_bytes;
    /* The separator of that search.  It may be freed memory: it is compared
       with the next one's address and never read. */
    const char *searched_for;
    bool eof;
    bool paused; /* the reader paused the transport */
    /* The reader became a plain one while somebody still used this state,
       which is stale now. */
    bool downgraded;
} FlReader;

/* Whether an attribute is set: neither NULL nor None (NULL reads as None). */
static inline bool
fl_reader_has(PyObject *field)
{
    return field != NULL && field != Py_None;
}

/* The state of a native reader, after checking that it may stay native.  A
   reader that may not is downgraded.  NULL without an exception: it is a plain
   reader, maybe only since now; run asyncio's code.  NULL with an exception:
   the downgrade failed. */
FlReader *fl_reader_of(FlState *state, PyObject *reader);

/* The state of a native reader, without that check: for attributes.  NULL
   without an exception: it is a plain reader. */
FlReader *fl_reader_unchecked(FlState *state, PyObject *reader);

/* As fl_reader_of, but never downgrades: NULL for a reader that may not stay
   native. */
FlReader *fl_reader_peek(FlState *state, PyObject *reader);

/* Make a reader native if asyncio's code would not notice.  Else, and on any
   failure, it stays as it is.  Raises nothing. */
void fl_reader_upgrade(FlState *state, PyObject *reader);

/* Set __class__ with object's own descriptor, past ours and past a class's
   __setattr__.  0 or -1. */
int fl_reader_set_class(FlState *state, PyObject *reader, PyObject *type);

/* Make a reader plain.  Does nothing for one that is.  0, or -1 with an
   exception set; the reader works in either case. */
int fl_reader_downgrade(FlState *state, PyObject *reader);

/* asyncio's feed_data before EOF: append a copy of size_bytes > 0, wake the
   waiter, pause the transport if there is too much.  May run Python code: the
   caller owns a reference to self.  0 or -1. */
int fl_reader_feed(FlReader *self, const char *data, Py_ssize_t size_bytes);

/* The same for bytes that were received into memory that fl_byte_store_memory
   offered; the arguments are fl_byte_store_filled's.  0 or -1. */
int fl_reader_filled(FlReader *self, const struct iovec *memory,
                     Py_ssize_t got_bytes);

/* Return bytes from a method that has enough: take up to size_bytes from the
   store, then resume the transport if at most the limit is left.  May run
   Python code.  NULL with an exception. */
PyObject *fl_reader_take(FlReader *self, Py_ssize_t size_bytes);

/* Begin to wait: a new reference to a future that is resolved when bytes or
   EOF arrive.  wanted_bytes is how many bytes the waiting method will return
   at most, 0 if that is unknown.  None: asyncio's method must go on, since
   another call waits already, or since Python code that ran here downgraded
   the reader.  NULL with an exception. */
PyObject *fl_reader_wait(FlReader *self, Py_ssize_t wanted_bytes);

/* Add the state's type to the module.  0 or -1. */
int fl_native_reader_register(PyObject *module, FlState *state);

#endif
