/* Reading a method's arguments, given by position or by name. */
#include "py/args.h"

#include "py/compat.h"

/* Put a named argument where it belongs.  Names are compared as text: those
   that a caller spreads from a dict need not be interned. */
static int
take_named(const FlParameters *parameters, Py_ssize_t count, PyObject *name,
           PyObject *value, FlArgs *parsed)
{
    if (parameters->context
        && PyUnicode_CompareWithASCIIString(name, "context") == 0)
    {
        parsed->context = value == Py_None ? NULL : value;
        return 0;
    }
    const char *problem = "an unexpected keyword argument";
    for (Py_ssize_t at = 0; at < count; at++) {
        if (PyUnicode_CompareWithASCIIString(name, parameters->names[at]) != 0)
        {
            continue;
        }
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

/* As many as are asked for, once the named ones are in their places. */
static int
check_count(const FlParameters *parameters, Py_ssize_t count,
            const FlArgs *parsed)
{
    for (Py_ssize_t at = 0; at < count; at++) {
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
        for (Py_ssize_t at = 0; at < nargs; at++) {
            parsed->named[at] = args[at];
        }
        parsed->args = parsed->named;
        parsed->nargs = count;
    }
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t at = 0; at < named; at++) {
        if (take_named(parameters, count, PyTuple_GET_ITEM(kwnames, at),
                       args[nargs + at], parsed)
            < 0)
        {
            return -1;
        }
    }
    return check_count(parameters, count, parsed);
}

PyObject *
fl_parse_one(const char *function, const char *parameter,
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
