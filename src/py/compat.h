/* Every difference between CPython 3.11 and 3.15 that the C code meets.

   Code elsewhere uses what is named here; it tests the version only where a
   struct or a table has a line more or less (module.c, stream.h, transport.c).
   Each block says which version brought the change, and what that means. */
#ifndef FL_PY_COMPAT_H
#define FL_PY_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>

#if PY_VERSION_HEX < 0x030B0000
#error "fastloop needs CPython 3.11 or later"
#endif

/* 3.12 asks the system for no process id to tell the thread's running loop. */
#define FL_RUNNING_LOOP_IS_CHEAP (PY_VERSION_HEX >= 0x030C0000)

/* 3.12 made structmember.h part of Python.h and renamed its constants. */
#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#define Py_T_PYSSIZET  T_PYSSIZET
#define Py_T_OBJECT_EX T_OBJECT_EX
#define FL_T_OBJECT    T_OBJECT
#define Py_T_DOUBLE    T_DOUBLE
#define Py_T_BOOL      T_BOOL
#define Py_READONLY    READONLY
#else
/* The value of a member that reads as None while it is NULL. */
#define FL_T_OBJECT 6
#endif

/* 3.12: the weak reference list of a Python-slotted class moved in front of
   the object; before, it was the last of the instance's own fields. */
#if PY_VERSION_HEX < 0x030C0000
#define FL_WEAKREF_FIELD PyObject *weakrefs;
#else
#define FL_WEAKREF_FIELD
#endif

/* 3.14: what call_soon_threadsafe returns is a class of its own, with a lock
   that ours leaves alone. */
#if PY_VERSION_HEX < 0x030E0000
#define FL_THREADSAFE_HANDLE "Handle"
#define FL_LOCK_FIELD
#else
#define FL_THREADSAFE_HANDLE "_ThreadSafeHandle"
#define FL_LOCK_FIELD        PyObject *lock;
#endif

/* 3.12: exceptions are handled as one object. */
#if PY_VERSION_HEX < 0x030C0000
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
}

static inline void
PyErr_SetRaisedException(PyObject *exc)
{
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc,
                  PyException_GetTraceback(exc));
}
#endif

/* 3.13: critical sections, which exist only where there is no GIL, and
   look-ups that return strong references. */
#if PY_VERSION_HEX < 0x030D0000
#define Py_BEGIN_CRITICAL_SECTION(op) {
#define Py_END_CRITICAL_SECTION()     }

static inline int
PyDict_GetItemRef(PyObject *dict, PyObject *key, PyObject **result)
{
    PyObject *item = PyDict_GetItemWithError(dict, key);
    *result = Py_XNewRef(item);
    return item != NULL ? 1 : (PyErr_Occurred() ? -1 : 0);
}

static inline int
PyObject_GetOptionalAttr(PyObject *object, PyObject *name, PyObject **result)
{
    *result = PyObject_GetAttr(object, name);
    if (*result != NULL) {
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear(); /* the attribute is optional: absence is the answer */
    return 0;
}
#endif

/* Instances with a dict and weak references: fields of the object before 3.12,
   managed in front of it since.  OBJECT has `dict` and `weakrefs` before. */
#if PY_VERSION_HEX < 0x030C0000
#define FL_DICT_FLAGS 0
#define fl_visit_dict(object, visit, arg) \
    fl_visit_one((object)->dict, visit, arg)
#define fl_clear_dict(object) Py_CLEAR((object)->dict)

static inline int
fl_visit_one(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(object);
    return 0;
}
#else
#define FL_DICT_FLAGS (Py_TPFLAGS_MANAGED_DICT | Py_TPFLAGS_MANAGED_WEAKREF)
#if PY_VERSION_HEX < 0x030D0000
#define PyObject_VisitManagedDict _PyObject_VisitManagedDict
#define PyObject_ClearManagedDict _PyObject_ClearManagedDict
#endif
#define fl_visit_dict(object, visit, arg) \
    PyObject_VisitManagedDict((PyObject *)(object), visit, arg)
#define fl_clear_dict(object) PyObject_ClearManagedDict((PyObject *)(object))
#endif

/* 3.13 exports PySignal_SetWakeupFd; before, it is declared and hidden. */
#define FL_HAVE_SET_WAKEUP_FD (PY_VERSION_HEX >= 0x030D0000)

/* 3.13: Server._attach and _detach are told which transport it is. */
#define FL_SERVER_KNOWS_TRANSPORTS (PY_VERSION_HEX >= 0x030D0000)

/* 3.13: empty datagrams are sent, and each one that waits counts as so many
   bytes more. */
#if PY_VERSION_HEX >= 0x030D0000
#define FL_EMPTY_DATAGRAMS       1
#define FL_DATAGRAM_HEADER_BYTES 8
#else
#define FL_EMPTY_DATAGRAMS       0
#define FL_DATAGRAM_HEADER_BYTES 0
#endif

/* 3.12: asyncio's datagram transports are DatagramTransports. */
#define FL_HAVE_DATAGRAM_BASE (PY_VERSION_HEX >= 0x030C0000)

/* 3.13: a run that meets a timer whose time is NaN, and sleep(nan), end with
   ValueError; before, such a timer is due at once. */
#define FL_REFUSES_NAN (PY_VERSION_HEX >= 0x030D0000)

/* 3.14: a concurrent future that is done in the loop's own thread sets the
   asyncio one at once, not in the next iteration. */
#define FL_FUTURES_SET_AT_ONCE (PY_VERSION_HEX >= 0x030E0000)

/* 3.14: a handle of call_soon_threadsafe has a lock that its callback holds:
   see core/threadsafe_handle.c. */
#define FL_HANDLES_WAIT (PY_VERSION_HEX >= 0x030E0000)

/* 3.14: a TLS transport is closing when the one below it is. */
#define FL_TLS_CLOSES_WITH_RAW (PY_VERSION_HEX >= 0x030E0000)

/* 3.14: a stream's write names the types it takes. */
#if PY_VERSION_HEX < 0x030E0000
#define FL_WRITABLE_TYPES "bytes-like"
#else
#define FL_WRITABLE_TYPES "bytes, bytearray, or memoryview"
#endif

/* Without a GIL other threads may touch a handle while the loop runs it, so
   the short cuts that only the GIL makes safe are compiled out. */
#ifdef Py_GIL_DISABLED
#define FL_HAVE_GIL 0
#else
#define FL_HAVE_GIL 1
#endif

/* Without a GIL each birth and death of an instance counts its type, and two
   threads that do so wait for each other's cache line.  A count too large for
   its field makes an object immortal, as documented; the interpreter does the
   same to every class written in Python once it has a second thread. */
static inline void
fl_make_type_immortal(PyObject *type)
{
#ifdef Py_GIL_DISABLED
    Py_SET_REFCNT(type, PY_SSIZE_T_MAX);
#else
    (void)type;
#endif
}

/* A field that one thread writes and others may read at any time.  With a GIL
   they take turns, and the field is a plain one. */
#if FL_HAVE_GIL
#define FL_ATOMIC
#else
#define FL_ATOMIC _Atomic
#endif

/* The object of a weak reference, a new reference; NULL when it is dead.  No
   error can be raised.  3.13: without a borrowed one between. */
static inline PyObject *
fl_weakref_get(PyObject *weak)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *object = NULL;
    (void)PyWeakref_GetRef(weak, &object);
    return object;
#else
    PyObject *object = PyWeakref_GetObject(weak);
    return object == Py_None ? NULL : Py_NewRef(object);
#endif
}

/* A number that a class has until it is changed; 0: none yet.  Nothing public
   tells so before the watchers of 3.12, which are few and a program's. */
static inline unsigned
fl_type_version(const PyTypeObject *type)
{
    return type->tp_version_tag;
}

/* Give a dead object of a pool, which kept its type and the reference to it,
   its first reference again.  A debug build counts all references. */
static inline void
fl_revive(PyObject *object)
{
#ifdef Py_REF_DEBUG
    (void)PyObject_Init(object, Py_TYPE(object));
    Py_DECREF(Py_TYPE(object));
#else
    Py_SET_REFCNT(object, 1);
#endif
}

#if defined(__GNUC__)
#define FL_LIKELY(x)   __builtin_expect(!!(x), 1)
#define FL_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define FL_LIKELY(x)   (x)
#define FL_UNLIKELY(x) (x)
#endif

/* A precondition, checked in debug and sanitizer builds. */
#define FL_CHECK(condition, message) assert((condition) && (message))

#endif
