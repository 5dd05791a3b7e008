/* Persistent registrations of user-owned sockets: see fd_wait.h.

   1. A persistent registration stays open while nobody waits.  That is what
      makes the next wait free.  It ends when a handle registers for the fd, a
      transport acquires it, or remove_reader or remove_writer removes a
      waiting call or finds the fd idle.
   2. The slot owns the call that waits in it, and the call owns the loop.  So
      dropping a call may run any code, and happens last. */
#include "loop/fd_wait.h"

#include "core/loop.h"
#include "core/poller.h"
#include "core/registration.h"
#include "loop/user_fd.h"
#include "py/compat.h"
#include "py/errors.h"

FlRegistration *
fl_fd_persistent_registration(const FlLoop *loop, int fd, PyObject *sock)
{
    /* None without a GIL (fd_wait.h), where reading it here would be unsafe:
       another thread may close it. */
    FlUserFd *user_fd = FL_HAVE_GIL ? fl_user_fd_at(loop, fd) : NULL;
    if (user_fd == NULL || !user_fd->reg.persistent) {
        return NULL;
    }
    PyObject *owner = fl_weakref_get(user_fd->socket_ref);
    bool same = owner == sock;
    Py_XDECREF(owner); /* if it is the same, the caller has a reference */
    return same ? &user_fd->reg : NULL;
}

/* The fd's registration, made if there is none, for a wait of this socket.  If
   it was another socket's, `persistent` is cleared, so that fl_user_fd_put
   registers the present file; fl_fd_wait sets it again.  NULL with *code 0: a
   handle waits for this fd.  NULL with *code -1: an exception is set. */
static FlUserFd *
user_fd_of_socket(FlLoop *loop, int fd, PyObject *sock, int *code)
{
    if (fl_fd_persistent_registration(loop, fd, sock) != NULL) {
        return fl_user_fd_at(loop, fd);
    }
    *code = -1;
    /* Made before the table is read: allocating may run the GC, and a
       finalizer may change the table. */
    PyObject *weakref = PyWeakref_NewRef(sock, NULL);
    FlUserFd *user_fd = weakref == NULL ? NULL : fl_user_fd_lock(loop, fd);
    if (user_fd != NULL) {
        fl_fd_table_unlock(&loop->poller->table); /* the GIL suffices here */
        if (!user_fd->reg.persistent && fl_user_fd_wanted(user_fd) != 0) {
            *code = 0;
            user_fd = NULL;
        }
    }
    if (user_fd == NULL) {
        Py_XDECREF(weakref);
        return NULL;
    }
    /* Dropping the old weak reference runs no code: it has no callback. */
    Py_XSETREF(user_fd->socket_ref, weakref);
    user_fd->reg.persistent = false;
    return user_fd;
}

int
fl_fd_wait(FlLoop *loop, int fd, PyObject *sock, int event, PyObject *call)
{
    int code = 0;
    FlUserFd *user_fd = user_fd_of_socket(loop, fd, sock, &code);
    if (user_fd == NULL) {
        return code;
    }
    /* A later call replaces an earlier one, which then waits until its
       coroutine is cancelled, as in asyncio. */
    FlFdRefs dropped = {NULL, NULL, NULL};
    code = fl_user_fd_put(user_fd, event, Py_NewRef(call), &dropped);
    if (code == 0) {
        FlRegistration *reg = &user_fd->reg;
        reg->persistent = reg->recheck = reg->table->recheck = true;
    }
    Py_XDECREF(dropped.reader); /* last: this may run any code */
    Py_XDECREF(dropped.object);
    return code < 0 ? fl_raise_errno(code) : 1;
}
