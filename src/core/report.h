/* Error reports: how a callback's exception reaches the application.

   A report is a call of loop.call_exception_handler with asyncio's message and
   keys.  KeyboardInterrupt and SystemExit are not reported: they propagate out
   of run_forever.  A callback that was slow is reported too, if it was timed
   (FlTiming): in debug mode, and with metrics.

   Every function returns -1 with an exception set if that exception ends
   the run.  All of them run Python.  Loop's thread only. */
#ifndef FL_CORE_REPORT_H
#define FL_CORE_REPORT_H

#include "py/compat.h"

struct FlLoop;

/* The timing of the callback that runs, for reports of slow ones. */
typedef struct {
    int64_t since_ns;   /* when it began; 0: it is not timed */
    PyObject *callback; /* owned: that of loop->current_handle, or itself */
    FL_ATOMIC double slow_s; /* loop.slow_callback_duration */
} FlTiming;

/* Report the raised exception: call loop.method(exc, first, ...) as in an
   except block.  The first NULL ends the arguments.  An exception that ends
   the run stays set.  0 or -1. */
int fl_loop_report_by(struct FlLoop *loop, PyObject *method, PyObject *first,
                      PyObject *second, PyObject *third);

/* Report the raised exception as one of object.name(argument), a call that the
   loop made without a handle.  `argument` may be NULL: no argument.  0 or
   -1. */
int fl_loop_report_call(struct FlLoop *loop, PyObject *object, PyObject *name,
                        PyObject *argument);

/* If an entry that returned `code` took at least slow_callback_duration: log
   it in debug mode, and call slow_callback_hook with metrics.  `subject` names
   an entry that ran no handle; NULL: nothing does, and it is not reported.
   What these calls raise ends the run, as in asyncio.  Returns `code`, or
   -1. */
int fl_loop_report_slow(struct FlLoop *loop, PyObject *subject,
                        int64_t took_ns, int code);

/* Report the raised exception as one of a handle's callback.  `handle` may be
   NULL: then the report names no callback.  0 or -1. */
int fl_loop_report_callback(struct FlLoop *loop, PyObject *handle);

#endif
