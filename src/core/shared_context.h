/* One copy of the current context for many callbacks or timers that wait.

   Each call_soon() copies the current context, which is cheap while the copies
   die young.  A million that wait are a million objects of the interpreter's:
   their memory, and the collector's rounds over them, cost as much as all the
   rest.  In a long queue calls that were scheduled while no variable changed
   own one copy together, which nobody enters; each gets its own when it runs,
   or when a program asks its handle for it.

   A context's variables are an immutable map, so whether one changed is seen
   from the map being another object. */
#ifndef FL_CORE_SHARED_CONTEXT_H
#define FL_CORE_SHARED_CONTEXT_H

#include "core/loop.h"

/* A queue of so many shares.  In a shorter one the copies stay cached. */
#define FL_SHARE_FROM 1024

/* Put the shared copy in the place of a fresh one that the caller owns, if
   both are the same; else the fresh one becomes the shared. */
void fl_shared_context_take(FlLoop *loop, PyObject **context);

/* Let go of the copy: values must not outlive the calls that may use them. */
void fl_shared_context_drop(FlLoop *loop);

#endif
