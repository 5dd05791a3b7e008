/* What all parts of a stream share: its phase, its registration, and whether
   its fd is still its own.

   The application may close a socket object that it passed to a transport, and
   the system may then give the fd to another file.  The socket object knows
   that it was closed; the fd alone does not tell.

   So a stream whose fd is shared queries it before each system call, as
   asyncio's transports do by making the call through it.  If the fd is no
   longer its own, the stream ends with EBADF.  It does not read, write, shut
   down or close the fd, which would hit another file.  A write behind bytes
   that the kernel has refused only queues, as asyncio's does: that stream
   waits for an event.

   Limit: an os.close() of the fd leaves no trace in the socket object, and a
   stream may have no such object.  System calls fail with EBADF until the fd
   is reused.  If another transport of this loop acquires the fd
   (fl_fd_acquire), the stream ends.  In all other cases the stream uses and
   closes the new file, as asyncio's transports do. */
#include "transport/stream.h"

#include "core/cork.h"
#include "core/loop.h"
#include "core/poller.h"
#include "core/registration.h"
#include "core/report.h"
#include "core/thread_queue.h"
#include "core/write_queue.h"
#include "loop/user_fd.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"

#include <errno.h>

/* The first write after the loss that logs a warning, as in asyncio. */
#define FIRST_WARNED_WRITE 5

void
fl_stream_set_phase(FlStream *self, FlStreamPhase phase)
{
    FL_CHECK(phase > self->phase, "phases only advance");
    if (phase >= FL_STREAM_LOST) {
        /* A flush must not find a lost stream. */
        fl_stream_uncork(self);
    }
    self->phase = (uint8_t)phase;
}

int
fl_stream_update_registration(FlStream *self)
{
    fl_stream_meter_queue(self);
    if (self->reg == NULL) {
        return 0;
    }
    int wanted = 0;
    if (self->phase == FL_STREAM_OPEN && !self->paused && !self->read_eof) {
        wanted |= FL_READABLE;
    }
    /* Corked bytes wait for their flush, not for the kernel. */
    if (self->phase < FL_STREAM_LOST && !fl_stream_is_corked(self)
        && (self->waits_for_writable
            || !fl_write_queue_is_empty(&self->out.queue)))
    {
        wanted |= FL_WRITABLE;
    }
    if (wanted == self->reg->wanted) { /* mostly: saves a system call */
        return 0;
    }
    self->reg->keeps = !self->fd_shared;
    return fl_registration_want(self->reg, wanted, 0);
}

int
fl_stream_resolve_if_pending(FlLoop *loop, PyObject *waiter, PyObject *method,
                             PyObject *value)
{
    int code =
        fl_call_unless_done(waiter, loop->state->names.done, method, value);
    return code < 0 ? fl_loop_report_callback(loop, NULL) : 0;
}

FlMaySend
fl_stream_count_lost_write(FlStream *self)
{
    if (self->writes_after_loss < UINT8_MAX) {
        self->writes_after_loss++;
    }
    if (self->writes_after_loss < FIRST_WARNED_WRITE) {
        return FL_DROP;
    }
    int code = fl_call_method(self->state->helpers,
                              self->state->names.warn_lost, NULL);
    return code < 0 ? FL_FAILED : FL_DROP;
}

/* --- the fd -------------------------------------------------------------- */

int
fl_stream_query_fd(FlStream *self)
{
    /* Owned, because fileno() may end the stream. */
    PyObject *sock = fl_field_get(self, &self->sock);
    if (sock == NULL) { /* no object could have closed it */
        return self->fd >= 0 ? 0 : -EBADF;
    }
    PyObject *result =
        PyObject_CallMethodNoArgs(sock, self->state->names.fileno);
    Py_DECREF(sock);
    long fd = result == NULL ? -1 : PyLong_AsLong(result);
    Py_XDECREF(result);
    if (FL_UNLIKELY(fd < 0) && PyErr_Occurred()) {
        PyErr_Clear(); /* no room for the call says nothing about the fd */
        fd = self->fd;
    }
    return fd >= 0 && fd == self->fd ? 0 : -EBADF;
}

void
fl_stream_share_fd(FlStream *self)
{
    fl_stream_flush_if_corked(self);
    self->fd_shared = true;
}

bool
fl_stream_has_fd(FlOpenTransport *node)
{
    FlStream *self = FL_LIST_ENTRY(&node->link, FlStream, loop_node.link);
    return fl_stream_query_fd(self) == 0;
}

/* PyContext_Enter has failed.  In a nested run a callback of this stream is on
   the stack.  It has not handled its bytes yet, so reading is put off.
   Writing goes on: the callback may wait for that. */
FL_NOINLINE static int
context_is_entered(FlLoop *loop, FlStream *self, int events)
{
    if (!fl_loop_is_nested(loop)) {
        return fl_loop_report_callback(loop, NULL);
    }
    PyErr_Clear();
    if (events & FL_READABLE) {
        fl_registration_put_off(loop->table, self->reg->fd, FL_READABLE);
    }
    return events & FL_WRITABLE ? self->run_events(self, FL_WRITABLE) : 0;
}

/* FlRegistration.on_events: call run_events in the stream's context, which the
   stream releases if they end it. */
static int
on_events(FlLoop *loop, FlRegistration *reg, int events)
{
    FlStream *self =
        FL_LIST_ENTRY(&reg->transport->link, FlStream, loop_node.link);
    if (FL_UNLIKELY(events == 0)) {
        return 0; /* they were dropped while their entry was queued */
    }
    Py_INCREF(self);
    PyObject *context = Py_NewRef(self->context);
    int code;
    if (FL_UNLIKELY(PyContext_Enter(context) < 0)) {
        code = context_is_entered(loop, self, events);
    }
    else {
        code = self->run_events(self, events);
        fl_context_leave(context, code < 0);
    }
    Py_DECREF(context);
    Py_DECREF(self);
    return code;
}

void
fl_stream_unregister(FlStream *self)
{
    FlRegistration *reg = self->reg;
    Py_BEGIN_CRITICAL_SECTION(self); /* other threads read it */
    self->reg = NULL;
    Py_END_CRITICAL_SECTION();
    fl_stream_uncork(self); /* the fd may be another file's, or closed */
    if (reg != NULL) {
        fl_registration_close(reg);
    }
}

int
fl_stream_take_fd(FlStream *self, int fd)
{
    FlLoop *loop = self->loop;
    /* Evicts a previous owner of the fd, whose registration must be gone
       before this one is opened. */
    if (fl_fd_acquire(loop, fd) < 0) {
        return -1;
    }
    FlRegistration user = {
        .transport = &self->loop_node,
        .on_events = on_events,
    };
    FlRegistration *reg;
    int code =
        fl_registration_open(loop->table, fd, sizeof(user), &user, &reg);
    if (code < 0) {
        return fl_raise_errno(code);
    }
    self->reg = reg;
    return 0;
}

/* --- flow control -------------------------------------------------------- */

/* An FlReadyOp. */
static int
pause_op(FlLoop *Py_UNUSED(loop), PyObject *stream,
         PyObject *Py_UNUSED(argument))
{
    return fl_flow_check((FlStream *)stream, true);
}

/* pause_writing is called inside the write that fills the queue above the
   high-water mark, as in asyncio; resume_writing when the queue is down to the
   low-water mark.  The critical section covers the test, the flag and the
   reference to the protocol, and not the call: CPython would release it
   there.  So without a GIL a resume in the loop's thread could overtake the
   pause of another thread's write.  The loop's thread calls both. */
int
fl_flow_check(FlStream *self, bool pause)
{
    PyObject *protocol = NULL, *loop = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    size_t size = fl_stream_waiting_bytes(self);
    if (!pause) {
        fl_stream_meter_queue(self);
    }
    if (self->protocol_paused != pause
        && (pause ? size > self->high_water_bytes
                  : size <= self->low_water_bytes))
    {
        if (pause && fl_loop_on_other_thread(self->loop)) {
            loop = Py_NewRef((PyObject *)self->loop);
        }
        else {
            self->protocol_paused = pause;
            protocol = Py_XNewRef(self->protocol.object);
        }
    }
    Py_END_CRITICAL_SECTION();
    if (loop != NULL) {
        int code =
            fl_thread_queue_push_op_anythread((FlLoop *)loop, pause_op,
                                              (PyObject *)self, NULL, NULL);
        Py_DECREF(loop);
        return code;
    }
    return protocol == NULL
               ? 0
               : fl_transport_call_flow((FlTransport *)self, protocol, pause);
}
