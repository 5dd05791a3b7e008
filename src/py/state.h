/* Module state: what all objects of one instance of fastloop._core share.

   There is one FlState per interpreter and import.  Nothing in it is global.

   Ownership: the module owns this struct.  Our objects copy the pointer when
   they are created; it stays valid, because an object owns its type and a heap
   type owns its module.

   Clearing: the GC may clear the module before the last object dies, at
   interpreter exit.  All owned fields are NULL from then on.  So code that can
   run in a deallocator must check them.

   Threads: most fields are set at import and only read afterwards.  The others
   are changed under the GIL or are atomic, unless they name a thread. */
#ifndef FL_PY_STATE_H
#define FL_PY_STATE_H

#include "py/compat.h"

#include <stdatomic.h>

struct FlLoop;
struct FlNativeProtocol;

/* Attribute and keyword names used on hot paths, interned once. */
#define FL_NAMES(X)                   \
    X(TransportSocket)                \
    X(_accept_exhausted)              \
    X(_accept_failed)                 \
    X(_asyncgen_finalizer_hook)       \
    X(_asyncgen_firstiter_hook)       \
    X(Future)                         \
    X(Task)                           \
    X(_attach)                        \
    X(_check_callback)                \
    X(_check_python_transports)       \
    X(_check_thread)                  \
    X(_closed)                        \
    X(_detach)                        \
    X(_executor_shutdown_called)      \
    X(_get_running_loop)              \
    X(_decref_socketios)              \
    X(_handle_signal)                 \
    X(_io_refs)                       \
    X(_log_destroy_pending)           \
    X(_read_ready)                    \
    X(_report_callback)               \
    X(_report_slow)                   \
    X(_notify_slow)                   \
    X(_run)                           \
    X(_run_once)                      \
    X(_sendto_ready)                  \
    X(_set_coroutine_origin_tracking) \
    X(_set_running_loop)              \
    X(_source_traceback)              \
    X(read)                           \
    X(readexactly)                    \
    X(readuntil)                      \
    X(readline)                       \
    X(feed_data)                      \
    X(at_eof)                         \
    X(_wakeup_waiter)                 \
    X(_wait_for_data)                 \
    X(_maybe_resume_transport)        \
    X(_fastloop)                      \
    X(_limit)                         \
    X(_loop)                          \
    X(_buffer)                        \
    X(_eof)                           \
    X(_waiter)                        \
    X(_exception)                     \
    X(_transport)                     \
    X(_paused)                        \
    X(_stream_reader_wr)              \
    X(accept)                         \
    X(add_done_callback)              \
    X(args)                           \
    X(buffer_updated)                 \
    X(call_exception_handler)         \
    X(cancel)                         \
    X(call_at)                        \
    X(call_soon)                      \
    X(cancelled)                      \
    X(check_ssl_socket)               \
    X(close)                          \
    X(abort)                          \
    X(call_soon_threadsafe)           \
    X(pause_reading)                  \
    X(resume_reading)                 \
    X(closed_socket)                  \
    X(connect)                        \
    X(connection_lost)                \
    X(connection_made)                \
    X(context)                        \
    X(coro)                           \
    X(create_future)                  \
    X(create_task)                    \
    X(data_received)                  \
    X(datagram_received)              \
    X(detach)                         \
    X(done)                           \
    X(eager_start)                    \
    X(eof_received)                   \
    X(error_received)                 \
    X(exception)                      \
    X(fileno)                         \
    X(finalizer)                      \
    X(firstiter)                      \
    X(get_buffer)                     \
    X(get_debug)                      \
    X(get_extra_info)                 \
    X(get_loop)                       \
    X(getpeername)                    \
    X(getsockname)                    \
    X(getsockopt)                     \
    X(gettimeout)                     \
    X(handle)                         \
    X(log_event)                      \
    X(loop)                           \
    X(message)                        \
    X(name)                           \
    X(own_socket)                     \
    X(pause_writing)                  \
    X(peername)                       \
    X(protocol)                       \
    X(recv)                           \
    X(recv_into)                      \
    X(recvfrom)                       \
    X(recvfrom_into)                  \
    X(release)                        \
    X(remove_done_callback)           \
    X(result)                         \
    X(resume_writing)                 \
    X(run)                            \
    X(run_forever)                    \
    X(send)                           \
    X(sendall)                        \
    X(sendmsg)                        \
    X(sendto)                         \
    X(set_exception)                  \
    X(set_result)                     \
    X(setblocking)                    \
    X(shown_buffer)                   \
    X(socket)                         \
    X(sockname)                       \
    X(stop)                           \
    X(submit)                         \
    X(time)                           \
    X(transport)                      \
    X(warn_lost)                      \
    X(when)                           \
    X(_do_read)                       \
    X(_force_close)                   \
    X(_resume)                        \
    X(_sslobj)                        \
    X(call_later)                     \
    X(cipher)                         \
    X(compression)                    \
    X(do_handshake)                   \
    X(getpeercert)                    \
    X(handshake_timed_out)            \
    X(is_closing)                     \
    X(is_plain)                       \
    X(join)                           \
    X(log_handshake)                  \
    X(peercert)                       \
    X(pending)                        \
    X(report_fatal)                   \
    X(shutdown_timed_out)             \
    X(ssl_object)                     \
    X(sslcontext)                     \
    X(unwrap)                         \
    X(warn_closed)                    \
    X(warn_keep_open)                 \
    X(write)                          \
    X(read_limits)                    \
    X(report_call)                    \
    X(state)                          \
    X(write_limits)

typedef struct {
#define FL_NAME_FIELD(name) PyObject *name;
    FL_NAMES(FL_NAME_FIELD)
#undef FL_NAME_FIELD
} FlNames;

/* An fd that the application owns, and the identity of its file.  The
   application may close the fd, and the system may reuse it for another file:
   device and inode tell. */
typedef struct {
    int fd; /* -1: none */
    dev_t device;
    ino_t inode;
} FlForeignFd;

/* Python's signal wakeup fd, while it is ours: see core/signals.c.  Only the
   main thread of the main interpreter sets it.  Any thread may close a loop:
   it then reads owner and handler, and clears them if they are that loop. */
typedef struct {
    struct FlLoop *FL_ATOMIC owner;   /* the loop whose pipe it is, or NULL */
    struct FlLoop *FL_ATOMIC handler; /* needs it between runs, or NULL */
    int fd;                           /* the fd that we set, or -1 */
    FlForeignFd before;               /* the fd that the application had set */
} FlWakeup;

/* A protocol type with C functions for its calls: see
   transport/native_protocol.h. */
typedef struct {
    PyTypeObject *type; /* borrowed from the state; NULL: unused entry */
    const struct FlNativeProtocol *native;
} FlNativeProtocolEntry;

#define FL_NATIVE_PROTOCOLS 2

/* A cached answer: whether an application has replaced methods of a class.  It
   holds while the class has this version, because every change of a class
   changes its version (fl_type_version). */
typedef struct {
    FL_ATOMIC unsigned version; /* 0: not checked yet */
    FL_ATOMIC bool is_plain;    /* no method was replaced */
} FlSeenClass;

typedef struct FlState {
    PyObject *module; /* borrowed: it owns this struct */

    /* Our types.  Each is set by the function that registers it. */
    PyTypeObject *loop_type;
    PyTypeObject *handle_type;
    PyTypeObject *timer_type;
    PyTypeObject *stream_type;
    PyTypeObject *datagram_type;
    PyTypeObject *socket_call_type;
    PyTypeObject *listener_type;
    PyTypeObject *job_type;
    PyTypeObject *reader_type;
    PyObject *native_reader; /* see streams/reader_calls.c */
    PyTypeObject *tls_adapter_type;
    PyTypeObject *tls_transport_type;

    /* From asyncio, as it was at import: an application that patches asyncio
       later is detected by comparison with these. */
    PyObject *future_type;
    PyObject *task_type;
    PyObject *asyncio_handle;
    PyObject *asyncio_safe_handle; /* what call_soon_threadsafe returns */
    PyObject *asyncio_timer_handle;
    PyObject *asyncio_transport;   /* transports._FlowControlMixin */
    PyObject *asyncio_datagrams;   /* asyncio.DatagramTransport */
    PyObject *base_get_extra_info; /* asyncio.BaseTransport's method */
    PyObject *buffered_protocol;
    PyObject *asyncio_events; /* these three are modules' __dict__ */
    PyObject *asyncio_tasks;
    PyObject *asyncio_futures;
    PyObject *get_running_loop; /* asyncio.events._get_running_loop */
    PyObject *ensure_future;
    PyObject *iscoroutine;
    PyObject *isfuture;
    PyObject *base_create_task; /* asyncio.BaseEventLoop.create_task */
    PyObject *base_create_future;
    PyObject *extract_stack;
    PyObject *base_run_in_executor; /* asyncio.BaseEventLoop's method */
    PyObject *asyncio_cancelled;    /* asyncio.CancelledError */
    PyObject *asyncio_invalid;      /* asyncio.InvalidStateError */
    PyObject *streams;              /* the module fastloop._streams */
    PyObject *socket_type;          /* socket.socket */
    PyObject *socket_family;        /* member descriptors of _socket.socket */
    PyObject *socket_kind;
    PyObject *asyncio_reader_type; /* asyncio.StreamReader */
    PyObject *asyncio_stream_protocol;
    PyObject *stream_data_received; /* that protocol's method */
    PyObject *stream_globals;       /* asyncio.streams.__dict__ */
    PyObject *asyncio_incomplete;   /* asyncio.IncompleteReadError */
    PyObject *asyncio_overrun;      /* asyncio.LimitOverrunError */

    /* Set by use_tls in tls/adapter.c; NULL until TLS is first used. */
    PyObject *tls; /* the module fastloop._tls */
    PyObject *tls_again_errors;
    PyObject *tls_error;
    PyObject *tls_zero_error;
    PyObject *tls_certificate_error;

    /* From other modules. */
    PyObject *set_asyncgen_hooks;
    PyObject *get_asyncgen_hooks;
    PyObject *set_wakeup_fd;        /* signal.set_wakeup_fd */
    PyObject *until_complete_cb;    /* base_events._run_until_complete_cb */
    PyObject *concurrent_future;    /* concurrent.futures.Future */
    PyObject *concurrent_cancelled; /* concurrent.futures.CancelledError */
    PyObject *concurrent_invalid;   /* concurrent.futures.InvalidStateError */

    /* What identifies a standard thread pool whose submit() is CPython's, and
       the functions that use it: see executor/run_in_executor.c. */
    PyObject *thread_pool_type; /* ThreadPoolExecutor, or None */
    PyObject *submit_globals;   /* the globals of its submit() */
    PyObject *submit_job;       /* fastloop.executor's functions */
    PyObject *make_default;

    /* What identifies the steps and wake-ups of asyncio's C tasks: see
       steps_probe in state.c and loop/scheduling.c. */
    PyTypeObject *step_type;
    PyCFunction wakeup_function;

    /* The C function behind get_running_loop, or NULL if it is not in C. */
    PyCFunction running_loop_function;
    PyObject *running_loop_self; /* borrowed from get_running_loop */

    /* loop.run_in_executor().  It is a pointer because executor/ is a layer
       above loop/, and includes point downwards only. */
    PyObject *(*run_in_executor)(struct FlLoop *loop, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *kwnames);

    /* Whether asyncio.StreamReader has CPython's methods, as of that version
       of the class: see streams/native_reader.c. */
    unsigned reader_type_version;
    bool reader_methods_plain;
    /* The FlReader between find_room and buffers_filled, else NULL: see
       streams/reader_protocol.c. */
    PyObject *filling;

    FlSeenClass socket_seen; /* of socket.socket: fl_overrides_socket */

    FlNativeProtocolEntry native_protocols[FL_NATIVE_PROTOCOLS];

    FL_ATOMIC unsigned long main_thread_id; /* 0: not known yet */
    FlWakeup wakeup;
    Py_tss_t running; /* per thread: the loop that it runs, or NULL */

    PyObject *empty_tuple;
    PyObject *hooks_kwnames; /* ("firstiter", "finalizer") */
    PyObject *loop_kwnames;  /* ("loop",) */
    PyObject *object_class;  /* object.__dict__['__class__'] */
    FlNames names;
} FlState;

/* Fill a zeroed state: import asyncio, intern the names, probe task steps.  0,
   or -1 with an exception set; then the module's m_free clears the rest. */
int fl_state_init(FlState *state, PyObject *module);

/* For the module's m_traverse. */
int fl_state_traverse(FlState *state, visitproc visit, void *arg);

/* Drop every owned reference.  May be called twice. */
void fl_state_clear(FlState *state);

/* The state of a module object of ours.  NULL only before it was executed. */
FlState *fl_state_get(PyObject *module);

/* Create a heap type from `spec` and add it to the module under its short
   name.  `base` is a class, a tuple of classes, or NULL.  Returns a new
   reference, or NULL with an exception set. */
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
