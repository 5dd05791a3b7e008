/* The loop object: what it owns, and the calls between its parts.

   FlLoop is the instance of _core.BaseLoop.  fastloop.Loop (Python) adds what
   runs once a program; everything here runs per callback or per run.

   Threads: fields belong to the thread that runs the loop or, while it does
   not run, to whoever holds the GIL; `inbox` has a lock of its own.  Functions
   are for that thread unless named _anythread.

   Ownership: the loop owns its ring's entries, its scheduled timers, its
   descriptor watchers and, through `streams`, every open transport: they are
   garbage only together with the loop. */
#ifndef FL_LOOP_LOOP_H
#define FL_LOOP_LOOP_H

#include "base/deadlines.h"
#include "base/list.h"
#include "loop/handle.h"
#include "loop/poller.h"
#include "loop/ready.h"
#include "py/state.h"

#include <stdatomic.h>
#include <uv.h>

/* Fast paths that a test can turn off (FASTLOOP_DISABLE). */
#define FL_OFF_RAW_STEPS       1
#define FL_OFF_POLL_SKIP       2
#define FL_OFF_HOLD_WRITES     4
#define FL_OFF_TIMERFD         16
#define FL_OFF_NATIVE_EXECUTOR 32
#define FL_OFF_DATAGRAM_BATCH  64

/* Entries pushed by other threads where no GIL orders them. */
typedef struct {
    uv_mutex_t lock;
    FlReady *entries;
    size_t count;
    size_t capacity;
    atomic_bool filled;
    /* see shared.c */
    uv_cond_t over;
    FlHandle *running;    /* borrowed: the shared handle whose callback runs */
    unsigned long runner; /* in this thread */
} FlInbox;

/* What a watched descriptor keeps alive. */
typedef struct {
    PyObject *reader; /* FlHandle or NULL */
    PyObject *writer;
    PyObject *object; /* as it was given, NULL for a number */
} FlFdHeld;

/* A descriptor the user watches with add_reader or add_writer. */
typedef struct {
    FlList link; /* in loop->fd_watchers while registered */
    FlWatch *watch;
    FlFdHeld held;
} FlFdWatcher;

/* Who uses a descriptor number. */
typedef struct {
    FlFdWatcher *watcher;      /* the user's, or NULL */
    struct FlOwned *transport; /* open on this number, or NULL */
} FlFdSlot;

struct FlLoop;

/* Bytes that the running callback wrote and that wait for its end.  Embedded
   in the stream they were written to, which forgets them by taking itself out
   of loop->held.  send runs no protocol, keeps a raised exception and notes a
   failure in the stream. */
typedef struct FlHeld {
    void (*send)(struct FlHeld *self);
} FlHeld;

/* An open transport in the loop's care: `object` is the loop's reference to
   it.  abandon, called when the loop is closed or collected, takes that
   reference over and must drop it; the node is unlinked.

   The other two are about the number of its descriptor.  has_number: whether
   it is the transport's still, 1 or 0, or -1 with an exception set.
   lose_number: it is another's now, so the transport ends with EBADF and
   touches the number no more. */
typedef struct FlOwned {
    FlList link;
    PyObject *object;
    void (*abandon)(struct FlOwned *self);
    int (*has_number)(struct FlOwned *self);
    void (*lose_number)(struct FlOwned *self);
} FlOwned;

typedef struct FlLoop {
    PyObject_HEAD
    FlState *state;
    FlPoller *poller; /* NULL once closed */
    FlReadyRing ready;
    FlDeadlines timers;
    FlHandlePool pool;
    FlInbox inbox;

    /* of the current run */
    FL_SHARED unsigned long thread_id; /* 0: not running */
    int64_t now_ns;          /* the precise clock as it was last read */
    int64_t now_tick_ns;     /* the coarse clock when it was */
    bool now_fresh;          /* see turn.c, invariant 4 */
    bool tracks_origin;      /* this run turned coroutine origins on */
    int64_t polled_ns;       /* coarse time of the last poll */
    uint64_t dispatch;       /* counts entries run: names "this callback" */
    FlHeld *FL_SHARED held;  /* what the running callback holds, or NULL */
    unsigned held_forks;     /* fl_forks_count() at that time */
    int64_t held_since_ns;   /* when the first of it was written */
    FL_SHARED bool in_batch; /* callbacks run: their writes may be held */
    unsigned skips_left;     /* polls that may still be skipped */
    unsigned skip_allowance; /* how many after the next empty poll */
    bool hears_signals;      /* it runs in the main thread: see signals.c */
    uint64_t limited_tail;   /* see fl_signals_before_wait; ring's tail + 1 */
    uint64_t taken_tail;     /* likewise */
    FL_SHARED bool plain_tasks; /* see tasks.c, invariant 3 */
    atomic_bool busy;           /* see fl_loop_claim */
    bool in_turn;               /* also in one of _run_once(), outside a run */
    bool lent;                  /* the run is one of fl_loop_thread_id_set */
    FL_SHARED bool debug;
    FL_SHARED bool closed;
    FL_SHARED bool stopping;
    bool inbox_ready; /* its lock was made */
    uint8_t off;      /* FL_OFF_* */

    /* see overrides.h */
    FL_SHARED bool class_has_time;
    FL_SHARED bool class_has_call_soon;
    PyObject *patched_run;    /* in place of asyncio.Handle._run, or NULL */
    PyObject *FL_SHARED dict; /* __dict__, or NULL while there is none */

    FlList streams; /* FlOwned: open transports */
    FlFdSlot *fds;  /* by descriptor number */
    int fds_size;
    FlList fd_watchers;
    char *scratch; /* where streams read to, made on first use */
    struct FlDatagramRoom *datagram_room; /* and datagrams */

    /* Python's face of the loop; NULL reads as None */
    PyObject *task_factory;
    PyObject *exception_handler;
    PyObject *current_handle;
    PyObject *default_executor;
    PyObject *signal_handlers;
    PyObject *python_transports; /* asyncio's own, by number, if any */
    PyObject *future_keywords;   /* {"loop": this}, see tasks.c */
    PyObject *step_kwnames;      /* ("context",) as C tasks give it, or NULL */
    double slow_callback_duration;
} FlLoop;

#define FL_LOOP(object) ((FlLoop *)(object))

static inline bool
fl_loop_is_running(const FlLoop *loop)
{
    return loop->thread_id != 0;
}

/* True on the thread that runs the loop, while it runs. */
static inline bool
fl_loop_is_here(const FlLoop *loop)
{
    return loop->thread_id == PyThread_get_thread_ident();
}

/* Without a GIL: true on a thread that must not touch the loop's queues, for
   another one runs it.  Calls that asyncio gives to the loop's thread alone
   but that do no harm under a GIL go by the inbox then. */
static inline bool
fl_loop_is_elsewhere(const FlLoop *loop)
{
#if FL_HAVE_GIL
    (void)loop;
    return false;
#else
    return fl_loop_is_running(loop) && !fl_loop_is_here(loop);
#endif
}

/* Send what the running callback holds. */
static inline void
fl_loop_send_held(FlLoop *loop)
{
    FlHeld *held = loop->held;
    if (FL_UNLIKELY(held != NULL)) {
        loop->held = NULL;
        held->send(held);
    }
}

/* Bytes or an end are about to be sent.  What was written before them goes
   first; and the next turn polls: a program that talks to itself then meets
   its I/O in the turn in which asyncio would give it. */
static inline void
fl_loop_expect_io(FlLoop *loop)
{
    if (!fl_loop_is_elsewhere(loop)) {
        fl_loop_send_held(loop);
    }
    loop->skips_left = 0;
}

/* Be the one who runs, turns or closes the loop, until fl_loop_give_back:
   false if somebody is, in another thread or further up in this one. */
static inline bool
fl_loop_claim(FlLoop *loop)
{
    return !atomic_exchange(&loop->busy, true);
}

static inline void
fl_loop_give_back(FlLoop *loop)
{
    atomic_store(&loop->busy, false);
}

/* --- turn.c -------------------------------------------------------------- */

/* One turn, never inside another: the outer one's streams and events would end
   under it.  0, or -1 with what must leave run_forever. */
int fl_loop_turn(FlLoop *loop);

/* Before the first turn of a run. */
void fl_loop_reset_turns(FlLoop *loop);

/* --- run.c --------------------------------------------------------------- */

/* The loop that this thread runs, borrowed, or NULL; not for a run that began
   when _thread_id was set, which may end in another thread. */
FlLoop *fl_loop_of_thread(FlState *state);

/* The way out of a callback to another loop, thread or process: whoever gets
   there may wait for what this thread's loop holds, so that is sent. */
void fl_loop_send_held_here(FlState *state);

/* End the run that began when _thread_id was set. */
void fl_loop_end_lent_run(FlLoop *loop);

/* --- loop.c -------------------------------------------------------------- */

int fl_loop_register(PyObject *module, FlState *state);

/* 0, or -1 with RuntimeError('Event loop is closed'). */
int fl_loop_check_open(FlLoop *loop);

/* --- ready queue and reports (dispatch.c) -------------------------------- */

/* Run the entries that are in the ring now.  0, or -1 with an exception that
   must leave run_forever; the rest of the batch then stays queued. */
int fl_loop_run_batch(FlLoop *loop);

/* Queue op(loop, subject, argument) in a context (NULL: a copy of the current
   one); takes its own references.  argument may be NULL.  0 or -1. */
int fl_loop_call_op(FlLoop *loop, FlReadyOp op, PyObject *subject,
                    PyObject *argument, PyObject *context);

/* Queue any asyncio.Handle; takes its own reference.  0 or -1. */
int fl_loop_call_handle(FlLoop *loop, PyObject *handle);

/* Forget the event that may be queued for a watch, and close it. */
void fl_loop_drop_event(FlLoop *loop, FlWatch *watch);
void fl_loop_close_watch(FlLoop *loop, FlWatch *watch);

/* In a forked child: stop sharing with the parent's loop.  0 or a negative
   errno. */
int fl_loop_leave_parent(FlLoop *loop);

/* Report the raised exception as that of object.name(argument), a call the
   loop made for itself.  argument may be NULL, as may source: the stack of
   what queued the call.  Returns as fl_loop_report_callback. */
int fl_loop_report_call(FlLoop *loop, PyObject *object, PyObject *name,
                        PyObject *argument, PyObject *source);

/* For debug mode: put the stack of the calling Python code in *place, or NULL
   when that fails.  A raised exception stays. */
void fl_debug_note_stack(FlLoop *loop, PyObject **place);

/* In debug mode: log what took longer than slow_callback_duration.  0, or -1
   with an exception set. */
int fl_loop_report_slow(FlLoop *loop, PyObject *subject, int64_t began_ns);

/* Hand the raised exception to call_exception_handler with asyncio's keys for
   a callback; handle may be NULL.  0, or -1 if what is raised now must leave
   run_forever. */
int fl_loop_report_callback(FlLoop *loop, PyObject *handle);

/* --- inbox.c ------------------------------------------------------------- */

int fl_inbox_init(FlInbox *inbox);
void fl_inbox_free(FlInbox *inbox);

/* Mark the loop closed: when this returns no other thread is pushing or waking
   it, nor will; what was pushed is dropped. */
void fl_inbox_close(FlLoop *loop);

/* Push an entry from any thread that may run Python, and wake the loop if it
   sleeps.  Steals what the entry owns, also on failure.  0, or -1 with
   MemoryError or RuntimeError (closed) set. */
int fl_inbox_push_anythread(FlLoop *loop, FlReady *entry);

/* With the GIL: an entry was put into the ring; the rest of a push. */
void fl_inbox_tell_anythread(FlLoop *loop);

/* End the loop's wait, or its next; nothing happens when it is closed. */
void fl_inbox_wake_anythread(FlLoop *loop);

/* Move what came to the ring. */
int fl_inbox_drain(FlLoop *loop);

/* For the collector, which has stopped the other threads. */
int fl_inbox_traverse(const FlInbox *inbox, visitproc visit, void *arg);

/* The thread that pushes to the ring calls this before: what it pushed to the
   inbox earlier goes first, as in asyncio's one queue. */
static inline int
fl_inbox_settle_order(FlLoop *loop)
{
#if FL_HAVE_GIL
    (void)loop;
    return 0;
#else
    return fl_inbox_drain(loop);
#endif
}

/* --- shared.c ------------------------------------------------------------ */

/* The callback of a shared handle begins: true if fl_shared_end must follow.
   Whether it was cancelled is to be asked after this. */
bool fl_shared_begin(FlLoop *loop, FlHandle *self);
void fl_shared_end(FlLoop *loop);

/* Wait until the callback, if another thread runs it, is over; optionally mark
   the handle cancelled.  0, or -1 with what a signal's handler raised. */
int fl_shared_settle(FlHandle *self, bool cancel);

/* Whether a handle of either type is a shared one. */
static inline bool
fl_handle_is_shared(const FlHandle *self)
{
    return FL_HANDLES_WAIT
           && Py_TYPE(self) == FL_LOOP(self->loop)->state->handle_type
           && self->shared;
}

/* --- signals.c ----------------------------------------------------------- */

/* In the main thread: make the signal pipe, so that a loop has the same
   descriptors from its first to its last day.  0 or -1 with OSError. */
int fl_signals_prepare(FlLoop *loop);

/* In the main thread: make Python's wakeup fd ours for the run. */
int fl_signals_begin(FlLoop *loop);
void fl_signals_end(FlLoop *loop);

/* The loop is about to wait: make the wakeup fd ours again, if a callback set
   another.  May shorten the wait.  0 or -1. */
int fl_signals_before_wait(FlLoop *loop, int64_t *timeout_ns);

/* The loop's poller is about to be closed: Python must not write to its pipe
   any more. */
void fl_signals_forget(FlLoop *loop);

/* After a fork, in the child: find the main thread anew, and let go of what
   the parent's loops had. */
int fl_signals_after_fork(FlState *state);

/* --- tasks.c ------------------------------------------------------------- */

/* Whether asyncio's classes of tasks and futures are those that we know: 1 or
   0, or -1 with an exception set. */
int fl_tasks_are_plain(const FlLoop *loop);

/* --- fdwatch.c ----------------------------------------------------------- */

/* Forget a watcher the user left on a number that is ours now. */
void fl_fdwatch_evict(FlLoop *loop, int fd);
void fl_fdwatch_close_all(FlLoop *loop);

/* Say that an open transport of ours uses a number (borrowed), and that it
   does no more.  claim takes the number from whoever had it before, for the
   system gives a number to one at a time: 0, or -1 with MemoryError or
   OSError. */
int fl_fd_claim(FlLoop *loop, int fd, FlOwned *transport);
void fl_fd_release(FlLoop *loop, int fd, FlOwned *transport);

/* The number of a descriptor (a number or an object with fileno()), or -1
   with ValueError or OverflowError set, as selectors raises them. */
int fl_fd_number(FlLoop *loop, PyObject *object);

/* RuntimeError if a transport of this loop uses a descriptor (a number or an
   object with fileno()), ValueError for what is no descriptor.  0 or -1. */
int fl_fd_check(FlLoop *loop, PyObject *object);

/* The transport that uses a number, borrowed, or NULL. */
PyObject *fl_fd_transport(FlLoop *loop, int fd);
int fl_fdwatch_traverse(FlLoop *loop, visitproc visit, void *arg);

#endif
