/* Error codes of plain C code, beside negative errnos.

   A failed allocation of our own must raise MemoryError, as in any Python
   code.  A system call that fails with ENOMEM must raise OSError, like every
   other errno.  So the two need different codes.  py/errors.c converts both
   to exceptions. */
#ifndef FL_BASE_CODES_H
#define FL_BASE_CODES_H

#include <errno.h>
#include <stdbool.h>

/* Outside the range of errnos and of libuv's own codes. */
#define FL_NO_MEMORY (-0x10000)
/* The loop is closed: RuntimeError. */
#define FL_CLOSED    (-0x10001)

/* Whether a system call on a non-blocking fd has failed for now only: with an
   errno, positive, that Python raises as BlockingIOError or InterruptedError.
   asyncio catches both and waits for an event. */
static inline bool
fl_errno_would_block(int code)
{
    return code == EAGAIN || code == EWOULDBLOCK || code == EINTR
           || code == EINPROGRESS || code == EALREADY;
}

#endif
