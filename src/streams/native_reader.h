/* Native readers: asyncio.StreamReader objects whose state is in C.

   When a connection of an exact asyncio.StreamReaderProtocol is made, its
   exact asyncio.StreamReader is *adopted*: it gets the class
   fastloop.streams.StreamReader, a subclass of asyncio's, and what was in its
   attributes moves into an FlReader in its __dict__.  The attributes remain,
   as descriptors.

   It is *given back*, and is a plain asyncio.StreamReader for good, when a
   program looks at its _buffer or __dict__, copies it, gives it a class, or
   has put a method in the place of one of asyncio's, on the class or the
   object: asyncio's own code then runs.  What shows or moves the state as a
   whole gives it back first: __dict__, __class__, and the methods that copies
   are made by.  A program may ask whether the _buffer is empty, as redis
   does before each command: one that is, it is shown, and the reader is given
   back only if the program keeps that object, or puts something in it.

   Loop's thread only, and only where there is a GIL: without one, to change
   an object's class stops all threads.

   Rejected: classes of our own in asyncio's place, for programs have asyncio's
   already; a reader over asyncio's bytearray, which copies what it gives. */
#ifndef FL_STREAMS_NATIVE_READER_H
#define FL_STREAMS_NATIVE_READER_H

#include "py/state.h"
#include "streams/byte_store.h"

typedef struct {
    PyObject_HEAD
    FlState *state;
    PyObject *loop;
    PyObject *waiter;    /* the future of who reads, or NULL */
    PyObject *exception; /* or NULL */
    PyObject *transport; /* or NULL */
    PyObject *shown;     /* the _buffer that programs saw while it was empty */
    FlByteStore store;
    Py_ssize_t limit_bytes;
    Py_ssize_t room_bytes;     /* the waiter takes up to so many; 0: unknown */
    Py_ssize_t searched_bytes; /* hold no separator of the last search */
    const char *searched_for;  /* it; only compared, may be freed memory */
    bool eof;
    bool paused;
    bool downgraded; /* while a caller still held this: look again */
} FlReader;

/* The state of a native reader, borrowed, after a look whether it may stay
   one.  NULL without an exception: it is none, or was given back just now. */
FlReader *fl_reader_of(FlState *state, PyObject *reader);

/* The same without that look: for attributes. */
FlReader *fl_reader_behind(FlState *state, PyObject *reader);

/* As fl_reader_of, but gives nothing back: NULL for one that has to be. */
FlReader *fl_reader_peek(FlState *state, PyObject *reader);

/* The empty _buffer, which a program looks at.  NULL with an exception. */
PyObject *fl_reader_show_empty(FlReader *self);

/* Adopt a reader that may be.  Raises nothing. */
void fl_reader_upgrade(FlState *state, PyObject *reader);

/* Set __class__ as object does, whatever has the state.  0 or -1. */
int fl_reader_set_class(FlState *state, PyObject *reader, PyObject *type);

/* Make it a plain one.  0 or -1; then it is as it was. */
int fl_reader_downgrade(FlState *state, PyObject *reader);

/* A dict of what a plain reader's attributes would be; the buffer is a copy.
   NULL with an exception. */
PyObject *fl_reader_attributes(FlReader *self);

/* asyncio's feed_data.  0 or -1. */
int fl_reader_feed(FlReader *self, const char *data, Py_ssize_t size_bytes);

/* The same of bytes that have come into memory of the store's, and into one
   piece after it.  0 or -1. */
int fl_reader_filled(FlReader *self, const struct iovec *memory,
                     Py_ssize_t got_bytes);

/* asyncio's _maybe_resume_transport.  0 or -1. */
int fl_reader_maybe_resume(FlReader *self);

/* A new future that is told of bytes; borrowed.  None, borrowed: what ran
   meanwhile gave the reader back.  NULL with an exception.
   name is the method's, for texts. */
PyObject *fl_reader_wait(FlReader *self, const char *name,
                         Py_ssize_t room_bytes);

int fl_native_reader_register(PyObject *module, FlState *state);

#endif
