/* The bridge from error codes to exceptions, and reports of errors.

   What only makes system calls returns a negative errno; what is called from
   Python -1 or NULL with an exception set.  This alone makes an OSError. */
#ifndef FL_PY_ERRORS_H
#define FL_PY_ERRORS_H

#include "py/compat.h"

/* Raise the OSError subclass that belongs to a negative errno, MemoryError for
   FL_NO_MEMORY (base/codes.h).  Returns -1. */
int fl_raise_errno(int code);

/* The same as an exception object, not raised; NULL with an exception set
   when it cannot be made. */
PyObject *fl_errno_exception(int code);

/* True if the raised exception must leave run_forever: KeyboardInterrupt or
   SystemExit. */
bool fl_error_leaves_loop(void);

/* End a clean-up that `code` is the outcome of: 0, or -1 with an exception
   set.  An exception that was taken away before it (`first`, NULL for none;
   its reference is taken) is raised again, and the clean-up's is then reported
   as unraisable for `source`.  Returns -1 if an exception is set, or 0. */
int fl_error_keep_first(PyObject *first, int code, PyObject *source);

/* OSError with a positive errno and a text of asyncio's in place of the
   system's; the format takes the subject. */
void fl_raise_os_error(long code, const char *format, PyObject *subject);

#endif
