/* Module state: what is imported, interned and found out once per
   interpreter. */
#include "py/state.h"

#include "py/call.h"
#include "py/compat.h"

#include <string.h>

/* An object to import; see FL_IMPORTS. */
typedef struct {
    size_t offset; /* of the FlState field that owns it */
    const char *module;
    const char *name;
} Import;

#define IMPORT(field, module, name) {offsetof(FlState, field), module, name},
static const Import imports[] = {FL_IMPORTS(IMPORT)};
#undef IMPORT

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
    return 0;
}

/* The call_soon of the stub loop.  Python code cannot see its caller's tuple,
   so this is C. */
static PyObject *
record_call(PyObject *module, PyObject *const *Py_UNUSED(args),
            Py_ssize_t Py_UNUSED(nargs), PyObject *kwnames)
{
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) == 1) {
        Py_XSETREF(fl_state_get(module)->c_kwnames, Py_NewRef(kwnames));
    }
    Py_RETURN_NONE;
}

/* The tuple of keywords with which asyncio's C code calls call_soon has no
   public name, so one call is recorded: that of a future on a stub loop.  If
   asyncio's futures are not those in C, c_kwnames stays NULL.  0, or -1 with
   an exception set. */
static int
find_c_kwnames(PyObject *module)
{
    static PyMethodDef recorder_def = {
        "call_soon", (PyCFunction)(void (*)(void))record_call,
        METH_FASTCALL | METH_KEYWORDS, NULL};
    PyObject *record = PyCFunction_New(&recorder_def, module);
    PyObject *done = record == NULL
                         ? NULL
                         : PyObject_CallMethod(fl_state_get(module)->helpers,
                                               "complete_future", "O", record);
    Py_XDECREF(record);
    return fl_call_done(done);
}

#if FL_HAVE_GIL
#define immortalize_asyncio(state) 0
#else

/* A gcvisitobjects_t, called once: false ends the visit.  All other threads
   are stopped for it.  So no owner of an object is about to store a count that
   it has read before, and this thread, which made the list, can become the
   owner. */
static int
immortalize(PyObject *Py_UNUSED(visited), void *list)
{
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(list); at++) {
        PyObject *object = PyList_GET_ITEM(list, at);
        object->ob_tid = ((PyObject *)list)->ob_tid;
        fl_make_immortal(object);
    }
    return false;
}

/* In the main interpreter, make what all threads count of asyncio's immortal:
   CPython's C code drops three references to its classes for each task.  0, or
   -1 with an exception set. */
static int
immortalize_asyncio(FlState *state)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        return 0; /* it would leak them, as in fl_type_add */
    }
    PyObject *list = PyObject_CallNoArgs(state->shared_by_threads);
    if (list == NULL) {
        return -1;
    }
    PyUnstable_GC_VisitObjects(immortalize, list);
    Py_DECREF(list);
    return 0;
}

#endif

/* On failure the module's m_free releases what was set (see state.h). */
int
fl_state_init(FlState *state, PyObject *module)
{
    state->module = module;
    if (PyThread_tss_create(&state->running) != 0) {
        PyErr_NoMemory();
        return -1;
    }
#define INTERN(name)                                       \
    state->names.name = PyUnicode_InternFromString(#name); \
    if (state->names.name == NULL) {                       \
        return -1;                                         \
    }
    FL_NAMES(INTERN)
#undef INTERN
    if (import_all(state) < 0) {
        return -1;
    }
    state->empty_tuple = PyTuple_New(0);
    state->loop_kwnames = PyTuple_Pack(1, state->names.loop);
    if (state->empty_tuple == NULL || state->loop_kwnames == NULL) {
        return -1;
    }
    return find_c_kwnames(module) < 0 ? -1 : immortalize_asyncio(state);
}

int
fl_state_traverse(PyObject *module, visitproc visit, void *arg)
{
    FlState *state = fl_state_get(module);
#define VISIT(field, ...) Py_VISIT(state->field);
    FL_IMPORTS(VISIT)
    FL_OBJECTS(VISIT)
    FL_TYPES(VISIT)
#undef VISIT
    return 0;
}

void
fl_state_clear(FlState *state)
{
#define CLEAR(field, ...) Py_CLEAR(state->field);
    FL_IMPORTS(CLEAR)
    FL_OBJECTS(CLEAR)
    FL_TYPES(CLEAR)
#undef CLEAR
#define CLEAR_NAME(name) Py_CLEAR(state->names.name);
    FL_NAMES(CLEAR_NAME)
#undef CLEAR_NAME
}

PyTypeObject *
fl_type_add(PyObject *module, PyType_Spec *spec, PyObject *base)
{
    PyTypeObject *type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, base);
    if (type != NULL && PyModule_AddType(module, type) < 0) {
        Py_CLEAR(type);
    }
    /* Threads that create instances would contend for the reference counts of
       type and module.  In a subinterpreter they must not be immortal: each
       would leak a module. */
    if (type != NULL && PyInterpreterState_Get() == PyInterpreterState_Main())
    {
        fl_make_immortal((PyObject *)type);
        fl_make_immortal(module);
    }
    return type;
}

/* --- types that inherit storage ------------------------------------------ */

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

/* Check that each slot is at its offset and that instances end where the last
   entry says: then the class has no slots that are not in the list.  0, or -1
   with an exception set. */
static int
check_layout(PyTypeObject *base, const FlBaseSlot *slots)
{
    for (; slots->name != NULL; slots++) {
        /* Each name in __slots__ becomes a member descriptor. */
        PyObject *found =
            PyObject_GetAttrString((PyObject *)base, slots->name);
        bool known =
            found != NULL && Py_IS_TYPE(found, &PyMemberDescr_Type)
            && (size_t)((PyMemberDescrObject *)found)->d_member->offset
                   == slots->offset;
        Py_XDECREF(found);
        if (!known) {
            return raise_layout_error(base, slots->name);
        }
    }
    return (size_t)base->tp_basicsize == slots->offset
               ? 0
               : raise_layout_error(base, "");
}

/* The check comes before the type exists.  CPython itself refuses
   a mixin that has other slots than the base. */
PyTypeObject *
fl_type_derive(PyObject *module, PyType_Spec *spec, PyObject *base,
               PyObject *mixin, const FlBaseSlot *slots)
{
    if (check_layout((PyTypeObject *)base, slots) < 0) {
        return NULL;
    }
    PyObject *bases = PyTuple_Pack(1 + (mixin != NULL), base, mixin);
    PyTypeObject *type =
        bases == NULL ? NULL : fl_type_add(module, spec, bases);
    Py_XDECREF(bases);
    return type;
}
