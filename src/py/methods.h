/* Whether a class still has CPython's methods.

   Applications replace methods of standard classes, to trace or to fake them.
   C code that does a method's work itself first checks that the method is
   CPython's.  A replacement is recognized by its globals: another module's.
   ddtrace puts its own code into the function.  That code has what it calls
   among its constants, and uses no names; CPython's methods use some.
   fl_class_is_plain keeps its answer until the class changes, so it does not
   notice code that is replaced later.

   Threads: any, while it holds the GIL.  Nothing here raises. */
#ifndef FL_PY_METHODS_H
#define FL_PY_METHODS_H

#include "py/compat.h"
#include "py/state.h"

/* Whether a method, as looked up on its class, is a Python function of the
   module whose __dict__ this is, and has its first code.  False for NULL, a
   lookup that failed. */
static inline bool
fl_method_is_from(PyObject *method, PyObject *globals)
{
    if (method == NULL || !PyFunction_Check(method)
        || PyFunction_GetGlobals(method) != globals)
    {
        return false;
    }
    const PyCodeObject *code = (PyCodeObject *)PyFunction_GetCode(method);
    return PyTuple_GET_SIZE(code->co_names) > 0;
}

/* Whether a class has CPython's methods, as `check` finds; cached in *seen
   until the class changes.  `check` looks them up and leaves no exception
   set. */
static inline bool
fl_class_is_plain(FlState *state, FlSeenClass *seen, PyObject *type,
                  bool (*check)(const FlState *state))
{
    unsigned version = fl_type_version((PyTypeObject *)type);
    uint64_t answer = *seen;
    if (FL_LIKELY(version != 0 && version == answer >> 1)) {
        return answer & 1;
    }
    bool is_plain = check(state);
    /* Without a GIL another thread may change the class during the lookups:
       then the answer may belong to neither version.  A class without a
       version gets one at its first lookup, unless it was changed very often:
       then its version stays 0, and each call checks it again. */
    if (version != 0 && version == fl_type_version((PyTypeObject *)type)) {
        *seen = (uint64_t)version << 1 | is_plain;
    }
    return is_plain;
}

#endif
