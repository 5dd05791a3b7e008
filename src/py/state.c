/* Module state: what is imported, interned and learned once per interpreter.

   1. All references are owned by the state and visited by the collector.
   2. Task steps are learned, not named: a throw-away task on a stub loop shows
      which callables asyncio's C task gives to call_soon.  When it shows
      something unknown, both fields stay NULL and steps are ordinary
      callbacks. */
#include "py/state.h"

/* Every owned reference apart from the names and the types. */
#define FL_OBJECTS(X)       \
    X(future_type)          \
    X(task_type)            \
    X(asyncio_handle)       \
    X(asyncio_safe_handle)  \
    X(asyncio_timer_handle) \
    X(asyncio_transport)    \
    X(asyncio_datagrams)    \
    X(base_get_extra_info)  \
    X(buffered_protocol)    \
    X(asyncio_events)       \
    X(asyncio_tasks)        \
    X(asyncio_futures)      \
    X(get_running_loop)     \
    X(ensure_future)        \
    X(iscoroutine)          \
    X(isfuture)             \
    X(base_create_task)     \
    X(base_create_future)   \
    X(extract_stack)        \
    X(streams)              \
    X(af_inet)              \
    X(af_inet6)             \
    X(sock_stream)          \
    X(sock_dgram)           \
    X(socket_type)          \
    X(set_asyncgen_hooks)   \
    X(get_asyncgen_hooks)   \
    X(set_wakeup_fd)        \
    X(until_complete_cb)    \
    X(base_run_in_executor) \
    X(asyncio_cancelled)    \
    X(asyncio_invalid)      \
    X(concurrent_future)    \
    X(concurrent_cancelled) \
    X(concurrent_invalid)   \
    X(empty_tuple)          \
    X(hooks_kwnames)        \
    X(loop_kwnames)

#define FL_TYPES(X)     \
    X(loop_type)        \
    X(handle_type)      \
    X(timer_type)       \
    X(stream_type)      \
    X(datagram_type)    \
    X(socket_call_type) \
    X(listener_type)    \
    X(pool_type)        \
    X(worker_type)      \
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

static int
take(PyObject *module, const char *name, PyObject **slot)
{
    *slot = module == NULL ? NULL : PyObject_GetAttrString(module, name);
    return *slot == NULL ? -1 : 0;
}

static int
asyncio_init(FlState *state)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    PyObject *events = PyImport_ImportModule("asyncio.events");
    PyObject *tasks = PyImport_ImportModule("asyncio.tasks");
    PyObject *futures = PyImport_ImportModule("asyncio.futures");
    PyObject *transports = PyImport_ImportModule("asyncio.transports");
    PyObject *formats = PyImport_ImportModule("asyncio.format_helpers");
    PyObject *sys = PyImport_ImportModule("sys");
    PyObject *signals = PyImport_ImportModule("signal");
    PyObject *base = NULL;
    int result = -1;
    if (take(asyncio, "Future", &state->future_type) == 0
        && take(asyncio, "Task", &state->task_type) == 0
        /* The mixin, for asyncio's sendfile takes no other transport. */
        && take(transports, "_FlowControlMixin", &state->asyncio_transport)
               == 0
        && take(state->asyncio_transport, "get_extra_info",
                &state->base_get_extra_info)
               == 0
        && take(asyncio, "DatagramTransport", &state->asyncio_datagrams) == 0
        && take(asyncio, "BufferedProtocol", &state->buffered_protocol) == 0
        && take(asyncio, "ensure_future", &state->ensure_future) == 0
        && take(asyncio, "iscoroutine", &state->iscoroutine) == 0
        && take(asyncio, "isfuture", &state->isfuture) == 0
        && take(asyncio, "BaseEventLoop", &base) == 0
        && take(base, "create_task", &state->base_create_task) == 0
        && take(base, "create_future", &state->base_create_future) == 0
        && take(formats, "extract_stack", &state->extract_stack) == 0
        && take(signals, "set_wakeup_fd", &state->set_wakeup_fd) == 0
        && take(events, "Handle", &state->asyncio_handle) == 0
        && take(events, "TimerHandle", &state->asyncio_timer_handle) == 0
        && take(events, FL_THREADSAFE_HANDLE, &state->asyncio_safe_handle) == 0
        && take(events, "__dict__", &state->asyncio_events) == 0
        && take(events, "_get_running_loop", &state->get_running_loop) == 0
        && take(tasks, "__dict__", &state->asyncio_tasks) == 0
        && take(futures, "__dict__", &state->asyncio_futures) == 0
        && take(sys, "set_asyncgen_hooks", &state->set_asyncgen_hooks) == 0
        && take(sys, "get_asyncgen_hooks", &state->get_asyncgen_hooks) == 0)
    {
        result = 0;
    }
    if (result == 0 && PyCFunction_CheckExact(state->get_running_loop)
        && PyCFunction_GetFlags(state->get_running_loop) == METH_NOARGS)
    {
        state->running_loop_function =
            PyCFunction_GetFunction(state->get_running_loop);
        state->running_loop_self =
            PyCFunction_GetSelf(state->get_running_loop);
    }
    Py_XDECREF(asyncio);
    Py_XDECREF(events);
    Py_XDECREF(tasks);
    Py_XDECREF(futures);
    Py_XDECREF(transports);
    Py_XDECREF(formats);
    Py_XDECREF(signals);
    Py_XDECREF(base);
    Py_XDECREF(sys);
    return result;
}

/* Invariant 2.  `learned` is what the stub loop saw: the step of a new task
   and the wake-up of a task that waits; the helper that ran it is Python. */
static int
steps_learn(FlState *state)
{
    PyObject *learn = PyImport_ImportModule("fastloop._learn");
    PyObject *learned =
        learn == NULL ? NULL
                      : PyObject_CallMethod(learn, "task_callbacks", NULL);
    Py_XDECREF(learn);
    if (learned == NULL) {
        return -1;
    }
    if (PyTuple_CheckExact(learned) && PyTuple_GET_SIZE(learned) == 2) {
        PyObject *step = PyTuple_GET_ITEM(learned, 0);
        PyObject *wakeup = PyTuple_GET_ITEM(learned, 1);
        if (PyCFunction_Check(wakeup)) {
            state->step_type = (PyTypeObject *)Py_NewRef(Py_TYPE(step));
            state->wakeup_function = PyCFunction_GetFunction(wakeup);
        }
    }
    Py_DECREF(learned);
    return 0;
}

int
fl_state_init(FlState *state, PyObject *module)
{
    state->module = module;
    state->handlers_wakeup_fd = -1;
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
    return steps_learn(state);
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
        fl_share_among_threads((PyObject *)type);
    }
    return type;
}
