/* Runs of a loop: begin, iterate, stop, end.

   Threads: exactly one thread runs a loop at a time.  It claims the loop first
   (fl_loop_claim); a second one gets RuntimeError.  stop() may be called from
   a callback or, as in asyncio, before a run. */
#ifndef FL_LOOP_RUN_H
#define FL_LOOP_RUN_H

#include "core/loop.h"
#include "loop/methods.h"
#include "py/compat.h"

/* End a run; the loop is then unclaimed.  Cannot fail. */
void fl_loop_end_run(FlLoop *loop);

FL_NOARGS(fl_loop_iterate_until_stopped);
FL_NOARGS(fl_loop_run_once);
FL_ONE(fl_loop_run_shuffled);
/* Call argument() inside a callback of this loop, whose thread calls this: it
   may iterate the loop.  Raises what that raises. */
FL_ONE(fl_loop_nest);

/* asyncio's attribute _thread_id.  Setting it to the calling thread's ident
   begins a run, None ends it; run_forever (fastloop/loop.py) does so, like
   applications that drive a run themselves with _run_once().  RuntimeError if
   the loop runs already, or if an iteration would go on without its run. */
PyObject *fl_loop_thread_id_get(FlLoop *loop, void *closure);
int fl_loop_thread_id_set(FlLoop *loop, PyObject *value, void *closure);

#endif
