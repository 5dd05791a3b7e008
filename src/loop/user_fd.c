/* add_reader and add_writer: the program's own descriptors.

   1. A number is not a descriptor: the program may close it, and the system
      give it to another, while a watcher stands.  A change always reaches the
      system anew, and a number that becomes a transport's loses the watcher
      that was left on it, and the transport whose descriptor it was.
   2. A descriptor's flags are the program's: O_NONBLOCK stays as it was.
   3. Any thread may call.  The table belongs to whoever holds the GIL or,
      where there is none, the loop's critical section.
   4. An event runs the handles that are registered when it runs; replacing or
      removing one drops the event that had fired for it. */
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
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

/* --- the table ----------------------------------------------------------- */

static int
table_reserve(FlLoop *loop, int fd)
{
    if (fd < loop->fds_size) {
        return 0;
    }
    /* A number that is no descriptor could ask for a table of any size. */
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
    fl_user_fd_evict(loop, fd);
    FlOwned *before = transport_at(loop, fd);
    if (before != NULL) {
        before->kind->invalidate_fd(before);
    }
    if (fl_loop_check_open(loop) < 0) {
        return -1; /* what the watcher referred to has closed it */
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
        fl_metrics_note_subject(loop, (FlHandle *)handle);
        code = fl_handle_run(loop, (FlHandle *)handle);
    }
    Py_DECREF(handle);
    return code;
}

static int
on_fd(void *owner, FlRegistration *reg, int events)
{
    FlLoop *loop = owner;
    FlUserFd *user_fd;
    int fd = reg->fd;
    /* Both are owned: the first may take the second out, which is cancelled
       then, and so not run. */
    PyObject *reader = NULL, *writer = NULL;
    Py_BEGIN_CRITICAL_SECTION(loop);
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
        Py_XDECREF(writer);
    }
    else {
        code = run_handle(loop, writer);
    }
    /* Looked up again, for what ran may have removed it and freed all three.
       A descriptor that was closed cannot be armed: it never fires. */
    Py_BEGIN_CRITICAL_SECTION(loop);
    user_fd = fl_user_fd_at(loop, fd);
    if (user_fd != NULL && user_fd->reg == reg) {
        fl_registration_rearm(reg);
    }
    Py_END_CRITICAL_SECTION();
    return code;
}

/* --- registering --------------------------------------------------------- */

static FlUserFd *
user_fd_new(FlLoop *loop, int fd)
{
    FlUserFd *user_fd = NULL;
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

static void
cancel_handle(FlLoop *loop, PyObject *handle)
{
    if (handle == NULL) {
        return;
    }
    if (Py_TYPE(handle) == loop->state->socket_call_type) {
        Py_DECREF(handle); /* it waits until its coroutine is cancelled */
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
fl_user_fd_take_out(FlLoop *loop, FlUserFd *user_fd, FlFdRefs *refs)
{
    *refs = user_fd->refs;
    loop->fds[user_fd->reg->fd].user_fd = NULL;
    fl_list_remove(&user_fd->link);
    fl_loop_close_registration(loop, user_fd->reg);
    Py_XDECREF(user_fd->socket_ref); /* it has no callback */
    free(user_fd);
}

void
fl_user_fd_evict(FlLoop *loop, int fd)
{
    FlFdRefs refs = {NULL, NULL, NULL};
    Py_BEGIN_CRITICAL_SECTION(loop);
    FlUserFd *user_fd = fl_user_fd_at(loop, fd);
    if (user_fd != NULL) {
        fl_user_fd_take_out(loop, user_fd, &refs);
    }
    Py_END_CRITICAL_SECTION();
    cancel_handle(loop, refs.reader);
    cancel_handle(loop, refs.writer);
    Py_XDECREF(refs.object);
}

void
fl_user_fd_close_all(FlLoop *loop)
{
    bool more = true;
    while (more) {
        FlFdRefs refs = {NULL, NULL, NULL};
        Py_BEGIN_CRITICAL_SECTION(loop);
        more = !fl_list_is_empty(&loop->user_fds);
        if (more) {
            fl_user_fd_take_out(
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

/* As selectors does, replace what fileno() raised because there is none. */
static int
invalid_object(PyObject *object)
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

/* What an int or an object with fileno() says of its number.  0, or -1 with
   ValueError set, as selectors raises it. */
static int
call_fileno(FlLoop *loop, PyObject *object, long long *fd)
{
    PyObject *number = NULL;
    if (PyLong_Check(object)) {
        number = Py_NewRef(object);
    }
    else {
        number = PyObject_CallMethodNoArgs(object, loop->state->names.fileno);
        if (number == NULL || !PyLong_Check(number)) {
            Py_XDECREF(number);
            return invalid_object(object);
        }
    }
    int overflow;
    *fd = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow > 0) {
        *fd = LLONG_MAX; /* no descriptor either */
    }
    else if (overflow < 0) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S", number);
    }
    Py_DECREF(number);
    return overflow < 0 ? -1 : 0;
}

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

/* The same for what may have been closed since it was registered: selectors
   finds that by its identity. */
static int
parse_registered_fd(FlLoop *loop, PyObject *object)
{
    long long fd = -1;
    if (call_fileno(loop, object, &fd) < 0) {
        return -1;
    }
    if (fd > INT32_MAX) {
        return INT32_MAX; /* likewise nobody's */
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

/* RuntimeError if a transport uses the number.  One whose socket was closed
   under it does not. */
static int
check_no_transport(FlLoop *loop, PyObject *object, int fd)
{
    FlOwned *owned = transport_at(loop, fd);
    int has_fd = owned == NULL ? 0 : owned->kind->has_fd(owned);
    if (has_fd < 0) {
        return -1;
    }
    PyObject *transport = has_fd ? fl_fd_transport(loop, fd) : NULL;
    if (transport != NULL) {
        Py_INCREF(transport); /* the object's repr may close it */
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %R is used by transport %R", object,
                     transport);
        Py_DECREF(transport);
        return -1;
    }
    if (loop->python_transports == NULL) {
        return 0;
    }
    PyObject *result = PyObject_CallMethodOneArg(
        (PyObject *)loop, loop->state->names._check_python_transports, object);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_fd_check(FlLoop *loop, PyObject *object)
{
    int fd = fl_fd_of(loop, object);
    return fd < 0 ? -1 : check_no_transport(loop, object, fd);
}

/* Put a handle in the watcher's slot; *taken is what the caller must drop, of
   the handle itself where it fails.  0 or a negative errno. */
static int
exchange_handle(FlLoop *loop, FlUserFd *user_fd, PyObject *object, int event,
                PyObject *handle, FlFdRefs *taken)
{
    PyObject **slot = fl_user_fd_slot(user_fd, event);
    PyObject *before = *slot;
    *slot = handle;
    user_fd->reg->fired &= (uint8_t)~event;
    int code = fl_registration_set(user_fd->reg, fl_user_fd_wanted(user_fd));
    if (code == 0) {
        taken->reader = before;
        taken->object = user_fd->refs.object;
        user_fd->refs.object = PyLong_Check(object) ? NULL : Py_NewRef(object);
        return 0;
    }
    *slot = before;
    taken->reader = handle;
    user_fd->reg->wanted = (uint8_t)fl_user_fd_wanted(user_fd);
    if (fl_user_fd_wanted(user_fd) == 0) {
        FlFdRefs refs;
        fl_user_fd_take_out(loop, user_fd, &refs);
        taken->object = refs.object;
    }
    return code;
}

/* A transport whose socket was closed under it has lost its number. */
static void
evict_transport(FlLoop *loop, int fd)
{
    FlOwned *owned = transport_at(loop, fd);
    if (owned == NULL) {
        return;
    }
    int has_fd = owned->kind->has_fd(owned);
    if (has_fd < 0) {
        PyErr_Clear(); /* an object that cannot tell has none */
    }
    if (has_fd <= 0) {
        owned->kind->invalidate_fd(owned);
    }
}

FlUserFd *
fl_user_fd_open(FlLoop *loop, int fd)
{
    evict_transport(loop, fd);
    /* Once more: the object's fileno() may have closed it. */
    return fl_loop_check_open(loop) < 0 ? NULL : user_fd_new(loop, fd);
}

/* Register a handle; steals it.  0 or -1. */
static int
set_handle(FlLoop *loop, int fd, PyObject *object, int event, PyObject *handle)
{
    FlFdRefs taken = {handle, NULL, NULL};
    FlUserFd *user_fd;
    int code = 0;
    Py_BEGIN_CRITICAL_SECTION(loop);
    user_fd = fl_user_fd_at(loop, fd);
    if (user_fd == NULL) {
        user_fd = fl_user_fd_open(loop, fd);
    }
    if (user_fd != NULL) {
        code = exchange_handle(loop, user_fd, object, event, handle, &taken);
    }
    Py_END_CRITICAL_SECTION();
    if (user_fd == NULL) {
        Py_DECREF(handle);
        return -1;
    }
    /* Last, for dropping what a handle owned may run anything. */
    cancel_handle(loop, taken.reader);
    Py_XDECREF(taken.object);
    return code < 0 ? fl_raise_errno(code) : 0;
}

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
    if (handle == NULL
        || (loop->debug && fl_debug_note_source(loop, handle) < 0)) {
        Py_XDECREF(handle);
        return NULL;
    }
    Py_INCREF(handle);
    if (set_handle(loop, fd, args[0], event, (PyObject *)handle) < 0) {
        Py_CLEAR(handle);
    }
    return (PyObject *)handle;
}

static PyObject *
remove_event(FlLoop *loop, int event, PyObject *object, bool checked)
{
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
        removed = *slot;
        *slot = NULL;
        if (fl_user_fd_wanted(user_fd) == 0) {
            fl_user_fd_take_out(loop, user_fd, &refs);
        }
        else if (removed != NULL) {
            /* It fails where the number was closed: nothing fires then. */
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

static PyObject *
none_for(PyObject *handle)
{
    if (handle == NULL) {
        return NULL;
    }
    Py_DECREF(handle);
    Py_RETURN_NONE;
}

#define DOC_ADD(name, what)                                                   \
    name "($self, fd, callback, *args)\n--\n\n"                               \
         "Call callback(*args) whenever fd is " what ".\n\n"                  \
         "fd is a number or an object with fileno().  Replaces an earlier\n"  \
         "callback.  Returns None.  Raises ValueError for what is no\n"       \
         "descriptor, RuntimeError when a transport uses it or the loop is\n" \
         "closed, OSError when it cannot be watched.  Implements asyncio's\n" \
         "loop." name "().  The descriptor's flags are left as they are."

#define DOC_REMOVE(name, what)                                         \
    name "($self, fd)\n--\n\n"                                         \
         "Stop calling back when fd is " what ".\n\n"                  \
         "Returns True if there was a callback, else False.  Raises\n" \
         "ValueError for what is no descriptor, RuntimeError when a\n" \
         "transport uses it.  Implements asyncio's loop." name "()."

const char fl_loop_add_reader_doc[] = DOC_ADD("add_reader", "readable");
const char fl_loop_add_writer_doc[] = DOC_ADD("add_writer", "writable");
const char fl_loop_remove_reader_doc[] =
    DOC_REMOVE("remove_reader", "readable");
const char fl_loop_remove_writer_doc[] =
    DOC_REMOVE("remove_writer", "writable");

#define DOC_RAW(name, parameters)                                       \
    "_" name "($self, " parameters ")\n--\n\n" name                     \
    "() without its checks, and as it is in asyncio's own loop: a\n"    \
    "transport may use the descriptor, and an adding one returns the\n" \
    "handle."

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

#define REMOVE(function, python_name, event, checked)                         \
    FL_FAST_KW(function)                                                      \
    {                                                                         \
        PyObject *fd = fl_parse_one(python_name, "fd", args, nargs, kwnames); \
        return fd == NULL ? NULL : remove_event(loop, event, fd, checked);    \
    }

/* The private twins are what asyncio's own transports and sock_* methods
   call: they return the handle, and a transport may use the descriptor. */
ADD(fl_loop_add_reader, "add_reader", FL_READABLE, true, none_for)
ADD(fl_loop_add_writer, "add_writer", FL_WRITABLE, true, none_for)
ADD(fl_loop_add_reader_raw, "_add_reader", FL_READABLE, false, )
ADD(fl_loop_add_writer_raw, "_add_writer", FL_WRITABLE, false, )
REMOVE(fl_loop_remove_reader, "remove_reader", FL_READABLE, true)
REMOVE(fl_loop_remove_writer, "remove_writer", FL_WRITABLE, true)
REMOVE(fl_loop_remove_reader_raw, "_remove_reader", FL_READABLE, false)
REMOVE(fl_loop_remove_writer_raw, "_remove_writer", FL_WRITABLE, false)
