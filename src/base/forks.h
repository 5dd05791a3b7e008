/* The number of forks between the first process and this one.

   An object stores the count when it is created.  A different count later
   means that a parent process created the object.  Process ids cannot tell:
   they are reused, and getpid() is a system call.  A pthread_atfork handler
   counts, not os.register_at_fork(): so the count is also right after a fork
   by foreign C code, and before any Python handler runs.

   The count belongs to the process, not to an interpreter: a fork concerns
   every interpreter in the process.  Any thread may call. */
#ifndef FL_BASE_FORKS_H
#define FL_BASE_FORKS_H

/* Start to count.  Further calls do nothing and return the first result: 0 or
   a negative errno. */
int fl_forks_init(void);

unsigned fl_forks_count(void);

#endif
