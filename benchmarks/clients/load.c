/* The load generator: options, connections, windows.
 *
 *     load --port P --server PID --connections N --size BYTES
 *
 * load.h has the other options.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
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
    OPTION("--unix", TEXT, unix_path),
    OPTION("--udp", INT, udp),
    OPTION("--tls", INT, tls),
    OPTION("--http", INT, http),
    OPTION("--lines", INT, lines),
    OPTION("--fresh", INT, fresh),
    OPTION("--receive", INT, receive),
    OPTION("--oneway", INT, oneway),
    OPTION("--rate", DOUBLE, rate),
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

/* Parses the command line; exits with a message if it is wrong. */
static void
parse_options(LoadOptions *options, int argc, char **argv)
{
    *options = (LoadOptions){.connections = 64,
                             .cpu = -1,
                             .size = 1024,
                             .warmup = 0.3,
                             .seconds = 1.0};
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

/* Raises the limit of descriptors, pins the process and has it end with its
 * parent. */
static void
set_up_process(const LoadOptions *options)
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
    connection->sent = connection->received = 0;
    connection->session = NULL;
    if (options->tls) {
        connection->session = SSL_new(load->context);
        if (connection->session == NULL
            || SSL_set_fd(connection->session, connection->fd) != 1)
        {
            load_fail("no TLS session");
        }
        SSL_set_connect_state(connection->session);
    }
}

void
load_watch(Load *load, LoadConnection *connection)
{
    struct epoll_event event = {.events = load->events,
                                .data.ptr = connection};
    if (event.events == 0) {
        event.events = EPOLLIN | EPOLLOUT | EPOLLET;
    }
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(load->poll, EPOLL_CTL_ADD, connection->fd, &event) != 0) {
        load_fail("epoll_ctl: %s", strerror(errno));
    }
}

void
load_close(LoadConnection *connection)
{
    if (connection->session != NULL) {
        SSL_shutdown(connection->session);
        SSL_free(connection->session);
        ERR_clear_error();
    }
    close(connection->fd);
}

void
load_reconnect(Load *load, LoadConnection *connection)
{
    load_close(connection);
    load_connect(load, connection);
    load_watch(load, connection);
}

/* Says that the call may be made again; ends the program otherwise. */
static void
wants_again(SSL *session, int result)
{
    int error = SSL_get_error(session, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
        load_fail("TLS: %s", ERR_error_string(ERR_get_error(), NULL));
    }
}

/* Sends once; returns how much went, 0 if it would block. */
static size_t
send_some(LoadConnection *connection, const char *data, size_t size)
{
    if (connection->session != NULL) {
        size_t sent = 0;
        int result = SSL_write_ex(connection->session, data, size, &sent);
        if (result != 1) {
            wants_again(connection->session, result);
        }
        return sent;
    }
    ssize_t count;
    do {
        count = send(connection->fd, data, size, MSG_NOSIGNAL);
    } while (count < 0 && errno == EINTR);
    if (count < 0 && errno != EAGAIN) {
        load_fail("send: %s", strerror(errno));
    }
    return count > 0 ? (size_t)count : 0;
}

bool
load_send(LoadConnection *connection, const char *message, size_t size)
{
    while (connection->sent < size) {
        size_t count = send_some(connection, message + connection->sent,
                                 size - connection->sent);
        if (count == 0) {
            return false;
        }
        connection->sent += count;
    }
    return true;
}

size_t
load_receive(Load *load, LoadConnection *connection)
{
    if (connection->session != NULL) {
        size_t received = 0;
        int result = SSL_read_ex(connection->session, load->scratch,
                                 LOAD_SCRATCH, &received);
        if (result != 1) {
            wants_again(connection->session, result);
        }
        return received;
    }
    ssize_t count;
    do {
        count = recv(connection->fd, load->scratch, LOAD_SCRATCH, 0);
    } while (count < 0 && errno == EINTR);
    if (count == 0) {
        load_fail("the server closed connection %d", connection->number);
    }
    if (count < 0 && errno != EAGAIN) {
        load_fail("recv: %s", strerror(errno));
    }
    return count > 0 ? (size_t)count : 0;
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

/* Returns a load whose connections are open and watched; sets its step. */
static Load
prepare(int argc, char **argv, LoadStep *step)
{
    Load load = {0};
    const LoadOptions *options = &load.options;
    parse_options(&load.options, argc, argv);
    set_up_process(options);
    load.scratch = calloc(1, LOAD_SCRATCH);
    load.connections =
        calloc((size_t)options->connections, sizeof *load.connections);
    load.poll = epoll_create1(EPOLL_CLOEXEC);
    load.context = SSL_CTX_new(TLS_client_method());
    if (load.scratch == NULL || load.connections == NULL || load.poll < 0
        || load.context == NULL)
    {
        load_fail("no memory");
    }
    SSL_CTX_set_mode(load.context, SSL_MODE_ENABLE_PARTIAL_WRITE);
    *step = load_exchange(&load);
    for (int i = 0; i < options->connections; i++) {
        load.connections[i].number = i;
        load_connect(&load, &load.connections[i]);
        load_watch(&load, &load.connections[i]);
    }
    return load;
}

int
main(int argc, char **argv)
{
    LoadStep step;
    Load load = prepare(argc, argv, &step);
    if (load.options.rate > 0) {
        load_tail(&load);
        return 0;
    }
    /* Not before each connection was answered: it may be shaking hands. */
    run_until(&load, step, 0, (uint64_t)load.options.connections - 1);
    while (getchar() != EOF) {
        run_window(&load, step);
    }
    return 0;
}
