/* Conversion of error codes to exceptions, and helpers for raised exceptions.

   A function that only makes system calls returns a negative errno.  A
   function that Python calls returns -1 or NULL with an exception set.  The
   functions here make the OSErrors of such codes.  They need the GIL (an
   attached thread state). */
#ifndef FL_PY_ERRORS_H
#define FL_PY_ERRORS_H

#include "py/compat.h"

/* Raise the OSError subclass for a negative errno, or the exception of a code
   in base/codes.h.  Returns -1. */
int fl_raise_errno(int code);

/* The same as an exception object that is not raised: a new reference.  NULL
   with an exception set if it cannot be made. */
PyObject *fl_errno_exception(int code);

/* True if the raised exception ends the run: KeyboardInterrupt and SystemExit
   must propagate out of run_forever, as in asyncio.  An exception must be
   set. */
bool fl_exception_ends_run(void);

/* Whether the raised exception says that a call of a socket would block or was
   interrupted; then it is cleared.  asyncio waits after these two classes. */
bool fl_error_would_block(void);

/* Raise again what PyErr_GetRaisedException() took away; steals the reference.
   NULL, which that returns if nothing was raised, changes nothing. */
static inline void
fl_error_restore(PyObject *exc)
{
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

/* Begin and end a call of Python that handles an exception, as in an except
   block: sys.exc_info(), logging.exception() and a bare raise find it there,
   and it is the context of what the call raises.  The first returns what the
   running coroutine or thread handled before, which the second restores. */
PyObject *fl_error_begin_handling(PyObject *exc);
void fl_error_end_handling(PyObject *outer);

/* Finish a clean-up whose result is `code`: 0, or -1 with an exception set.
   `first` is the exception that the caller saved before the clean-up, or NULL;
   its reference is stolen.  `first` is raised again; if the clean-up raised as
   well, that exception is reported as unraisable for `source`.  Returns -1 if
   an exception is now set, else 0. */
int fl_error_keep_first(PyObject *first, int code, PyObject *source);

#endif
