/* Reading a method's arguments, given by position or by name.

   Hot methods look at what they are given themselves, and come here when
   something was given by name or is missing.  Argument Clinic would do the
   same, but for *args beside keywords, and it is not for extensions. */
#ifndef FL_PY_ARGS_H
#define FL_PY_ARGS_H

#include "py/compat.h"

/* Parameters of a method: all that are named must be given. */
typedef struct {
    const char *function; /* its name, for texts */
    const char *names[2]; /* the first ones, by position or by name; or NULL */
    bool more;            /* any number more by position: *args */
    bool context;         /* context=, None or of any class */
} FlParameters;

/* What was given, all borrowed. */
typedef struct {
    PyObject *const *args; /* the named parameters, then the others */
    Py_ssize_t nargs;
    PyObject *context;  /* NULL where it is absent or None */
    PyObject *named[2]; /* where args is, if a parameter was named */
} FlArgs;

/* 0, or -1 with TypeError set. */
int fl_args_parse(const FlParameters *parameters, PyObject *const *args,
                  Py_ssize_t nargs, PyObject *kwnames, FlArgs *parsed);

/* The only argument of a method: borrowed, NULL with TypeError set. */
PyObject *fl_parse_one(const char *function, const char *parameter,
                       PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames);

/* A tuple of new references to arguments. */
PyObject *fl_args_tuple(PyObject *const *args, Py_ssize_t count);

#endif
