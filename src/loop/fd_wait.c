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
   it was another socket's it is not persistent.  NULL with 0 in *code (a
   handle waits for this fd) or with -1 and an exception. */
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
    FlRegistration *reg = &user_fd->reg;
    PyObject **slot = fl_user_fd_slot(user_fd, event);
    /* A later call replaces an earlier one, which then waits until its
       coroutine is cancelled, as in asyncio. */
    PyObject *previous = *slot;
    *slot = call;
    reg->wanted &= (uint8_t)~event; /* add again, unless persistent */
    code = fl_registration_set(reg, fl_user_fd_wanted(user_fd));
    if (code == 0) {
        Py_INCREF(call);
        reg->persistent = reg->recheck = reg->table->recheck = true;
        Py_XDECREF(previous); /* last: this may run any code */
        return 1;
    }
    *slot = previous;
    reg->wanted = (uint8_t)fl_user_fd_wanted(user_fd);
    if (reg->wanted == 0) {
        FlFdRefs refs = {NULL, NULL, NULL};
        fl_user_fd_detach(user_fd, &refs);
        Py_XDECREF(refs.object);
    }
    return fl_raise_errno(code);
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
    if (wanted == 0 && !user_fd->reg.persistent) {
        /* A handle for the other direction has ended the persistence. */
        fl_user_fd_detach(user_fd, &refs);
    }
    else {
        (void)fl_registration_set(&user_fd->reg, wanted); /* cannot fail */
    }
    Py_XDECREF(refs.object);
    Py_DECREF(call); /* the slot's reference */
}
