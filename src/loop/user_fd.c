/* add_reader and add_writer: user-owned fds.

   1. An fd is only a number: the application may close it, and the system may
      reuse it for another file, while a callback is registered.  So each
      change registers the fd with the system again, and does not trust what
      was registered before.  If a transport acquires the fd, the callback
      left on it is removed, and a transport whose fd it was is invalidated;
      otherwise they would get, or close, another file.
   2. The flags of the fd are the application's: O_NONBLOCK stays as it was.
   3. Any thread may call.  The thread that holds the GIL may use the table;
      without a GIL, the thread that is in the loop's critical section.  Code
      that may run Python runs outside it, except evict_transport.  The table
      is read again afterwards.
   4. An event runs the handles that are registered when it runs.  Replacing or
      removing one drops the event that was reported for it. */
#include "loop/user_fd.h"

#include "base/list.h"
#include "base/table.h"
#include "core/debug.h"
#include "core/dispatch.h"
#include "core/fd_set.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/report.h"
#include "core/registration.h"
#include "loop/methods.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

/* --- the table ----------------------------------------------------------- */

/* Make the table large enough for fd.  0, or -1 with an exception set. */
static int
table_reserve(FlLoop *loop, int fd)
{
    if (fd < loop->fds_size) {
        return 0;
    }
    /* An int that is not an open fd could request a table of any size. */
    if (fcntl(fd, F_GETFD) < 0) {
        return fl_raise_errno(-errno);
    }
    FlFdSlot *fds =
        fl_table_grow(loop->fds, &loop->fds_size, fd, sizeof(*fds));
    if (fds == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    loop->fds = fds;
    return 0;
}

static FlOwned *
transport_at(const FlLoop *loop, int fd)
{
    return fd < loop->fds_size ? loop->fds[fd].transport : NULL;
}

int
fl_fd_acquire(FlLoop *loop, int fd, FlOwned *transport)
{
    int code;
    Py_BEGIN_CRITICAL_SECTION(loop);
    code = table_reserve(loop, fd);
    Py_END_CRITICAL_SECTION();
    if (code < 0) {
        return -1;
    }
    /* Outside the critical section: both may run application code. */
    FlOwned *previous;
    fl_user_fd_evict(loop, fd);
    while ((previous = transport_at(loop, fd)) != NULL) {
        previous->kind->invalidate_fd(previous);
        fl_user_fd_evict(loop, fd);
    }
    if (fl_loop_check_open(loop) < 0) {
        return -1; /* that code has closed the loop, and freed the table */
    }
    Py_BEGIN_CRITICAL_SECTION(loop);
    loop->fds[fd].transport = transport;
    Py_END_CRITICAL_SECTION();
    return 0;
}

void
fl_fd_release(FlLoop *loop, int fd, FlOwned *transport)
{
    Py_BEGIN_CRITICAL_SECTION(loop);
    /* The system may have reused the fd for a newer transport already. */
    if (fd >= 0 && transport_at(loop, fd) == transport) {
        loop->fds[fd].transport = NULL;
    }
    Py_END_CRITICAL_SECTION();
}

PyObject *
fl_fd_transport(FlLoop *loop, int fd)
{
    FlOwned *transport = transport_at(loop, fd);
    return transport == NULL ? NULL : transport->object;
}

/* --- running ------------------------------------------------------------- */

/* Run what stands in a slot, a handle or an FlFdCall; steals it.  0, or -1
   with an exception that leaves the run. */
static int
run_handle(FlLoop *loop, PyObject *handle)
{
    if (handle == NULL) {
        return 0;
    }
    int code;
    if (Py_TYPE(handle) == loop->state->socket_call_type) {
        code = ((FlFdCall *)handle)->run(handle);
        code = code < 0 ? fl_loop_report_callback(loop, NULL) : 0;
    }
    else {
        fl_metrics_set_subject(loop, (FlHandle *)handle);
        code = fl_handle_run(loop, (FlHandle *)handle);
    }
    Py_DECREF(handle);
    return code;
}

/* on_events of a user-owned fd: run its reader, then its writer. */
static int
on_fd(void *owner, FlRegistration *reg, int events)
{
    FlLoop *loop = owner;
    FlUserFd *user_fd;
    int fd = reg->fd;
    /* Both are owned, because the reader may remove the writer.  That cancels
       the writer, so running it does nothing. */
    PyObject *reader = NULL, *writer = NULL;
    Py_BEGIN_CRITICAL_SECTION(loop);
    /* NULL if another thread has closed it since the event was queued. */
    user_fd = reg->owner;
    if (user_fd != NULL && (events & FL_READABLE)) {
        reader = Py_XNewRef(user_fd->refs.reader);
    }
    if (user_fd != NULL && (events & FL_WRITABLE)) {
        writer = Py_XNewRef(user_fd->refs.writer);
    }
    Py_END_CRITICAL_SECTION();
    int code = run_handle(loop, reader);
    if (code < 0) {
        Py_XDECREF(writer); /* the run ends with the reader's exception */
    }
    else {
        code = run_handle(loop, writer);
    }
    /* Looked up again, because a callback may have removed it, which frees
       user_fd and reg.  If the fd was closed, arming fails and nothing more is
       reported, as in asyncio. */
    Py_BEGIN_CRITICAL_SECTION(loop);
    user_fd = fl_user_fd_at(loop, fd);
    if (user_fd != NULL && user_fd->reg == reg) {
        fl_registration_rearm(reg);
    }
    Py_END_CRITICAL_SECTION();
    return code;
}

/* --- registering --------------------------------------------------------- */

/* An FlUserFd in the table, with a registration that wants nothing yet.  NULL
   with an exception set. */
static FlUserFd *
user_fd_new(FlLoop *loop, int fd)
{
    FlUserFd *user_fd = NULL;
    /* Each step that fails undoes the ones before; the table may stay
       larger. */
    if (table_reserve(loop, fd) == 0) {
        user_fd = calloc(1, sizeof(*user_fd));
        if (user_fd == NULL) {
            PyErr_NoMemory();
        }
    }
    if (user_fd == NULL) {
        return NULL;
    }
    int code = fl_registration_open(loop->poller, fd, false, &user_fd->reg);
    if (code < 0) {
        free(user_fd);
        (void)fl_raise_errno(code);
        return NULL;
    }
    user_fd->reg->owner = user_fd;
    user_fd->reg->on_events = on_fd;
    fl_list_append(&loop->user_fds, &user_fd->link);
    loop->fds[fd].user_fd = user_fd;
    return user_fd;
}

/* Cancel what stood in a slot; steals it.  Runs application code. */
static void
cancel_handle(FlLoop *loop, PyObject *handle)
{
    if (handle == NULL) {
        return;
    }
    if (Py_TYPE(handle) == loop->state->socket_call_type) {
        /* As in asyncio, a replaced sock_* call waits until its coroutine is
           cancelled. */
        Py_DECREF(handle);
        return;
    }
    PyObject *result =
        PyObject_CallMethodNoArgs(handle, loop->state->names.cancel);
    if (result == NULL) {
        PyErr_WriteUnraisable(handle);
    }
    Py_XDECREF(result);
    Py_DECREF(handle);
}

void
fl_user_fd_detach(FlLoop *loop, FlUserFd *user_fd, FlFdRefs *refs)
{
    /* Out of the table first, so that nothing finds it half released. */
    *refs = user_fd->refs;
    loop->fds[user_fd->reg->fd].user_fd = NULL;
    fl_list_remove(&user_fd->link);
    fl_loop_close_registration(loop, user_fd->reg);
    /* A weak reference without a callback: dropping it runs no code. */
    Py_XDECREF(user_fd->socket_ref);
    free(user_fd);
}

void
fl_user_fd_evict(FlLoop *loop, int fd)
{
    FlFdRefs refs = {NULL, NULL, NULL};
    Py_BEGIN_CRITICAL_SECTION(loop);
    FlUserFd *user_fd = fl_user_fd_at(loop, fd);
    if (user_fd != NULL) {
        fl_user_fd_detach(loop, user_fd, &refs);
    }
    Py_END_CRITICAL_SECTION();
    cancel_handle(loop, refs.reader);
    cancel_handle(loop, refs.writer);
    Py_XDECREF(refs.object);
}

void
fl_user_fd_close_all(FlLoop *loop)
{
    /* One at a time, with the list read again: dropping references may run any
       code, which may remove other entries. */
    bool more = true;
    while (more) {
        FlFdRefs refs = {NULL, NULL, NULL};
        Py_BEGIN_CRITICAL_SECTION(loop);
        more = !fl_list_is_empty(&loop->user_fds);
        if (more) {
            fl_user_fd_detach(
                loop, FL_LIST_ENTRY(loop->user_fds.next, FlUserFd, link),
                &refs);
        }
        else {
            free(loop->fds);
            loop->fds = NULL;
            loop->fds_size = 0;
        }
        Py_END_CRITICAL_SECTION();
        Py_XDECREF(refs.reader);
        Py_XDECREF(refs.writer);
        Py_XDECREF(refs.object);
    }
}

int
fl_user_fd_traverse(FlLoop *loop, visitproc visit, void *arg)
{
    for (FlList *link = loop->user_fds.next; link != &loop->user_fds;
         link = link->next)
    {
        FlUserFd *user_fd = FL_LIST_ENTRY(link, FlUserFd, link);
        Py_VISIT(user_fd->refs.reader);
        Py_VISIT(user_fd->refs.writer);
        Py_VISIT(user_fd->refs.object);
    }
    return 0;
}

/* Raise ValueError for an object without a usable fileno(), as selectors does.
   An exception of another class that fileno() raised stays. */
static int
raise_invalid_object(PyObject *object)
{
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_AttributeError)
        && !PyErr_ExceptionMatches(PyExc_TypeError)
        && !PyErr_ExceptionMatches(PyExc_ValueError)
        && !PyErr_ExceptionMatches(PyExc_OverflowError))
    {
        return -1;
    }
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "Invalid file object: %R", object);
    return -1;
}

/* The fd of an int or of an object with fileno(), not yet checked for
   its range, because parse_registered_fd accepts a negative one.  0, or -1
   with ValueError set, as selectors raises it. */
static int
call_fileno(FlLoop *loop, PyObject *object, long long *fd)
{
    PyObject *fd_object = NULL;
    if (PyLong_Check(object)) {
        fd_object = Py_NewRef(object);
    }
    else {
        fd_object =
            PyObject_CallMethodNoArgs(object, loop->state->names.fileno);
        if (fd_object == NULL || !PyLong_Check(fd_object)) {
            Py_XDECREF(fd_object);
            return raise_invalid_object(object);
        }
    }
    int overflow;
    *fd = PyLong_AsLongLongAndOverflow(fd_object, &overflow);
    /* asyncio raises ValueError below the range and OverflowError above. */
    if (overflow > 0) {
        *fd = LLONG_MAX; /* check_fd refuses it */
    }
    else if (overflow < 0) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S",
                     fd_object);
    }
    Py_DECREF(fd_object);
    return overflow < 0 ? -1 : 0;
}

/* The fd as an int, or -1 with the exception that asyncio raises. */
static int
check_fd(long long fd)
{
    if (fd < 0) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %lld", fd);
        return -1;
    }
    if (fd > INT32_MAX) {
        PyErr_SetString(PyExc_OverflowError,
                        "Python int too large to convert to C int");
        return -1;
    }
    return (int)fd;
}

int
fl_fd_of(FlLoop *loop, PyObject *object)
{
    long long fd = -1;
    return call_fileno(loop, object, &fd) < 0 ? -1 : check_fd(fd);
}

/* The same for an object that may have been closed since it was registered:
   its fileno() is -1 then.  As selectors does, find it by its identity. */
static int
parse_registered_fd(FlLoop *loop, PyObject *object)
{
    long long fd = -1;
    if (call_fileno(loop, object, &fd) < 0) {
        return -1;
    }
    if (fd > INT32_MAX) {
        return INT32_MAX; /* no fd is that large, so nothing is found */
    }
    if (fd >= 0 || PyLong_Check(object)) {
        return check_fd(fd);
    }
    int found = -1;
    Py_BEGIN_CRITICAL_SECTION(loop);
    for (FlList *link = loop->user_fds.next; link != &loop->user_fds;
         link = link->next)
    {
        FlUserFd *user_fd = FL_LIST_ENTRY(link, FlUserFd, link);
        if (user_fd->refs.object == object) {
            found = user_fd->reg->fd;
            break;
        }
    }
    Py_END_CRITICAL_SECTION();
    return found >= 0 ? found : check_fd(fd);
}

/* Raise RuntimeError if a transport uses the fd.  One whose socket was closed
   without its knowledge no longer uses it.  0 or -1. */
static int
check_no_transport(FlLoop *loop, PyObject *object, int fd)
{
    FlOwned *owned = transport_at(loop, fd);
    int has_fd = owned == NULL ? 0 : owned->kind->has_fd(owned);
    if (has_fd < 0) {
        return -1;
    }
    /* Looked up again: has_fd may have run the socket's own fileno(). */
    PyObject *transport = has_fd ? fl_fd_transport(loop, fd) : NULL;
    if (transport != NULL) {
        Py_INCREF(transport); /* the repr of `object` may close it */
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %R is used by transport %R", object,
                     transport);
        Py_DECREF(transport);
        return -1;
    }
    /* Transports that asyncio's own classes made, such as pipes. */
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
    return fd < 0 ? -1 : check_no_transport(loop, object, fd);
}

/* Put a handle in the slot of its direction; steals it.  *dropped is what the
   caller must drop after the critical section: the previous handle, or on
   failure the new one.  0 or a negative errno. */
static int
replace_handle(FlLoop *loop, FlUserFd *user_fd, PyObject *object, int event,
               PyObject *handle, FlFdRefs *dropped)
{
    PyObject **slot = fl_user_fd_slot(user_fd, event);
    PyObject *previous = *slot;
    *slot = handle;
    user_fd->reg->fired &= (uint8_t)~event; /* see invariant 4 */
    int code = fl_registration_set(user_fd->reg, fl_user_fd_wanted(user_fd));
    if (code == 0) {
        dropped->reader = previous;
        dropped->object = user_fd->refs.object;
        /* For parse_registered_fd.  An int identifies nothing. */
        user_fd->refs.object = PyLong_Check(object) ? NULL : Py_NewRef(object);
        return 0;
    }
    /* Failed: restore the previous state, as if add had not been called. */
    *slot = previous;
    dropped->reader = handle;
    user_fd->reg->wanted = (uint8_t)fl_user_fd_wanted(user_fd);
    if (fl_user_fd_wanted(user_fd) == 0) {
        FlFdRefs refs;
        fl_user_fd_detach(loop, user_fd, &refs);
        dropped->object = refs.object;
    }
    return code;
}

/* Invalidate a transport that has the fd in the table but whose socket was
   closed without its knowledge. */
static void
evict_transport(FlLoop *loop, int fd)
{
    FlOwned *owned = transport_at(loop, fd);
    if (owned == NULL) {
        return;
    }
    int has_fd = owned->kind->has_fd(owned);
    if (has_fd < 0) {
        PyErr_Clear(); /* a socket whose fileno() fails has no fd */
    }
    if (has_fd <= 0) {
        owned->kind->invalidate_fd(owned);
    }
}

FlUserFd *
fl_user_fd_open(FlLoop *loop, int fd)
{
    evict_transport(loop, fd);
    /* Checked again: evict_transport calls the socket's fileno(), which may
       have closed the loop. */
    return fl_loop_check_open(loop) < 0 ? NULL : user_fd_new(loop, fd);
}

/* Register a handle for an fd; steals it.  0, or -1 with an exception set. */
static int
set_handle(FlLoop *loop, int fd, PyObject *object, int event, PyObject *handle)
{
    FlFdRefs dropped = {handle, NULL, NULL};
    FlUserFd *user_fd;
    int code = 0;
    Py_BEGIN_CRITICAL_SECTION(loop);
    user_fd = fl_user_fd_at(loop, fd);
    if (user_fd == NULL) {
        user_fd = fl_user_fd_open(loop, fd);
    }
    if (user_fd != NULL) {
        code = replace_handle(loop, user_fd, object, event, handle, &dropped);
    }
    Py_END_CRITICAL_SECTION();
    if (user_fd == NULL) {
        Py_DECREF(handle);
        return -1;
    }
    /* Last, because dropping what a handle owned may run any code. */
    cancel_handle(loop, dropped.reader);
    Py_XDECREF(dropped.object);
    return code < 0 ? fl_raise_errno(code) : 0;
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
    args = call.args;
    nargs = call.nargs;
    PyObject *context = call.context;
    int fd = fl_fd_of(loop, args[0]);
    if (fd < 0 || (checked && check_no_transport(loop, args[0], fd) < 0)) {
        return NULL;
    }
    PyObject *owned =
        context == NULL ? PyContext_CopyCurrent() : Py_NewRef(context);
    PyObject *tuple =
        owned == NULL ? NULL : fl_args_tuple(args + 2, nargs - 2);
    FlHandle *handle = tuple == NULL
                           ? NULL
                           : fl_handle_new_filled(loop, args[1], tuple, owned);
    Py_XDECREF(tuple);
    Py_XDECREF(owned);
    /* In debug mode the handle records where add_reader was called. */
    if (handle == NULL
        || (loop->debug && fl_debug_note_source(loop, handle) < 0)) {
        Py_XDECREF(handle);
        return NULL;
    }
    Py_INCREF(handle); /* one reference for the slot, one for the result */
    if (set_handle(loop, fd, args[0], event, (PyObject *)handle) < 0) {
        Py_CLEAR(handle);
    }
    return (PyObject *)handle;
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
    if (fd < 0 || (checked && check_no_transport(loop, object, fd) < 0)) {
        return NULL;
    }
    PyObject *removed = NULL;
    FlFdRefs refs = {NULL, NULL, NULL};
    Py_BEGIN_CRITICAL_SECTION(loop);
    FlUserFd *user_fd = fl_user_fd_at(loop, fd);
    if (user_fd != NULL) {
        PyObject **slot = fl_user_fd_slot(user_fd, event);
        removed = *slot; /* also ends an idle persistent registration */
        *slot = NULL;
        if (fl_user_fd_wanted(user_fd) == 0) {
            fl_user_fd_detach(loop, user_fd, &refs);
        }
        else if (removed != NULL) {
            /* This fails if the fd was closed: then nothing is reported. */
            (void)fl_registration_set(user_fd->reg,
                                      fl_user_fd_wanted(user_fd));
        }
    }
    Py_END_CRITICAL_SECTION();
    if (removed == NULL) {
        Py_RETURN_FALSE;
    }
    cancel_handle(loop, removed);
    Py_XDECREF(refs.object);
    Py_RETURN_TRUE;
}

/* --- methods ------------------------------------------------------------- */

/* The public methods return None, as in asyncio. */
static PyObject *
discard_handle(PyObject *handle)
{
    if (handle == NULL) {
        return NULL;
    }
    Py_DECREF(handle);
    Py_RETURN_NONE;
}

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

const char fl_loop_add_reader_doc[] = DOC_ADD("add_reader", "readable");
const char fl_loop_add_writer_doc[] = DOC_ADD("add_writer", "writable");
const char fl_loop_remove_reader_doc[] =
    DOC_REMOVE("remove_reader", "readable");
const char fl_loop_remove_writer_doc[] =
    DOC_REMOVE("remove_writer", "writable");

#define DOC_RAW(name, parameters)                                      \
    "_" name "($self, " parameters ")\n--\n\n" name                    \
    "() as asyncio's own loop has it under this private name.\n\n"     \
    "It does not check whether a transport uses the descriptor, and\n" \
    "the methods that add return the handle."

#if PY_VERSION_HEX >= 0x030F0000
#define RAW_PARAMETERS "fd, callback, *args, context=None"
#else
#define RAW_PARAMETERS "fd, callback, *args"
#endif

const char fl_loop_add_reader_raw_doc[] =
    DOC_RAW("add_reader", RAW_PARAMETERS);
const char fl_loop_add_writer_raw_doc[] =
    DOC_RAW("add_writer", RAW_PARAMETERS);
const char fl_loop_remove_reader_raw_doc[] = DOC_RAW("remove_reader", "fd");
const char fl_loop_remove_writer_raw_doc[] = DOC_RAW("remove_writer", "fd");

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

/* asyncio's own transports and sock_* methods call the private twins.  Those
   return the handle, and do not check whether a transport uses the fd. */
ADD(fl_loop_add_reader, "add_reader", FL_READABLE, true, discard_handle)
ADD(fl_loop_add_writer, "add_writer", FL_WRITABLE, true, discard_handle)
ADD(fl_loop_add_reader_raw, "_add_reader", FL_READABLE, false, )
ADD(fl_loop_add_writer_raw, "_add_writer", FL_WRITABLE, false, )
REMOVE(fl_loop_remove_reader, "remove_reader", FL_READABLE, true)
REMOVE(fl_loop_remove_writer, "remove_writer", FL_WRITABLE, true)
REMOVE(fl_loop_remove_reader_raw, "_remove_reader", FL_READABLE, false)
REMOVE(fl_loop_remove_writer_raw, "_remove_writer", FL_WRITABLE, false)
