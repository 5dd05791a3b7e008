/* Reports: how an exception of a callback reaches the program.

   Every report goes through call_exception_handler with asyncio's message and
   keys.  KeyboardInterrupt and SystemExit are not reported: they leave
   run_forever.

   Loop's thread only. */
#ifndef FL_CORE_REPORT_H
#define FL_CORE_REPORT_H

#include "core/loop.h"
#include "py/compat.h"

/* Report the raised exception as that of object.name(argument), a call the
   loop made for itself.  argument may be NULL, as may source: the stack of
   what queued the call.  Returns as fl_loop_report_callback. */
int fl_loop_report_call(FlLoop *loop, PyObject *object, PyObject *name,
                        PyObject *argument, PyObject *source);

/* In debug mode: log what took longer than slow_callback_duration and ended
   with `code`.  What the logger raises is unraisable, but for what leaves the
   loop.  The code, or -1 if what is raised now must leave run_forever. */
int fl_loop_report_slow(FlLoop *loop, PyObject *subject, int64_t began_ns,
                        int code);

/* With metrics: tell the program's slow_callback_hook of a callback that took
   long and ended with `code`.  What the hook raises is reported.  The code, or
   -1 if what is raised now must leave run_forever. */
int fl_loop_notify_slow(FlLoop *loop, PyObject *subject, int64_t took_ns,
                        int code);

/* Hand the raised exception to call_exception_handler with asyncio's keys for
   a callback; handle may be NULL.  0, or -1 if what is raised now must leave
   run_forever. */
int fl_loop_report_callback(FlLoop *loop, PyObject *handle);

#endif
