/* The state of one module instance: what every object of ours shares.

   One per interpreter and import; nothing of it is global.  Objects copy the
   pointer when they are made: the type they hold keeps the module, and so this
   memory, alive.  Fields become NULL when the collector clears the module,
   which at interpreter exit may precede the last object's death: code that
   runs in a deallocator must bear that. */
#ifndef FL_PY_STATE_H
#define FL_PY_STATE_H

#include "py/compat.h"

#include <stdatomic.h>

struct FlLoop;
struct FlNativeProtocol;

/* Names looked up or passed on hot paths, interned once. */
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

/* A descriptor of somebody else's, and what proves that its number is still
   the same thing. */
typedef struct {
    int fd; /* -1: none */
    dev_t device;
    ino_t inode;
} FlForeignFd;

/* Python's signal wakeup descriptor, as far as it is ours: see signals.c.
   The main thread's, and only the main interpreter's is ever used.  A thread
   that closes a loop looks whether the descriptor is that loop's. */
typedef struct {
    struct FlLoop *FL_ATOMIC owner;   /* whose pipe it is; NULL: no loop's */
    struct FlLoop *FL_ATOMIC handler; /* needs it between runs; NULL: none */
    int fd;                           /* the number we gave Python, or -1 */
    FlForeignFd before;               /* what the program had set */
} FlWakeup;

/* Whose protocol's calls are C functions: see transport/native_protocol.h. */
typedef struct {
    PyTypeObject *type; /* borrowed from the state; NULL: none */
    const struct FlNativeProtocol *native;
} FlNativeProtocolEntry;

#define FL_NATIVE_PROTOCOLS 2

/* Whether a class is as CPython made it, as its version said last: a class
   that is changed has another version. */
typedef struct {
    FL_ATOMIC unsigned version; /* 0: not looked at */
    FL_ATOMIC bool is_plain;
} FlSeenClass;

typedef struct FlState {
    PyObject *module; /* borrowed: it owns this struct */

    /* our types */
    PyTypeObject *loop_type;
    PyTypeObject *handle_type;
    PyTypeObject *timer_type;
    PyTypeObject *stream_type;
    PyTypeObject *datagram_type;
    PyTypeObject *socket_call_type;
    PyTypeObject *listener_type;
    PyTypeObject *job_type;
    PyTypeObject *reader_type;
    PyObject *native_reader; /* the class fastloop.streams.StreamReader */
    PyTypeObject *tls_adapter_type;
    PyTypeObject *tls_transport_type;

    /* from asyncio */
    PyObject *future_type;
    PyObject *task_type;
    PyObject *asyncio_handle;
    PyObject *asyncio_safe_handle; /* of call_soon_threadsafe */
    PyObject *asyncio_timer_handle;
    PyObject *asyncio_transport; /* with its flow control mixed in */
    PyObject *asyncio_datagrams;
    PyObject *base_get_extra_info; /* asyncio.BaseTransport's */
    PyObject *buffered_protocol;
    PyObject *asyncio_events; /* what is in its modules */
    PyObject *asyncio_tasks;
    PyObject *asyncio_futures;
    PyObject *get_running_loop; /* as it was at import */
    PyObject *ensure_future;
    PyObject *iscoroutine;
    PyObject *isfuture;
    PyObject *base_create_task; /* asyncio.BaseEventLoop.create_task */
    PyObject *base_create_future;
    PyObject *extract_stack;
    PyObject *base_run_in_executor; /* asyncio.BaseEventLoop's */
    PyObject *asyncio_cancelled;    /* asyncio.CancelledError */
    PyObject *asyncio_invalid;      /* asyncio.InvalidStateError */
    PyObject *streams;              /* the module fastloop._streams */
    PyObject *socket_type;          /* socket.socket, as it was at import */
    PyObject *socket_family;        /* descriptors of its base's numbers */
    PyObject *socket_kind;
    PyObject *asyncio_reader; /* asyncio.StreamReader */
    PyObject *asyncio_stream_protocol;
    PyObject *stream_data_received; /* its method */
    PyObject *stream_globals;       /* of asyncio.streams' functions */
    PyObject *asyncio_incomplete;   /* asyncio.IncompleteReadError */
    PyObject *asyncio_overrun;      /* asyncio.LimitOverrunError */

    /* see use_tls in tls/adapter.c; NULL until TLS is used */
    PyObject *tls; /* the module fastloop._tls */
    PyObject *tls_again_errors;
    PyObject *tls_error;
    PyObject *tls_zero_error;
    PyObject *tls_certificate_error;

    /* from elsewhere */
    PyObject *set_asyncgen_hooks;
    PyObject *get_asyncgen_hooks;
    PyObject *set_wakeup_fd;     /* signal.set_wakeup_fd */
    PyObject *until_complete_cb; /* stops the loop of a future that is done */
    PyObject *concurrent_future; /* concurrent.futures.Future */
    PyObject *concurrent_cancelled; /* its CancelledError */
    PyObject *concurrent_invalid;   /* its InvalidStateError */

    /* How to know a standard thread pool, and use it: see
       executor/run_in_executor.c. */
    PyObject *thread_pool_type; /* ThreadPoolExecutor, or None */
    PyObject *submit_globals;   /* those of its submit() */
    PyObject *submit_job;       /* fastloop.executor's functions */
    PyObject *make_default;

    /* How to know asyncio's own task steps (see loop/scheduling.c). */
    PyTypeObject *step_type;
    PyCFunction wakeup_function;

    /* The C function behind get_running_loop, or NULL. */
    PyCFunction running_loop_function;
    PyObject *running_loop_self; /* borrowed */

    /* The loop's run_in_executor, which is in the folder above loop/. */
    PyObject *(*run_in_executor)(struct FlLoop *loop, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *kwnames);

    /* Whether asyncio.StreamReader has its own methods, as its version said
       last: see streams/native_reader.c. */
    unsigned reader_version;
    bool reader_is_plain;
    PyObject *filling; /* the reader's state whose memory is read into */

    FlSeenClass socket_seen; /* see fl_overrides_socket */

    FlNativeProtocolEntry native_protocols[FL_NATIVE_PROTOCOLS];

    FL_ATOMIC unsigned long main_thread_id; /* 0: not known yet */
    FlWakeup wakeup;
    Py_tss_t running; /* the loop that a thread runs, if any */

    PyObject *empty_tuple;
    PyObject *hooks_kwnames; /* ("firstiter", "finalizer") */
    PyObject *loop_kwnames;  /* ("loop",) */
    PyObject *object_class;  /* object's attribute __class__ */
    FlNames names;
} FlState;

/* Fill the state: imports asyncio and interns the names.  0 or -1. */
int fl_state_init(FlState *state, PyObject *module);

int fl_state_traverse(FlState *state, visitproc visit, void *arg);

/* Drop every reference; safe to call twice. */
void fl_state_clear(FlState *state);

/* The state behind a module object of ours. */
FlState *fl_state_get(PyObject *module);

/* Add a heap type made from `spec`, with an optional base, to the module under
   its short name.  Returns a new reference or NULL. */
PyTypeObject *fl_type_add(PyObject *module, PyType_Spec *spec, PyObject *base);

/* Where a struct of ours keeps a slot of asyncio's class that it inherits. */
typedef struct {
    const char *name; /* NULL ends the list: */
    size_t offset;    /* there our own fields begin */
} FlBaseSlot;

/* The same for a type whose struct begins with the slots of `base`; mixin may
   be NULL.  ImportError when a slot of any inherited class is not in the list
   at its place, or when instances of `base` do not end where our fields begin:
   a slot and a field of ours would share their memory. */
PyTypeObject *fl_type_derive(PyObject *module, PyType_Spec *spec,
                             PyObject *base, PyObject *mixin,
                             const FlBaseSlot *slots);

#endif
