/* A stream's life: opening, protocols, events, closing, connection_lost.

   1. connection_made and connection_lost are each called once, in this order,
      from the ready queue or an event, so never inside another callback of the
      protocol.  Only without memory for a queue entry is connection_lost
      called on the spot.
   2. The registration is closed before the descriptor.  In the other order the
      system could give the fd to a new file, whose registration we would
      then remove.
   3. After connection_lost the stream has released its protocol, server,
      socket, queue and loop.  What get_extra_info answers from stays, as with
      asyncio's transports.
   4. A loop that is closed abandons its streams: it calls no protocol, and the
      finalizer warns about each stream that is still open (stream_gc.c). */
#include "transport/stream.h"

#include "base/list.h"
#include "core/debug.h"
#include "core/dispatch.h"
#include "core/fd_set.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "core/poller.h"
#include "core/report.h"
#include "core/registration.h"
#include "loop/user_fd.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/extra_info.h"
#include "transport/native_protocol.h"
#include "transport/stream_gc.h"
#include "transport/stream_error.h"
#include "transport/stream_fd.h"
#include "transport/stream_read.h"
#include "transport/stream_transport.h"
#include "transport/stream_write.h"
#include "transport/write_queue.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void
fl_stream_set_phase(FlStream *self, FlStreamPhase phase)
{
    FL_CHECK(phase > self->phase, "phases only advance");
    if (phase >= FL_STREAM_LOST) {
        /* The flush at the callback's end must not find a lost stream. */
        fl_stream_cancel_flush(self);
    }
    self->phase = phase;
}

int
fl_stream_update_registration(FlStream *self)
{
    fl_stream_meter_queue(self);
    if (self->reg == NULL) {
        return 0;
    }
    int wanted = 0;
    /* A closing write pipe still learns that its reader is gone. */
    bool reads =
        self->phase == FL_STREAM_OPEN
        || (self->phase == FL_STREAM_CLOSING && self->kind == FL_WRITE_PIPE);
    if (reads && !self->paused && !self->read_eof) {
        wanted |= FL_READABLE;
    }
    /* Corked bytes wait for the callback's end, not for the kernel. */
    if (self->phase < FL_STREAM_LOST && !fl_stream_is_corked(self)
        && (self->awaits_room || !fl_write_queue_is_empty(&self->write_queue)))
    {
        wanted |= FL_WRITABLE;
    }
    if (wanted == self->reg->wanted) { /* mostly: saves a system call */
        return 0;
    }
    return fl_registration_set(self->reg, wanted);
}

/* Datagram transports are FlStreams too, but the metrics of connections do not
   count them. */
static bool
is_connection(const FlStream *self)
{
    return Py_IS_TYPE((PyObject *)self, self->state->stream_type);
}

/* Calls _streams.py: messages go through asyncio's logger. */
int
fl_stream_log(FlStream *self, const char *event)
{
    PyObject *text = PyUnicode_FromString(event);
    if (text == NULL) {
        return -1;
    }
    int code =
        fl_call_done(PyObject_CallMethodObjArgs(self->state->streams,
                                                self->state->names.log_event,
                                                (PyObject *)self, text, NULL));
    Py_DECREF(text);
    return code;
}

/* --- connection_made ----------------------------------------------------- */

int
fl_stream_resolve_if_pending(FlStream *self, PyObject *waiter,
                             PyObject *method, PyObject *value)
{
    Py_INCREF(waiter); /* done() may make the stream drop its reference */
    int code = fl_call_truth(waiter, self->state->names.done);
    if (code == 0) {
        code = fl_call_method(waiter, method, value);
    }
    Py_DECREF(waiter);
    return code < 0 ? fl_loop_report_callback(self->loop, NULL) : 0;
}

/* Resolve the future of create_connection or its like: failure is 0 or a
   negative errno.  0, or -1 to end the run. */
static int
wake_waiter(FlStream *self, int failure)
{
    PyObject *waiter = self->waiter;
    self->waiter = NULL; /* its reference is ours now */
    if (waiter == NULL) {
        return 0;
    }
    FlNames *names = &self->state->names;
    PyObject *exc = failure < 0 ? fl_errno_exception(failure) : NULL;
    PyObject *method = exc == NULL ? names->set_result : names->set_exception;
    /* Without memory for the exception the waiter gets a result; the protocol
       still learns of the failure from connection_lost. */
    PyErr_Clear();
    int code = fl_stream_resolve_if_pending(self, waiter, method,
                                            exc == NULL ? Py_None : exc);
    Py_XDECREF(exc);
    Py_DECREF(waiter);
    return code;
}

/* asyncio queues this as callbacks of their own, so it also runs when
   connection_made has raised.  0, or -1 to end the run. */
static int
start_reading(FlStream *self)
{
    int code = fl_stream_update_registration(self);
    if (code < 0
        && fl_stream_fatal_errno(self, code, "Fatal error on transport") < 0)
    {
        return -1;
    }
    /* asyncio opens a pipe that cannot be polled, and reports that. */
    return wake_waiter(self, self->kind == FL_SOCKET ? code : 0);
}

static int
run_connection_made(FlLoop *loop, PyObject *subject, PyObject *argument)
{
    FlStream *self = (FlStream *)subject;
    PyObject *name = loop->state->names.connection_made;
    (void)argument;
    if (self->protocol == NULL) {
        return 0; /* connection_lost has run, for lack of memory */
    }
    /* A stream closed before this still gets connection_made; its
       connection_lost is queued behind. */
    if (self->phase == FL_STREAM_OPENING) {
        fl_stream_set_phase(self, FL_STREAM_OPEN);
    }
    PyObject *exc = NULL;
    PyObject *protocol = Py_NewRef(self->protocol);
    if (self->native != NULL && self->native->before_connection_made != NULL) {
        self->native->before_connection_made(self->state, protocol);
    }
    if (fl_call_method(protocol, name, subject) < 0
        && fl_loop_report_call(loop, protocol, name, subject, self->queued_by)
               < 0)
    {
        exc = PyErr_GetRaisedException(); /* leaves the loop, afterwards */
    }
    Py_DECREF(protocol);
    int code = self->loop == NULL ? 0 : start_reading(self);
    return fl_error_keep_first(exc, code, subject);
}

/* --- connection_lost ----------------------------------------------------- */

/* Call the server's _attach or _detach.  From 3.13 on they take the transport,
   which Server.close_clients needs.  0, or -1 with an exception. */
static int
call_server(FlStream *self, PyObject *server, PyObject *method)
{
    return fl_call_method(server, method,
                          FL_SERVER_KNOWS_TRANSPORTS ? (PyObject *)self
                                                     : NULL);
}

/* Call the server's _detach, once.  0, or -1 with its exception. */
static int
detach_server(FlStream *self)
{
    PyObject *server = self->server;
    self->server = NULL;
    if (server == NULL) {
        return 0;
    }
    int code = call_server(self, server, self->state->names._detach);
    if (code < 0 && self->loop->poller == NULL) {
        PyErr_Clear(); /* the loop is closed: nothing handles the error */
        code = 0;
    }
    Py_DECREF(server);
    return code;
}

/* 0, or -1 with the exception of the socket object's close(). */
static int
close_descriptor(FlStream *self)
{
    /* Both fields first: close() may run Python that uses the stream. */
    int fd = self->fd;
    PyObject *sock = self->sock;
    self->fd = -1;
    self->sock = NULL;
    if (sock == NULL) {
        if (fd >= 0) {
            fl_close_socket(fd);
        }
        return 0;
    }
    int code = fl_call_method(sock, self->state->names.close, NULL);
    Py_DECREF(sock);
    return code;
}

void
fl_stream_unregister(FlStream *self)
{
    FlRegistration *reg = self->reg;
    self->reg = NULL;
    fl_stream_cancel_flush(self); /* the fd is about to be closed */
    if (reg == NULL) {
        return;
    }
    int fd = reg->fd;
    if (self->exposed) {
        /* A duplicate would keep the registration alive after close(). */
        fl_registration_unregister(reg);
    }
    fl_registration_close_with_fd(reg);
    if (fd != self->fd) {
        (void)close(fd); /* a duplicate: see stream_fd.c */
    }
}

/* Drop the loop's reference, unless it was dropped before. */
static void
drop_loop_reference(FlStream *self)
{
    if (fl_list_is_empty(&self->owned.link)) {
        return;
    }
    fl_list_remove(&self->owned.link);
    if (is_connection(self)) {
        FL_METER(self->loop, connections_open, (uint64_t)-1);
    }
    Py_DECREF(self);
}

int
fl_stream_finish(FlStream *self)
{
    Py_INCREF(self); /* the loop's reference may be the last */
    if (self->kind == FL_SOCKET) {
        fl_stream_save_sockname(self);
    }
    Py_BEGIN_CRITICAL_SECTION(self); /* another thread may be writing */
    fl_stream_set_phase(self, FL_STREAM_CLOSED);
    Py_END_CRITICAL_SECTION();
    fl_stream_unregister(self);
    /* The close sends an EOF, perhaps to a stream of this same loop: corked
       bytes of other streams go first, and the next iteration polls. */
    fl_loop_before_io(self->loop);
    PyObject *exc =
        close_descriptor(self) < 0 ? PyErr_GetRaisedException() : NULL;
    /* After the close: then wait_closed() returns. */
    int code = fl_error_keep_first(exc, detach_server(self), (PyObject *)self);
    /* Put aside, because the releases below may run destructors. */
    exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    fl_write_queue_clear(&self->write_queue);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->waiter);
    drop_loop_reference(self);
    PyObject *loop = (PyObject *)self->loop;
    /* Other threads read it in was_queued in transport.c. */
    Py_BEGIN_CRITICAL_SECTION(self);
    self->loop = NULL;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(loop);
    Py_DECREF(self);
    return fl_error_keep_first(exc, 0, NULL);
}

/* Fail sendfile's future with connection_lost's exception, or with a
   ConnectionError if that is None.  0, or -1 to end the run. */
static int
fail_empty_waiter(FlStream *self, PyObject *argument)
{
    PyObject *exc = argument != Py_None
                        ? Py_NewRef(argument)
                        : PyObject_CallFunction(PyExc_ConnectionError, "s",
                                                FL_STREAM_CLOSED_TEXT);
    if (exc == NULL) {
        return fl_loop_report_callback(self->loop, NULL);
    }
    int code =
        fl_stream_resolve_if_pending(self, self->empty_waiter,
                                     self->state->names.set_exception, exc);
    Py_DECREF(exc);
    return code;
}

static int
run_connection_lost(FlLoop *loop, PyObject *subject, PyObject *argument)
{
    FlStream *self = (FlStream *)subject;
    PyObject *name = loop->state->names.connection_lost;
    if (self->phase == FL_STREAM_CLOSED || self->protocol == NULL) {
        return 0; /* a finalizer has ended it meanwhile (stream_gc.c) */
    }
    int code = 0;
    /* An end without an exception is no loss. */
    if (argument != Py_None && is_connection(self)) {
        FL_METER(loop, connections_lost, 1);
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    if (fl_call_method(protocol, name, argument) < 0) {
        code = fl_loop_report_call(loop, protocol, name, argument,
                                   self->queued_by);
    }
    Py_DECREF(protocol);
    /* An exception that leaves the loop must not stop the clean-up. */
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    if (self->empty_waiter != NULL) {
        code = fail_empty_waiter(self, argument);
        code = fl_error_keep_first(exc, code, subject);
        exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    }
    code =
        fl_stream_finish(self) < 0 ? fl_loop_report_callback(loop, NULL) : 0;
    return fl_error_keep_first(exc, code, subject);
}

void
fl_stream_queue_connection_lost(FlStream *self, PyObject *exc)
{
    if (self->phase >= FL_STREAM_LOST) {
        return;
    }
    fl_stream_set_phase(self, FL_STREAM_LOST);
    (void)fl_stream_update_registration(self); /* it wants nothing now */
    PyObject *argument = exc == NULL ? Py_None : exc;
    if (self->loop->debug) {
        fl_debug_note_stack(self->loop, &self->queued_by);
    }
    if (fl_loop_queue_op(self->loop, run_connection_lost, (PyObject *)self,
                         argument, self->context)
        < 0)
    {
        /* No memory for an entry, but connection_lost must be called.  That
           clears self->loop, so the loop needs a reference of its own. */
        PyErr_WriteUnraisable((PyObject *)self);
        FlLoop *loop = (FlLoop *)Py_NewRef((PyObject *)self->loop);
        if (run_connection_lost(loop, (PyObject *)self, argument) < 0) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        Py_DECREF(loop);
    }
}

int
fl_stream_call_connection_lost(FlStream *self)
{
    if (fl_fd_table_iterates_elsewhere(&self->loop->poller->table)) {
        /* Only the loop's thread calls the protocol, and it may be polling. */
        fl_stream_queue_connection_lost(self, NULL);
        return 0;
    }
    fl_stream_set_phase(self, FL_STREAM_LOST);
    return run_connection_lost(self->loop, (PyObject *)self, Py_None);
}

void
fl_stream_close(FlStream *self)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    if (!fl_stream_is_closing(self)) {
        /* asyncio would have sent the corked bytes by now, and would close at
           once if the kernel had taken them all. */
        fl_stream_flush(self);
        if (fl_write_queue_is_empty(&self->write_queue)) {
            /* Does nothing if the flush has failed, which queued it. */
            fl_stream_queue_connection_lost(self, NULL);
        }
        else {
            fl_stream_set_phase(self, FL_STREAM_CLOSING);
            /* Stop reading.  fl_stream_write_ready ends the stream. */
            (void)fl_stream_update_registration(self);
        }
    }
    Py_END_CRITICAL_SECTION();
}

void
fl_stream_force_close(FlStream *self, PyObject *exc)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->phase < FL_STREAM_LOST) {
        /* First, so that the metric bytes_waiting no longer counts them. */
        fl_write_queue_clear(&self->write_queue);
        fl_stream_queue_connection_lost(self, exc);
    }
    Py_END_CRITICAL_SECTION();
}

/* --- events -------------------------------------------------------------- */

/* Reads first, as asyncio does.  Reading may end the stream: then its loop is
   NULL and nothing is left to write. */
static int
run_events(FlStream *self, int events)
{
    int code = events & FL_READABLE ? fl_stream_read_ready(self) : 0;
    if (code == 0 && (events & FL_WRITABLE) && self->loop != NULL) {
        code = fl_stream_write_ready(self);
    }
    return code;
}

int
fl_stream_on_events(FlLoop *loop, FlRegistration *reg, int events)
{
    FlStream *self = reg->owner;
    if (events == 0) {
        return 0; /* they were dropped while their entry was queued */
    }
    Py_INCREF(self);
    int code;
    if (PyContext_Enter(self->context) < 0) {
        code = fl_loop_report_callback(loop, NULL);
    }
    else {
        /* Exactly the entered context is left, whatever the handler does. */
        PyObject *context = Py_NewRef(self->context);
        code = self->run_events(self, events);
        fl_context_leave(context, code < 0);
        Py_DECREF(context);
    }
    Py_DECREF(self);
    return code;
}

/* --- opening ------------------------------------------------------------- */

int
fl_stream_set_protocol(FlStream *self, PyObject *protocol)
{
    if (fl_protocol_kind(self->state, protocol, &self->native, &self->buffered)
        < 0)
    {
        return -1;
    }
    self->read_halvings = 0; /* the old protocol was the slow one */
    /* asyncio's pipes call data_received, whatever the protocol is. */
    self->buffered &= self->kind == FL_SOCKET;
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    return 0;
}

/* Save the peer's name now: getpeername fails once the peer has left.  0, or
   -1 with MemoryError. */
static int
set_peer(FlStream *self, const FlStreamOptions *options)
{
    struct sockaddr_storage name;
    socklen_t size = sizeof(name);
    if (options->peer != NULL) {
        size = options->peer_size;
        memcpy(&name, options->peer, size);
    }
    else if (getpeername(options->fd, (struct sockaddr *)&name, &size) < 0) {
        return 0;
    }
    if (size > 0) {
        self->peer = fl_name_new(&name, size);
    }
    return size > 0 && self->peer == NULL ? -1 : 0;
}

/* FlOpenTransportKind.abandon: the loop has unlinked the node. */
static void
abandon(FlOpenTransport *owned)
{
    FlStream *self = FL_LIST_ENTRY(&owned->link, FlStream, owned.link);
    fl_stream_unregister(self);
    Py_DECREF(self);
}

static const FlOpenTransportKind owned_kind = {
    .visits_own_ref = fl_stream_visits_own_ref,
    .abandon = abandon,
    .has_fd = fl_stream_has_fd,
    .invalidate_fd = fl_stream_invalidate_fd,
    .flush = fl_stream_flush_corked,
};

/* A stream without a descriptor or a registration.  NULL with an exception. */
static FlStream *
stream_new(FlLoop *loop, const FlStreamOptions *options)
{
    PyTypeObject *type =
        options->type == NULL ? loop->state->stream_type : options->type;
    FlStream *self = (FlStream *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->fd = self->last_fd = -1;
    self->kind = options->kind;
    self->read_eof = options->unwatched;
    self->state = loop->state;
    self->ops = &fl_stream_ops;
    self->high_water_bytes = FL_HIGH_WATER_BYTES;
    self->low_water_bytes = FL_HIGH_WATER_BYTES / 4;
    self->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    self->run_events =
        options->run_events == NULL ? run_events : options->run_events;
    self->owned.object = (PyObject *)self;
    self->owned.kind = &owned_kind; /* the loop calls back through it */
    fl_list_init(&self->owned.link);
    fl_write_queue_init(&self->write_queue);
    self->sock = Py_XNewRef(options->sock);
    self->exposed = options->sock != NULL && !options->sock_private;
    if (self->exposed) {
        fl_stream_expose_fd(self);
    }
    self->waiter = Py_XNewRef(options->waiter);
    self->extra = Py_XNewRef(options->extra);
    self->context = options->context == NULL ? PyContext_CopyCurrent()
                                             : Py_NewRef(options->context);
    if (self->context == NULL
        || (self->kind == FL_SOCKET && set_peer(self, options) < 0)
        || fl_stream_set_protocol(self, options->protocol) < 0)
    {
        Py_CLEAR(self);
    }
    return self;
}

/* Give a new stream its fd and a registration, and the loop its reference.  0,
   or -1 with an exception and nothing to undo. */
static int
stream_start(FlStream *self, const FlStreamOptions *options)
{
    FlLoop *loop = self->loop;
    if (fl_stream_take_fd(self, options->fd) < 0) {
        return -1;
    }
    self->fd = self->last_fd = options->fd;
    fl_list_append(&loop->streams, &self->owned.link);
    Py_INCREF(self); /* the loop's, see drop_loop_reference */
    if (is_connection(self)) {
        FL_METER(loop, connections_open, 1);
    }
    if (loop->debug) {
        fl_debug_note_stack(loop, &self->queued_by);
    }
    return 0;
}

/* Undo what fl_stream_open has done so far; steals the stream.  The descriptor
   is the caller's again, and open.  The raised exception stays. */
static void
stream_undo(FlStream *self)
{
    PyObject *exc = PyErr_GetRaisedException();
    fl_stream_unregister(self);
    if (detach_server(self) < 0) { /* nothing if _attach has failed */
        PyErr_WriteUnraisable((PyObject *)self);
    }
    self->fd = -1;
    Py_CLEAR(self->sock);
    self->phase = FL_STREAM_CLOSED;
    drop_loop_reference(self);
    Py_DECREF(self);
    PyErr_SetRaisedException(exc);
}

PyObject *
fl_stream_open(FlLoop *loop, const FlStreamOptions *options)
{
    FlStream *self = stream_new(loop, options);
    if (self == NULL) {
        return NULL;
    }
    int code = stream_start(self, options);
    if (code == 0 && options->server != NULL) {
        code = call_server(self, options->server, loop->state->names._attach);
        self->server = code < 0 ? NULL : Py_NewRef(options->server);
    }
    if (code < 0
        || fl_loop_queue_op(loop, run_connection_made, (PyObject *)self, NULL,
                            self->context)
               < 0)
    {
        stream_undo(self);
        return NULL;
    }
    if (is_connection(self)) {
        /* asyncio sets TCP_NODELAY where the socket object's proto is
           IPPROTO_TCP, which misses sockets made with proto 0; here the
           address family decides.  An accepted socket inherits the option only
           if it arrived after the listener had set it, so each sets its
           own. */
        int family = self->peer == NULL
                         ? AF_UNSPEC /* no longer connected */
                         : fl_name_address(self->peer)->ss_family;
        int on = 1;
        if (family == AF_INET || family == AF_INET6) {
            (void)setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on,
                             sizeof(on));
        }
        FL_METER(loop, connections_made, 1);
    }
    return (PyObject *)self;
}
