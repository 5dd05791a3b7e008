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
    INTEGER, /* -1 and MemoryError */
    BUFFER,  /* so, and the second argument is a Py_buffer without object */
    OUT2,    /* so, and NULL where the second argument points */
    OUT3,    /* and the third */
    SPECIAL, /* a function of its own below */
};

/* Which library's calls: libuv aborts where some of its own fail, such as the
   write to its eventfd, which no signal interrupts. */
enum {
    CORE = 1,
    LIBUV = 2,
    BOTH = 3
};

/* Functions of integers and pointers, of which nothing need be known. */
#define GENERIC(X)                                     \
    X(accept4, ERRNO, BOTH)                            \
    X(epoll_create1, ERRNO, BOTH)                      \
    X(eventfd, ERRNO, BOTH)                            \
    X(pipe2, ERRNO, BOTH)                              \
    X(getsockname, ERRNO, BOTH)                        \
    X(getpeername, ERRNO, BOTH)                        \
    X(getsockopt, ERRNO, BOTH)                         \
    X(setsockopt, ERRNO, BOTH)                         \
    X(shutdown, ERRNO, BOTH)                           \
    X(ioctl, ERRNO, BOTH)                              \
    X(dup2, ERRNO, CORE)                               \
    X(fstat64, ERRNO, CORE)                            \
    X(poll, ERRNO, CORE)                               \
    X(ppoll, ERRNO, CORE)                              \
    X(malloc, MEMORY, BOTH)                            \
    X(calloc, MEMORY, BOTH)                            \
    X(realloc, MEMORY, CORE)                           \
    X(aligned_alloc, MEMORY, BOTH)                     \
    X(pthread_create, CODE, CORE)                      \
    X(uv_loop_init, UV, CORE)                          \
    X(uv_async_init, UV, CORE)                         \
    X(uv_mutex_init, UV, CORE)                         \
    X(uv_cond_init, UV, CORE)                          \
    X(uv_loop_fork, UV, CORE)                          \
    X(PyMem_Malloc, RAW, CORE)                         \
    X(PyMem_Calloc, RAW, CORE)                         \
    X(PyMem_RawMalloc, RAW, CORE)                      \
    X(PyMem_RawCalloc, RAW, CORE)                      \
    X(PyMem_RawRealloc, RAW, CORE)                     \
    X(PyByteArray_FromStringAndSize, POINTER, CORE)    \
    X(PyBytes_FromObject, POINTER, CORE)               \
    X(PyBytes_FromStringAndSize, POINTER, CORE)        \
    X(PyCMethod_New, POINTER, CORE)                    \
    X(PyContext_Copy, POINTER, CORE)                   \
    X(PyContext_CopyCurrent, POINTER, CORE)            \
    X(PyDict_Copy, POINTER, CORE)                      \
    X(PyDict_GetItemWithError, POINTER, CORE)          \
    X(PyDict_New, POINTER, CORE)                       \
    X(PyImport_ImportModule, POINTER, CORE)            \
    X(PyIter_Next, POINTER, CORE)                      \
    X(PyList_AsTuple, POINTER, CORE)                   \
    X(PyList_New, POINTER, CORE)                       \
    X(PyLong_FromLong, POINTER, CORE)                  \
    X(PyLong_FromLongLong, POINTER, CORE)              \
    X(PyLong_FromSize_t, POINTER, CORE)                \
    X(PyLong_FromSsize_t, POINTER, CORE)               \
    X(PyLong_FromUnsignedLong, POINTER, CORE)          \
    X(PyLong_FromUnsignedLongLong, POINTER, CORE)      \
    X(PyMapping_Values, POINTER, CORE)                 \
    X(PyMemoryView_FromMemory, POINTER, CORE)          \
    X(PyMemoryView_FromObject, POINTER, CORE)          \
    X(PyNumber_Add, POINTER, CORE)                     \
    X(PyNumber_Index, POINTER, CORE)                   \
    X(PyNumber_Subtract, POINTER, CORE)                \
    X(PyObject_Call, POINTER, CORE)                    \
    X(PyObject_CallFunction, POINTER, CORE)            \
    X(PyObject_CallFunctionObjArgs, POINTER, CORE)     \
    X(PyObject_CallMethod, POINTER, CORE)              \
    X(PyObject_CallMethodObjArgs, POINTER, CORE)       \
    X(PyObject_CallNoArgs, POINTER, CORE)              \
    X(PyObject_CallOneArg, POINTER, CORE)              \
    X(PyObject_GetAttr, POINTER, CORE)                 \
    X(PyObject_GetAttrString, POINTER, CORE)           \
    X(PyObject_GetItem, POINTER, CORE)                 \
    X(PyObject_GetIter, POINTER, CORE)                 \
    X(PyObject_Repr, POINTER, CORE)                    \
    X(PyObject_Vectorcall, POINTER, CORE)              \
    X(PyObject_VectorcallMethod, POINTER, CORE)        \
    X(PySequence_Concat, POINTER, CORE)                \
    X(PySequence_GetItem, POINTER, CORE)               \
    X(PySequence_GetSlice, POINTER, CORE)              \
    X(PySequence_Tuple, POINTER, CORE)                 \
    X(PyTuple_New, POINTER, CORE)                      \
    X(PyTuple_Pack, POINTER, CORE)                     \
    X(PyType_GenericAlloc, POINTER, CORE)              \
    X(PyType_GetName, POINTER, CORE)                   \
    X(PyUnicode_DecodeFSDefaultAndSize, POINTER, CORE) \
    X(PyUnicode_FromFormat, POINTER, CORE)             \
    X(PyUnicode_FromString, POINTER, CORE)             \
    X(PyUnicode_FromStringAndSize, POINTER, CORE)      \
    X(PyUnicode_InternFromString, POINTER, CORE)       \
    X(PyWeakref_NewRef, POINTER, CORE)                 \
    X(Py_BuildValue, POINTER, CORE)                    \
    X(_PyObject_CallFunction_SizeT, POINTER, CORE)     \
    X(_PyObject_CallMethod_SizeT, POINTER, CORE)       \
    X(_PyObject_GC_New, POINTER, CORE)                 \
    X(_PyObject_GC_NewVar, POINTER, CORE)              \
    X(_Py_BuildValue_SizeT, POINTER, CORE)             \
    X(PyContext_Enter, INTEGER, CORE)                  \
    X(PyDict_Contains, INTEGER, CORE)                  \
    X(PyDict_SetItem, INTEGER, CORE)                   \
    X(PyDict_SetItemString, INTEGER, CORE)             \
    X(PyDict_Update, INTEGER, CORE)                    \
    X(PyErr_CheckSignals, INTEGER, CORE)               \
    X(PyErr_ResourceWarning, INTEGER, CORE)            \
    X(PyList_Append, INTEGER, CORE)                    \
    X(PyList_Sort, INTEGER, CORE)                      \
    X(PyObject_AsFileDescriptor, INTEGER, CORE)        \
    X(PyObject_IsInstance, INTEGER, CORE)              \
    X(PyObject_IsTrue, INTEGER, CORE)                  \
    X(PyObject_RichCompareBool, INTEGER, CORE)         \
    X(PyObject_SetAttr, INTEGER, CORE)                 \
    X(PyObject_SetAttrString, INTEGER, CORE)           \
    X(PyObject_Size, INTEGER, CORE)                    \
    X(PyObject_GetBuffer, BUFFER, CORE)                \
    X(PyDict_GetItemRef, OUT3, CORE)                   \
    X(PyObject_GetOptionalAttr, OUT3, CORE)

/* The symbol, the name it goes by, and whose calls. */
#define SPECIALS(X)                                               \
    X(epoll_ctl, "epoll_ctl", BOTH)                               \
    X(epoll_ctl_libuv, "epoll_ctl_libuv", 0)                      \
    X(epoll_ctl_mod, "epoll_ctl_mod", 0)                          \
    X(epoll_wait, "epoll_wait", BOTH)                             \
    X(epoll_pwait, "epoll_wait", BOTH)                            \
    X(fcntl, "fcntl", BOTH)                                       \
    X(fcntl64, "fcntl", BOTH)                                     \
    X(mmap, "mmap", CORE)                                         \
    X(mmap64, "mmap", CORE)                                       \
    X(close, "close", CORE)                                       \
    X(read, "read", CORE)                                         \
    X(write, "write", CORE)                                       \
    X(recv, "recv", BOTH)                                         \
    X(send, "send", BOTH)                                         \
    X(recvmsg, "recvmsg", BOTH)                                   \
    X(sendmsg, "sendmsg", BOTH)                                   \
    X(writev, "writev", BOTH)                                     \
    X(recvmmsg, "recvmmsg", BOTH)                                 \
    X(recvfrom, "recvfrom", BOTH) X(sendto, "sendto", BOTH)       \
        X(clock_gettime, "clock_gettime", CORE)                   \
            X(epoll_pwait2, "epoll_wait", CORE)                   \
                X(PyFloat_FromDouble, "PyFloat_FromDouble", CORE) \
                    X(_PyBytes_Resize, "_PyBytes_Resize", CORE)

#endif
