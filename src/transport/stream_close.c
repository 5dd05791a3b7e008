/* A stream's end: fatal errors, connection_lost, release, the loss of its fd,
   and its GC slots.  Its methods close() and abort() are in
   stream_transport.c; the last bytes of a closing stream leave in
   stream_write.c.

   1. connection_lost is called once, from the ready queue, so never inside
      another callback of the protocol.  If there is no memory for a queue
      entry, it is called on the spot.
   2. After connection_lost the stream has released its protocol, server,
      socket, queue, loop and context.  What get_extra_info answers from stays,
      as with asyncio's transports.  The context must go: a protocol may have
      stored itself in one of its variables, and would be a reference cycle
      with the stream.
   3. An open stream that waits for no event is garbage once the application
      has no reference to it, because nothing will ever call its protocol.  It
      has nothing to send, and is paused or at EOF.  So the stream visits the
      loop's reference to it as a reference of its own.  Otherwise it would
      leak until the loop is closed.
   4. The GC may run in any thread.  Without a GIL another thread may be using
      the loop, or begin to.  So only a thread that has claimed the loop ends a
      stream that is still registered.  Between runs the thread of the last run
      claims it for that.  In any other thread the finalizer queues the stream
      for the loop's next run.  If the loop is closed or collected first,
      fl_stream_abandon ends the stream.
   5. Objects that are garbage together with the stream may use it after its
      finalizer has run.  So the finalizer leaves it CLOSED, as connection_lost
      does, unless it queues the stream (4), and every operation handles that
      phase. */
#include "transport/stream_close.h"

#include "base/list.h"
#include "core/dispatch.h"
#include "core/flush.h"
#include "core/loop.h"
#include "core/meter.h"
#include "core/report.h"
#include "core/thread_queue.h"
#include "core/write_queue.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"
#include "transport/extra_info.h"
#include "transport/stream.h"

#include <errno.h>
#include <stdlib.h>

/* --- release ------------------------------------------------------------- */

/* Call the server's _detach, once.  0, or -1 with its exception. */
static int
detach_server(FlStream *self)
{
    PyObject *server;
    Py_BEGIN_CRITICAL_SECTION(self); /* fl_stream_clear may run in
                                          another thread */
    server = self->server;
    self->server = NULL;
    Py_END_CRITICAL_SECTION();
    if (server == NULL) {
        return 0;
    }
    int code = fl_stream_call_server(self, server, self->state->names._detach);
    if (code < 0 && self->loop->closed) {
        PyErr_Clear(); /* the loop is closed: nothing handles the error */
        code = 0;
    }
    Py_DECREF(server);
    return code;
}

/* 0, or -1 with the exception of the socket object's close(). */
static int
close_fd(FlStream *self)
{
    /* Or it would stay in the poller as long as a duplicate or a forked child
       has the file. */
    FL_CHECK(self->reg == NULL, "a registration is closed before its fd");
    int fd = self->fd;
    PyObject *sock;
    /* Both fields first: close() may run Python that uses the stream.  See
       also fl_stream_get_socket. */
    Py_BEGIN_CRITICAL_SECTION(self);
    self->fd = -1;
    sock = self->sock;
    self->sock = NULL;
    Py_END_CRITICAL_SECTION();
    if (sock == NULL) {
        if (fd >= 0) {
            fl_close_socket(self->loop, fd);
        }
        return 0;
    }
    int code = fl_call_method(sock, self->state->names.close, NULL);
    Py_DECREF(sock);
    return code;
}

/* Drop the loop's reference, unless it was dropped before. */
static void
drop_loop_reference(FlStream *self)
{
    if (fl_list_is_empty(&self->loop_node.link)) {
        return;
    }
    fl_list_remove(&self->loop_node.link);
    if (fl_stream_is_connection(self)) {
        fl_count_add(&self->loop->open_connections, (uint64_t)-1);
    }
    Py_DECREF(self);
}

/* Enter CLOSED without a call of the protocol.  Closes the fd and releases
   what invariant 2 lists; the rest stays until dealloc.  0, or -1 with the
   first exception. */
static int
stream_finish(FlStream *self)
{
    bool was_closed;                 /* by a finalizer, or another thread */
    Py_BEGIN_CRITICAL_SECTION(self); /* another thread may write */
    was_closed = self->phase == FL_STREAM_CLOSED;
    if (!was_closed) {
        fl_stream_set_phase(self, FL_STREAM_CLOSED);
    }
    Py_END_CRITICAL_SECTION();
    if (was_closed) {
        return 0;
    }
    Py_INCREF(self); /* the loop's reference may be the last */
    /* The close of the fd sends an EOF, perhaps to a stream of this loop:
       corked bytes of other streams go first, and the next iteration polls. */
    fl_loop_flush_before_send(self->loop);
    fl_stream_unregister(self);
    PyObject *exc = close_fd(self) < 0 ? PyErr_GetRaisedException() : NULL;
    /* After the close: _detach may let wait_closed() return, and the fd must
       be closed by then. */
    int code = fl_error_keep_first(exc, detach_server(self), (PyObject *)self);
    /* Put aside, because the releases below may run destructors. */
    exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    Py_BEGIN_CRITICAL_SECTION(self); /* the queue changes in it */
    fl_write_queue_clear(&self->out.queue);
    Py_END_CRITICAL_SECTION();
    fl_stream_meter_queue(self);
    fl_protocol_set(self, &self->protocol, (FlProtocol){NULL});
    drop_loop_reference(self);
    /* The caller that runs the protocol in it has its own reference. */
    fl_field_set(self, &self->context, NULL);
    /* Other threads read it in was_queued in transport.c. */
    fl_field_set(self, (PyObject **)&self->loop, NULL);
    Py_DECREF(self);
    return fl_error_keep_first(exc, 0, NULL);
}

/* End a stream that the GC found open: see invariant 4. */
static void
end_unclosed(FlStream *self)
{
    if (self->reg != NULL) {
        /* Another finalizer may have written. */
        fl_stream_flush_if_corked(self);
    }
    if (stream_finish(self) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

void
fl_stream_abandon(FlOpenTransport *node)
{
    FlStream *self = FL_LIST_ENTRY(&node->link, FlStream, loop_node.link);
    fl_stream_unregister(self);
    if (PyObject_GC_IsFinalized((PyObject *)self)) {
        end_unclosed(self); /* the finalizer will not run again */
    }
    Py_DECREF(self);
}

void
fl_stream_undo_open(FlStream *self)
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

/* --- connection_lost ----------------------------------------------------- */

/* Fail sendfile's future with connection_lost's exception, or with a
   ConnectionError if that is None.  0, or -1 to end the run. */
static int
fail_empty_waiter(FlLoop *loop, FlStream *self, PyObject *argument)
{
    PyObject *exc = argument != Py_None
                        ? Py_NewRef(argument)
                        : PyObject_CallFunction(PyExc_ConnectionError, "s",
                                                FL_STREAM_CLOSED_TEXT);
    if (exc == NULL) {
        return fl_loop_report_callback(loop, NULL);
    }
    int code =
        fl_stream_resolve_if_pending(loop, self->empty_waiter,
                                     self->state->names.set_exception, exc);
    Py_DECREF(exc);
    return code;
}

static int
run_connection_lost(FlLoop *loop, PyObject *subject, PyObject *argument)
{
    FlStream *self = (FlStream *)subject;
    PyObject *name = loop->state->names.connection_lost;
    PyObject *protocol = fl_protocol_get(self, &self->protocol).object;
    if (self->phase == FL_STREAM_CLOSED || protocol == NULL) {
        Py_XDECREF(protocol);
        return 0; /* a finalizer has ended it meanwhile */
    }
    FL_CHECK(self->phase == FL_STREAM_LOST,
             "connection_lost is called in LOST");
    /* An end without an exception is no loss. */
    if (argument != Py_None && fl_stream_is_connection(self)) {
        FL_METER(loop, connections_lost, 1);
    }
    int code = 0;
    if (fl_call_method(protocol, name, argument) < 0) {
        code = fl_loop_report_call(loop, protocol, name, argument);
    }
    Py_DECREF(protocol);
    /* An exception that ends the run must not stop what follows. */
    PyObject *exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    if (self->empty_waiter != NULL) {
        code = fail_empty_waiter(loop, self, argument);
        code = fl_error_keep_first(exc, code, subject);
        exc = code < 0 ? PyErr_GetRaisedException() : NULL;
    }
    code = 0;
    if (stream_finish(self) < 0) { /* the file's close() failed */
        code =
            fl_loop_report_call(loop, subject, loop->state->names.close, NULL);
    }
    return fl_error_keep_first(exc, code, subject);
}

/* A loop that is closed meanwhile abandons the stream. */
static void
queue_connection_lost(FlStream *self, PyObject *argument)
{
    (void)fl_stream_update_registration(self); /* it wants nothing now */
    /* Owned, because the call below clears self->loop. */
    FlLoop *loop = (FlLoop *)Py_NewRef((PyObject *)self->loop);
    if (fl_loop_queue_op(loop, run_connection_lost, (PyObject *)self, argument,
                         self->context)
        < 0)
    {
        if (loop->closed) {
            PyErr_Clear(); /* "Event loop is closed" */
        }
        else { /* no memory for an entry: invariant 1 */
            PyErr_WriteUnraisable((PyObject *)self);
            if (run_connection_lost(loop, (PyObject *)self, argument) < 0) {
                PyErr_WriteUnraisable((PyObject *)self);
            }
        }
    }
    Py_DECREF(loop);
}

/* --- three ways to end --------------------------------------------------- */

void
fl_stream_force_close(FlStream *self, PyObject *exc)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->phase < FL_STREAM_LOST) {
        fl_stream_set_phase(self, FL_STREAM_LOST);
        /* First, so that the metric bytes_waiting no longer counts them. */
        fl_write_queue_clear(&self->out.queue);
        queue_connection_lost(self, exc == NULL ? Py_None : exc);
    }
    Py_END_CRITICAL_SECTION();
}

int
fl_stream_fatal(FlStream *self, const char *message)
{
    if (fl_exception_ends_run()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int code = 0;
    /* asyncio would have sent the corked bytes before the error.  As with it,
       the exception handler finds the transport open. */
    fl_stream_flush_if_corked(self);
    /* A stream without a loop is closed, perhaps in a nested run of the
       callback that raised. */
    if (!PyErr_GivenExceptionMatches(exc, PyExc_OSError)
        || (self->loop != NULL && self->loop->debug))
    {
        code = fl_transport_report((FlTransport *)self, exc, message);
    }
    if (code == 0) {
        fl_stream_force_close(self, exc);
    }
    Py_DECREF(exc);
    return code;
}

void
fl_stream_fail(FlStream *self, int code)
{
    PyObject *raised = PyErr_GetRaisedException();
    /* A read has met the end before: the kernel says EPIPE to a write then. */
    PyObject *exc = fl_errno_exception(
        self->read_errno != 0 ? -(int)self->read_errno : code);
    if (exc == NULL) {
        exc = PyErr_GetRaisedException();
    }
    fl_stream_force_close(self, exc);
    Py_DECREF(exc);
    fl_error_restore(raised);
}

/* --- a lost fd ----------------------------------------------------------- */

void
fl_stream_evict(FlOpenTransport *node)
{
    FlStream *self = FL_LIST_ENTRY(&node->link, FlStream, loop_node.link);
    Py_INCREF(self); /* detach() and its like may drop other references */
    if (fl_stream_query_fd(self) == 0) {
        PyObject *sock = fl_field_get(self, &self->sock);
        if (sock != NULL) { /* the fd was closed by os.close() or the like */
            fl_socket_detach(self->state, sock);
            Py_DECREF(sock);
        }
    }
    if (self->reg != NULL) { /* else that has ended the stream */
        fl_stream_unregister(self);
        self->fd = -1; /* the stream must not use it any more */
        fl_stream_fail(self, -EBADF);
    }
    Py_DECREF(self);
}

/* --- garbage collection -------------------------------------------------- */

bool
fl_stream_visits_own_ref(const FlOpenTransport *node)
{
    const FlStream *self =
        FL_LIST_ENTRY((FlList *)&node->link, FlStream, loop_node.link);
    /* Datagram transports live until they are closed. */
    return self->phase == FL_STREAM_OPEN && fl_stream_wanted(self) == 0
           && !fl_stream_is_corked(self)
           && !Py_IS_TYPE((PyObject *)self, self->state->datagram_type);
}

int
fl_stream_traverse(FlStream *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->state->module);
    Py_VISIT(self->extra);
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->protocol.object);
    Py_VISIT(self->server);
    Py_VISIT(self->context);
    Py_VISIT(self->waiter);
    Py_VISIT(self->empty_waiter);
    /* Invariant 3; the list tells whether the loop has a reference at all. */
    if (!fl_list_is_empty(&self->loop_node.link)
        && fl_stream_visits_own_ref(&self->loop_node))
    {
        Py_VISIT((PyObject *)self);
    }
    return fl_visit_dict(self, visit, arg);
}

/* Invariant 5: sock, context and loop stay, as methods that are called after
   this may use them.  Without a GIL another thread may be closing the loop,
   and so abandon the stream now. */
int
fl_stream_clear(FlStream *self)
{
    fl_field_set(self, &self->extra, NULL);
    fl_protocol_set(self, &self->protocol, (FlProtocol){NULL});
    fl_field_set(self, &self->server, NULL);
    fl_field_set(self, &self->waiter, NULL);
    fl_field_set(self, &self->empty_waiter, NULL);
    fl_clear_dict(self);
    return 0;
}

/* An FlReadyOp. */
static int
run_end_unclosed(FlLoop *Py_UNUSED(loop), PyObject *subject,
                 PyObject *Py_UNUSED(argument))
{
    end_unclosed((FlStream *)subject);
    return 0;
}

/* End a collected stream, or queue that: see invariant 4. */
static void
end_where_claimed(FlStream *self, FlLoop *loop)
{
    /* The closed loop has abandoned the stream: no other thread uses it. */
    bool is_abandoned =
        self->reg == NULL && fl_list_is_empty(&self->loop_node.link);
    if (FL_HAVE_GIL || is_abandoned || fl_loop_is_claimed_here(loop)) {
        end_unclosed(self);
    }
    else if (fl_loop_claim_again(loop)) {
        end_unclosed(self);
        fl_loop_unclaim(loop);
    }
    else {
        /* The entry's reference resurrects the stream. */
        PyObject *context = fl_field_get(self, &self->context);
        if (fl_thread_queue_push_op_anythread(loop, run_end_unclosed,
                                              (PyObject *)self, NULL, context)
            < 0)
        {
            /* No memory, or the loop is closed: fl_stream_abandon ends it. */
            PyErr_Clear();
        }
        Py_XDECREF(context);
    }
}

/* Warn as asyncio's transports do, then end the stream. */
void
fl_stream_finalize(FlStream *self)
{
    /* A stream gets here open only if its loop was closed or collected, or by
       invariant 3: else the loop's reference keeps it alive. */
    if (self->fd < 0 || self->phase == FL_STREAM_CLOSED) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    fl_transport_warn_unclosed((FlTransport *)self);
    /* Owned: another thread may end the stream meanwhile. */
    PyObject *loop = fl_field_get(self, (PyObject **)&self->loop);
    if (loop != NULL) {
        end_where_claimed(self, (FlLoop *)loop);
        Py_DECREF(loop);
    }
    fl_error_restore(exc);
}

void
fl_stream_dealloc(FlStream *self)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return; /* resurrected, as by an entry of run_end_unclosed */
    }
    PyObject_GC_UnTrack(self);
    fl_stream_free(self);
}

void
fl_stream_free(FlStream *self)
{
    PyObject *module = self->state->module;
    PyObject_ClearWeakRefs((PyObject *)self);
    FL_CHECK(self->reg == NULL, "a freed stream has no registration");
    FL_CHECK(!fl_stream_is_corked(self), "loop->cork.streams would dangle");
    (void)fl_stream_clear(self);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->context);
    fl_write_queue_clear(&self->out.queue);
    free(self->peer);
    free(self->sockname);
    Py_CLEAR(self->loop);
    fl_object_free(self);
    Py_DECREF(module); /* it owns the state */
}
