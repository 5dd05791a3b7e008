/* A plain C echo server on epoll: what the kernel costs and nothing else.
 *
 *     c_epoll [--cpu N]
 *
 * Level-triggered, three system calls a message at most.
 */
#include "limit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_EVENTS 256

/* What the kernel did not take of an echo; reading waits until it has. */
typedef struct {
    int fd;
    size_t left;
    size_t done;
    char *kept;
} Connection;

static char scratch[LIMIT_CHUNK];

static void
fail(const char *what)
{
    limit_fail(what, strerror(errno));
}

static void
watch(int poll, int action, Connection *connection)
{
    struct epoll_event event = {.events =
                                    connection->left ? EPOLLOUT : EPOLLIN,
                                .data.ptr = connection};
    if (epoll_ctl(poll, action, connection->fd, &event) != 0) {
        fail("epoll_ctl");
    }
}

static void
drop(Connection *connection)
{
    close(connection->fd);
    free(connection->kept);
    free(connection);
}

static void
keep(int poll, Connection *connection, const char *data, size_t size)
{
    if (connection->kept == NULL) {
        connection->kept = malloc(LIMIT_CHUNK);
        if (connection->kept == NULL) {
            fail("malloc");
        }
    }
    memcpy(connection->kept, data, size);
    connection->left = size;
    connection->done = 0;
    watch(poll, EPOLL_CTL_MOD, connection);
}

static void
echo(int poll, Connection *connection)
{
    ssize_t got = recv(connection->fd, scratch, LIMIT_CHUNK, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) {
            drop(connection);
        }
        return;
    }
    ssize_t put = send(connection->fd, scratch, (size_t)got, MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) {
        drop(connection);
        return;
    }
    put = put < 0 ? 0 : put;
    if (put < got) {
        keep(poll, connection, scratch + put, (size_t)(got - put));
    }
}

static void
flush(int poll, Connection *connection)
{
    ssize_t put = send(connection->fd, connection->kept + connection->done,
                       connection->left, MSG_NOSIGNAL);
    if (put < 0) {
        if (errno != EAGAIN) {
            drop(connection);
        }
        return;
    }
    connection->done += (size_t)put;
    connection->left -= (size_t)put;
    if (connection->left == 0) {
        watch(poll, EPOLL_CTL_MOD, connection);
    }
}

static void
accept_all(int poll, int listener)
{
    for (;;) {
        int one = 1;
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            return;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Connection *connection = calloc(1, sizeof *connection);
        if (connection == NULL) {
            fail("calloc");
        }
        connection->fd = fd;
        watch(poll, EPOLL_CTL_ADD, connection);
    }
}

static int
listen_somewhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0
        || listen(fd, SOMAXCONN) != 0
        || getsockname(fd, (struct sockaddr *)&address, &size) != 0)
    {
        fail("listen");
    }
    limit_announce(ntohs(address.sin_port));
    return fd;
}

int
main(int argc, char **argv)
{
    static struct epoll_event events[MAX_EVENTS];
    limit_prepare(argc, argv);
    int listener = listen_somewhere();
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) != 0) {
        fail("epoll");
    }
    for (;;) {
        int count = epoll_wait(poll, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            Connection *connection = events[i].data.ptr;
            if (connection == NULL) {
                accept_all(poll, listener);
            }
            else if (connection->left) {
                flush(poll, connection);
            }
            else {
                echo(poll, connection);
            }
        }
    }
}
