/* What plain C code returns beside negative errnos.

   When an allocation of ours fails a program is told by MemoryError, as by any
   Python code; a system call that fails with ENOMEM is an OSError like all
   others.  So they are two codes. */
#ifndef FL_BASE_CODES_H
#define FL_BASE_CODES_H

/* Beyond every errno and libuv's own codes. */
#define FL_NO_MEMORY (-0x10000)

#endif
