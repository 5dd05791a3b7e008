/* Several messages with one system call, where the system can.

   Linux has recvmmsg and sendmmsg; elsewhere these are loops over the calls
   for one.  Either way: how many were moved, at least one, or -1 and errno;
   what an error cuts short says so when it is tried again.  Never blocks,
   never raises SIGPIPE where that can be asked for. */
#ifndef FL_TRANSPORT_MESSAGES_H
#define FL_TRANSPORT_MESSAGES_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

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

static inline int
fl_send_messages(int fd, FlMessage *messages, unsigned count)
{
    return sendmmsg(fd, messages, count, FL_SEND_FLAGS);
}
#else
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

static inline int
fl_send_messages(int fd, FlMessage *messages, unsigned count)
{
    unsigned at = 0;
    while (at < count
           && sendmsg(fd, &messages[at].msg_hdr, FL_SEND_FLAGS) >= 0) {
        at++;
    }
    return at == 0 ? -1 : (int)at;
}
#endif

#endif
