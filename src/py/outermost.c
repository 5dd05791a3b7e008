/* A call whose function sees no frames of its callers: see outermost.h.

   The thread state has a pointer to the innermost frame.  For the call, this
   pointer gets the value that it has when no code runs.

   1. The callers' frames are only hidden.  The thread state gets its old
      pointer back when the call returns, before any caller continues.
      greenlet starts its stacks in the same way.
   2. The callers' frames keep their references.  A GC that reads the frames of
      a thread looks for deferred references, and does not see those of hidden
      frames.  Only functions, modules and the like have deferred references,
      and sys.modules holds those of the command line.
   3. An exception gets a traceback entry for each caller that it leaves.
      sys.excepthook removes these entries.  The hook is a C function, because
      tracers, debuggers and the application's own hook would see a Python one.
   4. From 3.12 on, a tracer that starts has the code of all visible frames
      instrumented.  3.15 crashes if an exception leaves a frame whose code was
      not instrumented, so that is done for the callers before. */
#include "py/outermost.h"

#include "py/state.h"

/* The thread state's pointer to its innermost frame, and the value of that
   pointer when no code runs.  None of these names is public API. */
#if PY_VERSION_HEX < 0x030D0000
#define CURRENT_FRAME(thread) ((thread)->cframe->current_frame)
#else
#define CURRENT_FRAME(thread) ((thread)->current_frame)
#endif
#if PY_VERSION_HEX < 0x030F0000
#define NO_FRAME(thread) NULL
#else
#define NO_FRAME(thread) ((thread)->base_frame)
#endif

/* sys.excepthook after a call that failed; self is (the previous hook, the
   exception, its traceback at the end of the call or None). */
static PyObject *
report(PyObject *self, PyObject *args)
{
    PyObject *hook = PyTuple_GET_ITEM(self, 0);
    PyObject *exc = PyTuple_GET_ITEM(self, 1);
    PyObject *trace = PyTuple_GET_ITEM(self, 2);
    if (PySys_SetObject("excepthook", hook) < 0) {
        return NULL;
    }
    if (PyTuple_GET_SIZE(args) != 3 || PyTuple_GET_ITEM(args, 1) != exc) {
        return PyObject_Call(hook, args, NULL);
    }
    if (PyException_SetTraceback(exc, trace) < 0
        || PySys_SetObject("last_traceback", trace) < 0)
    {
        return NULL;
    }
    return PyObject_CallFunctionObjArgs(hook, PyTuple_GET_ITEM(args, 0), exc,
                                        trace, NULL);
}

static PyMethodDef report_def = {"report", report, METH_VARARGS, NULL};

/* Make sys.excepthook report the exception without the entries that the
   callers will add to its traceback.  If memory runs out, the report has these
   entries. */
static void
hide_callers(PyObject *exc)
{
    PyObject *trace = PyException_GetTraceback(exc);
    PyObject *hook = Py_XNewRef(PySys_GetObject("excepthook"));
    if (hook != NULL) {
        PyObject *self =
            PyTuple_Pack(3, hook, exc, trace == NULL ? Py_None : trace);
        PyObject *function =
            self == NULL ? NULL : PyCFunction_New(&report_def, self);
        if (function != NULL) {
            (void)PySys_SetObject("excepthook", function);
        }
        Py_XDECREF(function);
        Py_XDECREF(self);
        Py_DECREF(hook);
    }
    Py_XDECREF(trace);
}

/* Have the code of the callers instrumented for tracers.  sys.monitoring does
   that.  3.11 has no such module, and needs no instrumented code. */
static void
prepare_callers(PyObject *module)
{
    PyObject *monitoring = Py_XNewRef(PySys_GetObject("monitoring"));
    if (monitoring != NULL) {
        Py_XDECREF(PyObject_CallMethodNoArgs(
            monitoring, fl_state_get(module)->names.restart_events));
        Py_DECREF(monitoring);
    }
}

static const char call_outermost_doc[] =
    "_call_outermost(reports_exit, function, /, *args)\n--\n\n"
    "Call a function that sees no frames of its callers; return its result.\n"
    "sys.excepthook reports its exception without those frames, too; a\n"
    "SystemExit only if reports_exit is True, as under `python -i`.";

static PyObject *
call_outermost(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count < 2) {
        PyErr_SetString(PyExc_TypeError, "a function is required");
        return NULL;
    }
    PyThreadState *thread = PyThreadState_Get();
    void *callers = CURRENT_FRAME(thread); /* its type has no public name */
    CURRENT_FRAME(thread) = NO_FRAME(thread);
    PyObject *result =
        PyObject_Vectorcall(args[1], args + 2, (size_t)(count - 2), NULL);
    CURRENT_FRAME(thread) = callers;
    if (result == NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        prepare_callers(module);
        if (args[0] == Py_True
            || !PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)) {
            hide_callers(exc);
        }
        PyErr_SetRaisedException(exc); /* in place of a MemoryError */
    }
    return result;
}

static PyMethodDef functions[] = {
    {"_call_outermost", (PyCFunction)(void (*)(void))call_outermost,
     METH_FASTCALL, call_outermost_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_outermost_register(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
