/* The number of forks between the first process and this one.

   An object stores the count when it is created.  A different count later
   means that a parent process created the object.  Process ids cannot tell:
   they are reused, and getpid() is a system call.  A pthread_atfork handler
   counts, not os.register_at_fork(): so the count is also right after a fork()
   by foreign C code, and before any Python handler runs.  It does not count
   _Fork() and clone(), which call no handlers.

   The counts belong to the process, not to an interpreter: a fork concerns
   every interpreter in the process.  Any thread may call. */
#ifndef FL_BASE_FORKS_H
#define FL_BASE_FORKS_H

#include <stdatomic.h>
#include <stdbool.h>

/* Start to count.  Further calls do nothing and return the first result: 0 or
   a negative errno. */
int fl_forks_init(void);

extern atomic_uint fl_forks; /* for forks.c and fl_forks_count alone */

static inline unsigned
fl_forks_count(void)
{
    /* Relaxed: the count changes only in a new process, which starts with one
       thread, so no other memory has to be ordered with it. */
    return atomic_load_explicit(&fl_forks, memory_order_relaxed);
}

/* Initializes a lock again in a forked child.  A thread that the child does
   not have may have locked the parent's lock.  Several threads of the child
   may use the lock first: one initializes it, and the others wait.

       if (fl_fork_renewal_begin(&renewal)) {
           initialize the lock
           fl_fork_renewal_end(&renewal);
       } */
typedef struct {
    /* fl_forks_count() when the lock was initialized, and when that began */
    _Atomic unsigned forks, begun;
} FlForkRenewal;

/* The lock was initialized just now. */
void fl_fork_renewal_init(FlForkRenewal *renewal);

/* For fl_fork_renewal_begin alone: the same, once the count has changed.  If
   another thread initializes the lock, this waits for it and returns false. */
bool fl_fork_renewal_claim(FlForkRenewal *renewal);

/* Return true if the caller has to initialize the lock. */
static inline bool
fl_fork_renewal_begin(FlForkRenewal *renewal)
{
    return atomic_load(&renewal->forks) != fl_forks_count()
           && fl_fork_renewal_claim(renewal);
}

/* The lock was initialized after fl_fork_renewal_begin: others may use it. */
void fl_fork_renewal_end(FlForkRenewal *renewal);

#endif
