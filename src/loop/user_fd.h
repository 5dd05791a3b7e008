/* User-owned fds: those of add_reader, add_writer and the sock_* calls.

   An FlUserFd is the registration of an fd together with the application's
   callbacks.  core/README.md says what happens when the fd is closed or
   reused.

   Threads: any, while it holds the GIL; without a GIL the lock of the loop's
   table guards each FlUserFd.  Ownership: the loop's table owns each
   FlUserFd, which owns its callbacks.  Failures: -1 or NULL with an exception
   set, unless a function says otherwise. */
#ifndef FL_LOOP_USER_FD_H
#define FL_LOOP_USER_FD_H

#include "core/loop.h"
#include "core/registration.h"
#include "py/compat.h"

/* What the application registered for an fd. */
typedef struct {
    /* The reader and the writer, at `event - 1`: an FlHandle, a SocketCall of
       sock/, or NULL. */
    PyObject *callbacks[2];
    PyObject *object; /* the file object as it was passed; NULL for an int */
} FlFdRefs;

/* Close the user-owned registrations of all fds of a closed loop, which gets
   no new ones, and drop their callbacks.  Runs application code. */
void fl_user_fd_drop_all(FlLoop *loop);

/* Make an fd free for a new transport.  Callbacks of the fd are dropped,
   although the application's socket may still be open.  A transport loses the
   fd: the system has reused it, so the transport's file is closed.  Runs
   application code.  Loop's thread only.  0, or -1 with RuntimeError (loop
   closed). */
int fl_fd_acquire(FlLoop *loop, int fd);

/* Evict the transport that has the fd in the table: the system has reused it,
   so the transport's file is closed.  `only_lost`: not one that still has the
   fd, for all it knows, and not in another thread (user_fd.c, 3).  1, 0 if no
   transport has it, or FL_IN_USE.  Runs application code. */
int fl_fd_evict(FlLoop *loop, int fd, bool only_lost);

/* The fd that this object names, by identity (user_fd_put has the rule); or
   -1. */
int fl_fd_named_by(FlLoop *loop, const PyObject *object);

/* Raise RuntimeError if a transport uses the fd, which `object` names.  One
   whose socket was closed without its knowledge no longer uses it; a closing
   one does until it ends, unless it `may_close`.  0 or -1.  May run Python. */
int fl_fd_check(FlLoop *loop, PyObject *object, int fd, bool may_close);

/* Whether a transport or the application uses an fd: 1, 0, or -1 behind the
   last one; and in *refs new references to what the application registered. */
int fl_fd_users(const FlLoop *loop, int fd, FlFdRefs *refs);

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

/* The persistent registration (core/registration.h) of this socket under this
   fd, borrowed, or NULL.  It belongs to one socket object, because the fd
   alone may refer to another file by now. */
FlRegistration *fl_fd_persistent_registration(const FlLoop *loop, int fd,
                                              PyObject *sock);

/* Call `call` (a SocketCall) when the socket, whose fd this is, is ready for
   `event`.  It waits in the slot of a handle of add_reader or add_writer,
   where a later call or handle replaces it.  If it `persists`, the
   registration is persistent on a TCP connection on Linux, with a GIL and
   outside debug mode, unless it is a plain one for which somebody waits
   already.  fl_fd_remove ends the wait.  0, or -1 with an exception, as
   fl_fd_check raises it too. */
int fl_fd_add_call(FlLoop *loop, int fd, PyObject *sock, int event,
                   PyObject *call, bool persists);

/* tp_traverse of the references of all FlUserFd. */
int fl_user_fd_traverse(const FlLoop *loop, visitproc visit, void *arg);

#endif
