/* Module state: what all objects of one instance of fastloop._core share.

   There is one FlState per interpreter and import.  Nothing in it is global.

   Ownership: the module owns this struct.  A loop and a stream (which loses
   its loop when it ends) own the module; every other object of ours owns a
   loop.  tp_clear leaves these references.  So an object may use the state
   until it is freed.  Its type is not enough: the GC may clear a type, and
   with it the type's reference to the module, before the type's instances.

   Clearing: the module has no m_clear, so the state is whole until the module
   is freed.  The GC still breaks each cycle through the module: it clears the
   module's __dict__ and the types, which refer to the module.

   Threads: most fields are set at import and only read afterwards.  The others
   are changed under the GIL or are atomic; a field that only one thread may
   change says so. */
#ifndef FL_PY_STATE_H
#define FL_PY_STATE_H

#include "py/compat.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct FlLoop FlLoop; /* core/loop.h */
struct FlNativeProtocol;
struct FlOutbox; /* core/cork.h */

/* Names that C code looks up, interned once. */
#define FL_NAMES(X)             \
    X(TransportSocket)          \
    X(_accept_exhausted)        \
    X(_accept_failed)           \
    X(Future)                   \
    X(Task)                     \
    X(_attach)                  \
    X(_check_callback)          \
    X(_check_python_transports) \
    X(_check_thread)            \
    X(_closed)                  \
    X(_detach)                  \
    X(_io_refs)                 \
    X(_report_call)             \
    X(_report_callback)         \
    X(_report_slow)             \
    X(_run)                     \
    X(read)                     \
    X(readexactly)              \
    X(readuntil)                \
    X(readline)                 \
    X(feed_data)                \
    X(_wakeup_waiter)           \
    X(_wait_for_data)           \
    X(_maybe_resume_transport)  \
    X(__class__)                \
    X(_limit)                   \
    X(_loop)                    \
    X(_buffer)                  \
    X(_eof)                     \
    X(_waiter)                  \
    X(_exception)               \
    X(_transport)               \
    X(_paused)                  \
    X(_stream_reader_wr)        \
    X(accept)                   \
    X(connect)                  \
    X(connect_ex)               \
    X(recvfrom_into)            \
    X(sendall)                  \
    X(buffer_updated)           \
    X(call_exception_handler)   \
    X(cancel)                   \
    X(call_at)                  \
    X(cancelled)                \
    X(check_socket)             \
    X(close)                    \
    X(abort)                    \
    X(call_soon_threadsafe)     \
    X(pause_reading)            \
    X(resume_reading)           \
    X(closed_socket)            \
    X(connection_lost)          \
    X(connection_made)          \
    X(context)                  \
    X(create_future)            \
    X(data_received)            \
    X(datagram_received)        \
    X(detach)                   \
    X(done)                     \
    X(eof_received)             \
    X(error_received)           \
    X(exception)                \
    X(fileno)                   \
    X(finish_connect)           \
    X(get_buffer)               \
    X(get_extra_info)           \
    X(getpeername)              \
    X(getsockname)              \
    X(gettimeout)               \
    X(_reinit_after_fork)       \
    X(loop)                     \
    X(message)                  \
    X(name)                     \
    X(own_socket)               \
    X(pause_writing)            \
    X(peername)                 \
    X(protocol)                 \
    X(recv)                     \
    X(recv_into)                \
    X(recvfrom)                 \
    X(resume_writing)           \
    X(send)                     \
    X(send_rest)                \
    X(sendmsg)                  \
    X(sendto)                   \
    X(set_exception)            \
    X(set_result)               \
    X(setsockopt)               \
    X(shutdown)                 \
    X(socket)                   \
    X(sockname)                 \
    X(time)                     \
    X(transport)                \
    X(warn_lost)                \
    X(_force_close)             \
    X(_control_reading)         \
    X(_maybe_pause_protocol)    \
    X(do_handshake)             \
    X(is_closing)               \
    X(join)                     \
    X(pending)                  \
    X(unwrap)                   \
    X(warn_closed)              \
    X(warn_keep_open)           \
    X(write)                    \
    X(fatal)                    \
    X(getpeercert)              \
    X(handshake_begins)         \
    X(note_handshake)           \
    X(report_handshake)         \
    X(shutdown_begins)          \
    X(shutdown_done)            \
    X(wake_waiter)              \
    X(with_reason)              \
    X(_call_later)

typedef struct {
#define FL_NAME_FIELD(name) PyObject *name;
    FL_NAMES(FL_NAME_FIELD)
#undef FL_NAME_FIELD
} FlNames;

/* A cached answer: whether an application has replaced methods of a class.  It
   holds while the class has this version, because every change of a class
   changes its version (fl_type_version).  Twice the version, plus 1 if no
   method was replaced; 0: not checked yet.  One word, so that a thread never
   reads the answer of one version with another version. */
typedef FL_ATOMIC uint64_t FlSeenClass;

/* What is imported when the module loads: the field, the module, the name.
   NULL is the module itself, a dotted name is an attribute of a class.  An
   application that patches asyncio later is detected by comparison with
   these. */
#define FL_IMPORTS(X)                                                        \
    X(future_type, "asyncio", "Future")                                      \
    X(task_type, "asyncio", "Task")                                          \
    /* The mixin, because asyncio's sendfile checks for it by isinstance. */ \
    X(asyncio_transport, "asyncio.transports", "_FlowControlMixin")          \
    X(asyncio_datagrams, "asyncio", "DatagramTransport")                     \
    X(asyncio_protocol, "asyncio", "Protocol")                               \
    X(buffered_protocol, "asyncio", "BufferedProtocol")                      \
    X(asyncio_reader_type, "asyncio.streams", "StreamReader")                \
    X(asyncio_stream_protocol, "asyncio.streams", "StreamReaderProtocol")    \
    X(stream_globals, "asyncio.streams", "__dict__")                         \
    X(base_create_task, "asyncio", "BaseEventLoop.create_task")              \
    X(base_create_future, "asyncio", "BaseEventLoop.create_future")          \
    X(extract_stack, "asyncio.format_helpers", "extract_stack")              \
    X(asyncio_handle, "asyncio.events", "Handle")                            \
    X(asyncio_timer_handle, "asyncio.events", "TimerHandle")                 \
    X(asyncio_events, "asyncio.events", "__dict__")                          \
    X(asyncio_tasks, "asyncio.tasks", "__dict__")                            \
    X(asyncio_futures, "asyncio.futures", "__dict__")                        \
    X(convert_exception, "asyncio.futures", "_convert_future_exc")           \
    /* Of C tasks and futures; asyncio.events may have another by now. */    \
    X(get_running_loop, "_asyncio", "_get_running_loop")                     \
    X(fileobj_to_fd, "selectors", "_fileobj_to_fd")                          \
    X(monotonic, "time", "monotonic")                                        \
    X(system_socket_type, "_socket", "socket")                               \
    X(helpers, "fastloop._loop._core_helpers", NULL)                         \
    X(safepoint, "fastloop._loop._core_helpers", "safepoint")                \
    X(shared_by_threads, "fastloop._loop._private", "shared_by_threads")

/* Other owned references.  Each is set by the folder that uses it. */
#define FL_OBJECTS(X)                                                    \
    X(empty_tuple)                                                       \
    X(loop_kwnames)         /* ("loop",) */                              \
    X(c_kwnames)            /* see loop/scheduling.c; NULL: not known */ \
    X(socket_type)          /* socket.socket */                          \
    X(native_reader_type)   /* see streams/reader.c */                   \
    X(stream_data_received) /* the method of asyncio_stream_protocol */  \
    /* Set by use_tls in tls/adapter.c; NULL until TLS is first used. */ \
    X(tls) /* the module fastloop._loop._tls */                          \
    X(tls_again_errors)                                                  \
    X(tls_error)                                                         \
    X(tls_end_errors)

/* Our types, each set by the function that registers it. */
#define FL_TYPES(X)     \
    X(loop_type)        \
    X(handle_type)      \
    X(timer_type)       \
    X(stream_type)      \
    X(datagram_type)    \
    X(socket_call_type) \
    X(listener_type)    \
    X(job_type)         \
    X(tls_adapter_type) \
    X(tls_transport_type)

#define FL_OBJECT_FIELD(name, ...) PyObject *name;
#define FL_TYPE_FIELD(name)        PyTypeObject *name;

typedef struct FlState {
    PyObject *module; /* borrowed: it owns this struct */

    FL_IMPORTS(FL_OBJECT_FIELD)
    FL_OBJECTS(FL_OBJECT_FIELD)
    FL_TYPES(FL_TYPE_FIELD)

    FlSeenClass socket_seen; /* of socket.socket: fl_overrides_socket */
    FlSeenClass reader_seen; /* of asyncio.StreamReader */

    /* The C functions of asyncio_stream_protocol, and of tls_adapter_type: see
       transport/native_protocol.h.  NULL: none. */
    const struct FlNativeProtocol *native_reader_protocol;
    const struct FlNativeProtocol *native_tls;
    /* What a flush calls for a stream that it could not send whole; set by
       transport/, which core/ may not include. */
    void (*unsent)(struct FlOutbox *out);

    Py_tss_t running;       /* per thread: the loop that it runs, or NULL */
    unsigned nested_timers; /* calls of fl_timer_dealloc in core/handle.c that
                               have not returned */

    FlNames names;
} FlState;

/* Fill a zeroed state: import asyncio, intern the names, find c_kwnames.  0,
   or -1 with an exception set; then the module's m_free clears the rest. */
int fl_state_init(FlState *state, PyObject *module);

/* The module's m_traverse. */
int fl_state_traverse(PyObject *module, visitproc visit, void *arg);

/* For the module's m_free: drop every owned reference. */
void fl_state_clear(FlState *state);

/* A name by its offset in FlNames, for tables of names.  Borrowed. */
static inline PyObject *
fl_name_at(const FlState *state, size_t offset)
{
    return *(PyObject *const *)((const char *)&state->names + offset);
}

/* The state of a module object of ours.  NULL only before it was executed. */
static inline FlState *
fl_state_get(PyObject *module)
{
    return PyModule_GetState(module);
}

/* Flags of a type that only C code instantiates. */
#define FL_TYPE_FLAGS                        \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC \
     | Py_TPFLAGS_DISALLOW_INSTANTIATION)

/* Create a heap type from `spec` and add it to the module under its short
   name.  `base` is a class, a tuple of classes, or NULL.  Without a GIL the
   main interpreter's type is immortal.  Returns a new reference, or NULL with
   an exception set. */
PyTypeObject *fl_type_add(PyObject *module, PyType_Spec *spec, PyObject *base);

/* The place in a struct of ours of a __slots__ member that our type inherits
   from asyncio's class. */
typedef struct {
    const char *name; /* NULL in the last entry, */
    size_t offset;    /* whose offset is where our own fields begin */
} FlBaseSlot;

/* As fl_type_add, for a type whose struct begins with the slots of `base`.
   `mixin` is a second base class or NULL.  Raises ImportError when an
   inherited class has a slot that is not in the list at that offset, or when
   instances of `base` do not end where our fields begin: a slot and a field of
   ours would share memory. */
PyTypeObject *fl_type_derive(PyObject *module, PyType_Spec *spec,
                             PyObject *base, PyObject *mixin,
                             const FlBaseSlot *slots);

#endif
