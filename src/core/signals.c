/* Signals: Python's wakeup descriptor is ours while the main thread runs.

   libuv makes a poll that a signal interrupted again, so a signal must arrive
   as a readable descriptor: CPython writes each signal's number to the wakeup
   fd from its C handler.

   1. Only in the main thread of the main interpreter, where alone Python's
      signal handlers run.
   2. state->wakeup is the one record of who has the descriptor.  take, release
      and forward are the only functions that change it or act on it.
   3. The loop that waits has the descriptor.  What the program had set, before
      the run or by a callback, still gets its bytes, and is put back after
      the run: each time only if the number is still the same file.
   4. While add_signal_handler has handlers, the descriptor stays ours between
      runs, so that no signal is lost.
   5. A number that Python may write to is never closed. */
#include "core/signals.h"

#include "base/clock.h"
#include "core/loop.h"
#include "core/poller.h"
#include "core/report.h"
#include "core/registration.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where asking for the wakeup fd takes a Python call, a loop that became idle
   asks after this time, not before every wait. */
#define REQUEST_AFTER_NS (50 * FL_NS_PER_MS)

/* Ask Python whether this is its main thread, by a call that the main thread
   alone may make and that fails there too, on a number that no file has.
   `threading` does not know: it takes the thread that imports it first. */
static bool
request_main_thread(FlState *state)
{
    PyObject *exc = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
    PyObject *result =
        state->set_wakeup_fd == NULL
            ? NULL
            : PyObject_CallFunction(state->set_wakeup_fd, "i", INT_MAX);
    bool is_main = result == NULL && PyErr_Occurred()
                   && PyErr_ExceptionMatches(PyExc_OSError);
    Py_XDECREF(result);
    PyErr_Clear(); /* the error is the answer */
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
    return is_main;
}

static bool
in_main_thread(FlState *state)
{
    unsigned long here = PyThread_get_thread_ident();
    if (state->main_thread_id != 0) {
        return state->main_thread_id == here;
    }
    if (PyInterpreterState_Get() != PyInterpreterState_Main()
        || !request_main_thread(state))
    {
        return false;
    }
    state->main_thread_id = here;
    return true;
}

/* --- the wakeup descriptor ----------------------------------------------- */

/* Make fd Python's wakeup descriptor and tell which it was.  0, or -1 with an
   exception set. */
static int
set_wakeup_fd(FlState *state, int fd, int *before)
{
#if FL_HAVE_SET_WAKEUP_FD
    (void)state;
    *before = PySignal_SetWakeupFd(fd);
    return 0;
#else
    PyObject *result = PyObject_CallFunction(state->set_wakeup_fd, "i", fd);
    if (result == NULL) {
        return -1;
    }
    *before = (int)PyLong_AsLong(result);
    Py_DECREF(result);
    return *before == -1 && PyErr_Occurred() ? -1 : 0;
#endif
}

static void
remember(FlForeignFd *foreign, int fd)
{
    struct stat status;
    foreign->fd = fd >= 0 && fstat(fd, &status) == 0 ? fd : -1;
    if (foreign->fd >= 0) {
        foreign->device = status.st_dev;
        foreign->inode = status.st_ino;
    }
}

/* The number, if it is still what it was; -1 else. */
static int
same_fd(const FlForeignFd *foreign)
{
    struct stat status;
    bool same = foreign->fd >= 0 && fstat(foreign->fd, &status) == 0
                && status.st_dev == foreign->device
                && status.st_ino == foreign->inode;
    return same ? foreign->fd : -1;
}

/* Make the loop's pipe the wakeup descriptor.  0; 1: it was not before; or -1
   with an exception set. */
static int
take(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    int ours = loop->poller->signal_fds[1], found;
    if (set_wakeup_fd(loop->state, ours, &found) < 0) {
        return -1;
    }
    bool anew = found != wakeup->fd || wakeup->owner != loop;
    if (found != wakeup->fd) {
        remember(&wakeup->before, found);
    }
    if (wakeup->owner == NULL && wakeup->fd >= 0) {
        (void)close(wakeup->fd); /* a loop left it: see fl_signals_forget */
    }
    wakeup->owner = loop;
    wakeup->fd = ours;
    return anew;
}

/* The same before a wait.  Of what came while another had the descriptor the
   handlers may not have run yet; they may schedule, or stop the loop. */
static int
take_back(FlLoop *loop, int64_t *timeout_ns)
{
    int code = take(loop);
    if (code > 0) {
        *timeout_ns = 0;
        code = PyErr_CheckSignals();
    }
    return code;
}

/* The loop does not run, and another may need the descriptor, or none does.
   What the program set since the last wait stays. */
static int
release(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    int found, ours = wakeup->fd;
    if (wakeup->owner != loop || wakeup->handler == loop) {
        return 0;
    }
    if (wakeup->handler != NULL) {
        return take(wakeup->handler) < 0 ? -1 : 0;
    }
    int code = set_wakeup_fd(loop->state, same_fd(&wakeup->before), &found);
    PyObject *exc = NULL;
    if (code < 0) {
        /* Python does not take back what was made blocking meanwhile. */
        exc = PyErr_GetRaisedException();
        code = set_wakeup_fd(loop->state, -1, &found);
    }
    if (code == 0 && found != ours) {
        code = set_wakeup_fd(loop->state, found, &ours);
    }
    if (code == 0) {
        wakeup->owner = NULL;
        wakeup->fd = wakeup->before.fd = -1;
    }
    if (exc != NULL) {
        if (code < 0) {
            PyErr_WriteUnraisable((PyObject *)loop);
        }
        PyErr_SetRaisedException(exc);
        code = -1;
    }
    return code;
}

/* Pass on what the loop's pipe got to who would have got it without us. */
static void
forward(FlLoop *loop, const unsigned char *fds, ssize_t count)
{
    const FlWakeup *wakeup = &loop->state->wakeup;
    if (!in_main_thread(loop->state) || wakeup->owner != loop) {
        return;
    }
    int fd = wakeup->handler != NULL && wakeup->handler != loop
                 ? wakeup->handler->poller->signal_fds[1]
                 : same_fd(&wakeup->before);
    if (fd >= 0) {
        /* Full or broken is its reader's affair, as it is for CPython. */
        ssize_t ignored = write(fd, fds, (size_t)count);
        (void)ignored;
    }
}

/* --- signals that came --------------------------------------------------- */

/* Give one signal to the handler that add_signal_handler knows, if any.  0, or
   -1 with an exception that leaves the loop. */
static int
handle_signal(FlLoop *loop, unsigned char number)
{
    PyObject *handlers = loop->signal_handlers;
    if (handlers == NULL || !PyDict_Check(handlers)
        || PyDict_GET_SIZE(handlers) == 0)
    {
        return 0;
    }
    PyObject *argument = PyLong_FromLong(number);
    PyObject *result =
        argument == NULL
            ? NULL
            : PyObject_CallMethodOneArg((PyObject *)loop,
                                        loop->state->names._handle_signal,
                                        argument);
    Py_XDECREF(argument);
    if (result == NULL) {
        return fl_loop_report_callback(loop, NULL);
    }
    Py_DECREF(result);
    return 0;
}

static int
handle_signals(FlLoop *loop, const unsigned char *fds, ssize_t count)
{
    forward(loop, fds, count);
    for (ssize_t at = 0; at < count; at++) {
        if (handle_signal(loop, fds[at]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
on_signal(void *owner, FlRegistration *reg, int events)
{
    FlLoop *loop = owner;
    unsigned char fds[128];
    ssize_t count;
    (void)events;
    /* Python's handlers first: left pending, they would run inside the calls
       below, and what they raise would be taken for an error of those. */
    int code = PyErr_CheckSignals();
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    while ((count = read(reg->fd, fds, sizeof(fds))) > 0) {
        if (handle_signals(loop, fds, count) == 0) {
            continue;
        }
        code = -1;
        if (exc != NULL) {
            PyErr_WriteUnraisable((PyObject *)loop);
        }
        else {
            exc = PyErr_GetRaisedException();
        }
    }
    /* It is there still: a loop cannot be closed in its own turn. */
    fl_registration_rearm(reg);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
    return code;
}

/* --- runs ---------------------------------------------------------------- */

int
fl_signals_prepare(FlLoop *loop)
{
    if (!in_main_thread(loop->state)) {
        return 0;
    }
    /* The parent's pipe would be taken for the child's own. */
    int code = fl_loop_leave_parent(loop);
    if (code == 0) {
        code = fl_poller_signal_pipe(loop->poller, on_signal);
    }
    return code < 0 ? fl_raise_errno(code) : 0;
}

int
fl_signals_begin(FlLoop *loop)
{
    if (!in_main_thread(loop->state)) {
        return 0;
    }
    if (fl_signals_prepare(loop) < 0 || take(loop) < 0) {
        return -1;
    }
    loop->hears_signals = true;
    /* One that came before: its handler may not have run yet. */
    return PyErr_CheckSignals();
}

/* Positions in the queue tell whether callbacks ran: nobody else could have
   set another descriptor. */
int
fl_signals_before_wait(FlLoop *loop, int64_t *timeout_ns)
{
    if (!loop->hears_signals) {
        return 0;
    }
#if FL_HAVE_SET_WAKEUP_FD
    return take_back(loop, timeout_ns);
#else
    uint64_t now = loop->ready.tail + 1;
    if (loop->taken_tail == now) {
        return 0;
    }
    if (loop->limited_tail == now) {
        loop->taken_tail = now;
        *timeout_ns = 0; /* destructors may have run and scheduled */
        return take_back(loop, timeout_ns);
    }
    if (*timeout_ns < 0 || *timeout_ns > REQUEST_AFTER_NS) {
        loop->limited_tail = now;
        *timeout_ns = REQUEST_AFTER_NS;
    }
    return PyErr_CheckSignals(); /* of what came until now */
#endif
}

void
fl_signals_end(FlLoop *loop)
{
    if (!loop->hears_signals) {
        return;
    }
    loop->hears_signals = false;
    if (release(loop) < 0) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
}

void
fl_signals_forget(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    if (wakeup->owner != loop && wakeup->handler != loop) {
        return;
    }
    if (wakeup->handler == loop) {
        wakeup->handler = NULL;
    }
    if (in_main_thread(loop->state)) {
        PyObject *exc = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
        if (release(loop) < 0) {
            PyErr_WriteUnraisable(NULL);
        }
        if (exc != NULL) {
            PyErr_SetRaisedException(exc);
        }
    }
    if (wakeup->owner != loop) {
        return;
    }
    /* A collector in another thread: only the main thread can tell Python, so
       the number stays, leading nowhere, until a loop takes over. */
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nowhere >= 0) {
        (void)dup2(nowhere, wakeup->fd);
        (void)close(nowhere);
    }
    loop->poller->signal_fds[1] = -1;
    wakeup->owner = NULL;
}

int
fl_signals_after_fork(FlState *state)
{
    FlWakeup *wakeup = &state->wakeup;
    FlLoop *owner = wakeup->owner;
    state->main_thread_id = 0;
    wakeup->handler = NULL;
    if (owner == NULL || !in_main_thread(state)) {
        return 0;
    }
    owner->hears_signals = false;
    return release(owner);
}

const char fl_loop_signal_wakeup_doc[] =
    "_signal_wakeup($self, on, /)\n--\n\n"
    "Keep Python's signal wakeup descriptor ours also between runs, or give\n"
    "it back.  Raises RuntimeError outside the main thread.";

PyObject *
fl_loop_signal_wakeup(FlLoop *loop, PyObject *arg)
{
    FlWakeup *wakeup = &loop->state->wakeup;
    int on = PyObject_IsTrue(arg), code = 0;
    if (on < 0 || fl_loop_check_open(loop) < 0) {
        return NULL;
    }
    if (!in_main_thread(loop->state)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "set_wakeup_fd only works in main thread of the main "
                        "interpreter");
        return NULL;
    }
    if (fl_signals_prepare(loop) < 0) {
        return NULL;
    }
    if (on) {
        /* A loop that runs keeps the descriptor, and passes signals on.  The
           running callback may have set another one. */
        bool heard = wakeup->owner != NULL && wakeup->owner->hears_signals;
        code = take(heard ? wakeup->owner : loop);
        if (code >= 0) {
            wakeup->handler = loop;
        }
    }
    else if (wakeup->handler == loop) {
        wakeup->handler = NULL;
        code = loop->hears_signals ? 0 : release(loop);
    }
    return code < 0 ? NULL : Py_NewRef(Py_None);
}
