/* Futures and tasks: asyncio's own C types, made for this loop.

   They stay CPython's, so that all_tasks, eager tasks, debuggers and
   `python -m asyncio ps` keep working.

   1. A task factory, or debug mode, goes the way of asyncio's own
      create_task, which differs between versions.
   2. What is made is this loop's, whatever loop counts as running: a callback
      may have called asyncio._set_running_loop().
   3. What a program has put in the place of asyncio's classes is honoured, in
      a run if it was so when the run began. */
#include "loop/tasks.h"

#include "core/loop.h"
#include "py/compat.h"
#include "py/state.h"

#if FL_RUNNING_LOOP_IS_CHEAP

/* Whether a future made without loop= would be this loop's. */
static bool
is_default(FlLoop *loop)
{
    FlState *state = loop->state;
    if (FL_UNLIKELY(state->running_loop_function == NULL)) {
        return false;
    }
    PyObject *running =
        state->running_loop_function(state->running_loop_self, NULL);
    if (running == NULL) {
        PyErr_Clear(); /* who makes the future is told which loop it is */
        return false;
    }
    Py_DECREF(running);
    return running == (PyObject *)loop;
}

/* type(loop=loop), or type(coro, loop=loop) if coro is not NULL. */
static PyObject *
make(FlLoop *loop, PyObject *type, PyObject *coro)
{
    if (FL_LIKELY(is_default(loop))) {
        /* Without a keyword, whose dict costs more than the future. */
        return coro == NULL ? PyObject_CallNoArgs(type)
                            : PyObject_CallOneArg(type, coro);
    }
    PyObject *call[2] = {coro, (PyObject *)loop};
    return PyObject_Vectorcall(type, coro == NULL ? call + 1 : call,
                               coro != NULL, loop->state->loop_kwnames);
}

#else

/* As above.  The dict is kept: types read it and leave it as it is. */
static PyObject *
make(FlLoop *loop, PyObject *type, PyObject *coro)
{
    FlState *state = loop->state;
    if (loop->future_keywords == NULL) {
        PyObject *keywords = PyDict_New();
        if (keywords == NULL
            || PyDict_SetItem(keywords, state->names.loop, (PyObject *)loop)
                   < 0)
        {
            Py_XDECREF(keywords);
            return NULL;
        }
        Py_XSETREF(loop->future_keywords, keywords);
    }
    PyObject *args =
        coro == NULL ? Py_NewRef(state->empty_tuple) : PyTuple_Pack(1, coro);
    if (args == NULL) {
        return NULL;
    }
    PyObject *keywords = Py_NewRef(loop->future_keywords);
    PyObject *made = PyObject_Call(type, args, keywords);
    Py_DECREF(keywords);
    Py_DECREF(args);
    return made;
}

#endif

/* Whether a module still has what it had; 1, 0 or -1. */
static int
is_still(PyObject *module_dict, PyObject *name, const void *before)
{
    PyObject *now = PyObject_GetItem(module_dict, name);
    Py_XDECREF(now);
    return now == NULL ? -1 : (const void *)now == before;
}

int
fl_tasks_are_plain(const FlLoop *loop)
{
    const FlState *state = loop->state;
    int plain =
        is_still(state->asyncio_tasks, state->names.Task, state->task_type);
    return plain <= 0 ? plain
                      : is_still(state->asyncio_futures, state->names.Future,
                                 state->future_type);
}

/* Whether asyncio's own classes are to be made; 1, 0 or -1. */
static inline int
makes_plain(const FlLoop *loop)
{
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
    int plain = makes_plain(loop);
    if (FL_UNLIKELY(plain <= 0)) {
        return plain < 0 ? NULL
                         : PyObject_CallOneArg(loop->state->base_create_future,
                                               (PyObject *)loop);
    }
    return make(loop, loop->state->future_type, NULL);
}

/* asyncio's own method, with everything that was given. */
static PyObject *
create_as_asyncio(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    Py_ssize_t exposed =
        nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    PyObject **call = PyMem_New(PyObject *, exposed + 1);
    if (call == NULL) {
        return PyErr_NoMemory();
    }
    call[0] = (PyObject *)loop;
    for (Py_ssize_t at = 0; at < exposed; at++) {
        call[at + 1] = args[at];
    }
    PyObject *task = PyObject_Vectorcall(loop->state->base_create_task, call,
                                         nargs + 1, kwnames);
    PyMem_Free(call);
    return task;
}

/* ("loop",) plus the names that were given. */
static PyObject *
names_with_loop(FlState *state, PyObject *kwnames)
{
    Py_ssize_t count = PyTuple_GET_SIZE(kwnames);
    PyObject *names = PyTuple_New(count + 1);
    if (names == NULL) {
        return NULL;
    }
    PyTuple_SET_ITEM(names, 0, Py_NewRef(state->names.loop));
    for (Py_ssize_t at = 0; at < count; at++) {
        PyTuple_SET_ITEM(names, at + 1,
                         Py_NewRef(PyTuple_GET_ITEM(kwnames, at)));
    }
    return names;
}

/* 3.13.3 and newer hand on whatever keywords they are given. */
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
    "The keywords (name, context; from 3.13.3 any) go to the task or to the\n"
    "task factory exactly as given.  Raises TypeError for what is\n"
    "no coroutine, RuntimeError when the loop is closed.  Implements\n"
    "asyncio's loop.create_task().";

#define MOST_KEYWORDS 4

/* Whether a task takes these keywords as create_task would; where they are
   not known at a glance, asyncio's own create_task has the say. */
static inline bool
passes_on(const FlState *state, PyObject *kwnames, Py_ssize_t count)
{
    for (Py_ssize_t at = 0; at < count; at++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, at);
        bool known = name == state->names.name || name == state->names.context;
        /* The last of two loops would win here, and be the wrong one. */
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
    if (nargs != 1 || loop->debug || !passes_on(state, kwnames, keywords)
        || (loop->task_factory != NULL && loop->task_factory != Py_None))
    {
        return create_as_asyncio(loop, args, nargs, kwnames);
    }
    int plain = makes_plain(loop);
    if (FL_UNLIKELY(plain <= 0)) {
        return plain < 0 ? NULL
                         : create_as_asyncio(loop, args, nargs, kwnames);
    }
    if (keywords == 0) {
        return make(loop, state->task_type, args[0]);
    }
    /* A spare slot in front, then coro, loop=, and what else was given. */
    PyObject *call[3 + MOST_KEYWORDS];
    call[1] = args[0];
    call[2] = (PyObject *)loop;
    for (Py_ssize_t at = 0; at < keywords; at++) {
        call[3 + at] = args[1 + at];
    }
    PyObject *names = names_with_loop(state, kwnames);
    if (names == NULL) {
        return NULL;
    }
    PyObject *task =
        PyObject_Vectorcall(state->task_type, call + 1,
                            1 | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
    Py_DECREF(names);
    return task;
}
