/* add_reader and add_writer: user-owned fds.

   1. An fd is only a number: the application may close it, and the system may
      reuse it for another file, while a callback is registered.  So each
      change registers the fd with the system again, and does not trust what
      was registered before.  If a transport acquires the fd, the callback
      left on it is removed, and a transport whose fd it was is invalidated;
      otherwise they would get, or close, another file.
   2. The flags of the fd are the application's: O_NONBLOCK stays as it was.
   3. Any thread may call.  The thread that holds the GIL may use the table;
      without a GIL, the thread that has the table's lock.  Code that may run
      Python runs outside it, and the table is read again afterwards.  close()
      sets loop->closed before it removes the callbacks within the lock: a
      thread that comes later, and has the lock, sees that.
   4. An event runs the handles that are registered when it runs.  Replacing or
      removing one drops the event that was reported for it.
   5. Without a GIL the loop's thread may close a transport's registration, and
      free it, at any time.  So what a lookup needs of one is read within the
      table's lock.  There the registration still keeps the transport alive: it
      is closed before the loop drops its reference.  For the same reason only
      the loop's thread takes an fd from a transport. */
#include "loop/user_fd.h"

#include "base/codes.h"
#include "core/debug.h"
#include "core/dispatch.h"
#include "core/fd_set.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/report.h"
#include "core/registration.h"
#include "loop/methods.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/errors.h"
#include "py/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

static int on_fd(FlLoop *loop, FlRegistration *reg, int events);

/* --- the users of an fd -------------------------------------------------- */

/* The transport that uses an fd, or NULL.  The caller drops a new reference to
   its object: see invariant 5. */
static FlOpenTransport *
transport_at(const FlLoop *loop, int fd)
{
    FlFdTable *table = &loop->poller->table;
    fl_fd_table_lock(table);
    const FlRegistration *reg = fl_registration_at(table, fd);
    FlOpenTransport *transport = reg == NULL ? NULL : reg->transport;
    if (transport != NULL) {
        Py_INCREF(transport->object);
    }
    fl_fd_table_unlock(table);
    return transport;
}

FlUserFd *
fl_user_fd_at(const FlLoop *loop, int fd)
{
    FlRegistration *reg = fl_registration_at(&loop->poller->table, fd);
    return reg != NULL && reg->on_events == on_fd ? (FlUserFd *)reg : NULL;
}

FlUserFd *
fl_user_fd_after(const FlLoop *loop, int fd)
{
    FlUserFd *user_fd = NULL;
    while (user_fd == NULL && ++fd < loop->poller->table.fds_size) {
        user_fd = fl_user_fd_at(loop, fd);
    }
    return user_fd;
}

bool
fl_fd_is_used(const FlLoop *loop, int fd)
{
    FlOpenTransport *transport = transport_at(loop, fd);
    FlFdTable *table = &loop->poller->table;
    bool is_used;
    if (transport != NULL) {
        is_used = transport->kind->has_fd(transport);
        Py_DECREF(transport->object);
        return is_used;
    }
    fl_fd_table_lock(table);
    /* A persistent registration without a callback is idle. */
    const FlUserFd *user_fd = fl_user_fd_at(loop, fd);
    is_used = user_fd != NULL ? fl_user_fd_wanted(user_fd) != 0
                              : fl_registration_at(table, fd) != NULL;
    fl_fd_table_unlock(table);
    return is_used;
}

int
fl_fd_invalidate(FlLoop *loop, int fd)
{
    FlOpenTransport *transport = transport_at(loop, fd);
    if (transport == NULL) {
        return 0;
    }
    int code = transport->kind->invalidate_fd(transport);
    Py_DECREF(transport->object);
    return code < 0 ? code : 1;
}

int
fl_fd_acquire(FlLoop *loop, int fd)
{
    int code;
    do {
        (void)fl_user_fd_evict(loop, fd);
        code = fl_fd_invalidate(loop, fd);
    } while (code > 0);
    /* That code may have closed the loop. */
    return code < 0 ? fl_raise_errno(code) : fl_loop_check_open(loop);
}

PyObject *
fl_fd_transport(const FlLoop *loop, int fd)
{
    FlOpenTransport *transport = transport_at(loop, fd);
    return transport == NULL ? NULL : transport->object;
}

/* --- running ------------------------------------------------------------- */

/* Run what stands in a slot, a handle or a SocketCall; steals it.  0, or -1
   with an exception that ends the run. */
static int
run_slot(FlLoop *loop, PyObject *handle)
{
    if (handle == NULL) {
        return 0;
    }
    int code;
    if (Py_TYPE(handle) == loop->state->socket_call_type) {
        code = fl_call_done(PyObject_CallNoArgs(handle));
        code = code < 0 ? fl_loop_report_callback(loop, NULL) : 0;
    }
    else {
        code = fl_handle_run(loop, (FlHandle *)handle);
    }
    Py_DECREF(handle);
    return code;
}

/* on_events of a user-owned fd: run its reader, then its writer. */
static int
on_fd(FlLoop *loop, FlRegistration *reg, int events)
{
    PyObject *reader = NULL, *writer = NULL;
    FlFdTable *table = reg->table;
    fl_fd_table_lock(table);
    /* NULL if another thread has closed it since the event was queued. */
    FlUserFd *user_fd = reg->owner == NULL ? NULL : (FlUserFd *)reg;
    if (user_fd != NULL && (events & FL_READABLE)) {
        reader = Py_XNewRef(user_fd->refs.reader);
    }
    if (user_fd != NULL && (events & FL_WRITABLE)) {
        writer = Py_XNewRef(user_fd->refs.writer);
    }
    fl_fd_table_unlock(table);
    int fd = reg->fd, code = run_slot(loop, reader);
    if (reader != NULL && writer != NULL) {
        code = fl_loop_lap(loop, code);
    }
    bool runs = code == 0; /* else the run ends */
    if (runs && reader != NULL && writer != NULL) {
        /* The reader may have removed or replaced the writer. */
        fl_fd_table_lock(table);
        user_fd = fl_user_fd_at(loop, fd);
        runs = user_fd != NULL && user_fd->refs.writer == writer;
        fl_fd_table_unlock(table);
    }
    if (!runs) {
        Py_XDECREF(writer);
        return code;
    }
    return run_slot(loop, writer);
}

/* --- registering --------------------------------------------------------- */

/* Make an FlUserFd with a registration that wants nothing yet.  0 or an error
   code. */
static int
user_fd_new(FlLoop *loop, int fd, FlUserFd **user_fd)
{
    const FlPoller *poller = loop->poller;
    /* An int that is not an open fd could request a table of any size, or name
       an fd that opening libuv's loop takes. */
    if ((fd >= poller->table.fds_size || !poller->has_uv)
        && fcntl(fd, F_GETFD) < 0)
    {
        return -errno;
    }
    FlRegistration user = {.owner = loop, .on_events = on_fd}, *reg = NULL;
    int code =
        fl_poller_register(loop->poller, fd, sizeof(FlUserFd), &user, &reg);
    *user_fd = (FlUserFd *)reg;
    return code;
}

/* Cancel what stood in a slot; steals it.  Runs application code.  As in
   asyncio, a replaced sock_* call waits until its coroutine is cancelled. */
static void
cancel_handle(FlLoop *loop, PyObject *handle)
{
    if (handle != NULL && Py_TYPE(handle) != loop->state->socket_call_type
        && fl_call_method(handle, loop->state->names.cancel, NULL) < 0)
    {
        PyErr_WriteUnraisable(handle);
    }
    Py_XDECREF(handle);
}

void
fl_user_fd_detach(FlUserFd *user_fd, FlFdRefs *refs)
{
    *refs = user_fd->refs;
    /* A weak reference without a callback: dropping it runs no code. */
    Py_CLEAR(user_fd->socket_ref);
    fl_registration_close(&user_fd->reg, FL_FD_STAYS);
}

bool
fl_user_fd_evict(FlLoop *loop, int fd)
{
    FlFdRefs refs = {NULL, NULL, NULL};
    FlFdTable *table = &loop->poller->table;
    fl_fd_table_lock(table);
    FlUserFd *user_fd =
        fd < 0 ? fl_user_fd_after(loop, fd) : fl_user_fd_at(loop, fd);
    bool found = user_fd != NULL;
    if (found) {
        fl_user_fd_detach(user_fd, &refs);
    }
    fl_fd_table_unlock(table);
    if (fd < 0) {
        Py_XDECREF(refs.reader);
        Py_XDECREF(refs.writer);
    }
    else {
        cancel_handle(loop, refs.reader);
        cancel_handle(loop, refs.writer);
    }
    Py_XDECREF(refs.object);
    return found;
}

int
fl_user_fd_traverse(const FlLoop *loop, visitproc visit, void *arg)
{
    const FlUserFd *user_fd;
    for (int fd = -1; (user_fd = fl_user_fd_after(loop, fd)) != NULL;
         fd = user_fd->reg.fd)
    {
        Py_VISIT(user_fd->refs.reader);
        Py_VISIT(user_fd->refs.writer);
        Py_VISIT(user_fd->refs.object);
    }
    return 0;
}

int
fl_fd_of(FlLoop *loop, PyObject *object)
{
    int overflow = 1;
    long fd = PyLong_CheckExact(object)
                  ? PyLong_AsLongAndOverflow(object, &overflow)
                  : -1;
    if (overflow == 0 && fd >= 0 && fd <= INT32_MAX) {
        return (int)fd;
    }
    PyObject *found = PyObject_CallOneArg(loop->state->fileobj_to_fd, object);
    if (found == NULL) {
        return -1;
    }
    int code = PyObject_AsFileDescriptor(found); /* it is an int */
    Py_DECREF(found);
    return code;
}

/* The same for an object that may have been closed since it was registered:
   its fileno() is -1 then.  As selectors does, find it by its identity. */
static int
parse_registered_fd(FlLoop *loop, PyObject *object)
{
    int fd = fl_fd_of(loop, object);
    if (fd >= 0) {
        return fd;
    }
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        return INT32_MAX; /* no fd is that large, so nothing is found */
    }
    if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    FlUserFd *user_fd;
    FlFdTable *table = &loop->poller->table;
    fl_fd_table_lock(table);
    while ((user_fd = fl_user_fd_after(loop, fd)) != NULL) {
        fd = user_fd->reg.fd;
        if (user_fd->refs.object == object) {
            break;
        }
    }
    fl_fd_table_unlock(table);
    if (user_fd == NULL) {
        PyErr_SetRaisedException(exc);
        return -1;
    }
    Py_DECREF(exc);
    return fd;
}

/* Raise RuntimeError if a transport uses the fd.  One whose socket was closed
   without its knowledge no longer uses it; a closing one does until it ends,
   unless it `may_close`.  0 or -1. */
static int
check_no_transport(FlLoop *loop, PyObject *object, int fd, bool may_close)
{
    FlOpenTransport *transport = transport_at(loop, fd);
    if (transport != NULL) {
        int uses = transport->kind->has_fd(transport);
        if (uses && may_close) {
            uses = fl_call_truth(transport->object,
                                 loop->state->names.is_closing);
            uses = uses < 0 ? -1 : !uses;
        }
        if (uses > 0) {
            PyErr_Format(PyExc_RuntimeError,
                         "File descriptor %R is used by transport %R", object,
                         transport->object);
        }
        Py_DECREF(transport->object);
        if (uses != 0) {
            return -1;
        }
    }
    /* asyncio's own transports of sockets: see fastloop/connections.py. */
    if (loop->python_transports == NULL) {
        return 0;
    }
    return fl_call_done(PyObject_CallMethodOneArg(
        (PyObject *)loop, loop->state->names._check_python_transports,
        object));
}

int
fl_fd_check(FlLoop *loop, PyObject *object)
{
    int fd = fl_fd_of(loop, object);
    return fd < 0 ? -1 : check_no_transport(loop, object, fd, false);
}

int
fl_user_fd_put(FlUserFd *user_fd, int event, PyObject *call, FlFdRefs *dropped)
{
    FlRegistration *reg = &user_fd->reg;
    PyObject **slot = fl_user_fd_slot(user_fd, event);
    PyObject *previous = *slot;
    *slot = call;
    reg->wanted &= (uint8_t)~event; /* so that it is registered again */
    int code = fl_registration_set(reg, fl_user_fd_wanted(user_fd));
    if (code == 0) {
        dropped->reader = previous;
        return 0;
    }
    /* Failed: restore the previous state, as if this had not been called. */
    *slot = previous;
    reg->wanted = (uint8_t)fl_user_fd_wanted(user_fd);
    if (reg->wanted == 0) {
        fl_user_fd_detach(user_fd, dropped);
    }
    dropped->reader = call;
    return code;
}

/* Invalidate a transport that has the fd in the table but not for itself: its
   socket was closed without its knowledge, or it is a pipe's, which then waits
   with a duplicate.  0, or -1 with RuntimeError: the transport still uses the
   fd, or another thread asks (invariant 5); or with OSError as
   fl_fd_acquire. */
static int
evict_transport(FlLoop *loop, int fd)
{
    FlOpenTransport *transport = transport_at(loop, fd);
    if (transport == NULL) {
        return 0;
    }
    bool used =
        transport->kind->has_fd(transport) || fl_loop_on_other_thread(loop);
    if (used) {
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %d is used by transport %R", fd,
                     transport->object);
    }
    int code = used ? 0 : transport->kind->invalidate_fd(transport);
    Py_DECREF(transport->object);
    return used ? -1 : code < 0 ? fl_raise_errno(code) : 0;
}

FlUserFd *
fl_user_fd_lock(FlLoop *loop, int fd)
{
    if (evict_transport(loop, fd) < 0) {
        return NULL;
    }
    fl_fd_table_lock(&loop->poller->table);
    /* Looked up after evict_transport, which may have run any code. */
    FlUserFd *user_fd = fl_user_fd_at(loop, fd);
    int code = loop->closed      ? FL_CLOSED
               : user_fd == NULL ? user_fd_new(loop, fd, &user_fd)
                                 : 0;
    if (code < 0) {
        fl_fd_table_unlock(&loop->poller->table);
        (void)fl_raise_errno(code);
        return NULL;
    }
    return user_fd;
}

/* Register a handle for an fd; steals it.  0, or -1 with an exception set. */
static int
set_handle(FlLoop *loop, int fd, PyObject *object, int event, PyObject *handle)
{
    FlFdRefs dropped = {NULL, NULL, NULL};
    FlUserFd *user_fd = fl_user_fd_lock(loop, fd);
    if (user_fd == NULL) {
        Py_DECREF(handle);
        return -1;
    }
    user_fd->reg.fired &= (uint8_t)~event; /* see invariant 4 */
    if (user_fd->reg.persistent) { /* without a GIL it would be a race */
        user_fd->reg.persistent = false;
    }
    int code = fl_user_fd_put(user_fd, event, handle, &dropped);
    if (code == 0) {
        dropped.object = user_fd->refs.object;
        /* For parse_registered_fd.  An int identifies nothing. */
        user_fd->refs.object = PyLong_Check(object) ? NULL : Py_NewRef(object);
    }
    fl_fd_table_unlock(&loop->poller->table);
    cancel_handle(loop, dropped.reader);
    Py_XDECREF(dropped.object);
    return code < 0 ? fl_raise_errno(code) : 0;
}

FlHandle *
fl_fd_add(FlLoop *loop, int fd, PyObject *object, int event,
          PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    PyObject *owned = fl_context_resolve(context);
    PyObject *tuple =
        owned == NULL ? NULL : fl_args_tuple(args + 1, nargs - 1);
    FlHandle *handle = tuple == NULL
                           ? NULL
                           : fl_handle_new_filled(loop, args[0], tuple, owned);
    Py_XDECREF(tuple);
    Py_XDECREF(owned);
    /* In debug mode the handle records where add_reader was called. */
    if (handle == NULL
        || (loop->debug && fl_debug_note_source(loop, handle) < 0)) {
        Py_XDECREF(handle);
        return NULL;
    }
    Py_INCREF(handle); /* one reference for the slot, one for the result */
    if (set_handle(loop, fd, object, event, (PyObject *)handle) < 0) {
        Py_CLEAR(handle);
    }
    return handle;
}

/* The body of the four add methods; `checked`: the public ones.  Returns a new
   reference to the handle. */
static PyObject *
add(FlLoop *loop, const char *function, int event, PyObject *const *args,
    Py_ssize_t nargs, PyObject *kwnames, bool checked)
{
    FlParameters parameters = {
        function, {"fd", "callback"}, .more = true, .context = !checked};
    FlArgs call;
    if (fl_loop_check_open(loop) < 0
        || fl_args_parse(&parameters, args, nargs, kwnames, &call) < 0)
    {
        return NULL;
    }
    int fd = fl_fd_of(loop, call.args[0]);
    if (fd < 0
        || (checked && check_no_transport(loop, call.args[0], fd, false) < 0))
    {
        return NULL;
    }
    return (PyObject *)fl_fd_add(loop, fd, call.args[0], event, call.args + 1,
                                 call.nargs - 1, call.context);
}

bool
fl_fd_remove(FlLoop *loop, int fd, int event, const PyObject *only)
{
    PyObject *removed = NULL;
    FlFdRefs refs = {NULL, NULL, NULL};
    FlFdTable *table = &loop->poller->table;
    fl_fd_table_lock(table);
    FlUserFd *user_fd = loop->closed ? NULL : fl_user_fd_at(loop, fd);
    PyObject **slot = user_fd == NULL ? NULL : fl_user_fd_slot(user_fd, event);
    if (slot != NULL && (only == NULL || *slot == only)) {
        removed = *slot; /* also ends an idle persistent registration, */
        *slot = NULL;
        if (fl_user_fd_wanted(user_fd) == 0
            && (only == NULL || !user_fd->reg.persistent)) /* but not here */
        {
            fl_user_fd_detach(user_fd, &refs);
        }
        else if (removed != NULL) {
            /* To want less makes no system call, so it cannot fail. */
            (void)fl_registration_set(&user_fd->reg,
                                      fl_user_fd_wanted(user_fd));
        }
    }
    fl_fd_table_unlock(table);
    bool found = removed != NULL;
    cancel_handle(loop, removed);
    Py_XDECREF(refs.object);
    return found;
}

/* The body of the four remove methods. */
static PyObject *
remove_event(FlLoop *loop, int event, PyObject *object, bool checked)
{
    /* As in asyncio, not an error: cleanup code may run after close(). */
    if (loop->closed) {
        Py_RETURN_FALSE;
    }
    int fd = parse_registered_fd(loop, object);
    /* As in asyncio: clean-up code removes its callbacks after close(). */
    if (fd < 0 || (checked && check_no_transport(loop, object, fd, true) < 0))
    {
        return NULL;
    }
    return PyBool_FromLong(fl_fd_remove(loop, fd, event, NULL));
}

/* --- methods ------------------------------------------------------------- */

/* The public methods return None, as in asyncio. */
#define DISCARD(handle) fl_call_none(fl_call_done(handle))

#define DOC_ADD(name, what)                                                  \
    name "($self, fd, callback, *args)\n--\n\n"                              \
         "Call callback(*args) whenever fd is " what ".\n\n"                 \
         "fd is an int or an object with fileno().  Replaces an earlier\n"   \
         "callback.  Returns None.  Raises ValueError if fd is not a file\n" \
         "descriptor, RuntimeError if a transport uses it or the loop is\n"  \
         "closed, OSError if the system refuses to poll it.  Implements\n"   \
         "asyncio's loop." name "().  The descriptor's flags do not change."

#define DOC_REMOVE(name, what)                                          \
    name "($self, fd)\n--\n\n"                                          \
         "Stop calling back when fd is " what ".\n\n"                   \
         "Returns True if there was a callback, else False.  Raises\n"  \
         "ValueError if fd is not a file descriptor, RuntimeError if\n" \
         "a transport uses it.  Implements asyncio's loop." name "()."

#define DOC_RAW(name, parameters)                                         \
    "_" name "($self, " parameters ")\n--\n\n" name                       \
    "() as asyncio's own loop has it under this private name.\n\n"        \
    "It does not look for asyncio's own transports.  The methods that\n"  \
    "add return the handle.  They raise RuntimeError if a transport of\n" \
    "fastloop uses the descriptor."

#if PY_VERSION_HEX >= 0x030F0000
#define RAW_PARAMETERS "fd, callback, *args, context=None"
#else
#define RAW_PARAMETERS "fd, callback, *args"
#endif

#define ADD(function, python_name, event, checked, convert)                \
    FL_FAST_KW(function)                                                   \
    {                                                                      \
        return convert(                                                    \
            add(loop, python_name, event, args, nargs, kwnames, checked)); \
    }

#define REMOVE(function, python_name, event, checked)                      \
    FL_FAST_KW(function)                                                   \
    {                                                                      \
        PyObject *fd =                                                     \
            fl_args_parse_one(python_name, "fd", args, nargs, kwnames);    \
        return fd == NULL ? NULL : remove_event(loop, event, fd, checked); \
    }

/* asyncio's own transports and sock_* methods call the methods with private
   names.  Those return the handle, and do not look for asyncio's own
   transports. */
#define METHODS(kind, event, what)                                       \
    const char fl_loop_add_##kind##_doc[] = DOC_ADD("add_" #kind, what); \
    const char fl_loop_remove_##kind##_doc[] =                           \
        DOC_REMOVE("remove_" #kind, what);                               \
    const char fl_loop_add_##kind##_unchecked_doc[] =                    \
        DOC_RAW("add_" #kind, RAW_PARAMETERS);                           \
    const char fl_loop_remove_##kind##_unchecked_doc[] =                 \
        DOC_RAW("remove_" #kind, "fd");                                  \
    ADD(fl_loop_add_##kind, "add_" #kind, event, true, DISCARD)          \
    ADD(fl_loop_add_##kind##_unchecked, "_add_" #kind, event, false, )   \
    REMOVE(fl_loop_remove_##kind, "remove_" #kind, event, true)          \
    REMOVE(fl_loop_remove_##kind##_unchecked, "_remove_" #kind, event, false)

METHODS(reader, FL_READABLE, "readable")
METHODS(writer, FL_WRITABLE, "writable")
