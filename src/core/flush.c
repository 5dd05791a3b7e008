/* Sending what is corked: see flush.h. */
#include "core/flush.h"

#include "base/clock.h"
#include "base/codes.h"
#include "base/list.h"
#include "core/cork.h"
#include "core/loop.h"
#include "core/meter.h"
#include "py/gil.h"

#include <errno.h>

/* A flush of so many streams offers the GIL, if that is due (py/gil.h). */
#define BURST 8

ssize_t
fl_send_pieces(int fd, struct iovec *pieces, int count)
{
    if (count == 1) { /* costs the kernel less than sendmsg */
        return send(fd, pieces->iov_base, pieces->iov_len, FL_SEND_FLAGS);
    }
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    return sendmsg(fd, &message, FL_SEND_FLAGS);
}

size_t
fl_outbox_send(FlOutbox *out, bool drops)
{
    FlWriteQueue *queue = &out->queue;
    size_t sent_bytes = 0;
    int count = FL_SEND_PIECES;
    /* Fewer pieces were all: what is left does not fit the kernel's buffer. */
    while (count == FL_SEND_PIECES && queue->size_bytes > 0) {
        struct iovec pieces[FL_SEND_PIECES];
        count = fl_write_queue_fill_iovec(queue, pieces, FL_SEND_PIECES);
        ssize_t sent = fl_send_pieces(out->fd, pieces, count);
        if (sent < 0) {
            out->send_errno =
                fl_errno_would_block(errno) ? 0 : (uint16_t)errno;
            break;
        }
        sent_bytes += (size_t)sent;
        if (drops) {
            fl_write_queue_consume(queue, (size_t)sent);
        }
        else {
            fl_write_queue_note_sent(queue, (size_t)sent);
        }
    }
    return sent_bytes;
}

void
fl_cork_send_ahead(FlLoop *loop)
{
    FlCork *cork = &loop->cork;
    if (fl_loop_is_inherited(loop)) {
        return; /* the parent sends them */
    }
    uint64_t turn = atomic_load(&cork->turn) & ~FL_CORK_STATE;
    uint64_t offered = turn | FL_CORK_OFFERED;
    if (!atomic_compare_exchange_strong(&cork->turn, &offered,
                                        turn | FL_CORK_TAKEN))
    {
        return; /* EMPTY, HELD by the loop, or another thread's */
    }
    bool all = true;
    FlList *link = cork->streams.next;
    while (link != &cork->streams && !atomic_load(&cork->wanted)) {
        FlOutbox *out = FL_LIST_ENTRY(link, FlOutbox, link);
        if (out->send_errno == 0) {
            cork->ahead_bytes += fl_outbox_send(out, false);
            all &= out->queue.size_bytes == 0 || out->send_errno != 0;
        }
        link = link->next;
    }
    all &= link == &cork->streams;
    atomic_store(&cork->turn, turn | (all ? FL_CORK_HELD : FL_CORK_OFFERED));
}

/* Send the only item of a queue.  Returns the bytes sent. */
static inline size_t
send_only(FlLoop *loop, FlOutbox *out, PyObject *bytes)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    ssize_t sent =
        send(out->fd, PyBytes_AS_STRING(bytes), size, FL_SEND_FLAGS);
    if (FL_LIKELY((size_t)sent == size)) {
        fl_loop_drop_bytes(loop, fl_write_queue_take_only(&out->queue));
    }
    else if (sent >= 0) {
        fl_write_queue_consume(&out->queue, (size_t)sent);
    }
    else {
        out->send_errno = fl_errno_would_block(errno) ? 0 : (uint16_t)errno;
        sent = 0;
    }
    return (size_t)sent;
}

/* Send the queue of a stream that is no longer in the list. */
static inline void
send_corked(FlLoop *loop, FlOutbox *out)
{
    if (fl_loop_is_inherited(loop)) {
        fl_write_queue_clear(&out->queue); /* the parent sends them */
        return;
    }
    loop->polls.skips_left = 0; /* as fl_loop_flush_before_send */
    if (FL_LIKELY(out->send_errno == 0)) {
        PyObject *bytes = fl_write_queue_only(&out->queue);
        size_t sent_bytes;
        if (bytes != NULL) {
            sent_bytes = send_only(loop, out, bytes);
        }
        else {
            fl_write_queue_consume(&out->queue, 0); /* what was sent ahead */
            sent_bytes = fl_outbox_send(out, true);
        }
        FL_METER(loop, bytes_out, sent_bytes);
        if (FL_LIKELY(fl_write_queue_is_empty(&out->queue))) {
            return;
        }
    }
    loop->state->unsent(out);
    fl_cork_take(&loop->cork); /* Python that ran may have corked others */
}

void
fl_loop_flush_corked_now(FlLoop *loop)
{
    FlCork *cork = &loop->cork;
    FlList *link;
    fl_cork_take(cork);
    if (FL_UNLIKELY(cork->ahead_bytes > 0)) {
        FL_METER(loop, bytes_out, cork->ahead_bytes);
        cork->ahead_bytes = 0;
    }
    /* One at a time: what reports a failed send may run Python, which finds
       the other streams corked and may flush them, or cork others. */
    while ((link = fl_list_pop(&cork->streams)) != NULL) {
        send_corked(loop, FL_LIST_ENTRY(link, FlOutbox, link));
    }
    fl_cork_end_turn(cork);
}

/* Whether at least BURST streams are corked. */
static bool
is_burst(const FlCork *cork)
{
    const FlList *link = cork->streams.next;
    int count = 0;
    while (link != &cork->streams && count < BURST) {
        link = link->next;
        count++;
    }
    return count == BURST;
}

void
fl_loop_flush_corked_batch(FlLoop *loop)
{
    if (is_burst(&loop->cork)) {
        int64_t now_ns = fl_clock_ns();
        if (fl_gil_is_due(&loop->gil, now_ns)) {
            FlGilOffer offer = fl_gil_release(now_ns);
            fl_cork_send_ahead(loop);
            fl_gil_retake(&loop->gil, &offer);
        }
    }
    fl_loop_flush_corked_now(loop);
}
