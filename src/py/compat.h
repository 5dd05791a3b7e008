/* The differences between CPython 3.11 and 3.15 that matter to the C code.

   Other files use the names defined here.  A file tests the version itself
   only for a difference that concerns no other file (module.c, tasks.c,
   transport.h, ...).  Each block below names the version that brought the
   change, and the consequence.

   Everything here needs the GIL (an attached thread state). */
#ifndef FL_PY_COMPAT_H
#define FL_PY_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>

#if PY_VERSION_HEX < 0x030B0000
#error "fastloop needs CPython 3.11 or later"
#endif
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x030E0000
#error "fastloop needs free-threaded CPython 3.14 or later"
#endif

/* 3.12: get_running_loop() no longer calls getpid(), so it is cheap enough to
   call for each new future (loop/tasks.c). */
#define FL_RUNNING_LOOP_IS_CHEAP (PY_VERSION_HEX >= 0x030C0000)

/* 3.12: the constants of structmember.h became part of Python.h, renamed. */
#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#define Py_T_PYSSIZET  T_PYSSIZET
#define Py_T_OBJECT_EX T_OBJECT_EX
#define FL_T_OBJECT    T_OBJECT
#define Py_T_BOOL      T_BOOL
#define Py_T_UINT      T_UINT
#define Py_T_DOUBLE    T_DOUBLE
#define Py_READONLY    READONLY
#else
/* T_OBJECT, whose member reads as None while it is NULL.  3.12 has no public
   name for it. */
#define FL_T_OBJECT 6
#endif

/* 3.12: the weak reference list of a class with __slots__ moved in front of
   the object.  Before, it was the last field of the instance. */
#if PY_VERSION_HEX < 0x030C0000
#define FL_WEAKREF_FIELD PyObject *weakrefs;
#else
#define FL_WEAKREF_FIELD
#endif

/* 3.12: the raised exception is one object, not a triple of type, value and
   traceback. */
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

/* 3.13: critical sections, which do something only without a GIL, and lookups
   that return strong references. */
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

/* Sets *result to NULL on failure. */
static inline int
PyDict_SetDefaultRef(PyObject *dict, PyObject *key, PyObject *value,
                     PyObject **result)
{
    PyObject *item = PyDict_SetDefault(dict, key, value);
    *result = Py_XNewRef(item);
    return item == NULL ? -1 : item != value;
}
#endif

/* Instances with a __dict__ and weak references.  3.12: the interpreter
   manages both in front of the object.  Before, the object has the fields
   `dict` and `weakrefs`, and its own GC slots visit and clear the dict. */
#if PY_VERSION_HEX < 0x030C0000
#define FL_DICT_FLAGS 0
/* The last members of such a type, which finds both fields through them. */
#define FL_LAST_MEMBERS(type)                                            \
    {"__dictoffset__", Py_T_PYSSIZET, offsetof(type, dict), Py_READONLY, \
     NULL},                                                              \
        {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(type, weakrefs),  \
         Py_READONLY, NULL},                                             \
    {                                                                    \
        NULL, 0, 0, 0, NULL                                              \
    }
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
#define FL_LAST_MEMBERS(type) \
    {                         \
        NULL, 0, 0, 0, NULL   \
    }
#if PY_VERSION_HEX < 0x030D0000
#define PyObject_VisitManagedDict _PyObject_VisitManagedDict
#define PyObject_ClearManagedDict _PyObject_ClearManagedDict
#endif
#define fl_visit_dict(object, visit, arg) \
    PyObject_VisitManagedDict((PyObject *)(object), visit, arg)
#define fl_clear_dict(object) PyObject_ClearManagedDict((PyObject *)(object))
#endif

/* 3.13: Server._attach and _detach take the transport as an argument. */
#define FL_SERVER_KNOWS_TRANSPORTS (PY_VERSION_HEX >= 0x030D0000)

/* 3.13: an empty datagram is sent (before, sendto() ignores it), and each
   queued datagram adds this many bytes to the size of the write buffer. */
#if PY_VERSION_HEX >= 0x030D0000
#define FL_EMPTY_DATAGRAMS       1
#define FL_DATAGRAM_HEADER_BYTES 8
#else
#define FL_EMPTY_DATAGRAMS       0
#define FL_DATAGRAM_HEADER_BYTES 0
#endif

/* 3.12: asyncio's datagram transports inherit asyncio.DatagramTransport. */
#define FL_HAVE_DATAGRAM_BASE (PY_VERSION_HEX >= 0x030C0000)

/* 3.14: the TypeError of a stream's write() names the accepted types. */
#if PY_VERSION_HEX < 0x030E0000
#define FL_WRITABLE_TYPES "bytes-like"
#else
#define FL_WRITABLE_TYPES "bytes, bytearray, or memoryview"
#endif

/* Without a GIL another thread may access a handle while the loop runs it.  So
   fast paths that are safe only under the GIL are compiled out. */
#ifdef Py_GIL_DISABLED
#define FL_HAVE_GIL 0
#else
#define FL_HAVE_GIL 1
#endif

/* Without a GIL, make an object immortal that all threads use and this thread
   owns.  Otherwise each thread changes its reference count, as that of a type
   for every instance, and they compete for a cache line.  A count too large
   for its field does it: the documentation says so. */
static inline void
fl_make_immortal(PyObject *object)
{
#ifdef Py_GIL_DISABLED
    Py_SET_REFCNT(object, PY_SSIZE_T_MAX);
#endif
}

/* The end of a deallocator: free an instance of a heap type, which owns a
   reference to it. */
static inline void
fl_object_free(void *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Marks a field that one thread writes and others may read at any time.  Under
   the GIL only one of them runs at a time, so the field is a plain one. */
#if FL_HAVE_GIL
#define FL_ATOMIC
#else
#define FL_ATOMIC _Atomic
#endif

/* The object of a weak reference: a new reference, NULL if it is dead.  Cannot
   fail.  3.13: PyWeakref_GetRef returns a strong reference directly; before,
   there is a borrowed one in between, which only the GIL protects. */
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

/* The version tag of a class, which changes whenever the class or a base class
   is changed; 0: the class has none at present.  This field is not public API.
   Rejected: type watchers.  They came with 3.12, and an interpreter has few of
   them, which belong to applications. */
static inline unsigned
fl_type_version(const PyTypeObject *type)
{
    /* Another thread may change the class: what is looked up afterwards is of
       this version or a later one. */
    return __atomic_load_n(&type->tp_version_tag, __ATOMIC_ACQUIRE);
}

/* Revive an object from a free list: set its reference count to 1.  The dead
   object still owns the reference to its type.  Without a GIL this thread
   becomes its owner, and a debug build counts the total of all references, so
   there PyObject_Init does it; that takes another reference to the type, which
   is dropped. */
static inline void
fl_revive(PyObject *object)
{
#if !FL_HAVE_GIL || defined(Py_REF_DEBUG)
    (void)PyObject_Init(object, Py_TYPE(object));
    Py_DECREF(Py_TYPE(object));
#else
    Py_SET_REFCNT(object, 1);
#endif
}

/* Forget the hash of a bytes object, whose contents are about to change.  The
   field is deprecated since 3.11, for a time when it is gone. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static inline void
fl_bytes_forget_hash(PyObject *bytes)
{
    ((PyBytesObject *)bytes)->ob_shash = -1;
}
#pragma GCC diagnostic pop

/* A function of a hot path that a rare path calls too: without this gcc would
   no longer inline it. */
#define FL_INLINE      static inline __attribute__((always_inline))
#define FL_NOINLINE    __attribute__((noinline))
#define FL_LIKELY(x)   __builtin_expect(!!(x), 1)
#define FL_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* A precondition, checked only in debug and sanitizer builds (assert). */
#define FL_CHECK(condition, message) assert((condition) && (message))

#endif
