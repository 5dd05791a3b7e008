/* Sending what is corked (cork.h): by the loop, before anything that reaches
   somebody who may wait for it, and by the sender's thread.

   The sockets are written to here, and not by the streams that own them: so a
   flush needs no call of a higher folder.  Only what the kernel did not accept
   does (FlState.unsent).

   Threads: those with the loop's GIL, except for fl_cork_send_ahead. */
#ifndef FL_CORE_FLUSH_H
#define FL_CORE_FLUSH_H

#include "core/loop.h"

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Flags of every send that we make, also for sock_sendall.  MSG_DONTWAIT: a
   process that shares the socket can clear O_NONBLOCK. */
#ifdef MSG_NOSIGNAL
#define FL_SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)
#else
#define FL_SEND_FLAGS MSG_DONTWAIT
#endif

/* The most pieces of one send: enough for any burst worth one call, and well
   below IOV_MAX. */
#define FL_SEND_PIECES 64

/* One send to a socket.  The number of bytes, or -1 with errno set. */
ssize_t fl_send_pieces(int fd, struct iovec *pieces, int count);

/* Send as much of a queue as the kernel accepts, and return the bytes sent.
   With `drops` the sent items leave the queue, which needs the GIL, or without
   one the stream's critical section; else the queue notes how much was sent. A
   failed send leaves its errno in out->send_errno, which must be 0 before.
   Threads: those that may touch the queue (cork.h). */
size_t fl_outbox_send(FlOutbox *out, bool drops);

/* Send what loop->cork.streams has.  Calls state->unsent for a stream whose
   send fails or leaves bytes.  Preserves a raised exception, and may run
   Python, which reports a failed send.  Call fl_loop_flush_corked, which looks
   first whether there is anything. */
void fl_loop_flush_corked_now(FlLoop *loop);

/* The same after an event or a batch.  It may release the GIL while it
   sends. */
void fl_loop_flush_corked_batch(FlLoop *loop);

/* Send what is OFFERED.  Any thread, while the loop cannot be freed.  It stops
   early where the loop waits for what is TAKEN. */
void fl_cork_send_ahead(FlLoop *loop);

/* Send the bytes that are corked, if there are any. */
static inline void
fl_loop_flush_corked(FlLoop *loop)
{
    if (FL_UNLIKELY(!fl_list_is_empty(&loop->cork.streams))) {
        fl_loop_flush_corked_now(loop);
    }
}

/* Flush the corked bytes of the loop that this thread runs, if any.  Call this
   wherever a callback reaches another loop, thread or process: the other side
   may wait for bytes that are corked here. */
static inline void
fl_loop_flush_corked_here(FlState *state)
{
    FlLoop *loop = fl_loop_of_thread(state);
    if (loop != NULL) {
        fl_loop_flush_corked(loop);
    }
}

/* Call this before every send, shutdown or close of a socket.  Corked bytes
   were written earlier, so they leave first.  Where this loop does not cork,
   the caller may be a callback of another loop that does, which writes to a
   stream of this one: then what that loop has corked leaves first.  (A loop
   that runs inside a callback of another one corks nothing, and the other's
   bytes were flushed when it began.)
   The next iteration polls: if the peer is in the same process, its event
   arrives in the same iteration as with asyncio.  A failed flush may run
   Python: transport/stream_send.c, invariant 4. */
static inline void
fl_loop_flush_before_send(FlLoop *loop)
{
    if (FL_HAVE_GIL && FL_UNLIKELY(loop->cork.writer == NULL)) {
        fl_loop_flush_corked_here(loop->state);
    }
    if (FL_HAVE_GIL || fl_loop_on_own_thread(loop)) {
        fl_loop_flush_corked(loop);
        loop->polls.skips_left = 0;
    }
}

#endif
