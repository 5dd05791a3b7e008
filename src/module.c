/* The module object of fastloop._core: its state, types and functions. */
#include "base/clock.h"
#include "base/forks.h"
#include "compat/private_attributes.h"
#include "core/flush.h"
#include "core/handle_type.h"
#include "core/loop.h"
#include "core/sender.h"
#include "executor/job.h"
#include "loop/base_loop.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "sock/sock_call.h"
#include "streams/reader.h"
#include "tls/adapter.h"
#include "transport/datagram.h"
#include "transport/listener.h"
#include "transport/stream_open.h"
#include "transport/stream_transport.h"

#include <stdlib.h>

static PyObject *
libuv_version(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyUnicode_FromString(uv_version_string());
}

/* os.environ changes the C environment too, which is quicker to search. */
static PyObject *
has_switches(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(getenv("FASTLOOP_DISABLE") != NULL
                           || getenv("FASTLOOP_METRICS") != NULL
                           || getenv("FASTLOOP_METRICS_SOCKET") != NULL
                           || getenv("FASTLOOP_OTEL") != NULL
                           || getenv("FASTLOOP_WATCHDOG") != NULL);
}

static PyObject *
flush_corked(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    fl_loop_flush_corked_here(fl_state_get(module));
    Py_RETURN_NONE;
}

static PyObject *
before_fork(PyObject *module, PyObject *ignored)
{
    fl_sender_stop();
    return flush_corked(module, ignored);
}

static PyObject *
after_fork(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    fl_sender_resume();
    Py_RETURN_NONE;
}

/* Most functions are added by the folders' register functions; these
   belong to none of them. */
static PyMethodDef module_methods[] = {
    {"libuv_version", libuv_version, METH_NOARGS,
     "libuv_version()\n--\n\n"
     "Return the version of the libuv in use, as in '1.44.2'."},
    {"has_switches", has_switches, METH_NOARGS,
     "has_switches()\n--\n\n"
     "Whether the environment has a variable that a new loop reads."},
    {"_flush_corked", flush_corked, METH_NOARGS,
     "_flush_corked()\n--\n\n"
     "Send the corked writes of the callback that this thread runs."},
    {"_before_fork", before_fork, METH_NOARGS,
     "_before_fork()\n--\n\n"
     "Call _flush_corked(), and end the thread that sends corked writes."},
    {"_after_fork", after_fork, METH_NOARGS,
     "_after_fork()\n--\n\n"
     "In the parent: start that thread again, if other threads need it."},
    {NULL, NULL, 0, NULL},
};

/* Initialize a new module object, whose state CPython has zeroed.  On failure
   it drops the module, and module_free clears what was set so far. */
static int
module_exec(PyObject *module)
{
    FlState *state = fl_state_get(module);
    fl_clock_init();
    /* Before any loop: each notes the number of forks when it is made. */
    int errno_code = fl_forks_init();
    if (errno_code < 0) {
        return fl_raise_errno(errno_code);
    }
    /* The order matters: a type's base and what a function needs of the state
       must be there first.  The private attributes are added to the
       types of transports. */
    if (fl_state_init(state, module) < 0
        || fl_handle_register(module, state) < 0
        || fl_loop_register(module, state) < 0
        || fl_stream_register(module, state) < 0
        || fl_stream_open_register(module) < 0
        || fl_datagram_register(module, state) < 0
        || fl_listener_register(module, state) < 0
        || fl_tls_register(module, state) < 0
        || fl_reader_register(module, state) < 0
        || fl_sock_call_register(module, state) < 0
        || fl_private_attributes_register(state) < 0
        || fl_job_register(module, state) < 0
        || PyModule_AddStringConstant(module, "PATHS", FL_PATHS(FL_PATH_NAME))
               < 0)
    {
        return -1;
    }
    return 0;
}

/* The state is NULL if CPython failed before it was allocated. */
static void
module_free(void *module)
{
    FlState *state = fl_state_get(module);
    if (state != NULL) {
        fl_state_clear(state);
        PyThread_tss_delete(&state->running);
    }
}

/* Slot numbers that an older CPython does not know would be an error there. */
static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fastloop._core",
    .m_doc = "The C part of fastloop; use the fastloop package.",
    .m_size = sizeof(FlState),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = fl_state_traverse,
    /* No m_clear: the state stays whole while objects use it (py/state.h). */
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
