/* Accepting connections: one listener per listening socket of a Server.

   A listener is a callable registered with the loop's add_reader.  asyncio's
   servers register their sockets the same way.  So remove_reader, add_reader
   and sock_accept on a serving socket have the same effect as in asyncio.
   Each connection has a context of its own, a copy of the server's.

   1. An event accepts one connection.  When it did, and the next poll reports
      the socket again (or a later one, if those between had no room for it),
      that event accepts up to MAX_ACCEPTS.  A single connection then costs one
      accept call, without a second one that only fails with EAGAIN.
      Where workers share the socket (invariant 4), such an event accepts one,
      and one for each millisecond between the two polls: what no other process
      took in that time waits for this one.  So workers with short iterations
      leave each other the rest, and those with long ones keep up.
   2. accept has no MSG_DONTWAIT, and any process that shares the socket can
      clear O_NONBLOCK.  So an event releases the GIL to accept, and sets
      O_NONBLOCK before it accepts more than the one connection that the poll
      reported.  If another process clears O_NONBLOCK and also takes that one
      connection, accept blocks the loop until the next connection arrives.
      Other threads continue.
   3. When accept fails for lack of fds or memory, the error is
      reported and the listener pauses for asyncio's ACCEPT_RETRY_DELAY.
      Otherwise the loop would run without pause, because the socket stays
      readable.
      Loop._accept_exhausted sets a timer, which registers the listener again
      unless its socket has been closed.  Any other failure is raised, as in
      asyncio: the loop reports it as the callback's.
   4. A socket that the application gave may be shared by workers: processes,
      or threads with loops of their own.  The kernel would wake all of them
      for each connection, and the quickest would take nearly all.  So such a
      socket is registered exclusively: the kernel wakes the worker that
      registered it first.  At the first accept of a burst a worker registers
      it again, and so is the last in this order.  (The place counts once the
      worker sleeps.)  While connections keep coming, the workers that were
      woken for them may lack a processor, so each event lets them run first.
      A connection would wait for a worker that is late: its waits end late,
      because other processes have the processors, or its other threads keep
      the GIL.  That worker registers the socket plainly, so that all are
      woken, until it has been prompt for ten seconds.  So does a worker
      after a pause (invariant 3), until it accepts.  The sockets that asyncio
      made are one loop's.
      Rejected: to ask how long a connection has waited (TCP_INFO).  That is a
      system call for each burst, in ticks of up to 10 ms, and not of Unix
      sockets.
      Other files have the parts: core/poller.h says what FL_EXCLUSIVE does;
      core/registration.h what happens if the worker that was woken never
      accepts; py/gil.h has late_ns, which core/iteration.c also sets;
      loop/user_fd.c makes the registration plain when anybody else uses the
      fd. */
#include "transport/listener.h"

#include "base/clock.h"
#include "base/codes.h"
#include "core/handle.h"
#include "core/loop.h"
#include "core/meter.h"
#include "core/registration.h"
#include "core/report.h"
#include "loop/add_reader.h"
#include "loop/user_fd.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/extra_info.h"
#include "transport/sockaddr.h"
#include "transport/stream.h"
#include "transport/stream_open.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>

/* The most connections that one event accepts: listener_call stores them in an
   array, and other callbacks wait for their factories. */
#define MAX_ACCEPTS 64

/* Owned by the add_reader handle while it accepts, by a timer while it pauses.
   The Server owns the listening socket and closes it.  The reference held here
   only keeps the object from closing the fd while it is registered. */
typedef struct {
    PyObject_HEAD
    FlLoop *loop;
    PyObject *sock;
    PyObject *factory;    /* makes a connection's protocol */
    PyObject *server;     /* NULL: none */
    PyObject *accept_tls; /* called with (socket, peer) instead, or NULL */
    PyObject *context;    /* copied for each connection */
    bool messages;        /* each send of a connection is one: SCTP */
    int fd;               /* of sock */
    bool shared;          /* perhaps, with other workers: invariant 4 */
    /* table->whole_polls if the last event reached its limit, else 0. */
    uint64_t limit_poll;
    int64_t limit_ns; /* coarse time of that poll */
} Listener;

/* --- one connection ------------------------------------------------------ */

/* A connection that no transport owns yet.  fd is -1 once a socket object owns
   the fd. */
typedef struct {
    struct sockaddr_storage peer;
    socklen_t peer_size;
    int fd;
    PyObject *protocol; /* owned; NULL: the factory made none */
} Accepted;

/* Accept one connection with O_NONBLOCK and FD_CLOEXEC set.  0 or a negative
   errno.  May block: invariant 2. */
static int
accept_one(int listener_fd, Accepted *accepted)
{
    struct sockaddr *peer = (struct sockaddr *)&accepted->peer;
    accepted->peer_size = sizeof(accepted->peer);
#if defined(__linux__) || defined(__FreeBSD__)
    accepted->fd = accept4(listener_fd, peer, &accepted->peer_size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted->fd >= 0 || errno != ENOSYS) {
        return accepted->fd < 0 ? -errno : 0;
    }
    /* A sandbox may refuse it, as a call that it does not know. */
#endif
    accepted->fd = accept(listener_fd, peer, &accepted->peer_size);
    if (accepted->fd < 0) {
        return -errno;
    }
    (void)fcntl(accepted->fd, F_SETFL, O_NONBLOCK);
    (void)fcntl(accepted->fd, F_SETFD, FD_CLOEXEC);
    return 0;
}

/* Accept connections with the GIL released, in at most `limit` attempts; if it
   yields, other processes run first.  Returns how many.  *code tells why it
   stopped: 0 after the last attempt, else a negative errno. */
static int
accept_batch(int listener_fd, Accepted *accepted, int limit, bool yields,
             int *code)
{
    FL_CHECK(limit >= 1 && limit <= MAX_ACCEPTS, "accepted[] has the room");
    int on = 1, count = 0;
    if (limit > 1) {
        /* One call, where fcntl would take two.  If it fails, accept
           reports why. */
        (void)ioctl(listener_fd, FIONBIO, &on);
    }
    PyThreadState *thread = PyEval_SaveThread();
    if (yields) {
        (void)sched_yield();
    }
    *code = 0;
    for (int attempts = 0; attempts < limit && *code == 0; attempts++) {
        *code = accept_one(listener_fd, &accepted[count]);
        if (*code == 0) {
            count++;
        }
        else if (*code == -EINTR || *code == -ECONNABORTED) {
            *code = 0; /* interrupted, or the peer has closed: try the next */
        }
    }
    PyEval_RestoreThread(thread);
    return count;
}

/* Open a StreamTransport.  0, or -1 with an exception set; then the fd
   still belongs to `accepted`. */
static int
listener_open_plain(Listener *self, Accepted *accepted, PyObject *context)
{
    accepted->protocol = PyObject_CallNoArgs(self->factory);
    if (accepted->protocol == NULL) {
        return -1;
    }
    FlStreamOptions options = {
        .fd = accepted->fd,
        .protocol = accepted->protocol,
        .server = self->server,
        .context = context,
        .peer = &accepted->peer,
        .peer_size = accepted->peer_size,
        .messages = self->messages,
    };
    /* The loop owns the open stream. */
    return fl_call_done(fl_stream_open(self->loop, &options));
}

/* Pass the connection to accept_tls, which creates the transport in Python.
   0, or -1 with an exception set.  Once the socket object exists it owns the
   fd, so a failure of the call closes it. */
static int
listener_open_tls(Listener *self, Accepted *accepted)
{
    PyObject *sock = fl_socket_from_fd(self->loop->state, accepted->fd);
    if (sock == NULL) {
        return -1;
    }
    accepted->fd = -1;
    PyObject *result =
        PyObject_CallFunction(self->accept_tls, "ON", sock,
                              fl_sockaddr_object(&accepted->peer,
                                                 accepted->peer_size));
    Py_DECREF(sock);
    return fl_call_done(result);
}

/* Call fl_loop_report_by.  If `method` raises, report that exception, too.  0,
   or -1 if an exception ends the run. */
static int
report_by(Listener *self, PyObject *method, PyObject *first, PyObject *second)
{
    return fl_loop_report_by(self->loop, method, first, second, NULL) < 0
               ? fl_loop_report_callback(self->loop, NULL)
               : 0;
}

/* Open a transport on a connection, in a context of its own.  A failure is
   reported and closes the connection.  0, or -1 if an exception ends
   the run. */
static int
open_accepted(Listener *self, Accepted *accepted)
{
    PyObject *context = PyContext_Copy(self->context);
    int code = -1;
    accepted->protocol = NULL;
    if (context != NULL && PyContext_Enter(context) == 0) {
        code = self->accept_tls == NULL
                   ? listener_open_plain(self, accepted, context)
                   : listener_open_tls(self, accepted);
        /* Leaving keeps the exception of a failure. */
        fl_context_leave(context, code < 0);
    }
    Py_XDECREF(context);
    if (code == 0) {
        Py_CLEAR(accepted->protocol);
        return 0;
    }
    FL_METER(self->loop, connections_refused, 1);
    /* Neither a stream nor a socket object owns it. */
    if (accepted->fd >= 0) {
        fl_close_socket(self->loop, accepted->fd);
    }
    code = report_by(self, self->loop->state->names._accept_failed,
                     accepted->protocol, NULL);
    Py_CLEAR(accepted->protocol);
    return code;
}

/* --- events -------------------------------------------------------------- */

/* True while the socket's events go to this listener.  add_reader and
   remove_reader of the same fd cancel its handle. */
static bool
is_accepting(const Listener *self)
{
    FlFdRefs refs;
    (void)fl_fd_users(self->loop, self->fd, &refs);
    PyObject *reader = refs.callbacks[FL_READABLE - 1];
    bool accepts = reader != NULL
                   && Py_IS_TYPE(reader, self->loop->state->handle_type)
                   && ((FlHandle *)reader)->callback == (PyObject *)self
                   && !fl_handle_is_cancelled((FlHandle *)reader);
    Py_XDECREF(refs.callbacks[0]);
    Py_XDECREF(refs.callbacks[1]);
    Py_XDECREF(refs.object);
    return accepts;
}

/* Whether the socket object still has the fd.  The application may close it,
   and the system may give its fd to another file; where another thread closes
   it while accept runs, nothing can be noticed.  May run Python.  1 or 0, or
   -1 with an exception of fileno() other than a closed socket's. */
static int
has_fd(const Listener *self)
{
    int fd = PyObject_AsFileDescriptor(self->sock);
    if (fd < 0 && !PyErr_ExceptionMatches(PyExc_ValueError)
        && !PyErr_ExceptionMatches(PyExc_OSError))
    {
        return -1;
    }
    PyErr_Clear(); /* that of a closed socket: its fd is -1, or it raises */
    return fd == self->fd;
}

/* Register a shared socket exclusively or plainly, and if this worker has
   `accepted`, as the last one to be woken: invariant 4. */
static void
listener_go_last(const Listener *self, bool accepted)
{
    FlLoop *loop = self->loop;
    bool accepts = is_accepting(self); /* else the registration is another's */
    bool late = fl_gil_was_late(&loop->gil, fl_clock_coarse_ns());
    fl_fd_table_lock(loop->table);
    FlRegistration *reg = fl_registration_at(loop->table, self->fd);
    if (accepts && reg != NULL) { /* NULL: the loop is closed */
        int before = reg->wanted;
        int wanted = (before & ~FL_EXCLUSIVE) | (late ? 0 : FL_EXCLUSIVE);
        if (wanted != before || (accepted && !late)) {
            /* A failure is tried again by fl_registrations_recheck. */
            (void)fl_registration_want(reg, wanted, wanted);
        }
    }
    fl_fd_table_unlock(loop->table);
}

/* accept failed: pause (invariant 3), or stop if the socket has lost its fd.
   0 if the failure is reported, or -1 with an exception set. */
static int
handle_accept_error(Listener *self, int code)
{
    /* asyncio's list of errors after which it pauses: invariant 3. */
    bool exhausted = code == -EMFILE || code == -ENFILE || code == -ENOBUFS
                     || code == -ENOMEM;
    if (exhausted || code == -EBADF) {
        /* Before _accept_exhausted schedules the restart.  listener_call found
           the socket's events still going here. */
        (void)fl_fd_remove(self->loop, self->fd, FL_READABLE, NULL);
    }
    (void)fl_raise_errno(code);
    return exhausted
               ? report_by(self, self->loop->state->names._accept_exhausted,
                           self->sock, (PyObject *)self)
               : -1;
}

/* Open all accepted connections.  Goes on after an exception that ends
   the run: the peers of the others are connected and wait for an answer.
   0, or -1 with the first such exception set. */
static int
open_all(Listener *self, Accepted *accepted, int count)
{
    PyObject *leaving = NULL;
    for (int at = 0; at < count; at++) {
        if (at > 0 && !is_accepting(self)) {
            /* A factory has stopped the listener.  A stopped server refuses
               later connections, so it closes these, too. */
            fl_close_socket(self->loop, accepted[at].fd);
            FL_METER(self->loop, connections_refused, 1);
        }
        else if (open_accepted(self, &accepted[at]) < 0) {
            /* The first is set aside: Python code must not run with it
               raised. */
            (void)fl_error_keep_first(leaving, -1, (PyObject *)self);
            leaving = PyErr_GetRaisedException();
        }
    }
    return fl_error_keep_first(leaving, 0, NULL);
}

/* Whether the last event reached its limit, in the poll before this one. */
static bool
is_busy(const Listener *self)
{
    /* A whole poll in between would have reported it. */
    return self->limit_poll != 0
           && self->loop->table->whole_polls <= self->limit_poll + 1;
}

/* How many connections this event accepts: invariant 1. */
static int
accept_limit(const Listener *self, bool busy)
{
    int64_t apart_ns = self->loop->polls.last_ns - self->limit_ns;
    return !busy ? 1
           : !self->shared
               ? MAX_ACCEPTS
               : (int)Py_MIN(1 + apart_ns / FL_NS_PER_MS, MAX_ACCEPTS);
}

/* The add_reader callback: the socket is readable.  Has it still its fd
   (has_fd)?  Then accept up to the limit (1, 2), go last (4), open the
   connections, and handle a failed accept (3).  Python code runs in the first
   step and in the last two; it may stop the listener, which is_accepting then
   tells.  The loop reports an exception from here as the callback's, unless it
   ends the run. */
static PyObject *
listener_call(Listener *self, PyObject *Py_UNUSED(args),
              PyObject *Py_UNUSED(kwargs))
{
    Accepted accepted[MAX_ACCEPTS];
    int code = -EBADF, open = has_fd(self);
    if (open < 0) {
        return NULL; /* the loop reports it, and the next event tries again */
    }
    bool busy = is_busy(self);
    int count =
        open ? accept_batch(self->fd, accepted, accept_limit(self, busy),
                            self->shared && busy, &code)
             : 0;
    if (self->shared && open && !busy) {
        listener_go_last(self, count > 0);
    }
    FL_METER(self->loop, connections_accepted, (uint64_t)count);
    bool would_block = code < 0 && fl_errno_would_block(-code);
    /* Noted here, since open_all may end this function. */
    self->limit_poll = code == 0 ? self->loop->table->whole_polls : 0;
    self->limit_ns = self->loop->polls.last_ns;
    if (open_all(self, accepted, count) < 0) {
        return NULL;
    }
    /* Reported last.  A listener that a factory has stopped must not pause:
       the timer would start it again. */
    bool failed = code < 0 && !would_block && is_accepting(self);
    return fl_call_none(failed ? handle_accept_error(self, code) : 0);
}

/* --- module functions ---------------------------------------------------- */

static const char start_accepting_doc[] =
    "start_accepting(loop, sock, factory, server, messages, shared,\n"
    "                accept_tls, context, /)\n--\n\n"
    "Accept connections on a listening socket until its reader is removed.\n"
    "\n"
    "messages: each send is one, so that nothing is corked.\n"
    "shared: other loops may accept on it, too, and they take turns.\n"
    "accept_tls, if not None, is called with (socket, peer name) for each\n"
    "connection instead of opening a StreamTransport.  context is the\n"
    "contextvars.Context that connections copy; None: the current one.";

static PyObject *
start_accepting(PyObject *module, PyObject *args)
{
    FlState *state = fl_state_get(module);
    PyObject *loop, *sock, *factory, *server, *accept_tls, *context;
    int messages, shared;
    if (!PyArg_ParseTuple(args, "O!OOOppOO:start_accepting", state->loop_type,
                          &loop, &sock, &factory, &server, &messages, &shared,
                          &accept_tls, &context)
        || fl_loop_check_open(FL_LOOP(loop)) < 0)
    {
        return NULL;
    }
    PyTypeObject *type = state->listener_type;
    int fd = fl_fd_of(FL_LOOP(loop), sock);
    Listener *self = fd < 0 ? NULL : (Listener *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->loop = (FlLoop *)Py_NewRef(loop);
    self->sock = Py_NewRef(sock);
    self->fd = fd;
    self->messages = messages;
    self->shared = shared && self->loop->table->poller.kind->exclusive;
    self->loop->gil.times_waits += self->shared;
    self->factory = Py_NewRef(factory);
    self->server = Py_XNewRef(fl_none_to_null(server));
    self->accept_tls = Py_XNewRef(fl_none_to_null(accept_tls));
    self->context =
        context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
    int code = -1;
    if (self->context != NULL) {
        /* This fd is the listening socket, so a transport that still has it
           has lost its own file. */
        (void)fl_fd_evict(FL_LOOP(loop), fd, false);
        /* An int: no file object is stored for one. */
        PyObject *callback = (PyObject *)self;
        FlHandle *handle = fl_fd_add(self->loop, fd, Py_False, FL_READABLE,
                                     &callback, 1, NULL);
        code = handle == NULL ? -1 : 0;
        Py_XDECREF(handle);
    }
    if (code == 0 && self->shared) {
        listener_go_last(self, false);
    }
    Py_DECREF(self); /* the handle owns it */
    /* Dropping the reader that was registered before may run code that closes
       the loop. */
    if (code < 0 || fl_loop_check_open(FL_LOOP(loop)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef listener_functions[] = {
    {"start_accepting", start_accepting, METH_VARARGS, start_accepting_doc},
    {NULL, NULL, 0, NULL},
};

/* --- the type ------------------------------------------------------------ */

static int
listener_traverse(Listener *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->factory);
    Py_VISIT(self->server);
    Py_VISIT(self->accept_tls);
    Py_VISIT(self->context);
    return 0;
}

/* loop stays until dealloc: the other functions use it without a check. */
static int
listener_clear(Listener *self)
{
    Py_CLEAR(self->sock);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->server);
    Py_CLEAR(self->accept_tls);
    Py_CLEAR(self->context);
    return 0;
}

static void
listener_dealloc(Listener *self)
{
    PyObject_GC_UnTrack(self);
    (void)listener_clear(self);
    self->loop->gil.times_waits -= self->shared;
    Py_CLEAR(self->loop);
    fl_object_free(self);
}

static PyType_Slot listener_slots[] = {
    {Py_tp_call, listener_call},
    {Py_tp_dealloc, listener_dealloc},
    {Py_tp_traverse, listener_traverse},
    {Py_tp_clear, listener_clear},
    {0, NULL},
};

int
fl_listener_register(PyObject *module, FlState *state)
{
    PyType_Spec spec = {"fastloop._core.Listener", sizeof(Listener), 0,
                        FL_TYPE_FLAGS | Py_TPFLAGS_IMMUTABLETYPE,
                        listener_slots};
    state->listener_type = fl_type_add(module, &spec, NULL);
    if (state->listener_type == NULL) {
        return -1;
    }
    return PyModule_AddFunctions(module, listener_functions);
}
