/* The life of a written byte: cork, send, wait for the kernel.

   What a callback of a busy loop writes is corked: it stays in the write queue
   until the callback returns, if that is an event, or else until the iteration
   ends.  README.md ("Bytes out") says why, which bytes leave earlier, the
   limits, and what was rejected.

   1. loop->cork.streams has the corked streams in the order of their first
      corked writes, and a flush sends them in that order.  Every write that
      is not corked first flushes all, and so does the loop before it sends
      anything else.  So a corked write may overtake only other corked writes.
      Every send in C first calls fl_loop_flush_before_send.  Our sends in
      Python, and our ways to hand control to another loop, thread or process,
      call fl_loop_flush_corked_here.  asyncio's own transports call neither.
   2. Writes are corked only inside a callback, by the thread that runs the
      loop, while that is busy (core/iteration.c, invariant 4), and up to the
      lesser of FL_CORKED_BYTES and the high-water mark.  Not where the
      application has the fd: its own sends would overtake corked bytes.  Not
      in a forked child of the loop's process, which may end by os._exit, nor
      in a loop that runs inside another loop's callback, which may write to
      either's streams.  A queue that waits for the kernel is not corked.  If
      the kernel refuses bytes of the sender's thread, the queue stays corked,
      and the flush sends them or waits.
   3. Corked bytes count as sent (get_write_buffer_size).  Code that ends or
      inspects the stream flushes first.
   4. A flush only sends: it calls no protocol and ends no stream.  What waits
      for an empty queue is left to an event (fl_stream_drained).  But a failed
      send may run Python: making its exception may run the GC, and debug mode
      records the stack.  That code finds the failed stream no longer corked
      and the others still corked, and may use each.  So a caller checks the
      phase of its own stream again.
   5. The sender may read a corked queue.  So the loop takes what is corked
      (fl_cork_take) before it changes the queue.
   6. A connection that no listener accepted is a client's.  It sends the first
      write of a callback immediately if nothing else is ready or corked: then
      the peer works while the callback goes on. */
#include "transport/stream_send.h"

#include "base/codes.h"
#include "core/cork.h"
#include "core/flush.h"
#include "core/loop.h"
#include "core/write_queue.h"
#include "py/compat.h"
#include "transport/stream.h"
#include "transport/stream_close.h"

#include <errno.h>
#include <sys/uio.h>

/* --- the kernel ---------------------------------------------------------- */

int
fl_stream_drain_queue(FlStream *self)
{
    FlOutbox *out = &self->out;
    FL_CHECK(out->fd == self->fd, "the outbox has the stream's fd");
    size_t sent_bytes = fl_outbox_send(out, true);
    FL_METER(self->loop, bytes_out, sent_bytes);
    int code = -(int)out->send_errno;
    out->send_errno = 0;
    return code;
}

void
fl_stream_wait_for_kernel(FlStream *self)
{
    int code = fl_stream_update_registration(self);
    if (code < 0) {
        fl_stream_fail(self, code);
    }
}

void
fl_stream_send_queue(FlStream *self)
{
    int code = fl_stream_drain_queue(self);
    if (code < 0) {
        fl_stream_fail(self, code);
    }
    else if (!fl_write_queue_is_empty(&self->out.queue)) {
        fl_stream_wait_for_kernel(self);
    }
}

/* --- corking ------------------------------------------------------------- */

void
fl_stream_unsent(FlOutbox *out)
{
    FlStream *self = FL_LIST_ENTRY(&out->link, FlStream, out.link);
    int code = -(int)self->out.send_errno;
    self->out.send_errno = 0;
    Py_INCREF(self); /* a failure runs the GC, which may find it unused */
    if (code < 0) {
        fl_stream_fail(self, code);
    }
    else {
        fl_stream_wait_for_kernel(self);
    }
    Py_DECREF(self);
}
