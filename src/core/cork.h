/* Corking: sending what callbacks have written, in order and in time.

   turn.h has what is corked and who may touch it; sender.h has how a write is
   added.  transport/stream_send.c says which writes are corked.

   Threads: those with the loop's GIL, except for fl_cork_send_ahead. */
#ifndef FL_CORE_CORK_H
#define FL_CORE_CORK_H

#include "core/loop.h"
#include "core/turn.h"
#include "py/compat.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

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

/* Send what loop->cork.streams has.  A stream whose send fails, or leaves
   bytes, gets FL_UNSENT (registration.h).  Preserves a raised exception, and
   may run Python, which reports a failed send.  Call fl_loop_flush_corked,
   which looks first whether there is anything. */
void fl_loop_flush_corked_now(FlLoop *loop);

/* The same at the end of a batch.  It may release the GIL while it sends. */
void fl_loop_flush_corked_batch(FlLoop *loop);

/* Wait for what is TAKEN; for fl_cork_take alone. */
void fl_cork_take_back(FlLoop *loop);

/* Send what is OFFERED.  Any thread, while the loop cannot be freed.  Returns
   whether it sent all.  It stops early where the loop waits for what is
   TAKEN. */
bool fl_cork_send_ahead(FlLoop *loop);

/* Have what is corked to oneself, before it changes. */
static inline void
fl_cork_take(FlLoop *loop)
{
    if (FL_UNLIKELY(!fl_cork_try_take(&loop->cork))) {
        fl_cork_take_back(loop);
    }
}

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
   were written earlier, so they leave first; if the loop does not cork, those
   of the loop that this thread runs.  A loop that runs inside a callback of
   another one corks nothing, and the other's bytes were flushed when it began.
   The next iteration polls: if the peer is in the same process, its event
   arrives in the same iteration as with asyncio.  A failed flush may run
   Python: see fl_stream_flush_if_corked. */
static inline void
fl_loop_before_io(FlLoop *loop)
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
