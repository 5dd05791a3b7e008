/* The loop object: what it owns, and the calls between its parts.

   FlLoop is the instance of _core.BaseLoop.  fastloop.Loop (Python) adds what
   runs once a program; everything here runs per callback or per run.

   Threads: fields belong to the thread that runs the loop or, while it does
   not run, to whoever holds the GIL; `inbox` has a lock of its own.  Functions
   are for that thread unless named _anythread.

   Ownership: the loop owns its queue's entries, its scheduled timers, its
   descriptor watchers and, through `streams`, every open transport: they are
   garbage only together with the loop. */
#ifndef FL_CORE_LOOP_H
#define FL_CORE_LOOP_H

#include "base/forks.h"
#include "base/list.h"
#include "base/timer_queue.h"
#include "core/handle.h"
#include "core/poller.h"
#include "core/ready_queue.h"
#include "py/state.h"

#include <stdatomic.h>
#include <uv.h>

/* Fast paths that a test can turn off (FASTLOOP_DISABLE). */
#define FL_OFF_RAW_STEPS       1
#define FL_OFF_POLL_SKIP       2
#define FL_OFF_CORK            4
#define FL_OFF_TIMERFD         16
#define FL_OFF_NATIVE_EXECUTOR 32
#define FL_OFF_DATAGRAM_BATCH  64
#define FL_OFF_NATIVE_TLS      128
#define FL_OFF_LIBSSL          256

/* Entries pushed by other threads where no GIL orders them.  The lock serves
   threadsafe_handle.c as well, also with a GIL. */
typedef struct {
    uv_mutex_t lock; /* taken by fl_thread_queue_lock */
    unsigned forks;  /* fl_forks_count() when lock and condition were made */
    FlReady *entries;
    size_t count;
    size_t capacity;
    atomic_bool filled;
    /* see threadsafe_handle.c */
    uv_cond_t over;
    FlHandle *running;        /* borrowed: the thread-safe handle that runs */
    unsigned long running_in; /* the thread */
} FlThreadQueue;

/* What a watched descriptor keeps alive. */
typedef struct {
    PyObject *reader; /* FlHandle, FlFdCall or NULL */
    PyObject *writer;
    PyObject *object; /* as it was given, NULL for a number */
} FlFdRefs;

/* What a SocketCall begins with: it stands in a watcher's place for a handle.
   run returns 0, or -1 with an exception set. */
typedef struct {
    PyObject_HEAD
    int (*run)(PyObject *self);
} FlFdCall;

/* A descriptor that the program watches with add_reader or add_writer. */
typedef struct {
    FlList link; /* in loop->user_fds while registered */
    FlRegistration *reg;
    FlFdRefs refs;
    PyObject *socket_ref; /* of a kept watch: a weak reference to its socket */
} FlUserFd;

/* Who uses a descriptor number. */
typedef struct {
    FlUserFd *user_fd;         /* the program's, or NULL */
    struct FlOwned *transport; /* open on this number, or NULL */
} FlFdSlot;

struct FlLoop;
struct FlMetrics;

/* The stream whose write queue holds bytes until the running callback returns.
   It is embedded in that stream, which forgets them by taking itself out of
   loop->holder.  send runs no protocol, keeps a raised exception and notes a
   failure in the stream. */
typedef struct FlCork {
    void (*send)(struct FlCork *self);
} FlCork;

/* An open transport in the loop's care: `object` is the loop's reference to
   it.  While the loop waits for nothing of it, the transport visits that
   reference as its own, so that the collector finds it if nobody else has
   it.  What the loop asks of its kind: */
typedef struct {
    /* Whether the transport visits the reference. */
    bool (*owns_itself)(const struct FlOwned *self);
    /* The loop is closed or collected: take its reference over and drop it;
       the node is unlinked. */
    void (*abandon)(struct FlOwned *self);
    /* Whether the number of its descriptor is the transport's still: 1 or 0,
       or -1 with an exception set. */
    int (*has_fd)(struct FlOwned *self);
    /* The number is another's now: end with EBADF and leave it alone. */
    void (*invalidate_fd)(struct FlOwned *self);
} FlOwnedKind;

typedef struct FlOwned {
    FlList link;
    PyObject *object;
    const FlOwnedKind *kind;
} FlOwned;

typedef struct FlLoop {
    PyObject_HEAD
    FlState *state;
    unsigned forks;   /* fl_forks_count() when it was made */
    FlPoller *poller; /* NULL once closed */
    FlReadyQueue ready;
    FlTimerQueue timers;
    FlHandlePool pool;
    FlThreadQueue thread_queue;
    struct FlMetrics *FL_ATOMIC metrics; /* NULL: off; see metrics.h */

    /* of the current run */
    FL_ATOMIC unsigned long thread_id; /* 0: not running */
    int64_t now_ns;        /* the precise clock as it was last read */
    int64_t now_tick_ns;   /* the coarse clock when it was */
    int64_t beyond_ns;     /* no timer is due after now_ns and before this */
    bool now_fresh;        /* it may stand for the present: see timers.h */
    bool tracks_origin;    /* this run turned coroutine origins on */
    int64_t polled_ns;     /* coarse time of the last poll */
    int64_t empty_poll_ns; /* its end, precise; 0: it found something */
    int64_t checked_ns;    /* likewise, of the last fl_registrations_recheck */
    uint64_t dispatch;     /* counts entries run: names "this callback" */
    /* whose writes are held until the running callback returns, or NULL */
    FlCork *FL_ATOMIC cork;
    FL_ATOMIC bool in_batch;    /* callbacks run: their writes may be held */
    unsigned skips_left;        /* polls that may still be skipped */
    unsigned skip_allowance;    /* how many after the next empty poll */
    bool hears_signals;         /* it runs in the main thread: see signals.c */
    uint64_t limited_tail;      /* see fl_signals_before_wait; a tail + 1 */
    uint64_t taken_tail;        /* likewise */
    FL_ATOMIC bool plain_tasks; /* see tasks.c, invariant 3 */
    atomic_bool busy;           /* see fl_loop_claim */
    bool in_iteration;          /* also in one of _run_once(), outside a run */
    bool external_run;          /* it began by setting _thread_id */
    FL_ATOMIC bool debug;
    FL_ATOMIC bool closed;
    FL_ATOMIC bool stopping;
    bool thread_queue_ready; /* its lock was made */
    uint16_t off;            /* FL_OFF_* */

    /* see overrides.h */
    FL_ATOMIC uint8_t class_overrides; /* FL_OVERRIDES_* */
    PyObject *patched_run;    /* in place of asyncio.Handle._run, or NULL */
    PyObject *FL_ATOMIC dict; /* __dict__, or NULL while there is none */

    FlList streams; /* FlOwned: open transports */
    FlFdSlot *fds;  /* by descriptor number */
    int fds_size;
    FlList user_fds;
    char *scratch; /* where streams read to, made on first use */
    struct FlDatagramBuffers *datagram_buffers; /* and datagrams */

    /* Python's face of the loop; NULL reads as None */
    PyObject *task_factory;
    PyObject *exception_handler;
    PyObject *slow_callback_hook;
    PyObject *current_handle;
    PyObject *default_executor;
    PyObject *signal_handlers;
    PyObject *python_transports; /* asyncio's own, by number, if any */
    PyObject *future_keywords;   /* {"loop": this}, see tasks.c */
    PyObject *step_kwnames;      /* ("context",) as C tasks give it, or NULL */
    PyObject *shared_context;    /* see shared_context.h; or NULL */
    const PyObject *shared_map;  /* of its variables, borrowed */
    double slow_callback_duration;
} FlLoop;

#define FL_LOOP(object) ((FlLoop *)(object))

static inline bool
fl_loop_is_running(const FlLoop *loop)
{
    return loop->thread_id != 0;
}

/* Whether a parent of this process made the loop. */
static inline bool
fl_loop_is_inherited(const FlLoop *loop)
{
    return FL_UNLIKELY(loop->forks != fl_forks_count());
}

/* True on the thread that runs the loop, while it runs. */
static inline bool
fl_loop_on_own_thread(const FlLoop *loop)
{
    return loop->thread_id == PyThread_get_thread_ident();
}

/* Without a GIL: true on a thread that must not touch the loop's queues, for
   another one runs it.  Calls that asyncio gives to the loop's thread alone
   but that do no harm under a GIL go by the inbox then. */
static inline bool
fl_loop_on_other_thread(const FlLoop *loop)
{
#if FL_HAVE_GIL
    (void)loop;
    return false;
#else
    return fl_loop_is_running(loop) && !fl_loop_on_own_thread(loop);
#endif
}

/* Send what the running callback holds. */
static inline void
fl_loop_flush_corked(FlLoop *loop)
{
    FlCork *cork = loop->cork;
    if (FL_UNLIKELY(cork != NULL)) {
        loop->cork = NULL;
        cork->send(cork);
    }
}

/* Bytes or an end are about to be sent.  What was written before them goes
   first; and the next turn polls: a program that talks to itself then meets
   its I/O in the turn in which asyncio would give it. */
static inline void
fl_loop_expect_io(FlLoop *loop)
{
    if (!fl_loop_on_other_thread(loop)) {
        fl_loop_flush_corked(loop);
        loop->skips_left = 0;
    }
}

/* Be the one who runs, turns or closes the loop, until fl_loop_unclaim:
   false if somebody is, in another thread or further up in this one. */
static inline bool
fl_loop_claim(FlLoop *loop)
{
    return !atomic_exchange(&loop->busy, true);
}

static inline void
fl_loop_unclaim(FlLoop *loop)
{
    atomic_store(&loop->busy, false);
}

/* 0, or -1 with RuntimeError('Event loop is closed'). */
int fl_loop_check_open(FlLoop *loop);

/* The loop that this thread runs, borrowed, or NULL; not for a run that began
   when _thread_id was set, which may end in another thread. */
FlLoop *fl_loop_of_thread(FlState *state);

/* The way out of a callback to another loop, thread or process: whoever gets
   there may wait for what this thread's loop holds, so that is sent. */
void fl_loop_flush_corked_here(FlState *state);

/* In a forked child: stop sharing with the parent's loop.  0 or a negative
   errno. */
int fl_loop_leave_parent(FlLoop *loop);

#endif
