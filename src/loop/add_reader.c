/* add_reader and its like: arguments, checks and docstrings.  user_fd.c does
   the rest. */
#include "loop/add_reader.h"

#include "core/loop.h"
#include "loop/user_fd.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"

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
fd_of_registered(FlLoop *loop, PyObject *object)
{
    int fd = fl_fd_of(loop, object);
    if (fd >= 0) {
        return fd;
    }
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear(); /* no fd is that large, so nothing is found */
        return INT32_MAX;
    }
    if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
        return -1;
    }
    fd = fl_fd_named_by(loop, object);
    if (fd >= 0) {
        PyErr_Clear(); /* that of fl_fd_of */
    }
    return fd;
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
    if (fd < 0 || (checked && fl_fd_check(loop, call.args[0], fd, false) < 0))
    {
        return NULL;
    }
    return (PyObject *)fl_fd_add(loop, fd, call.args[0], event, call.args + 1,
                                 call.nargs - 1, call.context);
}

/* The body of the four remove methods. */
static PyObject *
remove_event(FlLoop *loop, int event, PyObject *object, bool checked)
{
    /* Clean-up code may run after close(): that of the loop, or of a transport
       that uses the fd.  As in asyncio, it succeeds. */
    if (loop->closed) {
        Py_RETURN_FALSE;
    }
    int fd = fd_of_registered(loop, object);
    if (fd < 0 || (checked && fl_fd_check(loop, object, fd, true) < 0)) {
        return NULL;
    }
    return PyBool_FromLong(fl_fd_remove(loop, fd, event, NULL));
}

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

const char fl_loop_ensure_no_transport_doc[] =
    "_ensure_fd_no_transport($self, fd)\n--\n\n"
    "Raise RuntimeError if a transport uses a descriptor, ValueError if the\n"
    "argument is not a descriptor.  asyncio's private name.";

FL_FAST_KW(fl_loop_ensure_no_transport)
{
    PyObject *object = fl_args_parse_one("_ensure_fd_no_transport", "fd", args,
                                         nargs, kwnames);
    int fd = object == NULL ? -1 : fl_fd_of(loop, object);
    return fl_call_none(fd < 0 ? -1 : fl_fd_check(loop, object, fd, false));
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
