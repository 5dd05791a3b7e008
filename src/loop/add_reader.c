/* _add_reader and its like: arguments, checks and docstrings.  user_fd.c does
   the rest.  asyncio's own add_reader, add_writer, remove_reader and
   remove_writer call _ensure_fd_no_transport and then these. */
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
   its fileno() is -1 then.  As selectors does, find it by its identity.
   INT32_MAX, which is no file's, for an int that is too large.  Clean-up code
   may run after the loop was closed: as in asyncio, it succeeds. */
static int
fd_of_registered(FlLoop *loop, PyObject *object)
{
    int fd = loop->closed ? INT32_MAX : fl_fd_of(loop, object);
    if (fd < 0 && PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        return INT32_MAX;
    }
    if (fd < 0 && PyErr_ExceptionMatches(PyExc_ValueError)
        && (fd = fl_fd_named_by(loop, object)) >= 0)
    {
        PyErr_Clear(); /* that of fl_fd_of */
    }
    return fd;
}

static PyObject *
add(FlLoop *loop, const char *function, int event, PyObject *const *args,
    Py_ssize_t nargs, PyObject *kwnames)
{
    FlParameters parameters = {
        function, {"fd", "callback"}, .more = true, .context = true};
    FlArgs call;
    if (fl_loop_check_open(loop) < 0
        || fl_args_parse(&parameters, args, nargs, kwnames, &call) < 0)
    {
        return NULL;
    }
    int fd = fl_fd_of(loop, call.args[0]);
    return fd < 0 ? NULL
                  : (PyObject *)fl_fd_add(loop, fd, call.args[0], event,
                                          call.args + 1, call.nargs - 1,
                                          call.context);
}

const char fl_loop_ensure_no_transport_doc[] =
    "_ensure_fd_no_transport($self, fd, /)\n--\n\n"
    "Raise RuntimeError if a transport uses a descriptor, ValueError if the\n"
    "argument is not a descriptor.  asyncio's private name.";

PyObject *
fl_loop_ensure_no_transport(FlLoop *loop, PyObject *object)
{
    int fd = fd_of_registered(loop, object);
    return fl_call_none(fd < 0 ? -1 : fl_fd_check(loop, object, fd, true));
}

#define METHODS(kind, event)                                                  \
    const char fl_loop_add_##kind##_doc[] =                                   \
        "_add_" #kind "($self, fd, callback, *args, context=None)\n--\n\n"    \
        "As add_" #kind "(), without a look for asyncio's transports.\n\n"    \
        "Returns the handle.";                                                \
    const char fl_loop_remove_##kind##_doc[] =                                \
        "_remove_" #kind "($self, fd, /)\n--\n\n"                             \
        "As remove_" #kind "(), without a look for transports.";              \
    FL_FAST_KW(fl_loop_add_##kind)                                            \
    {                                                                         \
        return add(loop, "_add_" #kind, event, args, nargs, kwnames);         \
    }                                                                         \
    FL_ONE(fl_loop_remove_##kind)                                             \
    {                                                                         \
        int fd = fd_of_registered(loop, argument);                            \
        return fd < 0 ? NULL                                                  \
                      : PyBool_FromLong(fl_fd_remove(loop, fd, event, NULL)); \
    }

METHODS(reader, FL_READABLE)
METHODS(writer, FL_WRITABLE)
