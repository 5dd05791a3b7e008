/* run_forever, run_until_complete, stop, and runs that a program makes
   itself.

   Exactly one thread runs a loop at a time: it claims the loop first.  Each
   way out of a run undoes all that its beginning did. */
#ifndef FL_LOOP_RUN_H
#define FL_LOOP_RUN_H

#include "core/loop.h"
#include "loop/methods.h"
#include "py/compat.h"

/* End the run that began when _thread_id was set. */
void fl_loop_end_external_run(FlLoop *loop);

FL_NOARGS(fl_loop_run_forever);
FL_FAST_KW(fl_loop_run_until_complete);
FL_NOARGS(fl_loop_run_once);
FL_NOARGS(fl_loop_stop);
extern const char fl_loop_run_forever_doc[];
extern const char fl_loop_run_until_complete_doc[];
extern const char fl_loop_run_once_doc[];
extern const char fl_loop_stop_doc[];
PyObject *fl_loop_thread_id_get(FlLoop *loop, void *closure);
int fl_loop_thread_id_set(FlLoop *loop, PyObject *value, void *closure);

#endif
