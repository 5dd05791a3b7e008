/* What programs look for in asyncio's private queues: _ready, _scheduled, the
   selector's map and the transports, made when somebody asks.

   1. They are copies: tuples and lists of handles.  A change to a copy does
      not reach the loop; cancel() of a handle in it does.
   2. A waiting call whose handle was dropped gets one, tied to its entry; so
      does a task's step, which from then on is a call like any other.
   3. The loop's own work shows as a handle of what it is about; that one is
      only to be looked at.  Events of descriptors do not show. */
#include "compat/introspection.h"

#include "base/list.h"
#include "base/timer_queue.h"
#include "core/handle.h"
#include "core/thread_queue.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "loop/user_fd.h"
#include "py/compat.h"
#include "py/state.h"

/* A loop of this module; NULL with TypeError. */
static FlLoop *
loop_of(PyObject *module, PyObject *object)
{
    if (!PyObject_TypeCheck(object, fl_state_get(module)->loop_type)) {
        PyErr_SetString(PyExc_TypeError, "a fastloop.Loop is required");
        return NULL;
    }
    return FL_LOOP(object);
}

/* Let `made` be the handle of an entry that has none.  NULL: nothing to show;
   no exception. */
static PyObject *
handle_of(FlLoop *loop, uint64_t position, FlHandle *made)
{
    FlReady *entry = fl_ready_find(&loop->ready, position);
    switch (entry->kind) {
    case FL_READY_STEP:
        entry->kind = FL_READY_CALL;
        entry->of.handle = NULL;
        /* fall through */
    case FL_READY_CALL:
    case FL_READY_SHARED:
        if (entry->of.handle == NULL) {
            made->entry = entry;
            entry->of.handle = made;
        }
        return Py_NewRef((PyObject *)entry->of.handle);
    case FL_READY_HANDLE:
    case FL_READY_OTHER:
        return Py_NewRef(entry->callback);
    case FL_READY_OP:
        made->callback = Py_NewRef(entry->callback);
        made->args = Py_NewRef(loop->state->empty_tuple);
        made->context =
            Py_NewRef(entry->context == NULL ? Py_None : entry->context);
        return Py_NewRef((PyObject *)made);
    default:
        return NULL;
    }
}

static int
append_ready(FlLoop *loop, uint64_t position, PyObject *list)
{
    /* First: making it may run the collector, and that anything. */
    FlHandle *made = fl_handle_new(loop);
    if (made == NULL) {
        return -1;
    }
    PyObject *handle = NULL;
    if (position >= loop->ready.head && position < loop->ready.tail) {
        handle = handle_of(loop, position, made);
    }
    int code = handle == NULL ? 0 : PyList_Append(list, handle);
    if (code == 0 && !FL_HAVE_GIL && handle == (PyObject *)made) {
        code = fl_handle_fill_waiting(made);
    }
    Py_XDECREF(handle);
    Py_DECREF(made);
    return code;
}

static PyObject *
tuple_of_steal(PyObject *list, int code)
{
    PyObject *tuple = code < 0 ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

/* A list to be filled; NULL with an exception, as for a thread in which, for
   want of a GIL, there is nothing that may be looked at. */
static PyObject *
new_list(FlLoop *loop)
{
    if (fl_loop_on_other_thread(loop)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "without a GIL the queues of a running loop can be "
                        "looked into by its own thread only");
        return NULL;
    }
    return PyList_New(0);
}

static PyObject *
ready_handles(PyObject *module, PyObject *object)
{
    FlLoop *loop = loop_of(module, object);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *list = new_list(loop);
    int code = list == NULL ? -1 : fl_thread_queue_drain(loop);
    uint64_t end = loop->ready.tail;
    for (uint64_t at = loop->ready.head; code == 0 && at < end; at++) {
        code = append_ready(loop, at, list);
    }
    return tuple_of_steal(list, code);
}

static int
append_timer(FlTimerNode *node, void *list)
{
    return PyList_Append(list, (PyObject *)fl_timer_of(node));
}

static PyObject *
scheduled_handles(PyObject *module, PyObject *object)
{
    FlLoop *loop = loop_of(module, object);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *list = new_list(loop);
    int code = list == NULL
                   ? -1
                   : fl_timer_queue_visit(&loop->timers, append_timer, list);
    if (code == 0) {
        code =
            PyList_Sort(list); /* asyncio's order: a heap, first due first */
    }
    return tuple_of_steal(list, code);
}

/* The handle that stands in a slot, or one made for the call that does. */
static PyObject *
shown_handle(FlLoop *loop, PyObject *waiting)
{
    if (waiting == NULL) {
        Py_RETURN_NONE;
    }
    if (Py_TYPE(waiting) != loop->state->socket_call_type) {
        return Py_NewRef(waiting);
    }
    PyObject *context = PyContext_CopyCurrent();
    PyObject *handle = NULL;
    if (context != NULL) {
        handle = (PyObject *)fl_handle_new_filled(loop, waiting,
                                                  loop->state->empty_tuple,
                                                  context);
        Py_DECREF(context);
    }
    return handle;
}

/* What somebody waits for, with references of its own: making objects of it
   may run anything, and another thread may take it out. */
typedef struct {
    int fd;
    FlFdRefs refs;
} Watched;

/* How many, *rows to be freed; -1 with MemoryError. */
static Py_ssize_t
take_registered(FlLoop *loop, Watched **rows)
{
    Py_ssize_t most = 0, count = 0;
    Py_BEGIN_CRITICAL_SECTION(loop);
    FlList *all = &loop->user_fds;
    for (FlList *link = all->next; link != all; link = link->next) {
        most++;
    }
    *rows = PyMem_New(Watched, (size_t)most);
    for (FlList *link = all->next; *rows != NULL && link != all;
         link = link->next) {
        FlUserFd *user_fd = FL_LIST_ENTRY(link, FlUserFd, link);
        if (fl_user_fd_wanted(user_fd) == 0) {
            continue; /* kept, and nobody waits */
        }
        Watched *row = &(*rows)[count++];
        row->fd = user_fd->reg->fd;
        row->refs.reader = Py_XNewRef(user_fd->refs.reader);
        row->refs.writer = Py_XNewRef(user_fd->refs.writer);
        row->refs.object = Py_XNewRef(user_fd->refs.object);
    }
    Py_END_CRITICAL_SECTION();
    if (*rows == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return count;
}

static int
append_registered(FlLoop *loop, const Watched *watched, PyObject *list)
{
    const FlFdRefs *refs = &watched->refs;
    PyObject *reader = shown_handle(loop, refs->reader);
    PyObject *writer =
        reader == NULL ? NULL : shown_handle(loop, refs->writer);
    PyObject *row =
        writer == NULL
            ? NULL
            : Py_BuildValue("iOOO", watched->fd,
                            refs->object == NULL ? Py_None : refs->object,
                            reader, writer);
    int code = row == NULL ? -1 : PyList_Append(list, row);
    Py_XDECREF(reader);
    Py_XDECREF(writer);
    Py_XDECREF(row);
    return code;
}

static const char watched_doc[] =
    "watched(loop, /)\n--\n\n"
    "Return what add_reader and add_writer watch, a tuple for each\n"
    "descriptor: number, object (None for a number), reader, writer.";

static PyObject *
watched(PyObject *module, PyObject *object)
{
    FlLoop *loop = loop_of(module, object);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *list = new_list(loop);
    if (list == NULL) {
        return NULL;
    }
    Watched *rows;
    Py_ssize_t count = take_registered(loop, &rows);
    int code = count < 0 ? -1 : 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        FlFdRefs *refs = &rows[at].refs;
        code = code < 0 ? code : append_registered(loop, &rows[at], list);
        Py_XDECREF(refs->reader);
        Py_XDECREF(refs->writer);
        Py_XDECREF(refs->object);
    }
    PyMem_Free(rows);
    if (code < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static const char open_transports_doc[] =
    "open_transports(loop, /)\n--\n\n"
    "Return the open transports of the core, by descriptor number.";

static PyObject *
open_transports(PyObject *module, PyObject *object)
{
    FlLoop *loop = loop_of(module, object);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *found = PyDict_New();
    Py_BEGIN_CRITICAL_SECTION(loop);
    for (int fd = 0; found != NULL && fd < loop->fds_size; fd++) {
        PyObject *transport = fl_fd_transport(loop, fd);
        PyObject *number = transport == NULL ? NULL : PyLong_FromLong(fd);
        if (transport != NULL
            && (number == NULL
                || PyDict_SetItem(found, number, transport) < 0))
        {
            Py_CLEAR(found);
        }
        Py_XDECREF(number);
    }
    Py_END_CRITICAL_SECTION();
    return found;
}

static const char ready_handles_doc[] =
    "ready_handles(loop, /)\n--\n\n"
    "Return the handles that wait to run, as asyncio's loop._ready has them.";

static const char scheduled_handles_doc[] =
    "scheduled_handles(loop, /)\n--\n\n"
    "Return the timers that wait, as asyncio's loop._scheduled has them.";

static PyMethodDef functions[] = {
    {"ready_handles", ready_handles, METH_O, ready_handles_doc},
    {"scheduled_handles", scheduled_handles, METH_O, scheduled_handles_doc},
    {"watched", watched, METH_O, watched_doc},
    {"open_transports", open_transports, METH_O, open_transports_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_introspection_register(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
