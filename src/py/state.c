/* Module state: what is imported, interned and probed once per interpreter.

   1. All references are owned by the state and visited by the collector.
   2. Task steps are probed, not named: a throw-away task on a stub loop shows
      which callables asyncio's C task gives to call_soon.  When it shows
      something unknown, both fields stay NULL and steps are ordinary
      callbacks. */
#include "py/state.h"

#include "py/compat.h"

#include <string.h>

/* Every owned reference apart from the names and the types. */
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
    X(asyncio_reader)          \
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

/* What is taken from which module; a name with a dot is of a class in it. */
typedef struct {
    const char *module;
    const char *name;
    size_t offset; /* of the FlState's member that takes it */
} Import;

#define TAKE(module, name, member)               \
    {                                            \
        module, name, offsetof(FlState, member), \
    }

static const Import imports[] = {
    TAKE("asyncio", "Future", future_type),
    TAKE("asyncio", "Task", task_type),
    /* The mixin, for asyncio's sendfile takes no other transport. */
    TAKE("asyncio.transports", "_FlowControlMixin", asyncio_transport),
    TAKE("asyncio.transports", "_FlowControlMixin.get_extra_info",
         base_get_extra_info),
    TAKE("asyncio", "DatagramTransport", asyncio_datagrams),
    TAKE("asyncio", "BufferedProtocol", buffered_protocol),
    TAKE("asyncio.streams", "StreamReader", asyncio_reader),
    TAKE("asyncio.streams", "StreamReaderProtocol", asyncio_stream_protocol),
    TAKE("asyncio.streams", "__dict__", stream_globals),
    TAKE("asyncio", "IncompleteReadError", asyncio_incomplete),
    TAKE("asyncio", "LimitOverrunError", asyncio_overrun),
    TAKE("asyncio", "ensure_future", ensure_future),
    TAKE("asyncio", "iscoroutine", iscoroutine),
    TAKE("asyncio", "isfuture", isfuture),
    TAKE("asyncio", "BaseEventLoop.create_task", base_create_task),
    TAKE("asyncio", "BaseEventLoop.create_future", base_create_future),
    /* anyio finds a program's main task by it, and its threads live as long
       as that task. */
    TAKE("asyncio.base_events", "_run_until_complete_cb", until_complete_cb),
    TAKE("asyncio.format_helpers", "extract_stack", extract_stack),
    TAKE("signal", "set_wakeup_fd", set_wakeup_fd),
    TAKE("asyncio.events", "Handle", asyncio_handle),
    TAKE("asyncio.events", "TimerHandle", asyncio_timer_handle),
    TAKE("asyncio.events", FL_THREADSAFE_HANDLE, asyncio_safe_handle),
    TAKE("asyncio.events", "__dict__", asyncio_events),
    TAKE("asyncio.events", "_get_running_loop", get_running_loop),
    TAKE("asyncio.tasks", "__dict__", asyncio_tasks),
    TAKE("asyncio.futures", "__dict__", asyncio_futures),
    TAKE("sys", "set_asyncgen_hooks", set_asyncgen_hooks),
    TAKE("sys", "get_asyncgen_hooks", get_asyncgen_hooks),
};

/* A new reference, or NULL. */
static PyObject *
take(const Import *import)
{
    PyObject *found = PyImport_ImportModule(import->module);
    const char *name = import->name;
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

static int
asyncio_init(FlState *state)
{
    for (size_t at = 0; at < sizeof(imports) / sizeof(imports[0]); at++) {
        PyObject **member = (PyObject **)((char *)state + imports[at].offset);
        *member = take(&imports[at]);
        if (*member == NULL) {
            return -1;
        }
    }
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

/* Invariant 2.  `found` is what the stub loop saw: the step of a new task
   and the wake-up of a task that waits; the helper that ran it is Python. */
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
            state->step_type = (PyTypeObject *)Py_NewRef(Py_TYPE(step));
            state->wakeup_function = PyCFunction_GetFunction(wakeup);
        }
    }
    Py_DECREF(found);
    return 0;
}

int
fl_state_init(FlState *state, PyObject *module)
{
    state->module = module;
    state->wakeup.fd = state->wakeup.before.fd = -1;
    if (PyThread_tss_create(&state->running) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (names_init(&state->names) < 0 || asyncio_init(state) < 0) {
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
        fl_make_type_immortal((PyObject *)type);
    }
    return type;
}

/* --- types that inherit storage ------------------------------------------ */

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

static int
refuse_layout(const PyTypeObject *base, const char *slot)
{
    PyErr_Format(PyExc_ImportError,
                 "fastloop does not know this asyncio: %s%s%s is not where it "
                 "was in CPython 3.11 to 3.15",
                 base->tp_name, *slot == 0 ? "'s end" : ".", slot);
    return -1;
}

/* Every slot that a class itself defines is one of the list. */
static int
check_slots(PyTypeObject *base, const FlBaseSlot *slots)
{
    PyObject *dict = PyObject_GetAttrString((PyObject *)base, "__dict__");
    PyObject *values = dict == NULL ? NULL : PyMapping_Values(dict);
    Py_XDECREF(dict);
    int code = values == NULL ? -1 : 0;
    for (Py_ssize_t at = 0; code == 0 && at < PyList_GET_SIZE(values); at++) {
        PyObject *value = PyList_GET_ITEM(values, at);
        if (Py_IS_TYPE(value, &PyMemberDescr_Type)) {
            const PyMemberDef *slot = ((PyMemberDescrObject *)value)->d_member;
            if (!is_known_slot(slot->name, (size_t)slot->offset, slots)) {
                code = refuse_layout(base, slot->name);
            }
        }
    }
    Py_XDECREF(values);
    return code;
}

/* Of a base, and of the classes that it inherits from. */
static int
check_base(PyTypeObject *base, const FlBaseSlot *slots)
{
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(base->tp_mro); at++) {
        PyObject *from = PyTuple_GET_ITEM(base->tp_mro, at);
        if (check_slots((PyTypeObject *)from, slots) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The first of the bases is the one that has the storage. */
static int
check_layout(PyObject *bases, const FlBaseSlot *slots)
{
    const FlBaseSlot *end = slots;
    while (end->name != NULL) {
        end++;
    }
    PyTypeObject *first = (PyTypeObject *)PyTuple_GET_ITEM(bases, 0);
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(bases); at++) {
        PyObject *base = PyTuple_GET_ITEM(bases, at);
        if (check_base((PyTypeObject *)base, slots) < 0) {
            return -1;
        }
    }
    return (size_t)first->tp_basicsize == end->offset
               ? 0
               : refuse_layout(first, "");
}

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
