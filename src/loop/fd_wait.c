/* Persistent registrations of user-owned sockets: see fd_wait.h.

   1. A persistent registration stays in loop->fds while nobody waits.  That is
      what makes the next wait free.  It ends when a handle registers for the
      fd, a transport acquires it, remove_reader or remove_writer removes a
      waiting call or finds the fd idle, a recheck cannot register it, or it
      has reported too many events that nobody waited for (registration.c,
      MOST_UNWANTED).
   2. The slot owns the call that waits in it, and the call owns the loop.  So
      dropping a call may run any code, and happens last. */
#include "loop/fd_wait.h"

#include "core/loop.h"
#include "core/registration.h"
#include "loop/user_fd.h"
#include "py/compat.h"
#include "py/errors.h"

FlRegistration *
fl_fd_persistent_registration(const FlLoop *loop, int fd, PyObject *sock)
{
    const FlUserFd *user_fd = fl_user_fd_at(loop, fd);
    if (user_fd == NULL || !user_fd->reg->persistent) {
        return NULL;
    }
    PyObject *owner = fl_weakref_get(user_fd->socket_ref);
    bool same = owner == sock;
    Py_XDECREF(owner); /* if it is the same, the caller has a reference */
    return same ? user_fd->reg : NULL;
}

/* Make the fd's registration persistent, for the socket that the weak
   reference refers to.  Returns it with 1 in *code; or NULL with 0 (a handle
   waits for this fd) or with -1 and an exception. */
static FlUserFd *
make_persistent(FlLoop *loop, int fd, PyObject *weakref, int *code)
{
    FlUserFd *user_fd = fl_user_fd_at(loop, fd);
    *code = -1;
    if (user_fd == NULL) {
        user_fd = fl_user_fd_open(loop, fd);
    }
    else if (!user_fd->reg->persistent && fl_user_fd_wanted(user_fd) != 0) {
        *code = 0;
        return NULL;
    }
    if (user_fd == NULL) {
        return NULL;
    }
    int result = fl_registration_persist(user_fd->reg);
    if (result < 0) {
        /* Free what was opened just now, or what nobody waits with. */
        FlFdRefs refs = {NULL, NULL, NULL};
        if (fl_user_fd_wanted(user_fd) == 0) {
            fl_user_fd_detach(loop, user_fd, &refs);
        }
        Py_XDECREF(refs.object);
        *code = fl_raise_errno(result);
        return NULL;
    }
    /* Dropping the old weak reference runs no code: it has no callback. */
    Py_XSETREF(user_fd->socket_ref, Py_NewRef(weakref));
    *code = 1;
    return user_fd;
}

/* The fd's persistent registration for this socket, made if there is none.
   The result is that of make_persistent. */
static FlUserFd *
persistent_user_fd(FlLoop *loop, int fd, PyObject *sock, int *code)
{
    if (fl_fd_persistent_registration(loop, fd, sock) != NULL) {
        *code = 1;
        return fl_user_fd_at(loop, fd);
    }
    /* Made before the table is read: allocating may run the GC, and a
       finalizer may change the table. */
    PyObject *weakref = PyWeakref_NewRef(sock, NULL);
    *code = -1;
    if (weakref == NULL) {
        return NULL;
    }
    FlUserFd *user_fd = make_persistent(loop, fd, weakref, code);
    Py_DECREF(weakref);
    return user_fd;
}

int
fl_fd_wait(FlLoop *loop, int fd, PyObject *sock, int event, PyObject *call)
{
    int code;
    FlUserFd *user_fd = persistent_user_fd(loop, fd, sock, &code);
    if (user_fd == NULL) {
        return code;
    }
    PyObject **slot = fl_user_fd_slot(user_fd, event);
    /* A later call replaces an earlier one, which then waits until its
       coroutine is cancelled, as in asyncio. */
    PyObject *previous = *slot;
    *slot = Py_NewRef(call);
    fl_registration_want(user_fd->reg, fl_user_fd_wanted(user_fd));
    Py_XDECREF(previous); /* last: this may run any code */
    return 1;
}

void
fl_fd_stop_waiting(FlLoop *loop, int fd, int event, PyObject *call)
{
    FlUserFd *user_fd = fl_user_fd_at(loop, fd);
    PyObject **slot = user_fd == NULL ? NULL : fl_user_fd_slot(user_fd, event);
    if (slot == NULL || *slot != call) {
        return;
    }
    FlFdRefs refs = {NULL, NULL, NULL};
    *slot = NULL;
    int wanted = fl_user_fd_wanted(user_fd);
    if (user_fd->reg->persistent) {
        fl_registration_want(user_fd->reg, wanted);
    }
    else if (wanted == 0) {
        /* It is no longer persistent: a handle for the other direction, or a
           recheck that failed, has ended that. */
        fl_user_fd_detach(loop, user_fd, &refs);
    }
    else {
        /* This fails if the fd was closed: then nothing is reported. */
        (void)fl_registration_set(user_fd->reg, wanted);
    }
    Py_XDECREF(refs.object);
    Py_DECREF(call); /* the slot's reference */
}
