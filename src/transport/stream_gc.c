/* GC slots of a stream: traverse, clear, finalize, dealloc.

   1. A stream that is paused or at EOF and has nothing to send is garbage once
      the application has no reference to it, because no event will ever come
      of it.  So the stream visits the loop's reference to such a stream as a
      reference of its own.  Otherwise it would leak until the loop is closed.
   2. The GC may run in any thread.  Without a GIL the finalizer queues the
      stream to the loop's thread, which may be using it.
   3. Objects that are garbage together with the stream may use it after its
      finalizer has run.  So the finalizer leaves it CLOSED, as connection_lost
      does, and every operation handles that phase.
   4. Only a stream that may still write is corked (fl_stream_set_phase), and
      the loop has a reference to each such stream.  So loop->cork never points
      into a freed stream. */
#include "transport/stream_gc.h"

#include "base/list.h"
#include "core/thread_queue.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "py/compat.h"
#include "py/errors.h"
#include "py/state.h"
#include "transport/stream_close.h"
#include "transport/write_queue.h"

#include <stdlib.h>

bool
fl_stream_visits_own_ref(const FlOpenTransport *owned)
{
    const FlStream *self =
        FL_LIST_ENTRY((FlList *)&owned->link, FlStream, owned.link);
    /* Datagram transports live until they are closed. */
    return self->phase == FL_STREAM_OPEN && self->reg != NULL
           && self->reg->wanted == 0 && !fl_stream_is_corked(self)
           && !Py_IS_TYPE((PyObject *)self, self->state->datagram_type);
}

int
fl_stream_traverse(FlStream *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->protocol.object);
    Py_VISIT(self->server);
    Py_VISIT(self->context);
    Py_VISIT(self->waiter);
    Py_VISIT(self->empty_waiter);
    Py_VISIT(self->queued_by);
    /* Invariant 1; the list tells whether the loop has a reference at all. */
    if (!fl_list_is_empty(&self->owned.link)
        && fl_stream_visits_own_ref(&self->owned))
    {
        Py_VISIT((PyObject *)self);
    }
    return fl_visit_dict(self, visit, arg);
}

/* Invariant 3: sock, context and loop stay until dealloc, as methods that are
   called after this may use them. */
int
fl_stream_clear(FlStream *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->protocol.object);
    Py_CLEAR(self->server);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->empty_waiter);
    Py_CLEAR(self->queued_by);
    fl_clear_dict(self);
    return 0;
}

/* An FlReadyOp. */
static int
run_finalize(FlLoop *Py_UNUSED(loop), PyObject *subject,
             PyObject *Py_UNUSED(argument))
{
    fl_stream_finalize((FlStream *)subject);
    return 0;
}

/* Warn as asyncio's transports do, then end the stream.  In the loop's thread,
   or in any where a GIL orders them. */
static void
end_unclosed(FlStream *self)
{
    fl_transport_warn_unclosed((FlTransport *)self);
    if (self->reg != NULL) {
        /* In a forked child this may be the first use of the loop: without
           this we would remove registrations from the parent's set. */
        (void)fl_poller_after_fork(self->loop->poller);
        fl_stream_flush(self); /* another finalizer may have written */
    }
    if (fl_stream_finish(self) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

void
fl_stream_finalize(FlStream *self)
{
    /* A stream gets here open only if its loop was closed or collected, or by
       invariant 1: else the loop's reference keeps it alive. */
    if (self->fd < 0 || self->phase == FL_STREAM_CLOSED) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    /* Without a registration the loop's thread has no use of the stream. */
    if (self->reg == NULL || !fl_loop_on_other_thread(self->loop)) {
        end_unclosed(self);
    }
    else if (fl_thread_queue_push_op_anythread(self->loop, run_finalize,
                                               (PyObject *)self, NULL,
                                               self->context)
             < 0)
    {
        /* The entry's reference would have resurrected the stream. */
        PyErr_WriteUnraisable((PyObject *)self);
    }
    fl_error_restore(exc);
}

void
fl_stream_dealloc(FlStream *self)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return; /* resurrected, as by an entry of run_finalize */
    }
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs((PyObject *)self);
    FL_CHECK(self->reg == NULL, "a freed stream has no registration");
    FL_CHECK(!fl_stream_is_corked(self), "loop->cork would dangle");
    (void)fl_stream_clear(self);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->context);
    fl_write_queue_clear(&self->write_queue);
    free(self->peer);
    free(self->sockname);
    Py_CLEAR(self->loop);
    fl_object_free(self);
}
