/* Signals: Python's wakeup descriptor is ours while the main thread runs.

   libuv retries a poll that a signal interrupted, so a signal must arrive as
   a readable descriptor: CPython writes each signal's number to the wakeup fd
   from its C handler.

   1. Only in the main thread of the main interpreter, where alone Python's
      signal handlers run.
   2. A wakeup fd the user had set is put back after the run, and meanwhile
      still gets its bytes.
   3. While add_signal_handler has handlers, the descriptor stays ours between
      runs, so that no signal is lost. */
#include "loop/methods.h"
#include "py/errors.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static bool
in_main_thread(const FlState *state)
{
    return PyThread_get_thread_ident() == state->main_thread_id
           && PyInterpreterState_Get() == PyInterpreterState_Main();
}

/* Make fd Python's wakeup descriptor (-1: none, as is one that its owner has
   closed) and tell which it was.  0, or -1 with an exception set. */
static int
set_wakeup_fd(FlLoop *loop, int fd, int *before)
{
    if (fd >= 0 && fd != loop->poller->signal_fds[1] && fcntl(fd, F_GETFD) < 0)
    {
        fd = -1;
    }
#if FL_HAVE_SET_WAKEUP_FD
    *before = PySignal_SetWakeupFd(fd);
    return 0;
#else
    PyObject *result =
        PyObject_CallFunction(loop->state->set_wakeup_fd, "i", fd);
    if (result == NULL) {
        return -1;
    }
    *before = (int)PyLong_AsLong(result);
    Py_DECREF(result);
    return *before == -1 && PyErr_Occurred() ? -1 : 0;
#endif
}

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
handle_signals(FlLoop *loop, const unsigned char *numbers, ssize_t count)
{
    int forward = loop->saved_wakeup_fd;
    if (forward >= 0 && forward != loop->poller->signal_fds[1]) {
        /* The user's own descriptor: full or gone is the user's affair, as it
           is for CPython's handler. */
        ssize_t ignored = write(forward, numbers, (size_t)count);
        (void)ignored;
    }
    for (ssize_t at = 0; at < count; at++) {
        if (handle_signal(loop, numbers[at]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
on_signal(void *owner, FlWatch *watch, int events)
{
    FlLoop *loop = owner;
    unsigned char numbers[128];
    ssize_t count;
    (void)events;
    /* Python's handlers first: left pending, they would run inside the calls
       below, and what they raise would be taken for an error of those. */
    int code = PyErr_CheckSignals();
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    while ((count = read(watch->fd, numbers, sizeof(numbers))) > 0) {
        if (handle_signals(loop, numbers, count) == 0) {
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
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
    return code;
}

int
fl_signals_prepare(FlLoop *loop)
{
    int code = in_main_thread(loop->state)
                   ? fl_poller_signal_pipe(loop->poller, on_signal)
                   : 0;
    return code < 0 ? fl_raise_errno(code) : 0;
}

int
fl_signals_begin(FlLoop *loop)
{
    if (!in_main_thread(loop->state)) {
        return 0;
    }
    int code = fl_poller_signal_pipe(loop->poller, on_signal);
    if (code < 0) {
        return fl_raise_errno(code);
    }
    if (set_wakeup_fd(loop, loop->poller->signal_fds[1],
                      &loop->saved_wakeup_fd)
        < 0)
    {
        return -1;
    }
    loop->wakeup_installed = true;
    /* One that came before: its handler may not have run yet. */
    return PyErr_CheckSignals();
}

void
fl_signals_end(FlLoop *loop)
{
    if (!loop->wakeup_installed) {
        return;
    }
    loop->wakeup_installed = false;
    int found, ignored;
    int code = set_wakeup_fd(loop, loop->saved_wakeup_fd, &found);
    if (code < 0 && loop->saved_wakeup_fd >= 0) {
        /* The user closed the one we saved: there is none to put back. */
        PyErr_Clear();
        code = set_wakeup_fd(loop, -1, &found);
    }
    if (code == 0 && found != loop->poller->signal_fds[1]) {
        /* The user set another during the run: that one stays. */
        code = set_wakeup_fd(loop, found, &ignored);
    }
    if (code < 0) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
}

const char fl_loop_signal_wakeup_doc[] =
    "_signal_wakeup($self, on, /)\n--\n\n"
    "Keep Python's signal wakeup descriptor ours also between runs, or give\n"
    "it back.  Raises RuntimeError outside the main thread.";

PyObject *
fl_loop_signal_wakeup(FlLoop *loop, PyObject *arg)
{
    int on = PyObject_IsTrue(arg);
    if (on < 0 || fl_loop_check_open(loop) < 0) {
        return NULL;
    }
    if (!in_main_thread(loop->state)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "set_wakeup_fd only works in main thread of the main "
                        "interpreter");
        return NULL;
    }
    int code = fl_poller_signal_pipe(loop->poller, on_signal);
    if (code < 0) {
        (void)fl_raise_errno(code);
        return NULL;
    }
    int ours = loop->poller->signal_fds[1];
    int before;
    if (loop->wakeup_installed) {
        if (on && loop->saved_wakeup_fd != ours) {
            loop->user_wakeup_fd = loop->saved_wakeup_fd;
        }
        loop->saved_wakeup_fd = on ? ours : loop->user_wakeup_fd;
    }
    else if (set_wakeup_fd(loop, on ? ours : loop->user_wakeup_fd, &before)
             < 0) {
        return NULL;
    }
    else if (on) {
        /* What another loop's handlers need is not the user's. */
        if (before != ours && before != loop->state->handlers_wakeup_fd) {
            loop->user_wakeup_fd = before;
        }
        loop->state->handlers_wakeup_fd = ours;
    }
    else if (before != ours && set_wakeup_fd(loop, before, &before) < 0) {
        return NULL; /* another loop's, say, that has taken over: it stays */
    }
    Py_RETURN_NONE;
}
