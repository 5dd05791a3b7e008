/* Kept watches of the program's sockets: see fd_wait.h.

   1. A watcher that is kept stays in the table when nobody waits by it, until
      a handle takes it, a transport takes the number, or remove_reader or
      remove_writer finds it idle.
   2. A call that stands in a slot is owned by it, and owns the loop. */
#include "loop/fd_wait.h"

#include "core/loop.h"
#include "core/watch.h"
#include "loop/fd_watcher.h"
#include "py/compat.h"
#include "py/errors.h"

FlWatch *
fl_fd_kept(const FlLoop *loop, int fd, PyObject *sock)
{
    const FlFdWatcher *watcher = fl_fd_watcher_at(loop, fd);
    if (watcher == NULL || !watcher->watch->kept) {
        return NULL;
    }
    PyObject *owner = fl_weakref_get(watcher->kept_for);
    bool same = owner == sock;
    Py_XDECREF(owner); /* the caller has the other, if it is the same */
    return same ? watcher->watch : NULL;
}

/* A watcher that begins to be kept for what the reference is to, 1 in *code;
   or NULL with 0 or -1. */
static FlFdWatcher *
begin_to_keep(FlLoop *loop, int fd, PyObject *reference, int *code)
{
    FlFdWatcher *watcher = fl_fd_watcher_at(loop, fd);
    *code = -1;
    if (watcher == NULL) {
        watcher = fl_fd_watcher_open(loop, fd);
    }
    else if (!watcher->watch->kept && fl_fd_watcher_wanted(watcher) != 0) {
        *code = 0;
        return NULL;
    }
    if (watcher == NULL) {
        return NULL;
    }
    int kept = fl_watch_keep(watcher->watch);
    if (kept < 0) {
        FlFdRefs refs = {NULL, NULL, NULL};
        if (fl_fd_watcher_wanted(watcher) == 0) {
            fl_fd_watcher_take_out(loop, watcher, &refs);
        }
        Py_XDECREF(refs.object);
        *code = fl_raise_errno(kept);
        return NULL;
    }
    /* The reference that was there has no callback. */
    Py_XSETREF(watcher->kept_for, Py_NewRef(reference));
    *code = 1;
    return watcher;
}

/* A watcher that is kept for the socket; the rest as above. */
static FlFdWatcher *
kept_watcher(FlLoop *loop, int fd, PyObject *sock, int *code)
{
    if (fl_fd_kept(loop, fd, sock) != NULL) {
        *code = 1;
        return fl_fd_watcher_at(loop, fd);
    }
    /* First: making it may run the collector, and that anything. */
    PyObject *reference = PyWeakref_NewRef(sock, NULL);
    *code = -1;
    if (reference == NULL) {
        return NULL;
    }
    FlFdWatcher *watcher = begin_to_keep(loop, fd, reference, code);
    Py_DECREF(reference);
    return watcher;
}

int
fl_fd_wait(FlLoop *loop, int fd, PyObject *sock, int event, PyObject *call)
{
    int code;
    FlFdWatcher *watcher = kept_watcher(loop, fd, sock, &code);
    if (watcher == NULL) {
        return code;
    }
    PyObject **slot = fl_fd_watcher_slot(watcher, event);
    PyObject *before = *slot;
    *slot = Py_NewRef(call);
    fl_watch_want(watcher->watch, fl_fd_watcher_wanted(watcher));
    Py_XDECREF(before); /* last: this may run anything */
    return 1;
}

void
fl_fd_stop_waiting(FlLoop *loop, int fd, int event, PyObject *call)
{
    FlFdWatcher *watcher = fl_fd_watcher_at(loop, fd);
    PyObject **slot =
        watcher == NULL ? NULL : fl_fd_watcher_slot(watcher, event);
    if (slot == NULL || *slot != call) {
        return;
    }
    FlFdRefs refs = {NULL, NULL, NULL};
    *slot = NULL;
    int wanted = fl_fd_watcher_wanted(watcher);
    if (watcher->watch->kept) {
        fl_watch_want(watcher->watch, wanted);
    }
    else if (wanted == 0) {
        fl_fd_watcher_take_out(loop, watcher, &refs);
    }
    else {
        /* It fails where the number was closed: nothing fires then. */
        (void)fl_watch_set(watcher->watch, wanted);
    }
    Py_XDECREF(refs.object);
    Py_DECREF(call);
}
