/* Copies of the loop's queues for applications that read asyncio's private
   attributes: see introspection.h.

   1. Making an object may start a GC, which may run any Python and change the
      queues.  So each entry is located, or its references taken, after the
      objects for it were made. */
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

/* The handle of the entry at a position, which must be in the queue; if the
   entry has none, new_handle becomes its handle.  A new reference; NULL
   without an exception for an entry that does not show.  Makes no object and
   runs no Python, so the entry stays valid throughout. */
static PyObject *
handle_of(FlLoop *loop, uint64_t position, FlHandle *new_handle)
{
    FlReady *entry = fl_ready_find(&loop->ready, position);
    switch (entry->kind) {
    case FL_READY_CALL:
        if (entry->of.handle == NULL) {
            /* Both pointers are borrowed; see ready_queue.h. */
            new_handle->entry = entry;
            entry->of.handle = new_handle;
        }
        return Py_NewRef((PyObject *)entry->of.handle);
    case FL_READY_HANDLE:
        return Py_NewRef(entry->callback);
    case FL_READY_OP:
        /* Not tied to the entry: a filled handle for display only. */
        new_handle->callback = Py_NewRef(entry->callback);
        new_handle->args = Py_NewRef(loop->state->empty_tuple);
        new_handle->context =
            Py_NewRef(entry->context == NULL ? Py_None : entry->context);
        return Py_NewRef((PyObject *)new_handle);
    default:
        return NULL;
    }
}

/* Append the handle of the entry at a position.  0, or -1 with an exception
   set. */
static int
append_ready(FlLoop *loop, uint64_t position, PyObject *list)
{
    /* Before the entry is looked up: invariant 1. */
    FlHandle *new_handle = fl_handle_new(loop);
    if (new_handle == NULL) {
        return -1;
    }
    PyObject *handle = NULL;
    /* The entry may have left the queue meanwhile.  Positions never repeat, so
       another entry cannot be taken for it. */
    if (position >= loop->ready.head && position < loop->ready.tail) {
        handle = handle_of(loop, position, new_handle);
    }
    int code = handle == NULL ? 0 : PyList_Append(list, handle);
    if (code == 0 && !FL_HAVE_GIL && handle == (PyObject *)new_handle) {
        /* Without a GIL other threads may cancel it, and a handle that only
           points at its entry is for the loop's thread. */
        code = fl_handle_fill(new_handle);
    }
    Py_XDECREF(handle);
    Py_DECREF(new_handle);
    return code;
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
    /* Calls that are queued from here on do not show: a GC that queues one for
       each entry would make this endless. */
    uint64_t end = loop->ready.tail;
    for (uint64_t at = loop->ready.head; code == 0 && at < end; at++) {
        code = append_ready(loop, at, list);
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
