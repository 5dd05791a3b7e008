/* Reading the arguments of methods, and saying what is wrong with them. */
#include "loop/methods.h"

int
fl_parse_context(FlLoop *loop, const char *function, PyObject *const *values,
                 PyObject *kwnames, PyObject **context)
{
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(kwnames); at++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, at);
        if (name != loop->state->names.context
            && PyUnicode_Compare(name, loop->state->names.context) != 0)
        {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_TypeError,
                             "%s() got an unexpected keyword argument '%U'",
                             function, name);
            }
            return -1;
        }
        *context = values[at] == Py_None ? NULL : values[at];
    }
    if (*context != NULL && !PyContext_CheckExact(*context)) {
        PyErr_Format(PyExc_TypeError,
                     "%s() context must be a contextvars.Context, not %.100s",
                     function, Py_TYPE(*context)->tp_name);
        return -1;
    }
    return 0;
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

int
fl_args_missing(const char *function, const char *parameter)
{
    PyErr_Format(PyExc_TypeError,
                 "%s() missing 1 required positional argument: '%s'", function,
                 parameter);
    return -1;
}

PyObject *
fl_parse_one(const char *function, const char *parameter,
             PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (nargs + named == 1
        && (named == 0
            || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0),
                                                parameter)
                   == 0))
    {
        return args[0];
    }
    if (nargs + named == 0) {
        (void)fl_args_missing(function, parameter);
    }
    else {
        PyErr_Format(PyExc_TypeError, "%s() takes one argument, '%s'",
                     function, parameter);
    }
    return NULL;
}

PyObject *
fl_call_named(FlLoop *loop, FlMethod method, const char *function,
              const char *const *names, PyObject *const *args,
              Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *values[3] = {NULL}, *context = NULL;
    Py_ssize_t count = names[1] == NULL ? 1 : 2;
    for (Py_ssize_t at = 0; at < nargs; at++) {
        values[at] = args[at];
    }
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(kwnames); at++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, at);
        Py_ssize_t place = 0;
        while (place < count
               && PyUnicode_CompareWithASCIIString(name, names[place]) != 0)
        {
            place++;
        }
        if (place < count && values[place] == NULL) {
            values[place] = args[nargs + at];
        }
        else if (place == count
                 && PyUnicode_Compare(name, loop->state->names.context) == 0)
        {
            context = args[nargs + at];
        }
        else {
            PyErr_Format(PyExc_TypeError, "%s() got %s '%U'", function,
                         place < count ? "multiple values for argument"
                                       : "an unexpected keyword argument",
                         name);
            return NULL;
        }
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        if (values[place] == NULL) {
            (void)fl_args_missing(function, names[place]);
            return NULL;
        }
    }
    if (context == NULL) {
        return method(loop, values, count, NULL);
    }
    values[count] = context;
    PyObject *rest = PyTuple_Pack(1, loop->state->names.context);
    PyObject *result = rest == NULL ? NULL : method(loop, values, count, rest);
    Py_XDECREF(rest);
    return result;
}
