/* A copy of the table of fds: see introspection.h. */
#include "loop/introspection.h"

#include "core/loop.h"
#include "loop/user_fd.h"
#include "py/compat.h"

/* A reference as it stands, or one to None for NULL. */
static PyObject *
or_none(PyObject *object)
{
    return object == NULL ? Py_NewRef(Py_None) : object;
}

const char fl_loop_fd_users_doc[] =
    "_fd_users($self, /)\n--\n\n"
    "Return a tuple for each descriptor that is used: the descriptor, the\n"
    "object that add_reader or add_writer got (None: it was an int), reader,\n"
    "writer.";

PyObject *
fl_loop_fd_users(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    int code = list == NULL ? -1 : 0, used;
    FlFdRefs refs;
    for (int fd = 0; code == 0 && (used = fl_fd_users(loop, fd, &refs)) >= 0;
         fd++) {
        if (used) {
            PyObject *row = Py_BuildValue("iNNN", fd, or_none(refs.object),
                                          or_none(refs.callbacks[0]),
                                          or_none(refs.callbacks[1]));
            code = row == NULL ? -1 : PyList_Append(list, row);
            Py_XDECREF(row);
        }
    }
    if (code < 0) {
        Py_CLEAR(list);
    }
    return list;
}
