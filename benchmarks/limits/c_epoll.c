/* A plain C server on epoll: what the kernel costs and nothing else. */
#include "limit.h"

#include <errno.h>
#include <sys/socket.h>

static void *
open_plain(int fd)
{
    (void)fd;
    return NULL;
}

static ssize_t
receive_plain(LimitConnection *connection, char *data, size_t size)
{
    ssize_t got = recv(connection->fd, data, size, 0);
    if (got > 0) {
        return got;
    }
    return got < 0 && errno == EAGAIN ? 0 : -1;
}

static ssize_t
send_plain(LimitConnection *connection, const char *data, size_t size)
{
    ssize_t put = send(connection->fd, data, size, MSG_NOSIGNAL);
    return put < 0 && errno == EAGAIN ? 0 : put;
}

static void
close_plain(LimitConnection *connection)
{
    (void)connection;
}

int
main(int argc, char **argv)
{
    static const LimitTransport plain = {open_plain, receive_plain, send_plain,
                                         close_plain};
    limit_serve(argc, argv, &plain);
}
