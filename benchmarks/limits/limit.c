/* A plain C server on epoll: limit.h. */
#include "limit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESCRIPTORS 4096
#define MAX_EVENTS  256

static enum {
    ECHO,
    SINK,
    SOURCE
} mode;

static const LimitTransport *transport;
static int poll;
static char scratch[LIMIT_CHUNK];

void
limit_fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
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

/* Pins the process and raises its descriptor limit. */
static void
prepare(int argc, char **argv)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = DESCRIPTORS;
        if (files.rlim_max < DESCRIPTORS) {
            files.rlim_cur = files.rlim_max;
        }
        setrlimit(RLIMIT_NOFILE, &files);
    }
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--mode") == 0) {
            set_mode(argv[i + 1]);
            continue;
        }
        if (strcmp(argv[i], "--cpu") != 0) {
            limit_fail(argv[i], "is no option");
        }
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(atoi(argv[i + 1]), &cpus);
        if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) {
            limit_fail("sched_setaffinity", strerror(errno));
        }
    }
    /* A client that leaves with an echo under way is no failure. */
    signal(SIGPIPE, SIG_IGN);
    /* Nothing else ends a server whose parent was killed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

/* Returns a descriptor that listens on a port of the kernel's choice. */
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
        limit_fail("listen", strerror(errno));
    }
    printf("{\"port\": %d, \"pid\": %ld}\n", ntohs(address.sin_port),
           (long)getpid());
    fflush(stdout);
    return fd;
}

static void
watch(int action, int fd, uint32_t events, LimitConnection *connection)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poll, action, fd, &event) != 0) {
        limit_fail("epoll_ctl", strerror(errno));
    }
}

static void
drop(LimitConnection *connection)
{
    transport->close(connection);
    close(connection->fd);
    free(connection->kept);
    free(connection);
}

static void
keep(LimitConnection *connection, const char *data, size_t size)
{
    if (connection->kept == NULL) {
        connection->kept = malloc(LIMIT_CHUNK);
        if (connection->kept == NULL) {
            limit_fail("malloc", strerror(errno));
        }
    }
    memcpy(connection->kept, data, size);
    connection->left = size;
    connection->done = 0;
    watch(EPOLL_CTL_MOD, connection->fd, EPOLLOUT, connection);
}

static void
flush(LimitConnection *connection)
{
    ssize_t put =
        transport->send(connection, connection->kept + connection->done,
                        connection->left);
    if (put < 0) {
        drop(connection);
        return;
    }
    connection->done += (size_t)put;
    connection->left -= (size_t)put;
    if (connection->left == 0) {
        watch(EPOLL_CTL_MOD, connection->fd, EPOLLIN, connection);
    }
}

static void
handle(LimitConnection *connection)
{
    if (connection->left > 0) {
        flush(connection);
        return;
    }
    ssize_t got = LIMIT_CHUNK, put = 0;
    if (mode != SOURCE) {
        got = transport->receive(connection, scratch, LIMIT_CHUNK);
    }
    if (mode != SINK && got > 0) {
        put = transport->send(connection, scratch, (size_t)got);
    }
    if (got < 0 || put < 0) {
        drop(connection);
    }
    else if (mode == ECHO && put < got) {
        keep(connection, scratch + put, (size_t)(got - put));
    }
}

static void
accept_all(int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC))
           >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        LimitConnection *connection = calloc(1, sizeof *connection);
        if (connection == NULL) {
            limit_fail("calloc", strerror(errno));
        }
        connection->fd = fd;
        connection->session = transport->open(fd);
        watch(EPOLL_CTL_ADD, fd, mode == SOURCE ? EPOLLOUT : EPOLLIN,
              connection);
    }
}

void
limit_serve(int argc, char **argv, const LimitTransport *of_bytes)
{
    static struct epoll_event events[MAX_EVENTS];
    transport = of_bytes;
    prepare(argc, argv);
    poll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_somewhere();
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        int count = epoll_wait(poll, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            LimitConnection *connection = events[i].data.ptr;
            if (connection == NULL) {
                accept_all(listener);
            }
            else {
                handle(connection);
            }
        }
    }
}
