/* User-owned fds: see user_fd.h.  Each added callback registers the fd with
   the system again, unless the registration is persistent: an fd is only a
   number, and may be another file's by now.

   1. Code that may run Python runs outside of the table's lock, and the table
      is read again afterwards.  close() sets loop->closed before it removes
      the callbacks within the lock: a thread that comes later sees that.
   2. A persistent registration ends when a handle or a call that does not
      persist registers for the fd, a transport acquires it, or remove_reader
      or remove_writer removes a waiting call or finds the fd idle.  Rejected:
      one without a GIL.  The thread that clears `may_be_ready` must be the
      thread that processes its events.
   3. Without a GIL the loop's thread may close a transport's registration, and
      free it, at any time.  So what a lookup needs of one is read within the
      table's lock.  There the registration still keeps the transport alive: it
      is closed before the loop drops its reference.  For the same reason only
      the loop's thread takes an fd from a transport. */
#include "loop/user_fd.h"

#include "base/codes.h"
#include "core/dispatch.h"
#include "core/flush.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/poller.h"
#include "core/registration.h"
#include "core/report.h"
#include "core/thread_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/errors.h"
#include "py/state.h"

#include <netinet/in.h>
#include <sys/socket.h>

/* A user-owned fd: the registration of add_reader, add_writer or a sock_*
   call, with what it refers to. */
typedef struct {
    FlRegistration reg; /* first: the table frees it */
    FlFdRefs refs;
    PyObject *socket_ref; /* persistent only: weak reference to the socket */
} FlUserFd;

static int on_fd(FlLoop *loop, FlRegistration *reg, int events);

/* Whether a slot's object is a SocketCall. */
static bool
is_call(const FlLoop *loop, const PyObject *object)
{
    return object != NULL && Py_TYPE(object) == loop->state->socket_call_type;
}

/* --- the users of an fd -------------------------------------------------- */

/* The transport that uses an fd, or NULL.  The caller drops a new reference to
   its object: see invariant 3. */
static FlOpenTransport *
transport_at(const FlLoop *loop, int fd)
{
    FlFdTable *table = loop->table;
    fl_fd_table_lock(table);
    const FlRegistration *reg = fl_registration_at(table, fd);
    FlOpenTransport *transport = reg == NULL ? NULL : reg->transport;
    if (transport != NULL) {
        Py_INCREF(fl_open_transport_object(transport));
    }
    fl_fd_table_unlock(table);
    return transport;
}

/* The application's registration of an fd, or NULL.  The caller of a
   user_fd_* function holds the table's lock, unless its comment says
   otherwise. */
static FlUserFd *
user_fd_at(const FlLoop *loop, int fd)
{
    FlRegistration *reg = fl_registration_at(loop->table, fd);
    return reg != NULL && reg->on_events == on_fd ? (FlUserFd *)reg : NULL;
}

int
fl_fd_evict(FlLoop *loop, int fd, bool only_lost)
{
    FlOpenTransport *transport = transport_at(loop, fd);
    if (transport == NULL) {
        return 0;
    }
    bool used = only_lost
                && (transport->kind->has_fd(transport)
                    || fl_loop_on_other_thread(loop));
    if (!used) {
        transport->kind->evict(transport);
    }
    Py_DECREF(fl_open_transport_object(transport));
    return used ? FL_IN_USE : 1;
}

int
fl_fd_users(const FlLoop *loop, int fd, FlFdRefs *refs)
{
    *refs = (FlFdRefs){{NULL}};
    FlFdTable *table = loop->table;
    fl_fd_table_lock(table);
    int used = fd < table->fds_size ? 0 : -1;
    const FlRegistration *reg = fl_registration_at(table, fd);
    const FlUserFd *user_fd = user_fd_at(loop, fd);
    if (user_fd != NULL
        && (user_fd->refs.callbacks[0] || user_fd->refs.callbacks[1]))
    {
        *refs = user_fd->refs;
        Py_XINCREF(refs->callbacks[0]);
        Py_XINCREF(refs->callbacks[1]);
        Py_XINCREF(refs->object);
        used = 1;
    }
    else if (reg != NULL && reg->transport != NULL) {
        used = 1;
    }
    fl_fd_table_unlock(table);
    return used;
}

/* --- running ------------------------------------------------------------- */

/* Run what stands in the slot of an event, a handle or a SocketCall; steals
   it.  As in asyncio, a handle that the application has cancelled is removed.
   0, or -1 with an exception that ends the run. */
static int
run_slot(FlLoop *loop, int fd, int event, PyObject *object)
{
    if (object == NULL) {
        return 0;
    }
    int code = 0;
    if (is_call(loop, object)) {
        code = fl_call_done(PyObject_CallNoArgs(object));
        code = code < 0 ? fl_loop_report_callback(loop, NULL) : 0;
        code = fl_loop_time_rest(loop, object, code);
    }
    else if (FL_UNLIKELY(fl_handle_is_cancelled((FlHandle *)object))) {
        (void)fl_fd_remove(loop, fd, event, object);
    }
    else if (fl_loop_must_put_off(loop, ((FlHandle *)object)->context)) {
        fl_registration_put_off(loop->table, fd, event);
    }
    else {
        /* It may send without our knowledge. */
        fl_loop_flush_corked(loop);
        code = fl_handle_run(loop, (FlHandle *)object);
    }
    Py_DECREF(object);
    return code;
}

/* on_events of a user-owned fd: run its reader, then its writer. */
static int
on_fd(FlLoop *loop, FlRegistration *reg, int events)
{
    PyObject *reader = NULL, *writer = NULL;
    FlFdTable *table = reg->table;
    fl_fd_table_lock(table);
    if (reg->on_events != NULL) { /* else another thread has closed it */
        PyObject *const *callbacks = ((FlUserFd *)reg)->refs.callbacks;
        reader = events & FL_READABLE ? Py_XNewRef(callbacks[0]) : NULL;
        writer = events & FL_WRITABLE ? Py_XNewRef(callbacks[1]) : NULL;
    }
    fl_fd_table_unlock(table);
    int fd = reg->fd, code = run_slot(loop, fd, FL_READABLE, reader);
    bool runs = true;
    if (reader != NULL && writer != NULL) {
        code = fl_loop_time_rest(loop, NULL, code);
        /* The reader may have removed or replaced the writer. */
        fl_fd_table_lock(table);
        const FlUserFd *user_fd = user_fd_at(loop, fd);
        runs = user_fd != NULL && user_fd->refs.callbacks[1] == writer;
        fl_fd_table_unlock(table);
    }
    if (code < 0 || !runs) {
        Py_XDECREF(writer);
        return code;
    }
    return run_slot(loop, fd, FL_WRITABLE, writer);
}

/* --- registering --------------------------------------------------------- */

/* End what stood in a slot: an FlReadyOp.  A call that is closed keeps its
   socket open no longer and, as in asyncio, waits until its coroutine is
   cancelled.  A handle is cancelled. */
static int
end_callback(FlLoop *loop, PyObject *object, PyObject *Py_UNUSED(argument))
{
    const FlNames *names = &loop->state->names;
    PyObject *method = is_call(loop, object) ? names->close : names->cancel;
    if (fl_call_method(object, method, NULL) < 0) {
        fl_thread_queue_pass_exception_anythread(loop, object);
    }
    return 0;
}

/* Drop what an fd had, outside the lock.  Runs application code. */
static void
drop_refs(FlLoop *loop, const FlFdRefs *refs)
{
    for (int at = 0; at < 2; at++) {
        PyObject *object = refs->callbacks[at];
        bool waits = is_call(loop, object);
        bool ends = waits || (object != NULL && !loop->closed);
        if (waits && fl_loop_on_other_thread(loop)) {
            /* Without a GIL only the loop's thread ends a call. */
            ends = fl_thread_queue_push_op_anythread(loop, end_callback,
                                                     object, NULL, NULL)
                   < 0;
            PyErr_Clear(); /* the loop is closed by now */
        }
        if (ends) {
            (void)end_callback(loop, object, NULL);
        }
        Py_XDECREF(object);
    }
    Py_XDECREF(refs->object);
}

/* Close and free it.  The caller gets its references and drops them outside
   the lock, because that may run any code. */
static void
user_fd_detach(FlUserFd *user_fd, FlFdRefs *refs)
{
    *refs = user_fd->refs;
    /* A weak reference without a callback: dropping it runs no code. */
    Py_CLEAR(user_fd->socket_ref);
    fl_registration_close(&user_fd->reg);
}

/* Close the user-owned registration of an fd, and drop its callbacks.  Handles
   are cancelled, unless the loop is closed.  Runs application code. */
static void
user_fd_drop(FlLoop *loop, int fd)
{
    FlFdRefs refs = {{NULL}};
    FlFdTable *table = loop->table;
    fl_fd_table_lock(table);
    FlUserFd *user_fd = user_fd_at(loop, fd);
    if (user_fd != NULL) {
        user_fd_detach(user_fd, &refs);
    }
    fl_fd_table_unlock(table);
    drop_refs(loop, &refs);
}

void
fl_user_fd_drop_all(FlLoop *loop)
{
    int fd = 0;
    do {
        user_fd_drop(loop, fd);
    } while (++fd < loop->table->fds_size);
}

int
fl_fd_acquire(FlLoop *loop, int fd)
{
    do {
        user_fd_drop(loop, fd);
    } while (fl_fd_evict(loop, fd, false) > 0);
    return fl_loop_check_open(loop); /* that code may have closed the loop */
}

int
fl_user_fd_traverse(const FlLoop *loop, visitproc visit, void *arg)
{
    for (int fd = 0; fd < loop->table->fds_size; fd++) {
        const FlUserFd *user_fd = user_fd_at(loop, fd);
        if (user_fd != NULL) {
            Py_VISIT(user_fd->refs.callbacks[0]);
            Py_VISIT(user_fd->refs.callbacks[1]);
            Py_VISIT(user_fd->refs.object);
        }
    }
    return 0;
}

int
fl_fd_named_by(FlLoop *loop, const PyObject *object)
{
    FlFdTable *table = loop->table;
    fl_fd_table_lock(table);
    int fd = table->fds_size;
    while (--fd >= 0) {
        const FlUserFd *user_fd = user_fd_at(loop, fd);
        if (user_fd != NULL && user_fd->refs.object == object) {
            break;
        }
    }
    fl_fd_table_unlock(table);
    return fd;
}

int
fl_fd_check(FlLoop *loop, PyObject *object, int fd, bool may_close)
{
    FlOpenTransport *transport = transport_at(loop, fd);
    if (transport != NULL) {
        int uses = transport->kind->has_fd(transport);
        if (uses && may_close) {
            uses = fl_call_truth(fl_open_transport_object(transport),
                                 loop->state->names.is_closing);
            uses = uses < 0 ? -1 : !uses;
        }
        if (uses > 0) {
            PyErr_Format(PyExc_RuntimeError,
                         "File descriptor %R is used by transport %R", object,
                         fl_open_transport_object(transport));
        }
        Py_DECREF(fl_open_transport_object(transport));
        if (uses != 0) {
            return -1;
        }
    }
    /* asyncio's own transports of sockets: see _loop/connections.py. */
    if (loop->python_transports == NULL) {
        return 0;
    }
    return fl_call_done(PyObject_CallMethodOneArg(
        (PyObject *)loop, loop->state->names._check_python_transports,
        object));
}

/* Put a callback, a handle or a SocketCall, in the slot of its direction;
   steals it.  *dropped gets what the caller drops outside the lock: what stood
   there; also the other direction's callback, if that was of another file; or
   the callback itself if this fails.  0 or an error code. */
static int
user_fd_put(FlLoop *loop, FlUserFd *user_fd, PyObject *object, int event,
            PyObject *callback, FlFdRefs *dropped)
{
    FlRegistration *reg = &user_fd->reg;
    FlFdRefs *refs = &user_fd->refs;
    bool is_first = reg->wanted == 0;
    /* Only a listener that is the fd's one user shares it with workers. */
    int wanted = (reg->wanted & ~FL_EXCLUSIVE) | event;
    /* A persistent one is of one socket, whose calls find the present file. */
    int code = fl_registration_want(reg, wanted, reg->persistent ? 0 : event);
    if (!reg->persistent) {
        /* It may be ready already: the next iteration polls. */
        loop->polls.skips_left = 0;
    }
    if (code < 0) {
        if (is_first) {
            user_fd_detach(user_fd, dropped);
        }
        dropped->callbacks[event - 1] = callback;
        return code;
    }
    /* As in selectors, the first callback of an fd names its file object, or
       none.  One that replaces the only callback may be of the fd's next
       file. */
    if (code > 0 || refs->callbacks[2 - event] == NULL) {
        dropped->object = refs->object;
        refs->object = Py_XNewRef(object); /* fl_fd_named_by */
    }
    dropped->callbacks[event - 1] = refs->callbacks[event - 1];
    refs->callbacks[event - 1] = callback;
    const PyObject *called =
        is_call(loop, callback) ? callback : ((FlHandle *)callback)->callback;
    reg->allows_skips =
        called == callback
        || (called != NULL && Py_IS_TYPE(called, loop->state->listener_type));
    if (code > 0) { /* the other direction's was of another file */
        dropped->callbacks[2 - event] = refs->callbacks[2 - event];
        refs->callbacks[2 - event] = NULL;
    }
    return 0;
}

/* Register a handle or a SocketCall for an fd; steals it.  `object` is what
   names the fd, NULL for an int.  With a weak reference to a socket, which
   this steals, the registration is that socket's persistent one from now on,
   unless it is a plain one for which somebody waits already.  A transport
   whose socket was closed without its knowledge loses the fd, and to find that
   out may run Python.  0, or an error code: FL_CLOSED; FL_IN_USE if a
   transport uses the fd, or without a GIL another thread runs the loop and its
   transport would lose the fd; or what the system refused. */
static int
put_callback(FlLoop *loop, int fd, PyObject *object, int event,
             PyObject *callback, PyObject *socket_ref)
{
    FlFdTable *table = loop->table;
    FlFdRefs dropped = {{NULL}};
    fl_fd_table_lock(table);
    FlRegistration *reg = fl_registration_at(table, fd);
    int code = 0;
    while (code >= 0 && reg != NULL && reg->transport != NULL) {
        fl_fd_table_unlock(table);
        code = fl_fd_evict(loop, fd, true); /* which may run any code */
        fl_fd_table_lock(table);
        reg = fl_registration_at(table, fd);
    }
    if (code >= 0) {
        code = loop->closed ? FL_CLOSED : 0;
    }
    if (code == 0 && reg == NULL) {
        FlRegistration user = {.on_events = on_fd};
        code = fl_registration_open(table, fd, sizeof(FlUserFd), &user, &reg);
    }
    FlUserFd *user_fd = (FlUserFd *)reg;
    if (code < 0) {
        dropped.callbacks[event - 1] = callback;
    }
    else {
        bool persists =
            socket_ref != NULL && (reg->persistent || reg->wanted == 0);
        /* A socket has one such weak reference.  Tested first: without a GIL
           none is persistent, and another thread may be reading the field. */
        if (reg->persistent && user_fd->socket_ref != socket_ref) {
            reg->persistent = false; /* so user_fd_put registers the file */
        }
        code = user_fd_put(loop, user_fd, object, event, callback, &dropped);
        if (code == 0 && persists) {
            PyObject *old = user_fd->socket_ref;
            user_fd->socket_ref = socket_ref;
            socket_ref = old;
            reg->persistent = true;
        }
    }
    fl_fd_table_unlock(table);
    drop_refs(loop, &dropped);
    Py_XDECREF(socket_ref);
    return code;
}

FlHandle *
fl_fd_add(FlLoop *loop, int fd, PyObject *object, int event,
          PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    PyObject *owned = fl_context_resolve(context);
    FlHandle *handle =
        owned == NULL ? NULL : fl_handle_new_filled(loop, args, nargs, owned);
    Py_XDECREF(owned);
    if (handle == NULL) {
        return NULL;
    }
    Py_INCREF(handle); /* one reference for the slot, one for the result */
    /* An int identifies nothing. */
    int code = put_callback(loop, fd, PyLong_Check(object) ? NULL : object,
                            event, (PyObject *)handle, NULL);
    if (code < 0) {
        (void)fl_raise_errno(code);
        Py_CLEAR(handle);
    }
    return handle;
}

bool
fl_fd_remove(FlLoop *loop, int fd, int event, const PyObject *only)
{
    FlFdRefs dropped = {{NULL}};
    PyObject *removed = NULL;
    FlFdTable *table = loop->table;
    fl_fd_table_lock(table);
    FlUserFd *user_fd = loop->closed ? NULL : user_fd_at(loop, fd);
    PyObject **slot =
        user_fd == NULL ? NULL : &user_fd->refs.callbacks[event - 1];
    if (slot != NULL && (only == NULL || *slot == only)) {
        removed = *slot;
        *slot = NULL;
        int wanted = user_fd->reg.wanted & ~(event | FL_EXCLUSIVE);
        /* remove_reader also closes an idle persistent registration; a call
           that ends its wait leaves it open. */
        if (wanted == 0 && (only == NULL || !user_fd->reg.persistent)) {
            user_fd_detach(user_fd, &dropped);
        }
        else if (removed != NULL) {
            /* To want less cannot fail. */
            (void)fl_registration_want(&user_fd->reg, wanted, 0);
        }
    }
    fl_fd_table_unlock(table);
    bool found = removed != NULL;
    if (removed == only) {
        Py_XDECREF(removed); /* a call that ends its wait itself */
    }
    else {
        dropped.callbacks[event - 1] = removed;
    }
    drop_refs(loop, &dropped);
    return found;
}

/* --- waits of sock_* calls ----------------------------------------------- */

FlRegistration *
fl_fd_persistent_registration(const FlLoop *loop, int fd, PyObject *sock)
{
    /* Without a GIL there is none (invariant 2), and reading the table here
       would be unsafe. */
    FlRegistration *reg =
        FL_HAVE_GIL ? fl_registration_at(loop->table, fd) : NULL;
    if (reg == NULL || !reg->persistent) {
        return NULL;
    }
    PyObject *owner = fl_weakref_get(((FlUserFd *)reg)->socket_ref);
    bool same = owner == sock;
    Py_XDECREF(owner); /* if it is the same, the caller has a reference */
    return same ? reg : NULL;
}

/* Whether a socket may have a persistent registration: a TCP connection, where
   a short read or write means that the next would block.  With a larger
   SO_RCVLOWAT the kernel reports no data below that mark, which a try would
   get. */
static bool
may_persist(int fd)
{
#ifdef __linux__
    int protocol = -1, low_mark = -1;
    socklen_t size = sizeof(int);
    return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0
           && protocol == IPPROTO_TCP
           && getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low_mark, &size) == 0
           && low_mark == 1;
#else
    (void)fd;
    return false;
#endif
}

int
fl_fd_add_call(FlLoop *loop, int fd, PyObject *sock, int event, PyObject *call,
               bool persists)
{
    persists = persists && FL_HAVE_GIL && !loop->debug
               && !(loop->off & FL_OFF_PERSISTENT_FDS);
    PyObject *socket_ref = NULL;
    if (!persists || fl_fd_persistent_registration(loop, fd, sock) == NULL) {
        PyObject *number = PyLong_FromLong(fd);
        int code = number == NULL ? -1 : fl_fd_check(loop, number, fd, false);
        Py_XDECREF(number);
        if (code < 0) {
            return -1;
        }
        persists = persists && may_persist(fd);
    } /* else nobody else uses the fd */
    if (persists) {
        socket_ref = PyWeakref_NewRef(sock, NULL);
        if (socket_ref == NULL) {
            return -1;
        }
    }
    int code =
        put_callback(loop, fd, NULL, event, Py_NewRef(call), socket_ref);
    return code < 0 ? fl_raise_errno(code) : 0;
}
