/* Running code in a contextvars.Context.

   Enter the context with PyContext_Enter, leave it with fl_context_leave.  For
   the thread that entered it.

   Rejected: one function that enters, calls a function pointer, and leaves.
   It would cost one more indirect call for each callback. */
#ifndef FL_PY_CONTEXT_H
#define FL_PY_CONTEXT_H

#include "py/compat.h"

/* A copy of a context: a new reference, NULL with MemoryError.  The caller may
   pass a borrowed reference.  Before 3.12 the allocation may run the GC, which
   may run any code, and the context's owner may release it meanwhile. */
PyObject *fl_context_copy(PyObject *context);

/* The slow path of fl_context_leave: an exception is set. */
void fl_context_leave_raising(PyObject *context);

/* Leave a context that was entered.  `raised` says whether an exception is
   set; it stays set.  Leaving fails only if the callback itself left the
   context.  That failure is reported as unraisable, so that it does not hide
   what the callback returned or raised. */
static inline void
fl_context_leave(PyObject *context, bool raised)
{
    if (FL_UNLIKELY(raised)) {
        fl_context_leave_raising(context);
    }
    else if (FL_UNLIKELY(PyContext_Exit(context) < 0)) {
        PyErr_WriteUnraisable(context);
    }
}

#endif
