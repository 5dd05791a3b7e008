/* Fields that another thread may read while this one changes them.

   Without a GIL a thread that reads a pointer and then takes a reference may
   find the object freed in between.  So the owner's critical section covers
   both, and every change.  With a GIL these functions cost no more than
   Py_XNewRef and Py_XSETREF.

   Owner: the result of fl_field_get is a new reference.
   Threads: any.
   Errors: none. */
#ifndef FL_PY_FIELD_H
#define FL_PY_FIELD_H

#include "py/compat.h"

#include <stdatomic.h>
#include <stdint.h>

/* The object in a field of `owner`, or NULL. */
static inline PyObject *
fl_field_get(void *owner, PyObject *const *field)
{
    PyObject *object;
    Py_BEGIN_CRITICAL_SECTION(owner);
    object = Py_XNewRef(*field);
    Py_END_CRITICAL_SECTION();
    return object;
}

/* Set the field to an object, a new reference, or to NULL.  The old object is
   dropped outside the critical section: that may run Python. */
static inline void
fl_field_set(void *owner, PyObject **field, PyObject *object)
{
    PyObject *old;
    Py_BEGIN_CRITICAL_SECTION(owner);
    old = *field;
    __atomic_store_n(field, Py_XNewRef(object), __ATOMIC_RELAXED);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(old);
}

/* Count up a field that only this thread changes.  ++ would lock the memory
   bus without a GIL. */
static inline void
fl_field_count_up(FL_ATOMIC uint64_t *field)
{
#if FL_HAVE_GIL
    ++*field;
#else
    uint64_t count = atomic_load_explicit(field, memory_order_relaxed);
    atomic_store_explicit(field, count + 1, memory_order_relaxed);
#endif
}

/* The getter of an attribute that is None until its field, at this offset of
   the object, is set.  Not a PyMemberDef: without a GIL that reads the object
   while another thread replaces and frees it. */
static inline PyObject *
fl_field_attribute(PyObject *owner, void *offset)
{
    PyObject *value =
        fl_field_get(owner, (PyObject **)((char *)owner + (size_t)offset));
    return value == NULL ? Py_NewRef(Py_None) : value;
}

#endif
