/* The methods of _core.BaseLoop, by the file that implements them.

   They are declared together because one table in loop.c names them all; each
   is documented where it is implemented, in its docstring. */
#ifndef FL_LOOP_METHODS_H
#define FL_LOOP_METHODS_H

#include "loop/loop.h"
#include "py/args.h"

#define FL_FAST(name) \
    PyObject *name(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs)
#define FL_FAST_KW(name)                                                  \
    PyObject *name(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs, \
                   PyObject *kwnames)
#define FL_NOARGS(name) PyObject *name(FlLoop *loop, PyObject *ignored)
#define FL_ONE(name)    PyObject *name(FlLoop *loop, PyObject *arg)

/* schedule.c */
FL_FAST_KW(fl_loop_call_soon);
FL_FAST_KW(fl_loop_call_soon_threadsafe);
FL_FAST_KW(fl_loop_call_later);
FL_FAST_KW(fl_loop_call_at);
FL_NOARGS(fl_loop_time);
FL_FAST_KW(fl_loop_add_callback);
extern const char fl_loop_call_soon_doc[];
extern const char fl_loop_call_soon_threadsafe_doc[];
extern const char fl_loop_call_later_doc[];
extern const char fl_loop_call_at_doc[];
extern const char fl_loop_time_doc[];
extern const char fl_loop_add_callback_doc[];

/* run.c */
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

/* tasks.c */
FL_NOARGS(fl_loop_create_future);
FL_FAST_KW(fl_loop_create_task);
extern const char fl_loop_create_future_doc[];
extern const char fl_loop_create_task_doc[];

/* fdwatch.c */
FL_FAST_KW(fl_loop_add_reader);
FL_FAST_KW(fl_loop_add_writer);
FL_FAST_KW(fl_loop_remove_reader);
FL_FAST_KW(fl_loop_remove_writer);
FL_FAST_KW(fl_loop_add_reader_raw);
FL_FAST_KW(fl_loop_add_writer_raw);
FL_FAST_KW(fl_loop_remove_reader_raw);
FL_FAST_KW(fl_loop_remove_writer_raw);
extern const char fl_loop_add_reader_doc[];
extern const char fl_loop_add_writer_doc[];
extern const char fl_loop_remove_reader_doc[];
extern const char fl_loop_remove_writer_doc[];
extern const char fl_loop_add_reader_raw_doc[];
extern const char fl_loop_add_writer_raw_doc[];
extern const char fl_loop_remove_reader_raw_doc[];
extern const char fl_loop_remove_writer_raw_doc[];

/* introspect.c */
FL_NOARGS(fl_loop_watched);
FL_NOARGS(fl_loop_open_transports);
extern const char fl_loop_watched_doc[];
extern const char fl_loop_open_transports_doc[];
PyObject *fl_loop_ready_get(FlLoop *loop, void *closure);
PyObject *fl_loop_scheduled_get(FlLoop *loop, void *closure);

/* signals.c */
FL_ONE(fl_loop_signal_wakeup);
extern const char fl_loop_signal_wakeup_doc[];

/* debug.c: what asyncio checks in debug mode before it schedules, and the
   stack of the caller for the handle.  0 or -1. */
int fl_debug_check(FlLoop *loop, PyObject *callback, const char *method,
                   bool check_thread);
int fl_debug_note_source(FlLoop *loop, FlHandle *handle);

#endif
