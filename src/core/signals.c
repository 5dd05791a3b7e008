/* Signals: Python's wakeup fd is ours while a loop runs in the main thread.

   libuv repeats a poll that a signal interrupted.  So a signal must arrive as
   a readable fd: CPython's C signal handler writes the signal's number, one
   byte, to the wakeup fd.  We set that to the write end of the loop's signal
   pipe.

   1. All of this happens only in the main thread of the main interpreter.
      Python's signal handlers run only there, and only that thread may set the
      wakeup fd.
   2. state->wakeup is the only record of the wakeup fd's owner.  There may be
      several loops: a second record could disagree, and then a loop would
      restore an fd over another loop's.  Another thread may close the loop
      that owns the wakeup fd, or that has handlers: without a GIL at any time,
      else while signal.set_wakeup_fd() releases the GIL.  So a loop is
      recorded, used by another loop, and removed by another thread in a
      critical section of the module.  All other writes are the main thread's.
   3. The loop that waits owns the wakeup fd.  The fd that the application had
      set, before the run or in a callback, still gets the bytes
      (forward_signal, drain_pipe) and is restored after the run.  Both
      happen only if that fd is still the same file: otherwise bytes would be
      written to another file.
   4. While add_signal_handler has handlers, the wakeup fd stays ours between
      runs, so that no signal is lost.
   5. An fd is not closed while Python may write to it.  The system could reuse
      it for a file, and a signal would write a byte into that.
   6. A handler gets only signals that came while its loop had handlers.
      asyncio does the same, because its loop has the wakeup fd only then.  So
      when the first handler is added during a run, or the last one removed,
      the loop writes a mark into its pipe.  The mark separates earlier signals
      from later ones.
   7. A callback that takes long may let the pipe fill with signals (64 KiB on
      Linux).  The bytes of further ones are dropped without a word, as
      Python's handlers run all the same and the loop wakes.  Handlers of
      add_signal_handler miss those signals.  asyncio, which
      drops bytes after about 280, has Python report each. */
#include "core/signals.h"

#include "base/clock.h"
#include "base/file_id.h"
#include "core/loop.h"
#include "core/poller.h"
#include "core/report.h"
#include "core/registration.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

/* The wakeup fd is set by a Python call, which is too slow before each wait.
   So a loop sets it at most once in this time. */
#define RECLAIM_INTERVAL_NS (50 * FL_NS_PER_MS)

/* How many signals one read takes. */
#define SIGNALS_PER_READ 128

/* The marks of invariant 6, above the number of any signal. */
#define HANDLERS_REMOVED 0x80
#define HANDLERS_ADDED   0x81

/* Whether this is Python's main thread.  set_wakeup_fd() with an invalid fd
   fails in any thread, but only the main thread gets as far as an OSError;
   others get ValueError.  threading.main_thread() is no answer: it is the
   thread that first imported `threading`. */
static bool
probe_main_thread(FlState *state)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *result =
        PyObject_CallFunction(state->set_wakeup_fd, "i", INT_MAX);
    bool is_main = result == NULL && PyErr_Occurred()
                   && PyErr_ExceptionMatches(PyExc_OSError);
    Py_XDECREF(result);
    PyErr_Clear(); /* which error it was is the answer */
    fl_error_restore(exc);
    return is_main;
}

/* Invariant 1.  The main thread's id is cached once it is known. */
bool
fl_signals_in_main_thread(FlState *state)
{
    unsigned long here = PyThread_get_thread_ident();
    if (state->main_thread_id != 0) {
        return state->main_thread_id == here;
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main()
        || !probe_main_thread(state))
    {
        return false;
    }
    state->main_thread_id = here;
    return true;
}

/* --- the wakeup fd ------------------------------------------------------- */

/* Set Python's wakeup fd; *previous is the one before, or -1.  `warns`: Python
   reports each signal whose byte finds the fd full.  0, or -1 with an
   exception set: an fd that is closed or blocking is rejected.

   Rejected: PySignal_SetWakeupFd() of 3.13, which always makes Python warn. */
static int
set_wakeup_fd(FlState *state, int fd, bool warns, int *previous)
{
    PyObject *args = Py_BuildValue("(i)", fd), *result = NULL;
    PyObject *options = Py_BuildValue("{sO}", "warn_on_full_buffer",
                                      warns ? Py_True : Py_False);
    if (args != NULL && options != NULL) {
        result = PyObject_Call(state->set_wakeup_fd, args, options);
    }
    Py_XDECREF(args);
    Py_XDECREF(options);
    if (result == NULL) {
        return -1;
    }
    *previous = (int)PyLong_AsLong(result);
    Py_DECREF(result);
    return *previous == -1 && PyErr_Occurred() ? -1 : 0;
}

/* The application's fd if it is still the same file, else -1. */
static int
still_open_fd(const FlWakeup *wakeup)
{
    int fd = wakeup->application_fd;
    return fd >= 0 && fl_file_id(fd) == wakeup->application_file ? fd : -1;
}

/* Set the wakeup fd to the loop's pipe.  The caller is in the critical section
   of invariant 2.  1 if it was another fd or another loop's before, 0 if
   nothing changed, or -1 with an exception set. */
static int
claim_in_section(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    int ours = loop->poller->signal_fds[1], previous;
    /* Invariant 7: our pipe may fill. */
    if (set_wakeup_fd(loop->state, ours, false, &previous) < 0) {
        return -1;
    }
    /* If the previous fd is not wakeup->fd, the application has set it.  It
       may be this loop's own pipe, which signal.set_wakeup_fd() returned to a
       callback of an earlier run.  That is not recorded, because the loop
       would forward each byte to itself for ever. */
    bool changed = previous != wakeup->fd || wakeup->owner != loop;
    if (previous != wakeup->fd) {
        uint64_t file = previous == ours ? 0 : fl_file_id(previous);
        wakeup->application_fd = file == 0 ? -1 : previous;
        wakeup->application_file = file;
    }
    if (wakeup->owner == NULL && wakeup->fd >= 0) {
        /* leave_wakeup_fd left it open; Python does not write to it after the
           call above (invariant 5). */
        (void)close(wakeup->fd);
    }
    wakeup->owner = loop;
    wakeup->fd = ours;
    return changed;
}

static int
claim_wakeup_fd(FlLoop *loop)
{
    int code;
    Py_BEGIN_CRITICAL_SECTION(loop->state->module);
    code = claim_in_section(loop);
    Py_END_CRITICAL_SECTION();
    return code;
}

/* The loop owns the wakeup fd: set it to the pipe of the loop that has
   handlers.  1 if done, 0 if no loop has handlers, or -1 with an exception
   set. */
static int
give_to_handler_loop(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    int code = 0;
    Py_BEGIN_CRITICAL_SECTION(loop->state->module);
    FlLoop *handler_loop = wakeup->handler_loop;
    if (handler_loop != NULL) {
        code = claim_in_section(handler_loop) < 0 ? -1 : 1;
    }
    if (wakeup->handler_loop != handler_loop) {
        /* set_wakeup_fd() releases the GIL.  Meanwhile another thread has
           closed that loop: its fd must not stay set, and an error about it
           does not matter.  This loop becomes the owner again, and
           release_wakeup_fd sets another fd. */
        PyErr_Clear();
        wakeup->owner = loop;
        code = 0;
    }
    Py_END_CRITICAL_SECTION();
    return code;
}

/* Claim the wakeup fd before a wait.  If the loop did not own it, a signal may
   have arrived without a byte in its pipe.  So run Python's pending handlers:
   the caller then looks whether it must still wait.  0, or -1 with an
   exception set. */
static int
reclaim_wakeup_fd(FlLoop *loop)
{
    int code = claim_wakeup_fd(loop);
    return code > 0 ? PyErr_CheckSignals() : code;
}

/* Read the bytes of up to SIGNALS_PER_READ signals from the loop's pipe.
   Returns how many; 0 or less if there are none, or in a forked child that
   still has its parent's pipe: those bytes are the parent's. */
static ssize_t
read_signals(FlLoop *loop, unsigned char *signums)
{
    return fl_poller_is_inherited(loop->poller)
               ? 0
               : read(loop->poller->signal_fds[0], signums, SIGNALS_PER_READ);
}

/* If a byte of the pipe is a mark, apply it and return true. */
static bool
take_mark(FlLoop *loop, unsigned char byte)
{
    if (byte < HANDLERS_REMOVED) {
        return false;
    }
    loop->signals_wanted = byte == HANDLERS_ADDED;
    return true;
}

/* Errors are ignored.  A full pipe wakes its reader anyway, and a broken one
   is its owner's affair, as it is for CPython. */
static void
write_signal(int fd, unsigned char signum)
{
    ssize_t ignored = write(fd, &signum, 1);
    (void)ignored;
}

/* Empty the loop's pipe: apply its marks, and write its signals to the fd
   `forward_to`.  If that is -1, drop them: a handler that is added later must
   not get them. */
static void
drain_pipe(FlLoop *loop, int forward_to)
{
    unsigned char signums[SIGNALS_PER_READ];
    ssize_t count;
    while ((count = read_signals(loop, signums)) > 0) {
        for (ssize_t at = 0; at < count; at++) {
            if (!take_mark(loop, signums[at]) && forward_to >= 0) {
                write_signal(forward_to, signums[at]);
            }
        }
    }
}

/* The loop's first handler is being added, or its last one has been removed.
   During a run this writes a mark.  In two cases it drops the pipe's bytes
   instead, because they came before this change: between runs, and if the pipe
   is full.  An earlier mark among them must not be applied later.  If the pipe
   is full, the application's fd loses those bytes too. */
static void
mark_handlers(FlLoop *loop, bool added)
{
    unsigned char mark = added ? HANDLERS_ADDED : HANDLERS_REMOVED;
    if (!loop->claims_wakeup_fd
        || write(loop->poller->signal_fds[1], &mark, 1) != 1)
    {
        drain_pipe(loop, -1);
        loop->signals_wanted = added;
    }
}

/* Release the wakeup fd of a loop that no longer runs: to the loop that has
   signal handlers, or else to the application.  An fd that the application set
   since the last wait stays.  Does nothing if the loop is not the owner, or
   needs the wakeup fd for its own handlers.  0, or -1 with an exception
   set. */
static int
release_wakeup_fd(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    if (wakeup->owner != loop || wakeup->handler_loop == loop) {
        return 0;
    }
    int code = give_to_handler_loop(loop);
    if (code > 0) {
        drain_pipe(loop, wakeup->fd);
        return 0;
    }
    if (code < 0) {
        return -1;
    }
    int previous, ignored, next = still_open_fd(wakeup);
    PyObject *exc = NULL;
    code = set_wakeup_fd(loop->state, next, true, &previous);
    if (code < 0) {
        /* Python rejects the application's fd if it was made blocking
           meanwhile.  Set none, because ours must not stay (invariant 5), and
           raise that error afterwards. */
        exc = PyErr_GetRaisedException();
        next = -1;
        code = set_wakeup_fd(loop->state, next, true, &previous);
    }
    if (code == 0 && previous != wakeup->fd) {
        /* The application had set another fd since: restore that. */
        next = previous;
        code = set_wakeup_fd(loop->state, next, true, &ignored);
    }
    if (code == 0) {
        drain_pipe(loop, next);
        wakeup->owner = NULL;
        wakeup->fd = wakeup->application_fd = -1;
    }
    if (exc != NULL) {
        if (code < 0) {
            PyErr_WriteUnraisable(NULL); /* the loop may be in its dealloc */
        }
        PyErr_SetRaisedException(exc);
        code = -1;
    }
    return code;
}

/* Write a byte also to where Python would have written it without the running
   loop: the pipe of the loop with signal handlers, or else the application's
   fd.  A loop that is not the owner got the byte from the owner, which
   forwards it itself, or a callback has run another loop since. */
static void
forward_signal(FlLoop *loop, unsigned char signum)
{
    const FlWakeup *wakeup = &loop->state->wakeup;
    if (!fl_signals_in_main_thread(loop->state) || wakeup->owner != loop) {
        return;
    }
    Py_BEGIN_CRITICAL_SECTION(loop->state->module);
    FlLoop *handler_loop = wakeup->handler_loop;
    int fd = handler_loop != NULL && handler_loop != loop
                 ? handler_loop->poller->signal_fds[1]
                 : still_open_fd(wakeup);
    if (fd >= 0) {
        write_signal(fd, signum);
    }
    Py_END_CRITICAL_SECTION();
}

/* --- received signals ---------------------------------------------------- */

/* Whether the loop has signal handlers.  An application may set the attribute
   _signal_handlers to anything. */
static bool
has_handlers(const FlLoop *loop)
{
    PyObject *handlers = loop->signal_handlers;
    return handlers != NULL && PyDict_Check(handlers)
           && PyDict_GET_SIZE(handlers) > 0;
}

/* Call loop._handle_signal if add_signal_handler has any handlers.  0, or -1
   with an exception that ends the run. */
static int
handle_signal(FlLoop *loop, unsigned char signum)
{
    if (!loop->signals_wanted || !has_handlers(loop)) {
        return 0;
    }
    PyObject *argument = PyLong_FromLong(signum);
    int code =
        argument == NULL
            ? -1
            : fl_call_method((PyObject *)loop,
                             loop->state->names._handle_signal, argument);
    Py_XDECREF(argument);
    return code < 0 ? fl_loop_report_callback(loop, NULL) : 0;
}

/* Return the exception that is to end the run: `first` or, if code < 0, the
   one that is raised.  Of two, the later is kept, as in Python, and the
   earlier is reported as unraisable. */
static PyObject *
last_raised(FlLoop *loop, PyObject *first, int code)
{
    if (code == 0) {
        return first;
    }
    PyObject *last = PyErr_GetRaisedException();
    if (first != NULL) {
        PyErr_SetRaisedException(first);
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    return last;
}

/* The signal pipe is readable: empty it.  Each byte is a signal's number or a
   mark.  Python's pending handlers run after each read.  If they ran before
   it, the read could take the byte of a signal whose handler is still pending,
   and the next wait would not end.  They run before the Python calls
   below, which would report a handler's exception as their own
   error.  After such an exception, unread bytes stay in the pipe.  In a child
   that was forked since the poll, nothing is read: the bytes are the parent's.
   0, or -1 with the exception that ends the run. */
static int
on_signal(FlLoop *loop, FlRegistration *Py_UNUSED(reg), int Py_UNUSED(events))
{
    unsigned char signums[SIGNALS_PER_READ];
    ssize_t count;
    PyObject *exc = NULL;
    while (exc == NULL && (count = read_signals(loop, signums)) > 0) {
        exc = last_raised(loop, NULL, PyErr_CheckSignals());
        if (fl_poller_is_inherited(loop->poller)) {
            break; /* a handler forked: the parent has these bytes too */
        }
        for (ssize_t at = 0; at < count; at++) {
            if (!take_mark(loop, signums[at])) {
                forward_signal(loop, signums[at]);
                exc = last_raised(loop, exc, handle_signal(loop, signums[at]));
            }
        }
    }
    fl_error_restore(exc);
    return exc == NULL ? 0 : -1;
}

/* --- runs ---------------------------------------------------------------- */

int
fl_signals_prepare(FlLoop *loop)
{
    if (!fl_signals_in_main_thread(loop->state)) {
        return 0;
    }
    /* In a forked child, first close the parent's pipe: else the call below
       would find that one and not create another. */
    int code = fl_poller_after_fork(loop->poller);
    if (code == 0) {
        code = fl_poller_signal_pipe(loop->poller, on_signal);
    }
    return code < 0 ? fl_raise_errno(code) : 0;
}

int
fl_signals_begin(FlLoop *loop)
{
    if (!fl_signals_in_main_thread(loop->state)) {
        return 0;
    }
    if (fl_signals_prepare(loop) < 0 || claim_wakeup_fd(loop) < 0) {
        return -1;
    }
    loop->claims_wakeup_fd = true;
    loop->reclaim_after_ns = fl_clock_coarse_ns() + RECLAIM_INTERVAL_NS;
    loop->begin_signals_again = false;
    /* After a fork, or after another loop with handlers was closed, no loop is
       recorded although this one has handlers (invariant 4). */
    FlWakeup *wakeup = &loop->state->wakeup;
    Py_BEGIN_CRITICAL_SECTION(loop->state->module);
    if (wakeup->handler_loop == NULL && has_handlers(loop)) {
        wakeup->handler_loop = loop;
        loop->signals_wanted = true;
    }
    Py_END_CRITICAL_SECTION();
    /* The handler of a signal that arrived before may still be pending. */
    return PyErr_CheckSignals();
}

/* Only a callback (or a destructor that it runs) can have set another wakeup
   fd.  wakeup_claimed_at tells whether any was queued since the fd was last
   claimed: it is the ready queue's tail at that time, plus 1, as 0 means
   never.  Until the fd may be claimed again, the wait is shortened. */
int
fl_signals_before_wait(FlLoop *loop, int64_t *limit_ns)
{
    uint64_t position = loop->ready.tail + 1;
    if (!loop->claims_wakeup_fd || loop->wakeup_claimed_at == position) {
        return 0;
    }
    int64_t now_ns = fl_clock_coarse_ns();
    int64_t left_ns = loop->reclaim_after_ns - now_ns;
    if (left_ns <= 0) {
        loop->wakeup_claimed_at = position;
        loop->reclaim_after_ns = now_ns + RECLAIM_INTERVAL_NS;
        return reclaim_wakeup_fd(loop);
    }
    /* The coarse clock may stand still for a tick: wait beyond it. */
    *limit_ns = left_ns + FL_COARSE_LAG_NS;
    /* The fd may not be ours, so a signal may be pending without a byte. */
    return PyErr_CheckSignals();
}

void
fl_signals_end(FlLoop *loop)
{
    if (!loop->claims_wakeup_fd) {
        return;
    }
    loop->claims_wakeup_fd = false;
    /* If the GC of another thread collects a running loop, fl_signals_forget
       follows: the wakeup fd is not released here. */
    if (fl_signals_in_main_thread(loop->state) && release_wakeup_fd(loop) < 0)
    {
        PyErr_WriteUnraisable(NULL);
    }
}

/* Python may still write to the fd: this is not the main thread, or the
   release has failed.  So it stays open (invariant 5) but refers to /dev/null,
   and the next claim_in_section closes it.  signal_fds[1] becomes -1 so that
   the poller does not close it. */
static void
leave_wakeup_fd(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null_fd >= 0) {
        (void)dup2(null_fd, wakeup->fd);
        (void)fcntl(wakeup->fd, F_SETFD, FD_CLOEXEC); /* dup2 clears it */
        (void)close(null_fd);
    }
    loop->poller->signal_fds[1] = -1;
    wakeup->owner = NULL;
}

void
fl_signals_forget(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    if (wakeup->owner != loop && wakeup->handler_loop != loop) {
        return;
    }
    Py_BEGIN_CRITICAL_SECTION(loop->state->module);
    if (wakeup->handler_loop == loop) {
        wakeup->handler_loop = NULL;
    }
    Py_END_CRITICAL_SECTION();
    if (fl_signals_in_main_thread(loop->state)) {
        /* A destructor may call this while an exception is set. */
        PyObject *exc = PyErr_GetRaisedException();
        if (release_wakeup_fd(loop) < 0) {
            PyErr_WriteUnraisable(NULL);
        }
        fl_error_restore(exc);
    }
    Py_BEGIN_CRITICAL_SECTION(loop->state->module);
    if (wakeup->owner == loop) {
        leave_wakeup_fd(loop);
    }
    Py_END_CRITICAL_SECTION();
}

int
fl_signals_after_fork(FlState *state)
{
    FlWakeup *wakeup = &state->wakeup;
    FlLoop *owner = wakeup->owner;
    /* The child's main thread is the thread that forked. */
    state->main_thread_id = 0;
    wakeup->handler_loop = NULL; /* fl_signals_begin records one again */
    if (owner == NULL || !fl_signals_in_main_thread(state)) {
        return 0;
    }
    /* leave_parent in iteration.c then calls fl_signals_begin, even if
       fl_poller_after_fork was called before: after that call the poller no
       longer counts as inherited. */
    owner->begin_signals_again |= owner->claims_wakeup_fd;
    owner->claims_wakeup_fd = false;
    return release_wakeup_fd(owner);
}

/* Handlers are added to the loop.  If another loop runs, it keeps the wakeup
   fd and forwards the bytes.  It claims the fd again, as the running callback
   may have set another one.  0, or -1 with an exception set. */
static int
claim_for_handlers(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    int code;
    bool is_first;
    Py_BEGIN_CRITICAL_SECTION(loop->state->module);
    FlLoop *owner = wakeup->owner;
    bool owner_runs = owner != NULL && owner->claims_wakeup_fd;
    code = claim_in_section(owner_runs ? owner : loop);
    is_first = code >= 0 && wakeup->handler_loop != loop;
    if (is_first) {
        wakeup->handler_loop = loop;
    }
    Py_END_CRITICAL_SECTION();
    if (is_first) {
        mark_handlers(loop, true);
    }
    return code < 0 ? -1 : 0;
}

const char fl_loop_signal_wakeup_doc[] =
    "_signal_wakeup($self, on, /)\n--\n\n"
    "Claim Python's signal wakeup fd between runs too, or release it.\n\n"
    "Raises RuntimeError outside the main thread.";

PyObject *
fl_loop_signal_wakeup(FlLoop *loop, PyObject *arg)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    int on = PyObject_IsTrue(arg), code = 0;
    if (on < 0 || fl_loop_check_open(loop) < 0) {
        return NULL;
    }
    if (!fl_signals_in_main_thread(loop->state)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "set_wakeup_fd only works in main thread of the main "
                        "interpreter");
        return NULL;
    }
    if (fl_signals_prepare(loop) < 0) {
        return NULL;
    }
    if (on) {
        code = claim_for_handlers(loop);
    }
    else {
        if (wakeup->handler_loop == loop) {
            wakeup->handler_loop = NULL;
            code = loop->claims_wakeup_fd ? 0 : release_wakeup_fd(loop);
        }
        /* Even if another loop is recorded: this one's handlers are gone. */
        mark_handlers(loop, false);
    }
    return fl_call_none(code);
}
