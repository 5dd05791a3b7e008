/* Native readers: asyncio.StreamReader objects whose state is in C.

   Upgrade.  When a connection of an exact asyncio.StreamReaderProtocol is
   made, its exact asyncio.StreamReader becomes a native reader: its class
   becomes fastloop.streams.StreamReader, a subclass of asyncio's, and its
   attributes move into an FlReader, which its __dict__ holds under the name
   _fastloop.

   Attributes.  The base class of fastloop.streams.StreamReader is
   _core.NativeReader, a subclass of asyncio.StreamReader whose descriptors
   have the names of asyncio's attributes.  Reading or setting one reads or
   sets the field of the FlReader.  If the field cannot represent the value, or
   the application reads __dict__ or a _buffer that is not empty, the reader is
   downgraded first.  An instance without a state, which an application may
   make by calling the class, keeps its attributes in its __dict__ and runs
   asyncio's code.

   Downgrade.  A native reader becomes a plain asyncio.StreamReader again, for
   good, and runs asyncio's own code, as soon as an application
   - reads a _buffer that is not empty, or keeps or fills an empty one,
   - reads or sets __dict__, sets __class__, or copies the reader,
   - gives an attribute a value that the state cannot represent, or
   - has replaced one of asyncio's methods on the class, or sets a method or
     an attribute of its own on the object.
   asyncio's methods do so too if they use a _buffer that is not empty: repr(),
   at_eof() after EOF, and those that raise IncompleteReadError.
   asyncio's inherited methods do all other work, and raise the errors.  They
   use those attributes, so they run on a native reader too.
   Reading an empty _buffer does not downgrade, because redis does that before
   each command: it is given an empty bytearray, and each later call checks
   that nobody kept or filled that object.

   Everything that runs Python code may downgrade the reader: a method of a
   future or a transport, a destructor, a lookup on a class.  A caller that
   goes on after such a call owns a reference to the FlReader and checks
   `downgraded`, or fetches the state again.

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

/* Whether asyncio.StreamReader has asyncio's methods.  The answer is cached
   until the class changes, if the class has a version tag.  Without a cached
   answer this looks the methods up, which may run Python.  Raises nothing. */
bool fl_reader_methods_are_plain(FlState *state);

/* The state in a reader's __dict__, and that dict.  Both are borrowed: the
   reader owns the dict, and the dict the state.  NULL without an exception: it
   has no state.  Does not check whether the reader may stay native. */
FlReader *fl_reader_find(FlState *state, PyObject *reader, PyObject **dict);

/* The same without the dict. */
FlReader *fl_reader_unchecked(FlState *state, PyObject *reader);

/* Make a reader native if nothing but asyncio has used its attributes.  Else,
   and on any failure, it stays as it is.  A __dict__ that the application got
   before is not the reader's any more.  Raises nothing. */
void fl_reader_upgrade(FlState *state, PyObject *reader);

/* Make a reader plain.  Does nothing for one that is.  0, or -1 with an
   exception set; the reader works in either case. */
int fl_reader_downgrade(FlState *state, PyObject *reader);

/* Add the types of the state and of readers to the module.  0 or -1. */
int fl_native_reader_register(PyObject *module, FlState *state);

#endif
