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

/* Whether a lock was initialized in this process, for an object that outlives
   a fork.  The parent's lock may be locked by a thread that the child does not
   have.  Two threads of the child may be its first users at the same time: one
   initializes the lock, and the others wait for it.

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

/* The part of fl_fork_renewal_begin in a child that has a parent's lock. */
bool fl_fork_renewal_claim(FlForkRenewal *renewal);

/* Return true if the caller has to initialize the lock. */
static inline bool
fl_fork_renewal_begin(FlForkRenewal *renewal)
{
    return atomic_load(&renewal->forks) != fl_forks_count()
           && fl_fork_renewal_claim(renewal);
}

void fl_fork_renewal_end(FlForkRenewal *renewal);

#endif
