/* The loop object: its fields, and the calls between its parts.

   FlLoop is the instance of _core.BaseLoop.  fastloop.Loop (Python) adds the
   code that runs once in an application's life.  Everything here runs for each
   callback or for each run.

   Threads: the fields belong to the thread that runs the loop, or, while none
   does, to the thread that has the GIL.  `ready` and `timers` differ: with a
   GIL any thread that has it may push at any time; without a GIL they belong
   to the thread that has claimed the loop (thread_queue.c, invariant 4).
   Functions are for the loop's thread unless their name ends in _anythread or
   their comment says so.

   Ownership: the loop owns its queues' entries, its scheduled timers, its
   user-owned fds and, through `transports`, every open transport, of datagrams
   too.  A transport that waits for no event may be collected while the loop
   lives. */
#ifndef FL_CORE_LOOP_H
#define FL_CORE_LOOP_H

#include "base/codes.h"
#include "base/forks.h"
#include "base/list.h"
#include "base/timer_queue.h"
#include "core/cork.h"
#include "core/handle.h"
#include "core/iteration.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "core/report.h"
#include "core/thread_queue.h"
#include "py/errors.h"
#include "py/gil.h"
#include "py/state.h"

#include <stdatomic.h>

/* Fast paths that FASTLOOP_DISABLE turns off, by these names, which Python has
   as _core.PATHS: the first is bit 0 of the loop's attribute _off. */
#define FL_PATHS(X)                       \
    X(RAW_STEPS, "raw_steps")             \
    X(POLL_SKIP, "poll_skip")             \
    X(CORK, "cork")                       \
    X(NATIVE_EXECUTOR, "native_executor") \
    X(DATAGRAM_BATCH, "datagram_batch")   \
    X(NATIVE_TLS, "native_tls")           \
    X(LIBSSL, "libssl")                   \
    X(PERSISTENT_FDS, "persistent_fds")   \
    X(NATIVE_READERS, "native_readers")
#define FL_PATH_NAME(path, name) name " "
#define FL_PATH_AT(path, name)   FL_AT_##path,
#define FL_PATH_OFF(path, name)  FL_OFF_##path = 1 << FL_AT_##path,
enum {
    FL_PATHS(FL_PATH_AT)
};
enum {
    FL_PATHS(FL_PATH_OFF)
};

struct FlMetrics;

/* The functions through which the loop calls an open transport.  There is one
   kind, in transport/stream_open.c: this folder may not include that. */
typedef struct {
    size_t node_offset; /* of the FlOpenTransport in the transport's object */
    /* Whether the transport's own tp_traverse visits the reference that the
       loop has to it.  It does while the loop waits for none of its events, so
       that the GC collects a transport to which nobody else refers. */
    bool (*visits_own_ref)(const struct FlOpenTransport *self);
    /* The loop was closed or garbage-collected: take over its reference and
       drop it.  A stream whose finalizer has run is ended first.  The node is
       already unlinked. */
    void (*abandon)(struct FlOpenTransport *self);
    /* Whether the fd still is the transport's: false once the socket object
       was closed.  True without a socket object, even if the fd was closed:
       nothing shows that.  May run Python.  Raises nothing.  Any thread. */
    bool (*has_fd)(struct FlOpenTransport *self);
    /* Another user gets the fd.  The transport ends with EBADF and does not
       close the fd, which is another file's.  May run Python. */
    void (*evict)(struct FlOpenTransport *self);
} FlOpenTransportKind;

/* An open transport of the loop, a member of the transport's object.  The loop
   owns a reference to that object while the node is in its list. */
typedef struct FlOpenTransport {
    FlList link;
    const FlOpenTransportKind *kind;
} FlOpenTransport;

/* The object, borrowed. */
static inline PyObject *
fl_open_transport_object(const FlOpenTransport *node)
{
    return (PyObject *)((char *)node - node->kind->node_offset);
}

/* The objects that Python code sees as _name, asyncio's and fastloop's; NULL
   reads as None.  All that is stored on a loop is a field: one other attribute
   makes the loop's __dict__.  Then CPython no longer specializes calls of the
   loop's methods, calls from C look the method up there first, and
   fl_overrides looks there, too. */
#define FL_LOOP_OBJECTS(X)                                   \
    X(task_factory)                                          \
    X(exception_handler)                                     \
    X(slow_callback_hook)                                    \
    X(current_handle) /* while timed: what runs */           \
    X(default_executor)                                      \
    X(signal_handlers)                                       \
    X(signal_pipe)                                           \
    X(python_transports) /* fd -> asyncio's own transport */ \
    X(made_watcher)                                          \
    X(made_asyncgens)                                        \
    X(old_agen_hooks)                                        \
    X(coroutine_origin_tracking_saved_depth)                 \
    X(fastloop_watchdog)                                     \
    X(recent_slow)                                           \
    X(on_report)                                             \
    X(on_exception)
#define FL_LOOP_OBJECT(name) PyObject *name;

struct FlLoop {
    PyObject_HEAD
    FlState *state;
    unsigned forks;        /* fl_forks_count() when the loop was made */
    unsigned reinit_forks; /* and at the last reinit_after_fork() */
    FlFdTable *table;      /* what it waits with */
    FlReadyQueue ready;
    FlTimerQueue timers;
    FlHandlePool handle_pool, timer_pool;
    FlThreadQueue thread_queue;
    struct FlMetrics *FL_ATOMIC metrics; /* NULL: off; see metrics.h */

    /* the current run: its thread, clock, polls, callbacks and state */
    FL_ATOMIC unsigned long thread_id; /* 0: not running */
    double now_s; /* the last reading of poll_timeout or call_later */
    FlPolls polls;
    FlTiming timing;
    /* Entries run so far: identifies a callback. */
    FL_ATOMIC uint64_t callback_count;
    FlCork cork;
    FlGil gil;
    FL_ATOMIC bool plain_tasks; /* see tasks.c, invariant 2 */
    FlClaim claim;
    FL_ATOMIC bool debug;
    FL_ATOMIC bool closed;
    FL_ATOMIC bool stopping;
    FL_ATOMIC bool asyncgens_shutdown_called;
    FL_ATOMIC bool executor_shutdown_called;
    FL_ATOMIC bool coroutine_origin_tracking_enabled;
    unsigned off; /* FL_OFF_* */

    /* see overrides.h */
    FL_ATOMIC uint8_t class_overrides; /* bits 1 << FL_OVERRIDES_* */
    PyObject *patched_run; /* replaces asyncio.Handle._run, or NULL */
    /* fl_type_version of the loop's class and of asyncio.Handle when both were
       checked last. */
    unsigned class_version, handle_version;
    PyObject *FL_ATOMIC dict; /* __dict__, or NULL while there is none */

    /* transports and fds */
    FlList transports; /* FlOpenTransport: those that are open */
    /* The connections among them.  Counted also while metrics are off: the
       thread that turns them on may not walk the list. */
    _Atomic uint64_t open_connections;
    char *scratch; /* receive buffer of all streams, made on first use */
    PyObject *spare_bytes; /* NULL, or see FL_SPARE_BYTES */
    struct FlDatagramBuffers *datagram_buffers; /* the same for datagrams */

    FL_LOOP_OBJECTS(FL_LOOP_OBJECT)
    /* Handles that the innermost nested run has put off, a borrowed list;
       NULL: no run is nested. */
    PyObject *put_off;
    PyObject *future_keywords; /* {"loop": this}, see tasks.c */
};

#define FL_LOOP(object) ((FlLoop *)(object))

static inline bool
fl_loop_is_running(const FlLoop *loop)
{
    return loop->thread_id != 0;
}

/* Whether the loop was made before a fork, in a parent of this process. */
static inline bool
fl_loop_is_inherited(const FlLoop *loop)
{
    return FL_UNLIKELY(loop->forks != fl_forks_count());
}

/* Whether a callback of this loop runs it again (fl_loop_nest). */
static inline bool
fl_loop_is_nested(const FlLoop *loop)
{
    return FL_UNLIKELY(loop->put_off != NULL);
}

/* Whether the calling thread runs the loop now. */
static inline bool
fl_loop_on_own_thread(const FlLoop *loop)
{
    return loop->thread_id == PyThread_get_thread_ident();
}

/* Whether another thread runs the loop.  A loop inherited by fork has no such
   thread in this process.  Between two runs the result is false: the loop may
   never run again, and a queued call would be lost.  Only one thread at a time
   may use its transports then. */
static inline bool
fl_loop_runs_elsewhere(const FlLoop *loop)
{
    return fl_loop_is_running(loop) && !fl_loop_on_own_thread(loop)
           && !fl_loop_is_inherited(loop);
}

/* Without a GIL: whether another thread runs the loop, so that this one must
   not touch its transports.  Some calls, such as write, are for the loop's
   thread in asyncio but harmless from any thread under a GIL.  They go through
   the thread queue then.  The loop may be NULL. */
static inline bool
fl_loop_on_other_thread(const FlLoop *loop)
{
    return !FL_HAVE_GIL && loop != NULL && fl_loop_runs_elsewhere(loop);
}

/* Whether the calling thread runs, iterates or closes the loop now.  Relaxed:
   only this thread stores its own ident. */
static inline bool
fl_loop_is_claimed_here(const FlLoop *loop)
{
    return atomic_load_explicit(&loop->claim.thread, memory_order_relaxed)
           == PyThread_get_thread_ident();
}

/* Without a GIL: whether this thread must push into the thread queue, because
   it has not claimed the loop.  Another thread may have, or may do so at any
   time. */
static inline bool
fl_loop_needs_lock(const FlLoop *loop)
{
    return !FL_HAVE_GIL && !fl_loop_is_claimed_here(loop);
}

/* 0, or -1 with RuntimeError('Event loop is closed'). */
static inline int
fl_loop_check_open(const FlLoop *loop)
{
    return FL_LIKELY(!loop->closed) ? 0 : fl_raise_errno(FL_CLOSED);
}

/* The loop that this thread iterates, borrowed, or NULL. */
static inline FlLoop *
fl_loop_of_thread(FlState *state)
{
    return PyThread_tss_get(&state->running);
}

/* The loop that has this member. */
static inline FlLoop *
fl_loop_of_cork(FlCork *cork)
{
    return FL_LIST_ENTRY(&cork->streams, FlLoop, cork.streams);
}

/* --- a spare bytes object ------------------------------------------------ */

/* A loop keeps one bytes object, of at most this size, for the next read of
   the same size: freeing and allocating 1 KiB costs as much as the rest of a
   read, because glibc merges such blocks.  More than one gained nothing. */
#define FL_SPARE_BYTES (8 * 1024)

/* Drop a bytes object: it becomes the spare if nobody else has it.  Without a
   GIL nobody could be sure of that.  The loop may be NULL. */
static inline void
fl_loop_drop_bytes(FlLoop *loop, PyObject *bytes)
{
    if (FL_HAVE_GIL && Py_REFCNT(bytes) == 1 && PyBytes_CheckExact(bytes)
        && PyBytes_GET_SIZE(bytes) <= FL_SPARE_BYTES && loop != NULL
        && loop->spare_bytes == NULL)
    {
        loop->spare_bytes = bytes;
    }
    else {
        Py_DECREF(bytes);
    }
}

/* A bytes object with a copy of the data; NULL with MemoryError. */
static inline PyObject *
fl_loop_copy_bytes(FlLoop *loop, const char *data, Py_ssize_t size)
{
    PyObject *spare = loop->spare_bytes;
    loop->spare_bytes = NULL;
    if (spare == NULL || PyBytes_GET_SIZE(spare) != size) {
        Py_XDECREF(spare);
        return PyBytes_FromStringAndSize(data, size);
    }
    fl_bytes_forget_hash(spare);
    memcpy(PyBytes_AS_STRING(spare), data, (size_t)size);
    return spare;
}

#endif
