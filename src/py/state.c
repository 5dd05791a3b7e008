/* Module state: what is imported, interned and probed once per interpreter.

   1. FL_OBJECTS and FL_TYPES name every owned reference of FlState, except its
      interned strings.  A reference that is missing there leaks.  Interned
      strings are not visited: a str is not a GC object.
   2. A type whose struct begins with asyncio's slots is created only after its
      layout was checked (fl_type_derive).  An unknown layout would have a slot
      and a field of ours share memory.
   3. The types of task steps have no public name, so they are probed: a
      throw-away task on a stub loop shows which callables asyncio's C task
      passes to call_soon.  If the probe finds anything unknown, step_type and
      wakeup_function stay NULL, and steps run as ordinary callbacks. */
#include "py/state.h"

#include "py/compat.h"

#include <string.h>

/* Every owned reference apart from the names and the types: invariant 1. */
#define FL_OBJECTS(X)          \
    X(future_type)             \
    X(task_type)               \
    X(asyncio_handle)          \
    X(asyncio_safe_handle)     \
    X(asyncio_timer_handle)    \
    X(asyncio_transport)       \
    X(asyncio_datagrams)       \
    X(base_get_extra_info)     \
    X(buffered_protocol)       \
    X(asyncio_events)          \
    X(asyncio_tasks)           \
    X(asyncio_futures)         \
    X(get_running_loop)        \
    X(ensure_future)           \
    X(iscoroutine)             \
    X(isfuture)                \
    X(base_create_task)        \
    X(base_create_future)      \
    X(extract_stack)           \
    X(streams)                 \
    X(socket_type)             \
    X(socket_family)           \
    X(socket_kind)             \
    X(native_reader)           \
    X(filling)                 \
    X(asyncio_reader_type)     \
    X(asyncio_stream_protocol) \
    X(stream_data_received)    \
    X(stream_globals)          \
    X(asyncio_incomplete)      \
    X(asyncio_overrun)         \
    X(set_asyncgen_hooks)      \
    X(get_asyncgen_hooks)      \
    X(set_wakeup_fd)           \
    X(until_complete_cb)       \
    X(base_run_in_executor)    \
    X(thread_pool_type)        \
    X(submit_globals)          \
    X(submit_job)              \
    X(make_default)            \
    X(asyncio_cancelled)       \
    X(asyncio_invalid)         \
    X(concurrent_future)       \
    X(concurrent_cancelled)    \
    X(concurrent_invalid)      \
    X(empty_tuple)             \
    X(hooks_kwnames)           \
    X(object_class)            \
    X(tls)                     \
    X(tls_again_errors)        \
    X(tls_error)               \
    X(tls_zero_error)          \
    X(tls_certificate_error)   \
    X(loop_kwnames)

/* The owned references to types, which are PyTypeObject pointers. */
#define FL_TYPES(X)       \
    X(loop_type)          \
    X(handle_type)        \
    X(timer_type)         \
    X(stream_type)        \
    X(datagram_type)      \
    X(socket_call_type)   \
    X(listener_type)      \
    X(job_type)           \
    X(reader_type)        \
    X(tls_adapter_type)   \
    X(tls_transport_type) \
    X(step_type)

/* 0, or -1 with an exception set; names that are missing stay NULL. */
static int
names_init(FlNames *names)
{
#define INTERN(name)                                 \
    names->name = PyUnicode_InternFromString(#name); \
    if (names->name == NULL) {                       \
        return -1;                                   \
    }
    FL_NAMES(INTERN)
#undef INTERN
    return 0;
}

/* An object to import.  A dotted name is an attribute of a class. */
typedef struct {
    const char *module;
    const char *name;
    size_t offset; /* of the FlState field that owns it */
} Import;

#define IMPORT(module, name, member)             \
    {                                            \
        module, name, offsetof(FlState, member), \
    }

static const Import imports[] = {
    IMPORT("asyncio", "Future", future_type),
    IMPORT("asyncio", "Task", task_type),
    /* The mixin, because asyncio's sendfile checks for it by isinstance. */
    IMPORT("asyncio.transports", "_FlowControlMixin", asyncio_transport),
    IMPORT("asyncio.transports", "_FlowControlMixin.get_extra_info",
           base_get_extra_info),
    IMPORT("asyncio", "DatagramTransport", asyncio_datagrams),
    IMPORT("asyncio", "BufferedProtocol", buffered_protocol),
    IMPORT("asyncio.streams", "StreamReader", asyncio_reader_type),
    IMPORT("asyncio.streams", "StreamReaderProtocol", asyncio_stream_protocol),
    IMPORT("asyncio.streams", "__dict__", stream_globals),
    IMPORT("asyncio", "IncompleteReadError", asyncio_incomplete),
    IMPORT("asyncio", "LimitOverrunError", asyncio_overrun),
    IMPORT("asyncio", "ensure_future", ensure_future),
    IMPORT("asyncio", "iscoroutine", iscoroutine),
    IMPORT("asyncio", "isfuture", isfuture),
    IMPORT("asyncio", "BaseEventLoop.create_task", base_create_task),
    IMPORT("asyncio", "BaseEventLoop.create_future", base_create_future),
    /* The very function, not a copy: anyio recognises the application's main
       task by this done callback, and ends its worker threads with it. */
    IMPORT("asyncio.base_events", "_run_until_complete_cb", until_complete_cb),
    IMPORT("asyncio.format_helpers", "extract_stack", extract_stack),
    IMPORT("signal", "set_wakeup_fd", set_wakeup_fd),
    IMPORT("asyncio.events", "Handle", asyncio_handle),
    IMPORT("asyncio.events", "TimerHandle", asyncio_timer_handle),
    IMPORT("asyncio.events", FL_THREADSAFE_HANDLE, asyncio_safe_handle),
    IMPORT("asyncio.events", "__dict__", asyncio_events),
    IMPORT("asyncio.events", "_get_running_loop", get_running_loop),
    IMPORT("asyncio.tasks", "__dict__", asyncio_tasks),
    IMPORT("asyncio.futures", "__dict__", asyncio_futures),
    IMPORT("sys", "set_asyncgen_hooks", set_asyncgen_hooks),
    IMPORT("sys", "get_asyncgen_hooks", get_asyncgen_hooks),
};

/* A new reference, or NULL with an exception set. */
static PyObject *
import_one(const Import *import)
{
    PyObject *found = PyImport_ImportModule(import->module);
    const char *name = import->name;
    /* One attribute lookup for each part of the dotted name. */
    while (found != NULL && name != NULL) {
        const char *dot = strchr(name, '.');
        PyObject *part = dot == NULL
                             ? PyUnicode_FromString(name)
                             : PyUnicode_FromStringAndSize(name, dot - name);
        PyObject *next = part == NULL ? NULL : PyObject_GetAttr(found, part);
        Py_XDECREF(part);
        Py_SETREF(found, next);
        name = dot == NULL ? NULL : dot + 1;
    }
    return found;
}

/* 0, or -1 with an exception set. */
static int
import_all(FlState *state)
{
    for (size_t at = 0; at < sizeof(imports) / sizeof(imports[0]); at++) {
        PyObject **member = (PyObject **)((char *)state + imports[at].offset);
        *member = import_one(&imports[at]);
        if (*member == NULL) {
            return -1;
        }
    }
    /* A C function without arguments can be called by its pointer.  An
       application may have replaced it by a Python function before import. */
    if (PyCFunction_CheckExact(state->get_running_loop)
        && PyCFunction_GetFlags(state->get_running_loop) == METH_NOARGS)
    {
        state->running_loop_function =
            PyCFunction_GetFunction(state->get_running_loop);
        state->running_loop_self =
            PyCFunction_GetSelf(state->get_running_loop);
    }
    return 0;
}

/* Invariant 3.  fastloop/_task_probe.py runs the task.  It returns what the
   stub loop received, which is the step of a new task and the wake-up of a
   waiting task, or None.  0, or -1 with an exception set. */
static int
steps_probe(FlState *state)
{
    PyObject *probe = PyImport_ImportModule("fastloop._task_probe");
    PyObject *found = probe == NULL
                          ? NULL
                          : PyObject_CallMethod(probe, "task_callbacks", NULL);
    Py_XDECREF(probe);
    if (found == NULL) {
        return -1;
    }
    if (PyTuple_CheckExact(found) && PyTuple_GET_SIZE(found) == 2) {
        PyObject *step = PyTuple_GET_ITEM(found, 0);
        PyObject *wakeup = PyTuple_GET_ITEM(found, 1);
        if (PyCFunction_Check(wakeup)) {
            /* The step is an instance of a type of its own.  The wake-up is a
               built-in method, so its C function identifies it. */
            state->step_type = (PyTypeObject *)Py_NewRef(Py_TYPE(step));
            state->wakeup_function = PyCFunction_GetFunction(wakeup);
        }
    }
    Py_DECREF(found);
    return 0;
}

/* On failure the module's m_free releases what was set (see state.h). */
int
fl_state_init(FlState *state, PyObject *module)
{
    state->module = module;
    state->wakeup.fd = state->wakeup.before.fd = -1; /* 0 is a valid fd */
    if (PyThread_tss_create(&state->running) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (names_init(&state->names) < 0 || import_all(state) < 0) {
        return -1;
    }
    state->empty_tuple = PyTuple_New(0);
    state->hooks_kwnames =
        PyTuple_Pack(2, state->names.firstiter, state->names.finalizer);
    state->loop_kwnames = PyTuple_Pack(1, state->names.loop);
    if (state->empty_tuple == NULL || state->hooks_kwnames == NULL
        || state->loop_kwnames == NULL)
    {
        return -1;
    }
    return steps_probe(state);
}

int
fl_state_traverse(FlState *state, visitproc visit, void *arg)
{
#define VISIT(field) Py_VISIT(state->field);
    FL_OBJECTS(VISIT)
    FL_TYPES(VISIT)
#undef VISIT
    return 0;
}

void
fl_state_clear(FlState *state)
{
    /* Their types are borrowed from the fields cleared below. */
    memset(state->native_protocols, 0, sizeof(state->native_protocols));
#define CLEAR(field) Py_CLEAR(state->field);
    FL_OBJECTS(CLEAR)
    FL_TYPES(CLEAR)
#undef CLEAR
#define CLEAR_NAME(name) Py_CLEAR(state->names.name);
    FL_NAMES(CLEAR_NAME)
#undef CLEAR_NAME
}

FlState *
fl_state_get(PyObject *module)
{
    return (FlState *)PyModule_GetState(module);
}

PyTypeObject *
fl_type_add(PyObject *module, PyType_Spec *spec, PyObject *base)
{
    PyTypeObject *type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, base);
    if (type != NULL && PyModule_AddType(module, type) < 0) {
        Py_CLEAR(type);
    }
    if (type != NULL) {
        /* Threads that create handles would compete for its count. */
        fl_make_type_immortal((PyObject *)type);
    }
    return type;
}

/* --- types that inherit storage ------------------------------------------ */

/* Whether the list has a slot of that name at that offset. */
static bool
is_known_slot(const char *name, size_t offset, const FlBaseSlot *slots)
{
    while (slots->name != NULL
           && (strcmp(slots->name, name) != 0 || slots->offset != offset))
    {
        slots++;
    }
    return slots->name != NULL;
}

/* Raise the ImportError of fl_type_derive.  An empty `slot` means the end of
   the instance.  Returns -1. */
static int
raise_layout_error(const PyTypeObject *base, const char *slot)
{
    PyErr_Format(PyExc_ImportError,
                 "fastloop does not know this asyncio: %s%s%s is not where it "
                 "was in CPython 3.11 to 3.15",
                 base->tp_name, *slot == 0 ? "'s end" : ".", slot);
    return -1;
}

/* Check that every slot which the class itself defines is in the list.  0, or
   -1 with an exception set. */
static int
check_own_slots(PyTypeObject *base, const FlBaseSlot *slots)
{
    PyObject *dict = PyObject_GetAttrString((PyObject *)base, "__dict__");
    PyObject *values = dict == NULL ? NULL : PyMapping_Values(dict);
    Py_XDECREF(dict);
    int code = values == NULL ? -1 : 0;
    for (Py_ssize_t at = 0; code == 0 && at < PyList_GET_SIZE(values); at++) {
        PyObject *value = PyList_GET_ITEM(values, at);
        /* Each name in __slots__ becomes a member descriptor with an
           offset. */
        if (Py_IS_TYPE(value, &PyMemberDescr_Type)) {
            const PyMemberDef *slot = ((PyMemberDescrObject *)value)->d_member;
            if (!is_known_slot(slot->name, (size_t)slot->offset, slots)) {
                code = raise_layout_error(base, slot->name);
            }
        }
    }
    Py_XDECREF(values);
    return code;
}

/* The same for the class and all classes that it inherits from. */
static int
check_inherited_slots(PyTypeObject *base, const FlBaseSlot *slots)
{
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(base->tp_mro); at++) {
        PyObject *from = PyTuple_GET_ITEM(base->tp_mro, at);
        if (check_own_slots((PyTypeObject *)from, slots) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Check the slots of all bases, and the instance size of the first one: it
   provides the storage.  0, or -1 with an exception set. */
static int
check_layout(PyObject *bases, const FlBaseSlot *slots)
{
    /* The last entry's offset is the size that instances must have. */
    const FlBaseSlot *end = slots;
    while (end->name != NULL) {
        end++;
    }
    PyTypeObject *first = (PyTypeObject *)PyTuple_GET_ITEM(bases, 0);
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(bases); at++) {
        PyObject *base = PyTuple_GET_ITEM(bases, at);
        if (check_inherited_slots((PyTypeObject *)base, slots) < 0) {
            return -1;
        }
    }
    return (size_t)first->tp_basicsize == end->offset
               ? 0
               : raise_layout_error(first, "");
}

/* Invariant 2: the check comes before the type exists. */
PyTypeObject *
fl_type_derive(PyObject *module, PyType_Spec *spec, PyObject *base,
               PyObject *mixin, const FlBaseSlot *slots)
{
    PyTypeObject *type = NULL;
    PyObject *bases =
        mixin == NULL ? PyTuple_Pack(1, base) : PyTuple_Pack(2, base, mixin);
    if (bases != NULL && check_layout(bases, slots) == 0) {
        type = fl_type_add(module, spec, bases);
    }
    Py_XDECREF(bases);
    return type;
}
