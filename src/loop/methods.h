/* Macros that declare the methods of _core.BaseLoop.

   The header of the file that implements a method declares it with one of
   these.  The method table, loop_methods, is in base_loop.c and names them
   all. */
#ifndef FL_LOOP_METHODS_H
#define FL_LOOP_METHODS_H

#include "core/loop.h"
#include "py/args.h"

/* METH_FASTCALL | METH_KEYWORDS, METH_NOARGS, and METH_O or METH_VARARGS;
   and the method's docstring. */
#define FL_FAST_KW(name)                                                  \
    extern const char name##_doc[];                                       \
    PyObject *name(FlLoop *loop, PyObject *const *args, Py_ssize_t nargs, \
                   PyObject *kwnames)
#define FL_NOARGS(name)             \
    extern const char name##_doc[]; \
    PyObject *name(FlLoop *loop, PyObject *ignored)
#define FL_ONE(name)                \
    extern const char name##_doc[]; \
    PyObject *name(FlLoop *loop, PyObject *argument)

#endif
