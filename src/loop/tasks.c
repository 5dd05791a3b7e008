/* Futures and tasks: asyncio's own C types, made for this loop.

   They stay CPython's, so that all_tasks, eager tasks, debuggers and
   `python -m asyncio ps` keep working.

   1. A future or task belongs to this loop, whichever loop is set as running:
      a callback may have called asyncio._set_running_loop().
   2. An application may replace asyncio's Task and Future; then asyncio's own
      methods, which look them up, are called.  During a run the check made at
      its beginning counts (loop->plain_tasks). */
#include "loop/tasks.h"

#include "core/loop.h"
#include "py/compat.h"
#include "py/state.h"

#if FL_RUNNING_LOOP_IS_CHEAP

/* Whether this loop is set as running, so that a future made without loop=
   belongs to it. */
static bool
is_default_loop(FlLoop *loop)
{
    PyObject *running = PyObject_CallNoArgs(loop->state->get_running_loop);
    if (running == NULL) {
        PyErr_Clear(); /* not ours in any case: the caller passes loop= */
        return false;
    }
    Py_DECREF(running); /* only the address is compared below */
    return running == (PyObject *)loop;
}

/* type(loop=loop), or type(coro, loop=loop) if coro is not NULL. */
static PyObject *
construct(FlLoop *loop, PyObject *type, PyObject *coro)
{
    if (FL_LIKELY(is_default_loop(loop))) {
        /* Without loop=, for which CPython makes a dict that costs more than
           the future. */
        return coro == NULL ? PyObject_CallNoArgs(type)
                            : PyObject_CallOneArg(type, coro);
    }
    PyObject *call[2] = {coro, (PyObject *)loop};
    return PyObject_Vectorcall(type, coro == NULL ? call + 1 : call,
                               coro != NULL, loop->state->loop_kwnames);
}

#else

/* {"loop": loop}, a new reference, or NULL.  An open loop keeps it for the
   next call: asyncio's types only read it. */
static PyObject *
future_keywords(FlLoop *loop)
{
    if (loop->future_keywords == NULL) {
        PyObject *keywords = PyDict_New(), *name = loop->state->names.loop;
        if (keywords == NULL
            || PyDict_SetItem(keywords, name, (PyObject *)loop) < 0) {
            Py_XDECREF(keywords);
            return NULL;
        }
        /* Allocating may have run code that closed the loop or set it. */
        if (loop->closed) {
            return keywords;
        }
        Py_XSETREF(loop->future_keywords, keywords);
    }
    return Py_NewRef(loop->future_keywords);
}

/* The same for 3.11, where asking for the running loop costs a system call. */
static PyObject *
construct(FlLoop *loop, PyObject *type, PyObject *coro)
{
    PyObject *args = coro == NULL ? Py_NewRef(loop->state->empty_tuple)
                                  : PyTuple_Pack(1, coro);
    PyObject *keywords = args == NULL ? NULL : future_keywords(loop);
    PyObject *created =
        keywords == NULL ? NULL : PyObject_Call(type, args, keywords);
    Py_XDECREF(keywords);
    Py_XDECREF(args);
    return created;
}

#endif

/* Whether a name in a module's dict still refers to `expected`: 1, 0 or -1. */
static int
is_unchanged(PyObject *module_dict, PyObject *name, const void *expected)
{
    PyObject *now = PyObject_GetItem(module_dict, name);
    Py_XDECREF(now); /* only the address is compared */
    return now == NULL ? -1 : (const void *)now == expected;
}

int
fl_tasks_are_plain(const FlLoop *loop)
{
    const FlState *state = loop->state;
    int plain = is_unchanged(state->asyncio_tasks, state->names.Task,
                             state->task_type);
    return plain <= 0 ? plain
                      : is_unchanged(state->asyncio_futures,
                                     state->names.Future, state->future_type);
}

/* Whether to instantiate asyncio's types directly: 1, 0 or -1.  See
   invariant 2. */
static inline int
uses_asyncio_types(const FlLoop *loop)
{
    /* Outside a run nothing has been checked in advance. */
    return FL_LIKELY(loop->plain_tasks && fl_loop_is_running(loop))
               ? 1
               : fl_tasks_are_plain(loop);
}

const char fl_loop_create_future_doc[] =
    "create_future($self, /)\n--\n\n"
    "Return a new asyncio.Future of this loop.\n\n"
    "Implements asyncio's loop.create_future().";

PyObject *
fl_loop_create_future(FlLoop *loop, PyObject *Py_UNUSED(ignored))
{
    int plain = uses_asyncio_types(loop);
    if (FL_UNLIKELY(plain <= 0)) {
        /* Not plain: asyncio's method looks the class up in its module. */
        return plain < 0 ? NULL
                         : PyObject_CallOneArg(loop->state->base_create_future,
                                               (PyObject *)loop);
    }
    return construct(loop, loop->state->future_type, NULL);
}

/* asyncio.BaseEventLoop.create_task(loop, *args, **kwargs), with the arguments
   as they were passed. */
static PyObject *
create_by_asyncio(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    PyObject *method =
        PyMethod_New(loop->state->base_create_task, (PyObject *)loop);
    PyObject *task = method == NULL
                         ? NULL
                         : PyObject_Vectorcall(method, args, nargs, kwnames);
    Py_XDECREF(method);
    return task;
}

/* From 3.13.3 on, create_task passes any keyword to the task. */
#define ANY_KEYWORD (PY_VERSION_HEX >= 0x030D0300)
#if PY_VERSION_HEX >= 0x030E0000
#define CREATE_TASK_KEYWORDS "**kwargs"
#elif ANY_KEYWORD
#define CREATE_TASK_KEYWORDS "*, name=None, context=None, **kwargs"
#else
#define CREATE_TASK_KEYWORDS "*, name=None, context=None"
#endif

const char fl_loop_create_task_doc[] =
    "create_task($self, coro, " CREATE_TASK_KEYWORDS ")\n--\n\n"
    "Schedule a coroutine; return its task.\n\n"
    "The keywords (name, context; from 3.13.3 any) are passed unchanged to\n"
    "the task or to the task factory.  Raises TypeError if coro is not a\n"
    "coroutine, RuntimeError if the loop is closed.  Implements asyncio's\n"
    "loop.create_task().";

/* The most keywords that are passed from an array on the stack. */
#define MOST_KEYWORDS 4

/* Whether the Task type accepts these keywords just as create_task does.  The
   known names are compared by address; if one is not interned, asyncio's own
   create_task decides. */
static inline bool
accepts_keywords(const FlState *state, PyObject *kwnames, Py_ssize_t count)
{
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, at);
        bool known = name == state->names.name || name == state->names.context;
        /* loop= twice: the caller's would override ours. */
        if (!known
            && (!ANY_KEYWORD
                || PyUnicode_Compare(name, state->names.loop) == 0))
        {
            return false;
        }
    }
    return count <= MOST_KEYWORDS;
}

PyObject *
fl_loop_create_task(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
{
    if (fl_loop_check_open(loop) < 0) {
        return NULL;
    }
    FlState *state = loop->state;
    Py_ssize_t keywords = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    /* Only compared: another thread may be replacing and freeing it. */
    PyObject *factory = __atomic_load_n(&loop->task_factory, __ATOMIC_RELAXED);
    /* A wrong number of arguments, too: asyncio raises its own error. */
    if (nargs != 1 || loop->debug
        || !accepts_keywords(state, kwnames, keywords)
        || (factory != NULL && factory != Py_None))
    {
        return create_by_asyncio(loop, args, nargs, kwnames);
    }
    int plain = uses_asyncio_types(loop);
    if (FL_UNLIKELY(plain <= 0)) {
        return plain < 0 ? NULL
                         : create_by_asyncio(loop, args, nargs, kwnames);
    }
    if (keywords == 0) {
        return construct(loop, state->task_type, args[0]);
    }
    /* A spare slot that vectorcall may overwrite, coro, loop=, and the given
       keywords' values. */
    PyObject *call[3 + MOST_KEYWORDS];
    call[1] = args[0];
    call[2] = (PyObject *)loop;
    for (Py_ssize_t at = 0; at < keywords; at++) {
        call[3 + at] = args[1 + at];
    }
    PyObject *names = PySequence_Concat(state->loop_kwnames, kwnames);
    if (names == NULL) {
        return NULL;
    }
    PyObject *task =
        PyObject_Vectorcall(state->task_type, call + 1,
                            1 | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
    Py_DECREF(names);
    return task;
}
