/* Running code in a contextvars.Context.

   fl_context_resolve finds the context of a callback.  Enter it with
   PyContext_Enter, leave it with fl_context_leave.  For the thread that
   entered it.

   Rejected: one function that enters, calls a function pointer, and leaves.
   It would cost one more indirect call for each callback. */
#ifndef FL_PY_CONTEXT_H
#define FL_PY_CONTEXT_H

#include "py/compat.h"

/* A new reference to the context to run in: the one given, or for NULL a copy
   of the current one.  NULL with MemoryError. */
static inline PyObject *
fl_context_resolve(PyObject *context)
{
    return context == NULL ? PyContext_CopyCurrent() : Py_NewRef(context);
}

/* Leave a context that was entered.  `raised` says whether an exception is
   set.  It stays set, but is taken away for PyContext_Exit, whose own
   exception would replace it.  Leaving fails only if the callback itself left
   the context.  That failure is reported as unraisable, so that it does not
   hide what the callback returned or raised. */
static inline void
fl_context_leave(PyObject *context, bool raised)
{
    PyObject *exc = FL_UNLIKELY(raised) ? PyErr_GetRaisedException() : NULL;
    if (FL_UNLIKELY(PyContext_Exit(context) < 0)) {
        PyErr_WriteUnraisable(context);
    }
    if (FL_UNLIKELY(exc != NULL)) {
        PyErr_SetRaisedException(exc);
    }
}

#endif
