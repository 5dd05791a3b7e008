/* The loop object: creation, closing, garbage collection, method table. */
#include "loop/base_loop.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/timer_queue.h"
#include "core/cork.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/overrides.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "core/sender.h"
#include "core/thread_queue.h"
#include "loop/add_reader.h"
#include "loop/introspection.h"
#include "loop/run.h"
#include "loop/scheduling.h"
#include "loop/tasks.h"
#include "loop/user_fd.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"

#include <stdlib.h>
#include <string.h>

/* --- creation ------------------------------------------------------------ */

static void loop_dealloc(FlLoop *loop);

/* BaseLoop, of which `type` is a subclass; only BaseLoop knows the module.
   With several bases, CPython's tp_base is the one that determines the
   instance's memory layout, so following it leads to BaseLoop. */
static PyTypeObject *
base_loop_type(PyTypeObject *type)
{
    while (type->tp_dealloc != (destructor)loop_dealloc) {
        type = type->tp_base;
    }
    return type;
}

/* Open what the loop waits with, as FASTLOOP_POLLER has it.  NULL with an
   exception. */
static FlFdTable *
open_table(void)
{
    const char *wanted = getenv("FASTLOOP_POLLER");
    if (wanted != NULL && *wanted != 0 && strcmp(wanted, "libuv") != 0) {
        PyErr_Format(PyExc_ValueError,
                     "FASTLOOP_POLLER is '%s', and may only be 'libuv'",
                     wanted);
        return NULL;
    }
    FlFdTable *table;
    int code = fl_fd_table_open(&table, wanted != NULL && *wanted != 0);
    if (code < 0) {
        (void)fl_raise_errno(code);
        return NULL;
    }
    return table;
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
         PyObject *Py_UNUSED(kwargs))
{
    PyObject *module = PyType_GetModule(base_loop_type(type));
    /* First, so that every loop has one: __del__ of a class may call the
       methods of a loop that is not finished. */
    FlFdTable *table = module == NULL ? NULL : open_table();
    if (table == NULL) {
        return NULL;
    }
    FlLoop *loop = (FlLoop *)type->tp_alloc(type, 0);
    if (loop == NULL) {
        fl_fd_table_close(table);
        fl_fd_table_free(table);
        return NULL;
    }
    /* tp_alloc has zeroed the rest. */
    loop->table = table;
    Py_INCREF(module);
    loop->state = fl_state_get(module);
    loop->forks = loop->reinit_forks = fl_forks_count();
    loop->timing.slow_s = 0.1;
    fl_list_init(&loop->transports);
    fl_cork_init(&loop->cork);
    fl_timer_queue_init(&loop->timers);
    /* Until everything is initialized the object counts as closed: if an
       initialization fails, loop_dealloc runs and must accept it. */
    loop->closed = true;
    if (fl_ready_init(&loop->ready) < 0
        || (!FL_HAVE_GIL && fl_ready_init(&loop->thread_queue.ready) < 0)
        || fl_overrides_check_class(loop) < 0)
    {
        Py_DECREF(loop);
        return NULL;
    }
    loop->closed = false;
    return (PyObject *)loop;
}

/* --- closing ------------------------------------------------------------- */

/* Release the entries of the ready queue without running them. */
static void
drop_ready(FlLoop *loop)
{
    FlReadyQueue *queue = &loop->ready;
    FlFdTable *table = loop->table;
    while (fl_ready_count(queue) > 0) {
        /* Popped before it is dropped: destructors may cancel what is left. */
        fl_fd_table_lock(table);
        FlReady entry = *fl_ready_pop(queue);
        if (entry.kind == FL_READY_EVENT) {
            /* The entry owns nothing.  The registration is closed later and
               must not point into the queue. */
            entry.of.reg->entry = NULL;
            entry.of.reg->fired = 0;
        }
        else if (entry.kind == FL_READY_CALL && entry.of.handle != NULL) {
            entry.of.handle->entry = NULL; /* the application has it */
        }
        fl_fd_table_unlock(table);
        fl_ready_clear(&entry);
    }
}

/* Release the scheduled timers one by one, each taken out first: a destructor
   may cancel another timer, which changes the queue. */
static void
drop_timers(FlLoop *loop)
{
    FlTimerNode *node;
    while ((node = fl_timer_queue_pop(&loop->timers)) != NULL) {
        Py_DECREF(fl_timer_of(node));
    }
}

/* Abandon every open transport, which drops the loop's reference to it.  By a
   function pointer, because this folder may not include transport/. */
static void
abandon_transports(FlList *list)
{
    FlList *link;
    while ((link = fl_list_pop(list)) != NULL) {
        FlOpenTransport *transport =
            FL_LIST_ENTRY(link, FlOpenTransport, link);
        transport->kind->abandon(transport);
    }
}

/* Release everything.  Also called for a loop that loop_new could not finish,
   so each part may be missing. */
static void
close_core(FlLoop *loop)
{
    /* First: destructors may call the loop, which must refuse what they add,
       or that would never be released. */
    loop->closed = true;
    fl_thread_queue_close(loop);
    if (loop->ready.head_chunk != NULL) {
        drop_ready(loop);
    }
    drop_timers(loop);
    abandon_transports(&loop->transports);
    atomic_store(&loop->open_connections, 0);
    fl_user_fd_drop_all(loop);
    /* It frees the registrations that are left, so their owners had to go
       first. */
    fl_fd_table_close(loop->table);
    Py_CLEAR(loop->future_keywords);
    free(loop->scratch);
    loop->scratch = NULL;
    free(loop->datagram_buffers);
    loop->datagram_buffers = NULL;
    if (loop->metrics != NULL) {
        fl_metrics_closed(loop->metrics);
    }
}

static const char close_doc[] =
    "_close($self, /)\n--\n\n"
    "Close the core of the loop; does nothing if it is closed already.\n\n"
    "Queued callbacks and timers are dropped without running,\n"
    "descriptors are no longer polled, and open transports are left to the\n"
    "garbage collector.  Raises RuntimeError if the loop is running.  Part\n"
    "of asyncio's loop.close(), which fastloop.Loop completes.";

/* The claim decides whether the loop may be closed, not is_running(): a single
   _run_once() outside a run counts as running, too. */
static PyObject *
loop_close(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    /* Held while it closes: destructors run, and must not run the loop. */
    if (!fl_loop_claim(loop)) {
        return PyErr_Format(PyExc_RuntimeError,
                            "Cannot close a running event loop");
    }
    if (!loop->closed) {
        close_core(loop);
    }
    fl_loop_unclaim(loop);
    Py_RETURN_NONE;
}

/* --- garbage collection -------------------------------------------------- */

/* Visit the loop's references to its transports.  A transport from which the
   loop expects nothing visits the loop's reference to it itself
   (FlOpenTransportKind.visits_own_ref), so that the GC can collect it.
   Visiting it twice would break the GC's reference counts. */
static int
visit_transports(const FlList *list, visitproc visit, void *arg)
{
    for (const FlList *link = list->next; link != list; link = link->next) {
        FlOpenTransport *transport =
            FL_LIST_ENTRY((FlList *)link, FlOpenTransport, link);
        if (!transport->kind->visits_own_ref(transport)) {
            Py_VISIT(fl_open_transport_object(transport));
        }
    }
    return 0;
}

#define VISIT(name) Py_VISIT(loop->name);
#define CLEAR(name) Py_CLEAR(loop->name);

/* Every reference that the loop owns, also those in its queues: a cycle
   through one that is left out would never be collected. */
static int
loop_traverse(FlLoop *loop, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(loop));
    Py_VISIT(loop->state->module);
    FL_LOOP_OBJECTS(VISIT)
    Py_VISIT(loop->timing.callback);
    Py_VISIT(loop->future_keywords);
    Py_VISIT(loop->patched_run);
    Py_VISIT(loop->dict);
    FlTimerNode *timer;
    size_t at = 0;
    while ((timer = fl_timer_queue_each(&loop->timers, &at)) != NULL) {
        Py_VISIT(fl_timer_of(timer));
    }
    int result = fl_ready_traverse(&loop->ready, visit, arg);
    if (result == 0) {
        /* Takes no lock: without a GIL, GC has stopped the other threads. */
        result = fl_ready_traverse(&loop->thread_queue.ready, visit, arg);
    }
    if (result == 0) {
        result = visit_transports(&loop->transports, visit, arg);
    }
    return result != 0 ? result : fl_user_fd_traverse(loop, visit, arg);
}

/* Close it.  A loop that nothing reaches is garbage together with its
   transports: only the GC can break that cycle (visit_transports).  Attributes
   that Python code set are cleared last, because closing may still report
   errors through them. */
static int
loop_clear(FlLoop *loop)
{
    PyObject *exc = PyErr_GetRaisedException(); /* of the code that drops it */
    if (fl_loop_is_running(loop)) {
        /* Begun by an application that has forgotten the loop. */
        fl_loop_end_run(loop);
    }
    close_core(loop);
    fl_error_restore(exc);
    FL_LOOP_OBJECTS(CLEAR)
    Py_CLEAR(loop->patched_run);
    Py_CLEAR(loop->spare_bytes);
    Py_CLEAR(loop->dict);
    return 0;
}

static void
loop_dealloc(FlLoop *loop)
{
    PyObject *module = loop->state->module;
    PyObject_GC_UnTrack(loop);
    (void)loop_clear(loop);
    /* After close_core, because destructors may still have used these. */
    fl_sender_unwatch(&loop->cork);
    fl_ready_free(&loop->ready);
    fl_timer_queue_free(&loop->timers);
    fl_handle_pool_free(&loop->handle_pool);
    fl_handle_pool_free(&loop->timer_pool);
    fl_fd_table_free(loop->table);
    free(loop->metrics);
    fl_object_free(loop);
    Py_DECREF(module); /* it owns the state */
}

/* --- attributes ---------------------------------------------------------- */

static const char is_running_doc[] =
    "is_running($self, /)\n--\n\n"
    "Return True while the loop runs.  Implements asyncio's\n"
    "loop.is_running().";

static PyObject *
is_running(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(fl_loop_is_running(loop));
}

static const char get_debug_doc[] =
    "get_debug($self, /)\n--\n\n"
    "Return True in debug mode.  Implements asyncio's loop.get_debug().";

static PyObject *
get_debug(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(loop->debug);
}

/* Getter and setter of asyncio's attributes that are flags; the closure is the
   field's offset.  Not a PyMemberDef, because asyncio's attributes take
   any object.  Servers that stop a loop and then run it once more clear
   _stopping. */
static PyObject *
flag_get(FlLoop *loop, void *offset)
{
    return PyBool_FromLong(*(FL_ATOMIC bool *)((char *)loop + (size_t)offset));
}

static int
flag_set(FlLoop *loop, PyObject *value, void *offset)
{
    /* run_forever must be able to clear _stopping. */
    int on = value == NULL || value == Py_False ? 0 : PyObject_IsTrue(value);
    if (on >= 0) {
        *(FL_ATOMIC bool *)((char *)loop + (size_t)offset) = on;
    }
    return on < 0 ? -1 : 0;
}

static const char enable_doc[] =
    "_enable_metrics($self, /)\n--\n\n"
    "Collect metrics from now on, until the loop is freed.  Raises\n"
    "RuntimeError if the loop is closed, or MemoryError.";

static PyObject *
enable(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    return fl_call_none(
        fl_loop_check_open(loop) < 0 ? -1 : fl_metrics_enable(loop));
}

static const char read_metrics_doc[] =
    "_read_metrics($self, /)\n--\n\n"
    "Return the metrics as a list of ints; None while they are off.";

static PyObject *
read_metrics(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    if (loop->metrics == NULL) {
        Py_RETURN_NONE;
    }
    return fl_metrics_read(loop);
}

static const char running_callback_doc[] =
    "_running_callback($self, /)\n--\n\n"
    "Return a number that identifies the callback that runs now, and for how\n"
    "many nanoseconds it has run.  None while none runs, or metrics are off.\n"
    "Any thread may call this.";

static PyObject *
running_callback(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    FlMetrics *metrics = loop->metrics;
    uint64_t began_ns =
        metrics == NULL ? 0 : fl_count_get(&metrics->callback_began_ns);
    if (began_ns == 0) {
        Py_RETURN_NONE;
    }
    /* A tick of the coarse clock may be behind. */
    int64_t ran_ns = fl_clock_coarse_ns() - (int64_t)began_ns;
    return Py_BuildValue("(KL)", (unsigned long long)loop->callback_count,
                         (long long)Py_MAX(ran_ns, 0));
}

static PyObject *
ready_count(FlLoop *loop, void *Py_UNUSED(closure))
{
    if (fl_loop_on_other_thread(loop)) {
        return PyErr_Format(PyExc_RuntimeError,
                            "without a GIL only its own thread may read the "
                            "queue of a running loop");
    }
    /* What other threads have queued counts, too. */
    return fl_thread_queue_drain(loop) < 0
               ? NULL
               : PyLong_FromUnsignedLongLong(fl_ready_count(&loop->ready));
}

static int
object_set(FlLoop *loop, PyObject *value, void *offset)
{
    fl_field_set(loop, (PyObject **)((char *)loop + (size_t)offset), value);
    return 0;
}

#define OBJECT(name)                                          \
    {"_" #name, fl_field_attribute, (setter)object_set, NULL, \
     (void *)offsetof(FlLoop, name)},

#define FLAG(name)                                           \
    {                                                        \
        "_" #name, (getter)flag_get, (setter)flag_set, NULL, \
            (void *)offsetof(FlLoop, name)                   \
    }

/* Attributes of asyncio's own loop, under its names, for fastloop/loop.py.
   __dict__ is declared here and by __dictoffset__ below: instances need one
   for attributes that applications set. */
static PyGetSetDef loop_getset[] = {
    FLAG(debug),
    FLAG(stopping),
    FLAG(asyncgens_shutdown_called),
    FLAG(executor_shutdown_called),
    FLAG(coroutine_origin_tracking_enabled),
    {"_closed", (getter)flag_get, NULL, NULL,
     (void *)offsetof(FlLoop, closed)},
    {"_thread_id", (getter)fl_loop_thread_id_get,
     (setter)fl_loop_thread_id_set, NULL, NULL},
    {"_ready_count", (getter)ready_count, NULL, NULL, NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    FL_LOOP_OBJECTS(OBJECT){NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef loop_members[] = {
    {"_off", Py_T_UINT, offsetof(FlLoop, off), 0, NULL},
    {"_slow_s", Py_T_DOUBLE, offsetof(FlLoop, timing.slow_s), 0, NULL},
    {"_next_deadline", Py_T_DOUBLE, offsetof(FlLoop, timers.next_s),
     Py_READONLY, NULL},
    {"__dictoffset__", Py_T_PYSSIZET, offsetof(FlLoop, dict), Py_READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

/* The docstring of `function` is in function_doc. */
#define AS_METHOD(function)     (PyCFunction)(void (*)(void)) function
#define FAST_KW(name, function) PLAIN(name, function, FL_FASTCALL)
#define PLAIN(name, function, flags) \
    FL_METHOD(name, function, flags, function##_doc)

static PyMethodDef loop_methods[] = {
    FAST_KW("call_soon", fl_loop_call_soon),
    FAST_KW("call_soon_threadsafe", fl_loop_call_soon_threadsafe),
    FAST_KW("call_later", fl_loop_call_later),
    FAST_KW("call_at", fl_loop_call_at),
    PLAIN("time", fl_loop_time, METH_NOARGS),
    PLAIN("_iterate_until_stopped", fl_loop_iterate_until_stopped,
          METH_NOARGS),
    PLAIN("_run_once", fl_loop_run_once, METH_NOARGS),
    PLAIN("_run_shuffled", fl_loop_run_shuffled, METH_VARARGS),
    PLAIN("_nest", fl_loop_nest, METH_O),
    PLAIN("create_future", fl_loop_create_future, METH_NOARGS),
    FAST_KW("create_task", fl_loop_create_task),
    FAST_KW("_add_reader", fl_loop_add_reader),
    FAST_KW("_add_writer", fl_loop_add_writer),
    PLAIN("_remove_reader", fl_loop_remove_reader, METH_O),
    PLAIN("_remove_writer", fl_loop_remove_writer, METH_O),
    PLAIN("_ensure_fd_no_transport", fl_loop_ensure_no_transport, METH_O),
    {"_enable_metrics", AS_METHOD(enable), METH_NOARGS, enable_doc},
    PLAIN("_read_metrics", read_metrics, METH_NOARGS),
    PLAIN("_running_callback", running_callback, METH_NOARGS),
    PLAIN("_fd_users", fl_loop_fd_users, METH_NOARGS),
    {"_close", AS_METHOD(loop_close), METH_NOARGS, close_doc},
    {"is_running", AS_METHOD(is_running), METH_NOARGS, is_running_doc},
    {"get_debug", AS_METHOD(get_debug), METH_NOARGS, get_debug_doc},
    {NULL, NULL, 0, NULL},
};

static const char loop_doc[] =
    "BaseLoop()\n--\n\n"
    "The part of fastloop.Loop that runs per callback, written in C.\n\n"
    "Not to be used on its own: fastloop.Loop is the complete class.";

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, (void *)loop_doc},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_methods, loop_methods},
    {Py_tp_members, loop_members},
    {Py_tp_getset, loop_getset},
    {0, NULL},
};

int
fl_loop_register(PyObject *module, FlState *state)
{
    PyType_Spec spec = {"fastloop._core.BaseLoop", sizeof(FlLoop), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE
                            | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                        loop_slots};
    state->loop_type = fl_type_add(module, &spec, NULL);
    return state->loop_type == NULL ? -1 : 0;
}
