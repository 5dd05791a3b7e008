/* Sending a stream's write queue, and corking it.

   A send that fails ends the connection as asyncio's _fatal_error does: it
   queues connection_lost and raises nothing.  So a caller checks the phase
   again after each function that may fail.

   Threads: as in stream.h. */
#ifndef FL_TRANSPORT_STREAM_SEND_H
#define FL_TRANSPORT_STREAM_SEND_H

#include "core/flush.h"
#include "core/loop.h"
#include "core/sender.h"
#include "py/compat.h"
#include "transport/stream.h"

#include <errno.h>

/* The most bytes that are corked. */
#define FL_CORKED_BYTES (64 * 1024)

/* Send from the queue until it is empty or the kernel's buffer is full.  0 or
   a negative errno.  Runs no Python: the caller has checked the fd of a stream
   whose fd is shared. */
int fl_stream_drain_queue(FlStream *self);

/* The same, and then wait for the kernel, or end the stream if a send
   failed. */
void fl_stream_send_queue(FlStream *self);

/* Check the fd, then flush what was written before.  In this order, because
   the application's fileno() may write, and so cork.  0, or -EBADF if the
   stream has no fd any more.  Runs Python: check the phase again. */
static inline int
fl_stream_prepare_send(FlStream *self)
{
    int code = fl_stream_check_fd(self);
    if (code == 0 && self->fd >= 0) {
        fl_loop_flush_before_send(self->loop);
    }
    return self->fd < 0 ? -EBADF : code;
}

/* The kernel refused bytes: register for writability. */
void fl_stream_wait_for_kernel(FlStream *self);

/* FlState.unsent: the flush has sent a part of the queue, or failed.  It is
   called in any context, perhaps inside a callback of this stream, and calls
   no protocol. */
void fl_stream_unsent(FlOutbox *out);

/* Whether this stream corks what is written now: stream_send.c, invariant
   2. */
static inline bool
fl_stream_corks(const FlStream *self)
{
    const FlLoop *loop = self->loop;
    return FL_HAVE_GIL && loop != NULL
           && loop->cork.writer == PyThreadState_Get() && !self->fd_shared
           && !fl_loop_is_inherited(loop);
}

/* Whether a write of this size is corked with the queue.  If so, the caller
   queues it, as it holds the queue now, and calls fl_stream_cork.  Otherwise
   it flushes. */
static inline bool
fl_stream_may_cork(FlStream *self, size_t size_bytes)
{
    FlLoop *loop = self->loop;
    if (!fl_stream_corks(self)) {
        return false;
    }
    fl_cork_take(&loop->cork);
    uint64_t queued_bytes = self->out.queue.size_bytes + size_bytes;
    return queued_bytes <= FL_CORKED_BYTES
           && queued_bytes <= self->high_water_bytes
           && (fl_write_queue_is_empty(&self->out.queue)
               || fl_stream_is_corked(self));
}

/* Cork what the caller has queued; or send it, stream_send.c, invariant 6.
   Keeps a raised exception, and calls no protocol. */
static inline void
fl_stream_cork(FlStream *self)
{
    FlLoop *loop = self->loop;
    FlCork *cork = &loop->cork;
    if (self->server == NULL && fl_list_is_empty(&cork->streams)
        && loop->ready.head == loop->ready.tail
        && cork->early_head != loop->ready.head)
    {
        cork->early_head = loop->ready.head;
        /* Not offered: the sender would wake for nothing. */
        fl_list_append(&cork->streams, &self->out.link);
        fl_loop_flush_corked_now(loop);
    }
    else {
        fl_cork_add(cork, &self->out);
    }
}

#endif
