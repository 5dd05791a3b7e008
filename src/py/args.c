/* Parsing a method's arguments, positional or keyword: see args.h. */
#include "py/args.h"

#include "py/compat.h"

/* Store one keyword argument.  Names are compared as text, not as pointers:
   the keys of a dict that a caller unpacks need not be interned.  0, or -1
   with TypeError. */
static int
store_keyword(const FlParameters *parameters, Py_ssize_t count, PyObject *name,
              PyObject *value, FlArgs *parsed)
{
    if (parameters->context
        && PyUnicode_CompareWithASCIIString(name, "context") == 0)
    {
        parsed->context = value == Py_None ? NULL : value;
        return 0;
    }
    /* The messages are those of CPython's own argument parsing. */
    const char *problem = "an unexpected keyword argument";
    for (Py_ssize_t at = 0; at < count; at++) {
        if (PyUnicode_CompareWithASCIIString(name, parameters->names[at]) != 0)
        {
            continue;
        }
        /* Else the caller gave this parameter by position too. */
        if (parsed->args == parsed->named && parsed->named[at] == NULL) {
            parsed->named[at] = value;
            return 0;
        }
        problem = "multiple values for argument";
    }
    PyErr_Format(PyExc_TypeError, "%s() got %s '%U'", parameters->function,
                 problem, name);
    return -1;
}

/* Check the number of arguments, once the keyword arguments are stored. */
static int
check_count(const FlParameters *parameters, Py_ssize_t count,
            const FlArgs *parsed)
{
    for (Py_ssize_t at = 0; at < count - parameters->optional; at++) {
        if (parsed->args[at] == NULL) {
            PyErr_Format(PyExc_TypeError,
                         "%s() missing 1 required positional argument: '%s'",
                         parameters->function, parameters->names[at]);
            return -1;
        }
    }
    if (parsed->nargs > count && !parameters->more) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes %zd positional arguments but %zd were given",
                     parameters->function, count, parsed->nargs);
        return -1;
    }
    return 0;
}

int
fl_args_parse(const FlParameters *parameters, PyObject *const *args,
              Py_ssize_t nargs, PyObject *kwnames, FlArgs *parsed)
{
    const char *const *names = parameters->names;
    Py_ssize_t count = names[0] == NULL ? 0 : names[1] == NULL ? 1 : 2;
    *parsed = (FlArgs){.args = args, .nargs = nargs};
    if (nargs < count) {
        /* Some parameter must come by name.  Only then are the arguments
           copied, to a place where store_keyword can add the rest. */
        for (Py_ssize_t at = 0; at < nargs; at++) {
            parsed->named[at] = args[at];
        }
        parsed->args = parsed->named;
        parsed->nargs = count; /* check_count finds those still missing */
    }
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t at = 0; at < named; at++) {
        if (store_keyword(parameters, count, PyTuple_GET_ITEM(kwnames, at),
                          args[nargs + at], parsed)
            < 0)
        {
            return -1;
        }
    }
    return check_count(parameters, count, parsed);
}

PyObject *
fl_args_parse_one(const char *function, const char *parameter,
                  PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    FlParameters parameters = {.function = function, .names = {parameter}};
    FlArgs parsed;
    if (fl_args_parse(&parameters, args, nargs, kwnames, &parsed) < 0) {
        return NULL;
    }
    return parsed.args[0];
}

PyObject *
fl_args_tuple(PyObject *const *args, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t at = 0; tuple != NULL && at < count; at++) {
        PyTuple_SET_ITEM(tuple, at, Py_NewRef(args[at]));
    }
    return tuple;
}
