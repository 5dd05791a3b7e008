/* Copies of the loop's queues for applications that read asyncio's private
   attributes: see introspection.h. */
#include "compat/introspection.h"

#include "base/timer_queue.h"
#include "core/handle.h"
#include "core/thread_queue.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "loop/user_fd.h"
#include "py/compat.h"
#include "py/state.h"

/* The argument as a loop of this module, borrowed; NULL with TypeError. */
static FlLoop *
loop_of(PyObject *module, PyObject *object)
{
    if (!PyObject_TypeCheck(object, fl_state_get(module)->loop_type)) {
        PyErr_SetString(PyExc_TypeError, "a fastloop.Loop is required");
        return NULL;
    }
    return FL_LOOP(object);
}

/* The handle of an entry, or a new one if it has none: a new reference.  NULL
   with MemoryError. */
static PyObject *
handle_of(FlLoop *loop, FlReady *entry)
{
    bool is_call = entry->kind == FL_READY_CALL;
    if (entry->kind == FL_READY_HANDLE) {
        return Py_NewRef(entry->callback);
    }
    FlHandle *handle = is_call ? fl_handle_of_entry(entry) : NULL;
    if (handle != NULL) {
        return Py_NewRef((PyObject *)handle);
    }
    handle = fl_handle_new(loop);
    if (handle != NULL && is_call) {
        /* Both pointers are borrowed; see ready_queue.h. */
        handle->entry = entry;
        entry->of.handle = handle;
        /* Without a GIL other threads may cancel it, and a handle that only
           points at its entry is for the loop's thread. */
        if (!FL_HAVE_GIL && fl_handle_fill(handle) < 0) {
            Py_CLEAR(handle);
        }
    }
    else if (handle != NULL) {
        /* An operation of the loop's: a filled handle for display only. */
        handle->callback = Py_NewRef(entry->callback);
        handle->args = Py_NewRef(loop->state->empty_tuple);
        handle->context =
            Py_NewRef(entry->context == NULL ? Py_None : entry->context);
    }
    return (PyObject *)handle;
}

/* An empty list for the copy of a queue, or NULL with an exception set:
   RuntimeError if there is no GIL and another thread runs the loop, since its
   queues have no lock. */
static PyObject *
begin_copy(const FlLoop *loop)
{
    if (fl_loop_on_other_thread(loop)) {
        return PyErr_Format(PyExc_RuntimeError,
                            "without a GIL only its own thread may read the "
                            "queues of a running loop");
    }
    return PyList_New(0);
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

static const char ready_handles_doc[] =
    "ready_handles(loop, /)\n--\n\n"
    "Return the handles in the ready queue, as asyncio's loop._ready.";

static PyObject *
ready_handles(PyObject *module, PyObject *object)
{
    FlLoop *loop = loop_of(module, object);
    PyObject *list = loop == NULL ? NULL : begin_copy(loop);
    if (list == NULL) {
        return NULL;
    }
    /* The drain moves what other threads pushed into the ready queue. */
    int code = fl_thread_queue_drain(loop);
    /* A collection may run any Python, which may change the queue. */
    int collects = PyGC_Disable();
    for (uint64_t at = loop->ready.head; code == 0 && at < loop->ready.tail;
         at++) {
        FlReady *entry = fl_ready_find(&loop->ready, at);
        if (entry->kind != FL_READY_NONE && entry->kind != FL_READY_EVENT) {
            PyObject *handle = handle_of(loop, entry);
            code = handle == NULL ? -1 : PyList_Append(list, handle);
            Py_XDECREF(handle);
        }
    }
    if (collects) {
        (void)PyGC_Enable();
    }
    return end_copy(list, code);
}

static const char scheduled_handles_doc[] =
    "scheduled_handles(loop, /)\n--\n\n"
    "Return the scheduled timer handles, in no order.";

static PyObject *
scheduled_handles(PyObject *module, PyObject *object)
{
    FlLoop *loop = loop_of(module, object);
    PyObject *list = loop == NULL ? NULL : begin_copy(loop);
    if (list == NULL) {
        return NULL;
    }
    int code = 0;
    FlTimerNode *node;
    size_t at = 0;
    while (code == 0
           && (node = fl_timer_queue_each(&loop->timers, &at)) != NULL) {
        code = PyList_Append(list, (PyObject *)fl_timer_of(node));
    }
    return end_copy(list, code);
}

static const char next_deadline_doc[] =
    "next_deadline(loop, /)\n--\n\n"
    "Return when the next timer is due, by loop.time(); inf if there is none.";

static PyObject *
next_deadline(PyObject *module, PyObject *object)
{
    const FlLoop *loop = loop_of(module, object);
    return loop == NULL
               ? NULL
               : PyFloat_FromDouble(fl_timer_queue_next_s(&loop->timers));
}

/* A reference as it stands, or one to None for NULL. */
static PyObject *
or_none(PyObject *object)
{
    return object == NULL ? Py_NewRef(Py_None) : object;
}

/* Append the users of one fd, if it has any.  0, 1 if no more fds are used, or
   -1 with MemoryError. */
static int
append_users(FlLoop *loop, int fd, PyObject *list)
{
    FlFdRefs refs;
    FlFdTable *table = loop->table;
    fl_fd_table_lock(table);
    bool is_last = fd >= table->fds_size;
    PyObject *transport = fl_fd_users(loop, fd, &refs);
    fl_fd_table_unlock(table);
    PyObject *reader = refs.callbacks[0], *writer = refs.callbacks[1];
    if (reader == NULL && writer == NULL && transport == NULL) {
        return is_last;
    }
    PyObject *row =
        Py_BuildValue("iNNNN", fd, or_none(refs.object), or_none(reader),
                      or_none(writer), or_none(transport));
    int code = row == NULL ? -1 : PyList_Append(list, row);
    Py_XDECREF(row);
    return code;
}

static const char fd_users_doc[] =
    "fd_users(loop, /)\n--\n\n"
    "Return a tuple for each descriptor that is used: the descriptor, the\n"
    "object that add_reader or add_writer got (None: it was an int), reader,\n"
    "writer, transport.";

static PyObject *
fd_users(PyObject *module, PyObject *object)
{
    FlLoop *loop = loop_of(module, object);
    PyObject *list = loop == NULL ? NULL : PyList_New(0);
    int code = list == NULL ? -1 : 0;
    for (int fd = 0; code == 0; fd++) {
        code = append_users(loop, fd, list);
    }
    return end_copy(list, code);
}

static PyMethodDef functions[] = {
    {"ready_handles", ready_handles, METH_O, ready_handles_doc},
    {"scheduled_handles", scheduled_handles, METH_O, scheduled_handles_doc},
    {"next_deadline", next_deadline, METH_O, next_deadline_doc},
    {"fd_users", fd_users, METH_O, fd_users_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_introspection_register(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
