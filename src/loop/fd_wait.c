/* Kept watches of the program's sockets: see fd_wait.h.

   1. A watcher that is kept stays in the table when nobody waits by it, until
      a handle takes it, a transport takes the number, or remove_reader or
      remove_writer finds it idle.
   2. A call that stands in a slot is owned by it, and owns the loop. */
#include "loop/fd_wait.h"

#include "core/loop.h"
#include "core/registration.h"
#include "loop/user_fd.h"
#include "py/compat.h"
#include "py/errors.h"

FlRegistration *
fl_fd_persistent(const FlLoop *loop, int fd, PyObject *sock)
{
    const FlUserFd *user_fd = fl_user_fd_at(loop, fd);
    if (user_fd == NULL || !user_fd->reg->persistent) {
        return NULL;
    }
    PyObject *owner = fl_weakref_get(user_fd->socket_ref);
    bool same = owner == sock;
    Py_XDECREF(owner); /* the caller has the other, if it is the same */
    return same ? user_fd->reg : NULL;
}

/* A watcher that begins to be kept for what the reference is to, 1 in *code;
   or NULL with 0 or -1. */
static FlUserFd *
make_persistent(FlLoop *loop, int fd, PyObject *reference, int *code)
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
    int persistent = fl_registration_persist(user_fd->reg);
    if (persistent < 0) {
        FlFdRefs refs = {NULL, NULL, NULL};
        if (fl_user_fd_wanted(user_fd) == 0) {
            fl_user_fd_take_out(loop, user_fd, &refs);
        }
        Py_XDECREF(refs.object);
        *code = fl_raise_errno(persistent);
        return NULL;
    }
    /* The reference that was there has no callback. */
    Py_XSETREF(user_fd->socket_ref, Py_NewRef(reference));
    *code = 1;
    return user_fd;
}

/* A watcher that is kept for the socket; the rest as above. */
static FlUserFd *
persistent_user_fd(FlLoop *loop, int fd, PyObject *sock, int *code)
{
    if (fl_fd_persistent(loop, fd, sock) != NULL) {
        *code = 1;
        return fl_user_fd_at(loop, fd);
    }
    /* First: making it may run the collector, and that anything. */
    PyObject *reference = PyWeakref_NewRef(sock, NULL);
    *code = -1;
    if (reference == NULL) {
        return NULL;
    }
    FlUserFd *user_fd = make_persistent(loop, fd, reference, code);
    Py_DECREF(reference);
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
    PyObject *before = *slot;
    *slot = Py_NewRef(call);
    fl_registration_want(user_fd->reg, fl_user_fd_wanted(user_fd));
    Py_XDECREF(before); /* last: this may run anything */
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
        fl_user_fd_take_out(loop, user_fd, &refs);
    }
    else {
        /* It fails where the number was closed: nothing fires then. */
        (void)fl_registration_set(user_fd->reg, wanted);
    }
    Py_XDECREF(refs.object);
    Py_DECREF(call);
}
