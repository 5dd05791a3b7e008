/* The flags of sends, and receiving several datagrams with one system call.

   Linux has recvmmsg.  Elsewhere the function below loops over recvmsg.

   Owner: the caller owns the descriptor, the headers and their buffers.
   Threads: any; nothing is stored here.
   Result: the number of messages received, at least one, or -1 with errno set.
   An error after the first message is not reported: the call returns the count
   so far, and a retry of the next message reports the error.
   The call never blocks. */
#ifndef FL_TRANSPORT_MESSAGES_H
#define FL_TRANSPORT_MESSAGES_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Flags of every send that we make, also for sock_sendall.  MSG_DONTWAIT: a
   process that shares the socket can clear O_NONBLOCK. */
#ifdef MSG_NOSIGNAL
#define FL_SEND_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)
#else
#define FL_SEND_FLAGS MSG_DONTWAIT
#endif

#ifdef __linux__
typedef struct mmsghdr FlMessage;

static inline int
fl_receive_messages(int fd, FlMessage *messages, unsigned count)
{
    return recvmmsg(fd, messages, count, MSG_DONTWAIT, NULL);
}
#else
/* The fields of Linux's struct mmsghdr that we use, under the same names. */
typedef struct {
    struct msghdr msg_hdr;
    unsigned msg_len;
} FlMessage;

static inline int
fl_receive_messages(int fd, FlMessage *messages, unsigned count)
{
    unsigned at = 0;
    for (; at < count; at++) {
        ssize_t got = recvmsg(fd, &messages[at].msg_hdr, MSG_DONTWAIT);
        if (got < 0) {
            break;
        }
        messages[at].msg_len = (unsigned)got;
    }
    return at == 0 ? -1 : (int)at;
}
#endif

#endif
