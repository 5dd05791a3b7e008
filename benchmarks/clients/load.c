/* The part of a load generator that does not know what it sends: load.h. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_EVENTS 1024
/* A server that answers nothing for so long is stuck. */
#define SILENCE_MS 5000

typedef struct {
    double at;
    double cpu;
    uint64_t answered;
} Mark;

void
load_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

double
load_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double
cpu_time_of(long process)
{
    clockid_t clock;
    struct timespec time;
    if (process <= 0) {
        return 0.0;
    }
    if (clock_getcpuclockid((pid_t)process, &clock) != 0
        || clock_gettime(clock, &time) != 0)
    {
        load_fail("the server's process %ld is gone", process);
    }
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

typedef struct {
    const char *name;
    enum {
        INT,
        LONG,
        SIZE,
        DOUBLE,
        TEXT
    } kind;
    size_t offset;
} Option;

#define OPTION(name, kind, field)                \
    {                                            \
        name, kind, offsetof(LoadOptions, field) \
    }

static const Option known[] = {
    OPTION("--port", INT, port),
    OPTION("--connections", INT, connections),
    OPTION("--cpu", INT, cpu),
    OPTION("--server", LONG, server),
    OPTION("--size", SIZE, size),
    OPTION("--warmup", DOUBLE, warmup),
    OPTION("--seconds", DOUBLE, seconds),
    OPTION("--paced", INT, paced),
    OPTION("--path", TEXT, path),
    OPTION("--unix", TEXT, unix_path),
    OPTION("--udp", INT, udp),
    OPTION("--lines", INT, lines),
    OPTION("--fresh", INT, fresh),
    OPTION("--receive", INT, receive),
    OPTION("--oneway", INT, oneway),
    OPTION("--rate", DOUBLE, rate),
    OPTION("--storm", DOUBLE, storm),
    OPTION("--bulky", INT, bulky),
    OPTION("--tls", INT, tls),
};

static void
set_option(LoadOptions *options, const char *name, const char *value)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(name, known[i].name) != 0) {
            continue;
        }
        char *field = (char *)options + known[i].offset;
        switch (known[i].kind) {
        case INT:
            *(int *)field = atoi(value);
            return;
        case LONG:
            *(long *)field = atol(value);
            return;
        case SIZE:
            *(size_t *)field = (size_t)atol(value);
            return;
        case DOUBLE:
            *(double *)field = atof(value);
            return;
        case TEXT:
            *(const char **)field = value;
            return;
        }
    }
    load_fail("unknown option %s", name);
}

void
load_options(LoadOptions *options, int argc, char **argv)
{
    *options = (LoadOptions){.connections = 64,
                             .cpu = -1,
                             .size = 1024,
                             .warmup = 0.3,
                             .seconds = 1.0,
                             .path = "/"};
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) {
            load_fail("%s wants a value", argv[i]);
        }
        set_option(options, argv[i], argv[i + 1]);
    }
    if (options->unix_path == NULL
        && (options->port <= 0 || options->port > 65535))
    {
        load_fail("--port or --unix is wanted");
    }
    if (options->connections < 1 || options->size < 1) {
        load_fail("connections or size out of range");
    }
}

void
load_prepare(const LoadOptions *options)
{
    struct rlimit files;
    rlim_t wanted = (rlim_t)options->connections + 64;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < wanted) {
        files.rlim_cur = wanted < files.rlim_max ? wanted : files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (options->cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(options->cpu, &cpus);
        if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) {
            load_fail("cannot run on CPU %d", options->cpu);
        }
    }
    /* It may be stopped when its parent is killed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

static void
connect_socket(int fd, const struct sockaddr *address, size_t size)
{
    if (fd < 0) {
        load_fail("socket: %s", strerror(errno));
    }
    if (connect(fd, address, (socklen_t)size) != 0) {
        load_fail("connect: %s", strerror(errno));
    }
}

static int
connect_to_port(const LoadOptions *options)
{
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)options->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int type = options->udp ? SOCK_DGRAM : SOCK_STREAM;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    connect_socket(fd, (struct sockaddr *)&address, sizeof address);
    if (!options->udp) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    return fd;
}

static int
connect_to_path(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        load_fail("the path of the socket is too long");
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    connect_socket(fd, (struct sockaddr *)&address, sizeof address);
    return fd;
}

void
load_connect(Load *load, LoadConnection *connection)
{
    const LoadOptions *options = &load->options;
    connection->fd = options->unix_path ? connect_to_path(options->unix_path)
                                        : connect_to_port(options);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    connection->sent = connection->received = 0;
    struct epoll_event event = {.events = load->events,
                                .data.ptr = connection};
    if (event.events == 0) {
        event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    }
    if (epoll_ctl(load->poll, EPOLL_CTL_ADD, connection->fd, &event) != 0) {
        load_fail("epoll_ctl: %s", strerror(errno));
    }
}

void
load_reconnect(Load *load, LoadConnection *connection)
{
    close(connection->fd);
    load_connect(load, connection);
}

bool
load_send(LoadConnection *connection, const char *message, size_t size)
{
    while (connection->sent < size) {
        ssize_t count = send(connection->fd, message + connection->sent,
                             size - connection->sent, MSG_NOSIGNAL);
        if (count >= 0) {
            connection->sent += (size_t)count;
        }
        else if (errno == EAGAIN) {
            return false;
        }
        else if (errno != EINTR) {
            load_fail("send: %s", strerror(errno));
        }
    }
    return true;
}

size_t
load_receive(Load *load, LoadConnection *connection)
{
    for (;;) {
        ssize_t count = recv(connection->fd, load->scratch, LOAD_SCRATCH, 0);
        if (count > 0) {
            return (size_t)count;
        }
        if (count == 0) {
            load_fail("the server closed connection %d", connection->number);
        }
        if (errno == EAGAIN) {
            return 0;
        }
        if (errno != EINTR) {
            load_fail("recv: %s", strerror(errno));
        }
    }
}

static Mark
mark(const Load *load)
{
    return (Mark){.at = load_now(),
                  .cpu = cpu_time_of(load->options.server),
                  .answered = load->answered};
}

/* Keep the messages in flight until `end`, and longer until more than `least`
   were answered: a server that is slow is measured for longer. */
static void
run_until(Load *load, LoadStep step, double end, uint64_t least)
{
    static struct epoll_event events[MAX_EVENTS];
    while (load_now() < end || load->answered <= least) {
        int count = epoll_wait(load->poll, events, MAX_EVENTS, SILENCE_MS);
        if (count == 0) {
            load_fail("the server has not answered for %d ms", SILENCE_MS);
        }
        for (int i = 0; i < count; i++) {
            step(load, events[i].data.ptr);
        }
    }
}

/* Warm up, measure, and print the answer. */
static void
run_window(Load *load, LoadStep step)
{
    const LoadOptions *options = &load->options;
    run_until(load, step, load_now() + options->warmup, 0);
    Mark from = mark(load);
    load->warm = true;
    run_until(load, step, from.at + options->seconds, from.answered);
    Mark to = mark(load);
    printf("{\"answered\": %llu, \"seconds\": %.9f, \"cpu\": %.9f}\n",
           (unsigned long long)(to.answered - from.answered), to.at - from.at,
           to.cpu - from.cpu);
    fflush(stdout);
}

int
load_run(Load *load, LoadStep step)
{
    const LoadOptions *options = &load->options;
    load_prepare(options);
    load->scratch = malloc(LOAD_SCRATCH);
    LoadConnection *connections =
        calloc((size_t)options->connections, sizeof *connections);
    load->poll = epoll_create1(EPOLL_CLOEXEC);
    if (load->scratch == NULL || connections == NULL || load->poll < 0) {
        load_fail("no memory");
    }
    for (int i = 0; i < options->connections; i++) {
        connections[i].number = i;
        load_connect(load, &connections[i]);
    }
    /* Not before each connection was answered: it may be shaking hands. */
    run_until(load, step, 0, (uint64_t)options->connections - 1);
    if (!options->paced) {
        run_window(load, step);
        return 0;
    }
    while (getchar() != EOF) {
        run_window(load, step);
    }
    return 0;
}
