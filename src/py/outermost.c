/* A call without frames below it: see outermost.h.

   1. The frames of the callers are only out of sight.  The thread state gets
      its own pointer back when the call returns, before any caller goes on.
      greenlet starts its stacks in the same way.
   2. The callers' frames keep what they own.  A garbage collector that reads
      the frames of a thread only misses objects whose references are deferred,
      such as functions and modules; those of the command line are in
      sys.modules.
   3. An exception gets an entry of its traceback for each caller that it
      leaves.  sys.excepthook takes them off again, in C: a Python function
      would be in sight of tracers, debuggers and the program's own hook.
   4. From 3.12 on a tracer that begins has the code of all frames prepared for
      it, but for those that are out of sight.  3.15 crashes if an exception
      leaves such a frame, so they are prepared before. */
#include "py/outermost.h"

#include "py/state.h"

/* Where the thread state has its innermost frame, and the frame that it has
   there when nothing runs.  No name of these is public API. */
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

/* sys.excepthook after a call that failed; self is (the hook before it, the
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

/* Have sys.excepthook report the exception that is set, without the entries
   that its traceback is about to get.  Without memory it is reported with
   them. */
static void
hide_callers(void)
{
    PyObject *exc = PyErr_GetRaisedException();
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
    PyErr_SetRaisedException(exc); /* in place of a MemoryError */
}

/* Have the code of the callers prepared for tracers; the exception that is set
   stays.  Only sys.monitoring offers it, which 3.11 lacks and needs not. */
static void
prepare_callers(PyObject *module)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *monitoring = Py_XNewRef(PySys_GetObject("monitoring"));
    if (monitoring != NULL) {
        Py_XDECREF(PyObject_CallMethodNoArgs(
            monitoring, fl_state_get(module)->names.restart_events));
        Py_DECREF(monitoring);
    }
    PyErr_SetRaisedException(exc); /* in place of a MemoryError */
}

static const char call_outermost_doc[] =
    "_call_outermost(reports_exit, function, /, *args)\n--\n\n"
    "Call a function that sees no frames of its callers; return its result.\n"
    "sys.excepthook reports what it raises without them, too.  reports_exit:\n"
    "so it is with SystemExit, as under `python -i`.";

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
        prepare_callers(module);
        if (args[0] == Py_True || !PyErr_ExceptionMatches(PyExc_SystemExit)) {
            hide_callers();
        }
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
