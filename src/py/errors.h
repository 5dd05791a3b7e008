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

/* OSError with a positive errno and a text of asyncio's in place of the
   system's; the format takes the subject. */
void fl_raise_os_error(long code, const char *format, PyObject *subject);

#endif
