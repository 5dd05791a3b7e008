/* How many forks led to this process.

   A process id is reused and costs a system call to ask for.  This count is
   kept by a handler of the system's, so that it is right also in the child of
   a fork that Python knows nothing of, and before any handler of Python's
   runs.  One for the process: a fork concerns every interpreter in it.

   Any thread may call. */
#ifndef FL_BASE_FORKS_H
#define FL_BASE_FORKS_H

/* Begin to count; nothing happens when called again.  0 or a negative
   errno. */
int fl_forks_init(void);

unsigned fl_forks_count(void);

#endif
