/* Copies of the loop's queues for programs that read asyncio's private
   attributes: see introspection.h.

   1. The results are copies: tuples, lists or dicts.  Changing a copy does not
      change the loop; cancel() of a handle in it does.
   2. A queued call without a Handle object gets one that points at its queue
      entry, so that cancelling it works.  A task step gets one too, and its
      entry becomes an ordinary call: only calls check for cancellation.
   3. The loop's own operations (FL_READY_OP) show as a Handle of the object
      they concern.  Cancelling that Handle has no effect.  Events of
      descriptors do not show.
   4. Making an object may start a GC, which may run any Python and change the
      queues.  So each entry is located, or its references taken, after the
      objects for it were made. */
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
    case FL_READY_STEP:
        /* A step has no room for a handle: invariant 2. */
        entry->kind = FL_READY_CALL;
        entry->of.handle = NULL;
        /* fall through */
    case FL_READY_CALL:
    case FL_READY_SHARED:
        if (entry->of.handle == NULL) {
            /* Both pointers are borrowed; see ready_queue.h. */
            new_handle->entry = entry;
            entry->of.handle = new_handle;
        }
        return Py_NewRef((PyObject *)entry->of.handle);
    case FL_READY_HANDLE:
    case FL_READY_OTHER:
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
    /* Before the entry is looked up: invariant 4. */
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

/* The list as a tuple; NULL if code is -1.  Steals the list. */
static PyObject *
tuple_of_steal(PyObject *list, int code)
{
    PyObject *tuple = code < 0 ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

/* An empty list for the copy, or NULL with an exception set: RuntimeError if
   there is no GIL and another thread runs the loop, since its queues have no
   lock. */
static PyObject *
begin_copy(FlLoop *loop)
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
    PyObject *list = begin_copy(loop);
    /* The drain moves what other threads pushed into the ready queue. */
    int code = list == NULL ? -1 : fl_thread_queue_drain(loop);
    /* Calls that are queued from here on do not show: a GC that queues one for
       each entry would make this endless. */
    uint64_t end = loop->ready.tail;
    for (uint64_t at = loop->ready.head; code == 0 && at < end; at++) {
        code = append_ready(loop, at, list);
    }
    return tuple_of_steal(list, code);
}

/* A visitor of fl_timer_queue_visit.  The loop owns the timers. */
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
    PyObject *list = begin_copy(loop);
    int code = list == NULL
                   ? -1
                   : fl_timer_queue_visit(&loop->timers, append_timer, list);
    if (code == 0) {
        code =
            PyList_Sort(list); /* asyncio's order: a heap, first due first */
    }
    return tuple_of_steal(list, code);
}

/* What a slot of add_reader() or add_writer() shows: its Handle, None if it is
   empty, or a new Handle for a SocketCall, which occupies a slot by itself.
   NULL with MemoryError. */
static PyObject *
handle_in_slot(FlLoop *loop, PyObject *waiter)
{
    if (waiter == NULL) {
        Py_RETURN_NONE;
    }
    if (Py_TYPE(waiter) != loop->state->socket_call_type) {
        return Py_NewRef(waiter);
    }
    /* As asyncio's add_reader() does when it makes its Handle. */
    PyObject *context = PyContext_CopyCurrent();
    PyObject *handle = NULL;
    if (context != NULL) {
        handle = (PyObject *)fl_handle_new_filled(loop, waiter,
                                                  loop->state->empty_tuple,
                                                  context);
        Py_DECREF(context);
    }
    return handle;
}

/* A copy of one user-owned fd, with its own references: while objects are made
   of it, Python or another thread may remove the original. */
typedef struct {
    int fd;
    FlFdRefs refs;
} UserFdCopy;

/* Copy the user-owned fds that are waited for.  Returns their number; the
   caller frees *rows and drops the references.  -1 with MemoryError. */
static Py_ssize_t
copy_registrations(FlLoop *loop, UserFdCopy **rows)
{
    Py_ssize_t capacity = 0, count = 0;
    /* The section protects the list without a GIL.  Counting and copying run
       no Python, so the list cannot change in between. */
    Py_BEGIN_CRITICAL_SECTION(loop);
    FlList *all = &loop->user_fds;
    for (FlList *link = all->next; link != all; link = link->next) {
        capacity++;
    }
    *rows = PyMem_New(UserFdCopy, (size_t)capacity);
    for (FlList *link = all->next; *rows != NULL && link != all;
         link = link->next) {
        FlUserFd *user_fd = FL_LIST_ENTRY(link, FlUserFd, link);
        if (fl_user_fd_wanted(user_fd) == 0) {
            continue; /* a persistent registration with no waiter */
        }
        UserFdCopy *row = &(*rows)[count++];
        row->fd = user_fd->reg->fd;
        row->refs.reader = Py_XNewRef(user_fd->refs.reader);
        row->refs.writer = Py_XNewRef(user_fd->refs.writer);
        row->refs.object = Py_XNewRef(user_fd->refs.object);
    }
    Py_END_CRITICAL_SECTION(); /* before an exception is made */
    if (*rows == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return count;
}

/* Append the tuple of one fd.  0, or -1 with an exception set. */
static int
append_registration(FlLoop *loop, const UserFdCopy *user_fd, PyObject *list)
{
    const FlFdRefs *refs = &user_fd->refs;
    PyObject *reader = handle_in_slot(loop, refs->reader);
    PyObject *writer =
        reader == NULL ? NULL : handle_in_slot(loop, refs->writer);
    PyObject *row =
        writer == NULL
            ? NULL
            : Py_BuildValue("iOOO", user_fd->fd,
                            refs->object == NULL ? Py_None : refs->object,
                            reader, writer);
    int code = row == NULL ? -1 : PyList_Append(list, row);
    Py_XDECREF(reader);
    Py_XDECREF(writer);
    Py_XDECREF(row);
    return code;
}

static const char registered_fds_doc[] =
    "registered_fds(loop, /)\n--\n\n"
    "Return what add_reader and add_writer have registered: a tuple for\n"
    "each descriptor of fd, object (None if it was an int), reader, writer.";

static PyObject *
registered_fds(PyObject *module, PyObject *object)
{
    FlLoop *loop = loop_of(module, object);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *list = begin_copy(loop);
    if (list == NULL) {
        return NULL;
    }
    /* First a copy, then the objects: invariant 4. */
    UserFdCopy *rows;
    Py_ssize_t count = copy_registrations(loop, &rows);
    int code = count < 0 ? -1 : 0;
    /* To the end even after a failure: each row owns references. */
    for (Py_ssize_t at = 0; at < count; at++) {
        FlFdRefs *refs = &rows[at].refs;
        code = code < 0 ? code : append_registration(loop, &rows[at], list);
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
    "Return the core's open transports, by file descriptor.";

static PyObject *
open_transports(PyObject *module, PyObject *object)
{
    FlLoop *loop = loop_of(module, object);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *found = PyDict_New();
    /* fl_fd_transport borrows; an int key runs no Python.  So no transport can
       be freed within the section. */
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
    "Return the handles in the ready queue, as asyncio's loop._ready.";

static const char scheduled_handles_doc[] =
    "scheduled_handles(loop, /)\n--\n\n"
    "Return the scheduled timer handles, as asyncio's loop._scheduled.";

static PyMethodDef functions[] = {
    {"ready_handles", ready_handles, METH_O, ready_handles_doc},
    {"scheduled_handles", scheduled_handles, METH_O, scheduled_handles_doc},
    {"registered_fds", registered_fds, METH_O, registered_fds_doc},
    {"open_transports", open_transports, METH_O, open_transports_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_introspection_register(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
