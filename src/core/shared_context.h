/* One copy of the current context, shared by many queued callbacks or timers.

   Each call_soon() and call_later() copies the current context.  That is cheap
   while the copies die young.  But a million queued calls are a million
   context objects: their memory, and the GC's passes over them, cost as much
   as all the rest.  So in a long queue, calls that were scheduled while no
   context variable changed share one copy.  Nobody enters that copy.  Each
   call gets a copy of its own when it runs, or when the application reads its
   handle's context.

   A context stores its variables in an immutable map.  So a changed variable
   shows as another map object.

   Ownership: the loop owns one reference to the shared copy, each queued call
   another.  Loop's thread only.  Functions do not fail. */
#ifndef FL_CORE_SHARED_CONTEXT_H
#define FL_CORE_SHARED_CONTEXT_H

#include "core/loop.h"

/* Calls share from this length of the queue on.  The copies of a shorter queue
   fit in the CPU's cache. */
#define FL_SHARE_FROM 1024

/* *context is a fresh copy of the current context, which the caller owns.  If
   the shared copy has the same variables, replace the caller's reference by
   one to the shared copy.  Otherwise the fresh copy becomes the shared one,
   and the caller must not enter it any more. */
void fl_shared_context_share(FlLoop *loop, PyObject **context);

/* Drop the loop's reference to the shared copy. */
void fl_shared_context_drop(FlLoop *loop);

#endif
