/* A plain C server on epoll: what the kernel costs and nothing else.
 *
 *     c_epoll [--cpu N] [--mode echo|sink|source]
 *
 * echo answers each read at once, sink reads only, source writes only.
 * Level-triggered, three system calls a message at most.
 */
#include "limit.h"

#include <errno.h>
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

static enum {
    ECHO,
    SINK,
    SOURCE
} mode;

static char scratch[LIMIT_CHUNK];

static void
fail(const char *what)
{
    limit_fail(what, strerror(errno));
}

static void
set_mode(const char *name)
{
    static const char *const names[] = {"echo", "sink", "source"};
    for (mode = ECHO; mode <= SOURCE; mode++) {
        if (strcmp(name, names[mode]) == 0) {
            return;
        }
    }
    limit_fail("--mode", "is echo, sink or source");
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
sink(Connection *connection)
{
    ssize_t got = recv(connection->fd, scratch, LIMIT_CHUNK, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        drop(connection);
    }
}

static void
source(Connection *connection)
{
    ssize_t put = send(connection->fd, scratch, LIMIT_CHUNK, MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) {
        drop(connection);
    }
}

static void
accept_all(int poll, int listener)
{
    int fd;
    while ((fd = limit_accept(listener)) >= 0) {
        Connection *connection = calloc(1, sizeof *connection);
        if (connection == NULL) {
            fail("calloc");
        }
        connection->fd = fd;
        connection->left = mode == SOURCE; /* it waits to write */
        watch(poll, EPOLL_CTL_ADD, connection);
    }
}

static void
handle(int poll, Connection *connection)
{
    if (mode == SINK) {
        sink(connection);
    }
    else if (mode == SOURCE) {
        source(connection);
    }
    else if (connection->left) {
        flush(poll, connection);
    }
    else {
        echo(poll, connection);
    }
}

int
main(int argc, char **argv)
{
    static struct epoll_event events[MAX_EVENTS];
    set_mode(limit_prepare(argc, argv));
    int listener = limit_listen();
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
            else {
                handle(poll, connection);
            }
        }
    }
}
