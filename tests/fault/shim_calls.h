/* Which functions shim.c can make fail, and how each says that it failed. */
#ifndef FAULT_SHIM_CALLS_H
#define FAULT_SHIM_CALLS_H

/* What a failing call returns. */
enum {
    ERRNO,   /* -1 and errno */
    UV,      /* the error, negative */
    CODE,    /* the error */
    MEMORY,  /* NULL and errno, no exception */
    RAW,     /* NULL alone */
    POINTER, /* NULL and MemoryError */
    BUILT,   /* so, and what its arguments gave away is let go of */
    INTEGER, /* -1 and MemoryError */
    BUFFER,  /* so, and the second argument is a Py_buffer without object */
    OUT2,    /* so, and NULL where the second argument points */
    OUT3,    /* and the third */
    SPECIAL, /* a function of its own below */
};

/* Functions of integers and pointers, of which nothing need be known. */
#define GENERIC(X)                               \
    X(accept4, ERRNO)                            \
    X(epoll_create1, ERRNO)                      \
    X(eventfd, ERRNO)                            \
    X(getsockname, ERRNO)                        \
    X(getpeername, ERRNO)                        \
    X(getsockopt, ERRNO)                         \
    X(setsockopt, ERRNO)                         \
    X(shutdown, ERRNO)                           \
    X(ioctl, ERRNO)                              \
    X(dup3, ERRNO)                               \
    X(fstat64, ERRNO)                            \
    X(poll, ERRNO)                               \
    X(malloc, MEMORY)                            \
    X(calloc, MEMORY)                            \
    X(realloc, MEMORY)                           \
    X(aligned_alloc, MEMORY)                     \
    X(pthread_create, CODE)                      \
    X(uv_mutex_init, UV)                         \
    X(uv_cond_init, UV)                          \
    X(PyMem_Malloc, RAW)                         \
    X(PyMem_Calloc, RAW)                         \
    X(PyMem_RawMalloc, RAW)                      \
    X(PyMem_RawCalloc, RAW)                      \
    X(PyMem_RawRealloc, RAW)                     \
    X(PyByteArray_FromStringAndSize, POINTER)    \
    X(PyBytes_FromObject, POINTER)               \
    X(PyBytes_FromStringAndSize, POINTER)        \
    X(PyCMethod_New, POINTER)                    \
    X(PyContext_Copy, POINTER)                   \
    X(PyContext_CopyCurrent, POINTER)            \
    X(PyDict_Copy, POINTER)                      \
    X(PyDict_GetItemWithError, POINTER)          \
    X(PyDict_New, POINTER)                       \
    X(PyImport_ImportModule, POINTER)            \
    X(PyIter_Next, POINTER)                      \
    X(PyList_AsTuple, POINTER)                   \
    X(PyList_New, POINTER)                       \
    X(PyLong_FromLong, POINTER)                  \
    X(PyLong_FromLongLong, POINTER)              \
    X(PyLong_FromSize_t, POINTER)                \
    X(PyLong_FromSsize_t, POINTER)               \
    X(PyLong_FromUnsignedLong, POINTER)          \
    X(PyLong_FromUnsignedLongLong, POINTER)      \
    X(PyMapping_Values, POINTER)                 \
    X(PyMemoryView_FromMemory, POINTER)          \
    X(PyMemoryView_FromObject, POINTER)          \
    X(PyNumber_Add, POINTER)                     \
    X(PyNumber_Index, POINTER)                   \
    X(PyNumber_Subtract, POINTER)                \
    X(PyObject_Call, POINTER)                    \
    X(PyObject_CallFunction, POINTER)            \
    X(PyObject_CallFunctionObjArgs, POINTER)     \
    X(PyObject_CallMethod, POINTER)              \
    X(PyObject_CallMethodObjArgs, POINTER)       \
    X(PyObject_CallNoArgs, POINTER)              \
    X(PyObject_CallOneArg, POINTER)              \
    X(PyObject_GetAttr, POINTER)                 \
    X(PyObject_GetAttrString, POINTER)           \
    X(PyObject_GetItem, POINTER)                 \
    X(PyObject_GetIter, POINTER)                 \
    X(PyObject_Repr, POINTER)                    \
    X(PyObject_Vectorcall, POINTER)              \
    X(PyObject_VectorcallMethod, POINTER)        \
    X(PySequence_Concat, POINTER)                \
    X(PySequence_GetItem, POINTER)               \
    X(PySequence_GetSlice, POINTER)              \
    X(PySequence_Tuple, POINTER)                 \
    X(PyTuple_New, POINTER)                      \
    X(PyTuple_Pack, POINTER)                     \
    X(PyType_GenericAlloc, POINTER)              \
    X(PyType_GetName, POINTER)                   \
    X(PyUnicode_DecodeFSDefaultAndSize, POINTER) \
    X(PyUnicode_FromFormat, POINTER)             \
    X(PyUnicode_FromString, POINTER)             \
    X(PyUnicode_FromStringAndSize, POINTER)      \
    X(PyUnicode_InternFromString, POINTER)       \
    X(PyWeakref_NewRef, POINTER)                 \
    X(Py_BuildValue, BUILT)                      \
    X(_PyObject_CallFunction_SizeT, POINTER)     \
    X(_PyObject_CallMethod_SizeT, POINTER)       \
    X(_PyObject_GC_New, POINTER)                 \
    X(_PyObject_GC_NewVar, POINTER)              \
    X(_Py_BuildValue_SizeT, BUILT)               \
    X(PyContext_Enter, INTEGER)                  \
    X(PyDict_Contains, INTEGER)                  \
    X(PyDict_SetItem, INTEGER)                   \
    X(PyDict_SetItemString, INTEGER)             \
    X(PyDict_Update, INTEGER)                    \
    X(PyErr_CheckSignals, INTEGER)               \
    X(PyErr_ResourceWarning, INTEGER)            \
    X(PyList_Append, INTEGER)                    \
    X(PyList_Sort, INTEGER)                      \
    X(PyObject_AsFileDescriptor, INTEGER)        \
    X(PyObject_IsInstance, INTEGER)              \
    X(PyObject_IsTrue, INTEGER)                  \
    X(PyObject_RichCompareBool, INTEGER)         \
    X(PyObject_SetAttr, INTEGER)                 \
    X(PyObject_SetAttrString, INTEGER)           \
    X(PyObject_Size, INTEGER)                    \
    X(PyObject_GetBuffer, BUFFER)                \
    X(PyDict_GetItemRef, OUT3)                   \
    X(PyObject_GetOptionalAttr, OUT3)

/* The symbol, and the name it goes by. */
#define SPECIALS(X)                             \
    X(epoll_ctl, "epoll_ctl")                   \
    X(epoll_ctl_mod, "epoll_ctl_mod")           \
    X(epoll_exclusive, "epoll_exclusive")       \
    X(epoll_wait, "epoll_wait")                 \
    X(epoll_pwait, "epoll_wait")                \
    X(fcntl, "fcntl")                           \
    X(fcntl64, "fcntl")                         \
    X(mmap, "mmap")                             \
    X(mmap64, "mmap")                           \
    X(close, "close")                           \
    X(read, "read")                             \
    X(write, "write")                           \
    X(recv, "recv")                             \
    X(send, "send")                             \
    X(recvmsg, "recvmsg")                       \
    X(sendmsg, "sendmsg")                       \
    X(writev, "writev")                         \
    X(recvmmsg, "recvmmsg")                     \
    X(recvfrom, "recvfrom")                     \
    X(sendto, "sendto")                         \
    X(clock_gettime, "clock_gettime")           \
    X(epoll_pwait2, "epoll_wait")               \
    X(PyFloat_FromDouble, "PyFloat_FromDouble") \
    X(_PyBytes_Resize, "_PyBytes_Resize")

#endif
