/* run_forever, run_until_complete, stop, and runs that other code drives.

   Threads: exactly one thread runs a loop at a time.  It claims the loop first
   (fl_loop_claim); a second one gets RuntimeError.  stop() may be called from
   a callback or, as in asyncio, before a run.

   Failures: run_forever raises what leaves a callback (KeyboardInterrupt,
   SystemExit), and every way out of a run undoes what its beginning did. */
#ifndef FL_LOOP_RUN_H
#define FL_LOOP_RUN_H

#include "core/loop.h"
#include "loop/methods.h"
#include "py/compat.h"

/* End a run that began when _thread_id was set, called an external run.  The
   loop is then unclaimed. */
void fl_loop_end_external_run(FlLoop *loop);

FL_NOARGS(fl_loop_run_forever);
FL_FAST_KW(fl_loop_run_until_complete);
FL_NOARGS(fl_loop_run_once);
FL_NOARGS(fl_loop_stop);
extern const char fl_loop_run_forever_doc[];
extern const char fl_loop_run_until_complete_doc[];
extern const char fl_loop_run_once_doc[];
extern const char fl_loop_stop_doc[];

/* asyncio's attribute _thread_id.  Setting it begins or ends an external run:
   see run.c, invariant 2. */
PyObject *fl_loop_thread_id_get(FlLoop *loop, void *closure);
int fl_loop_thread_id_set(FlLoop *loop, PyObject *value, void *closure);

#endif
