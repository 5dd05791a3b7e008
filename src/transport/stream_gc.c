/* What the collector asks of a stream, and does to one that nobody has.

   1. A stream that is paused, or at its peer's end, and has nothing to send
      is collected when nobody has it: no event would ever come of it.  The
      loop's reference to such a stream is visited as the stream's own.
   2. The collector may run in any thread.  Where no GIL orders the threads,
      the loop's own thread ends the stream.
   3. What is garbage with the stream may use it after its finalizer has run:
      the finalizer ends it as connection_lost does, CLOSED, and no operation
      can tell the two apart.
   4. Only a stream that may still write is the loop's holder
      (fl_stream_set_phase), and of such a stream the loop has a reference:
      one that is freed is not the holder. */
#include "transport/stream_gc.h"

#include "base/list.h"
#include "core/thread_queue.h"
#include "core/loop.h"
#include "core/ready_queue.h"
#include "core/registration.h"
#include "py/compat.h"
#include "py/state.h"
#include "transport/stream_write.h"
#include "transport/write_queue.h"

#include <stdlib.h>

bool
fl_stream_owns_itself(const FlOwned *owned)
{
    const FlStream *self =
        FL_LIST_ENTRY((FlList *)&owned->link, FlStream, owned.link);
    return self->phase == FL_STREAM_OPEN && self->reg != NULL
           && self->reg->wanted == 0 && !fl_stream_is_corked(self)
           && Py_IS_TYPE((PyObject *)self, self->state->stream_type);
}

int
fl_stream_traverse(FlStream *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->protocol);
    Py_VISIT(self->server);
    Py_VISIT(self->context);
    Py_VISIT(self->waiter);
    Py_VISIT(self->empty_waiter);
    Py_VISIT(self->queued_by);
    if (!fl_list_is_empty(&self->owned.link)
        && fl_stream_owns_itself(&self->owned))
    {
        Py_VISIT((PyObject *)self);
    }
    return fl_visit_dict(self, visit, arg);
}

int
fl_stream_clear(FlStream *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->server);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->empty_waiter);
    Py_CLEAR(self->queued_by);
    fl_clear_dict(self);
    return 0;
}

static int
run_finalize(FlLoop *loop, PyObject *subject, PyObject *arg)
{
    (void)loop;
    (void)arg;
    fl_stream_finalize((FlStream *)subject);
    return 0;
}

/* Give it to the loop's thread.  0 or -1 with an exception set. */
static int
finalize_in_loop(FlStream *self)
{
    FlReady entry = {
        .kind = FL_READY_OP,
        .of.op = run_finalize,
        .context = Py_NewRef(self->context),
        .callback = Py_NewRef((PyObject *)self),
    };
    return fl_thread_queue_push_anythread(self->loop, &entry);
}

/* What a finalizer does in the thread that may. */
static void
end_unclosed(FlStream *self)
{
    if (PyErr_ResourceWarning((PyObject *)self, 1, "unclosed transport %R",
                              (PyObject *)self)
        < 0)
    {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    if (self->reg != NULL) {
        /* In a forked child this may come before the loop's own end. */
        (void)fl_loop_leave_parent(self->loop);
        fl_stream_flush(self); /* another finalizer may have written */
    }
    if (self->phase != FL_STREAM_CLOSED && fl_stream_finish(self) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

void
fl_stream_finalize(FlStream *self)
{
    /* An open one only where its loop was closed, or by invariant 1. */
    if (self->fd < 0 || self->phase == FL_STREAM_CLOSED) {
        return;
    }
    PyObject *exc = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
    if (self->reg == NULL || !fl_loop_on_other_thread(self->loop)) {
        end_unclosed(self);
    }
    else if (finalize_in_loop(self) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

void
fl_stream_dealloc(FlStream *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs((PyObject *)self);
    FL_CHECK(self->reg == NULL, "the loop owns an open stream");
    FL_CHECK(!fl_stream_is_corked(self), "nor can one that is freed hold");
    (void)fl_stream_clear(self);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->context);
    fl_write_queue_clear(&self->write_queue);
    free(self->peer);
    free(self->sockname);
    Py_CLEAR(self->loop);
    type->tp_free(self);
    Py_DECREF(type);
}
