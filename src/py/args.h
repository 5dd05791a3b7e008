/* Parsing a method's arguments, positional or keyword.

   A hot method checks its positional arguments itself.  It calls this when an
   argument is missing or was given by keyword.

   Rejected: Argument Clinic.  It does not support *args beside keywords, and
   it is not meant for extensions.

   Any thread may call.  Results are borrowed from the caller's arguments. */
#ifndef FL_PY_ARGS_H
#define FL_PY_ARGS_H

#include "py/compat.h"

/* The parameters of a method. */
typedef struct {
    const char *function; /* its name, for error messages */
    const char *names[2]; /* positional or keyword; unused ones are NULL */
    int optional;         /* how many of the last ones need not be given */
    bool more;            /* accepts *args after these */
    bool context;         /* accepts context=; its type is not checked */
} FlParameters;

/* The arguments of one call, all borrowed. */
typedef struct {
    PyObject *const *args; /* the named parameters, then the others; NULL: one
                              that is optional was not given */
    Py_ssize_t nargs;
    PyObject *context;  /* NULL if it is absent or None */
    PyObject *named[2]; /* args points here if a keyword was used: so a
                           parsed FlArgs must not be copied or moved */
} FlArgs;

/* Entries of method tables.  The double cast of the function avoids a compiler
   warning: its signature depends on the flags. */
#define FL_FASTCALL (METH_FASTCALL | METH_KEYWORDS)
#define FL_METHOD(name, function, flags, doc)                   \
    {                                                           \
        name, (PyCFunction)(void (*)(void))function, flags, doc \
    }

/* Parse a vectorcall's arguments into *parsed.  0, or -1 with TypeError
   set. */
int fl_args_parse(const FlParameters *parameters, PyObject *const *args,
                  Py_ssize_t nargs, PyObject *kwnames, FlArgs *parsed);

/* The only argument of a method with one required parameter.  Borrowed; NULL
   with TypeError set. */
PyObject *fl_args_parse_one(const char *function, const char *parameter,
                            PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames);

/* An optional argument, which may be None: NULL for None.  Borrowed. */
static inline PyObject *
fl_none_to_null(PyObject *object)
{
    return object == Py_None ? NULL : object;
}

/* A tuple of the arguments: a new reference, NULL with MemoryError set. */
PyObject *fl_args_tuple(PyObject *const *args, Py_ssize_t count);

#endif
