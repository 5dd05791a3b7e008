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
/* A transport uses the fd: RuntimeError. */
#define FL_IN_USE    (-0x10002)

/* True for an errno (positive) that Python raises as BlockingIOError or
   InterruptedError: the caller waits for an event, as asyncio does. */
static inline bool
fl_errno_would_block(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR
           || error == EINPROGRESS || error == EALREADY;
}

#endif
