/* Copies of the ready queue and of the table of fds: see introspection.h. */
#include "loop/introspection.h"

#include "core/handle.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/thread_queue.h"
#include "loop/user_fd.h"
#include "py/compat.h"
#include "py/state.h"

/* The handle of an entry: a new reference, or NULL with MemoryError.  A call
   without a handle gets one; an operation of the loop's, one for display. */
static FlHandle *
handle_of(FlLoop *loop, FlReady *entry)
{
    if (entry->kind == FL_READY_HANDLE) {
        return (FlHandle *)Py_NewRef(entry->callback);
    }
    bool is_call = entry->kind == FL_READY_CALL;
    FlHandle *handle = is_call ? fl_handle_of_entry(entry) : NULL;
    Py_XINCREF(handle);
    if (handle == NULL && (handle = fl_handle_new(loop)) != NULL && is_call) {
        /* Both pointers are borrowed; see ready_queue.h. */
        handle->entry = entry;
        entry->of.handle = handle;
        /* Without a GIL other threads may cancel it, and a handle that only
           points at its entry is for the loop's thread. */
        if (!FL_HAVE_GIL && fl_handle_fill(handle) < 0) {
            Py_CLEAR(handle);
        }
    }
    else if (handle != NULL && !is_call) {
        handle->callback = Py_NewRef(entry->callback);
        handle->args = Py_NewRef(loop->state->empty_tuple);
        handle->context =
            Py_NewRef(entry->context == NULL ? Py_None : entry->context);
    }
    return handle;
}

/* Append an object and drop the reference to it; it may be NULL.  0, or -1
   with an exception set. */
static int
append(PyObject *list, PyObject *object)
{
    int code = object == NULL ? -1 : PyList_Append(list, object);
    Py_XDECREF(object);
    return code;
}

/* The list, or NULL if code is -1.  Steals the list, which may be NULL. */
static PyObject *
end_copy(PyObject *list, int code)
{
    if (code < 0) {
        Py_CLEAR(list);
    }
    return list;
}

const char fl_loop_ready_handles_doc[] =
    "_ready_handles($self, /)\n--\n\n"
    "Return the handles in the ready queue.  Without a GIL only its own\n"
    "thread may ask a running loop: RuntimeError.";

PyObject *
fl_loop_ready_handles(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    if (fl_loop_on_other_thread(loop)) {
        return PyErr_Format(PyExc_RuntimeError,
                            "without a GIL only its own thread may read the "
                            "queue of a running loop");
    }
    PyObject *list = PyList_New(0);
    /* The drain moves what other threads pushed into the ready queue. */
    int code = list == NULL ? -1 : fl_thread_queue_drain(loop);
    /* A collection may run any Python, which may change the queue. */
    int collects = PyGC_Disable();
    for (uint64_t at = loop->ready.head; code == 0 && at < loop->ready.tail;
         at++) {
        FlReady *entry = fl_ready_find(&loop->ready, at);
        if (entry->kind != FL_READY_NONE && entry->kind != FL_READY_EVENT) {
            code = append(list, (PyObject *)handle_of(loop, entry));
        }
    }
    if (collects) {
        (void)PyGC_Enable();
    }
    return end_copy(list, code);
}

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
            code = append(list, row);
        }
    }
    return end_copy(list, code);
}
