/* Running code in a contextvars.Context: enter by PyContext_Enter, leave by
   this; and copying one.

   Rejected: one function that enters, calls and leaves by a pointer.  A
   callback would cost one more indirect call. */
#ifndef FL_PY_CONTEXT_H
#define FL_PY_CONTEXT_H

#include "py/compat.h"

/* A copy of a context that its owner may let go of meanwhile: before 3.12
   making it may run the collector, and that anything.  NULL with
   MemoryError. */
PyObject *fl_context_copy(PyObject *context);

/* The same as fl_context_leave where an exception is set. */
void fl_context_leave_raising(PyObject *context);

/* Leave a context that was entered.  A raised exception stays; that a context
   cannot be left, which only a callback that left it itself brings about, is
   reported and does not hide what the callback returned or raised. */
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
