/* add_reader, add_writer, remove_reader and remove_writer: user-owned fds.

   An FlUserFd is the registration of an fd together with the application's
   callbacks.  An fd is only a number: the application may close it, and the
   system may reuse it for another file, while a callback is still registered.

   Threads: any, while it holds the GIL; without a GIL the lock of the poller's
   table guards each FlUserFd.  Ownership: the poller's table owns each
   FlUserFd, which owns its callbacks.  Failures: -1 or NULL with an exception
   set, unless a function says otherwise. */
#ifndef FL_LOOP_USER_FD_H
#define FL_LOOP_USER_FD_H

#include "core/loop.h"
#include "loop/methods.h"
#include "py/compat.h"

/* The strong references of a user-owned fd. */
typedef struct {
    PyObject *reader; /* an FlHandle, a SocketCall of sock/, or NULL */
    PyObject *writer;
    PyObject *object; /* the file object as it was passed; NULL for an int */
} FlFdRefs;

/* A user-owned fd: the registration of add_reader, add_writer or a sock_*
   call, with what it refers to. */
typedef struct {
    FlRegistration reg; /* first: the poller frees it */
    FlFdRefs refs;
    PyObject *socket_ref; /* persistent only: weak reference to the socket */
} FlUserFd;

/* Remove the application's callbacks of an fd and cancel their handles,
   because a transport of ours has the fd now.  fd -1, to close the loop: take
   the lowest fd that has callbacks, and cancel nothing.  Returns whether there
   were any.  Runs application code. */
bool fl_user_fd_evict(FlLoop *loop, int fd);

/* --- within the lock of the poller's table ------------------------------- */

/* The application's registration of an fd, or NULL. */
FlUserFd *fl_user_fd_at(const FlLoop *loop, int fd);

/* The next one after an fd (-1: the first), or NULL. */
FlUserFd *fl_user_fd_after(const FlLoop *loop, int fd);

/* FL_READABLE | FL_WRITABLE: the directions that have a callback. */
static inline int
fl_user_fd_wanted(const FlUserFd *user_fd)
{
    return (user_fd->refs.reader != NULL ? FL_READABLE : 0)
           | (user_fd->refs.writer != NULL ? FL_WRITABLE : 0);
}

/* Where the callback of a direction is stored. */
static inline PyObject **
fl_user_fd_slot(FlUserFd *user_fd, int event)
{
    return event == FL_READABLE ? &user_fd->refs.reader
                                : &user_fd->refs.writer;
}

/* Close and free it.  The caller gets its references and drops them outside
   the lock, because that may run any code. */
void fl_user_fd_detach(FlUserFd *user_fd, FlFdRefs *refs);

/* Put a handle or a SocketCall in the slot of its direction; steals it.  The
   caller drops `dropped`, empty before, outside the lock: its reader is what
   stood there, or `call` on failure.  0 or a negative errno. */
int fl_user_fd_put(FlUserFd *user_fd, int event, PyObject *call,
                   FlFdRefs *dropped);

/* ------------------------------------------------------------------------- */

/* The registration of an fd; a new one wants nothing yet.  It takes the lock
   of the poller's table, and the caller releases it.  A transport whose socket
   was closed without its knowledge loses the fd, and a pipe's waits with a
   duplicate; to find that out may run Python.  NULL, without the lock, with
   MemoryError, OSError or RuntimeError: the loop is closed, a transport uses
   the fd, or without a GIL another thread runs the loop and its transport
   would lose the fd. */
FlUserFd *fl_user_fd_lock(FlLoop *loop, int fd);

/* Make an fd free for a new transport.  This invalidates it for its previous
   user, be it a callback or a transport: the system has reused the fd, so that
   user's file is closed.  A pipe that still has the fd waits with a duplicate.
   Runs application code.  0, or -1 with RuntimeError (loop closed) or OSError
   (no fd is left for the duplicate). */
int fl_fd_acquire(FlLoop *loop, int fd);

/* Invalidate the fd for the transport that has it: the system has reused it,
   so the transport's file is closed.  1, 0 if no transport has it, or a
   negative errno: see FlOpenTransportKind.  Runs application code.  Loop's
   thread only. */
int fl_fd_invalidate(FlLoop *loop, int fd);

/* Whether the fd has a callback, or a transport that admits no other user.
   May run Python. */
bool fl_fd_is_used(const FlLoop *loop, int fd);

/* The fd of an int or of an object with fileno(), or -1 with ValueError or
   OverflowError set, as selectors raises them. */
int fl_fd_of(FlLoop *loop, PyObject *object);

/* Check that no transport of this loop uses the fd of `object` (an int or an
   object with fileno()).  0, or -1 with RuntimeError, or with ValueError if it
   is not an fd. */
int fl_fd_check(FlLoop *loop, PyObject *object);

/* The transport that uses an fd, a new reference, or NULL. */
PyObject *fl_fd_transport(const FlLoop *loop, int fd);

/* Call args[0](*args[1:]) when the fd is ready for `event`, as _add_reader and
   _add_writer do.  `object` is what names the fd, any int if nothing does;
   context may be NULL.  The handle, a new reference, or NULL with an
   exception set. */
FlHandle *fl_fd_add(FlLoop *loop, int fd, PyObject *object, int event,
                    PyObject *const *args, Py_ssize_t nargs,
                    PyObject *context);

/* Remove a callback, and cancel it if it is a handle.  If `only` is not NULL,
   nothing but this handle or SocketCall is removed, and a persistent
   registration stays.  Whether there was one. */
bool fl_fd_remove(FlLoop *loop, int fd, int event, const PyObject *only);

/* tp_traverse of the references of all FlUserFd. */
int fl_user_fd_traverse(const FlLoop *loop, visitproc visit, void *arg);

/* The methods.  Those named _unchecked have asyncio's private names, such as
   _add_reader: they do not look for asyncio's own transports, which call them
   for their fds. */
FL_FAST_KW(fl_loop_add_reader);
FL_FAST_KW(fl_loop_add_writer);
FL_FAST_KW(fl_loop_remove_reader);
FL_FAST_KW(fl_loop_remove_writer);
FL_FAST_KW(fl_loop_add_reader_unchecked);
FL_FAST_KW(fl_loop_add_writer_unchecked);
FL_FAST_KW(fl_loop_remove_reader_unchecked);
FL_FAST_KW(fl_loop_remove_writer_unchecked);

#endif
