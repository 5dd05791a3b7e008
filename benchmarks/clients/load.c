/* The load generator.
 *
 *     load --port P --server PID --connections N --size BYTES
 *
 * It opens its connections and keeps one message in flight on each, or sends
 * messages by the clock (--rate).  For each line on its stdin it measures a
 * window and prints a line of JSON: how many messages were answered, and how
 * much CPU time the server's process spent on them.  That time is read from
 * the server's CPU clock when the window begins and ends, so starting and
 * warming up cost nothing.
 *
 * One thread, edge-triggered epoll, no allocation after the start: the
 * generator must never be what is measured.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SCRATCH    (256 * 1024)
#define MAX_EVENTS 1024
/* A server that answers nothing for so long is stuck. */
#define SILENCE_MS 5000

typedef struct {
    int port;
    int connections;
    int server;          /* whose CPU time is read, a process id */
    int size;            /* of a message, in bytes */
    double warmup;       /* seconds before a window */
    double seconds;      /* of a window */
    const char *path;    /* connect to this Unix socket, not to a port */
    int udp;             /* datagrams, not TCP */
    int tls;             /* TLS; the certificate is not verified */
    const char *request; /* what is sent, of HTTP/1.1 */
    int answer;          /* how many bytes answer a request */
    int lines;           /* a message is a line and ends with one */
    int fresh;           /* each message has a connection of its own */
    int receive;         /* one way: receive, do not send */
    int oneway;          /* one way: send, expect no answer */
    int events;          /* one request; events answer it without end */
    double rate;         /* messages a second, by the clock */
    int sleeps;          /* sleep between them: servers need this CPU, too */
} Options;

typedef struct {
    int fd;
    int number;
    SSL *session; /* NULL without TLS */
    size_t sent;
    size_t received;
    bool in_stamp;   /* of an event */
    uint64_t due_ns; /* its digits so far */
} Connection;

/* Called when a connection is open, and whenever it may be read or written.
 * Edge-triggered: goes on until the socket would block, or nothing is due. */
typedef void (*Step)(Connection *connection);

static Options options = {
    .connections = 64, .size = 1024, .warmup = 0.3, .seconds = 1.0};
static Connection *connections;
static SSL_CTX *context;
static int polled;      /* the epoll descriptor */
static uint32_t events; /* that a connection is watched for */
static bool warm;       /* the first window has begun */
static uint64_t answered;
static char *scratch; /* for reads, SCRATCH bytes */

/* Ends the program with a message: a figure from a broken run is worthless. */
static _Noreturn void
fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* Returns what a clock says, in seconds. */
static double
read_clock(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) != 0) {
        fail("the server's process is gone");
    }
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double
now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

#define OPTION(format, field)               \
    {                                       \
        "--" #field, format, &options.field \
    }

/* Parses the command line; exits with a message if it is wrong. */
static void
parse_options(int argc, char **argv)
{
    static const struct {
        const char *name, *format; /* no format: the value as it is */
        void *field;
    } known[] = {
        OPTION("%d", port),    OPTION("%d", connections),
        OPTION("%d", server),  OPTION("%d", size),
        OPTION("%lf", warmup), OPTION("%lf", seconds),
        OPTION(NULL, path),    OPTION("%d", udp),
        OPTION("%d", tls),     OPTION(NULL, request),
        OPTION("%d", answer),  OPTION("%d", lines),
        OPTION("%d", fresh),   OPTION("%d", receive),
        OPTION("%d", oneway),  OPTION("%d", events),
        OPTION("%lf", rate),   OPTION("%d", sleeps),
    };
    for (int i = 1; i + 1 < argc; i += 2) {
        size_t place = 0;
        while (strcmp(argv[i], known[place].name) != 0) {
            if (++place == sizeof known / sizeof known[0]) {
                fail("unknown option %s", argv[i]);
            }
        }
        void *field = known[place].field;
        if (known[place].format == NULL) {
            *(const char **)field = argv[i + 1];
        }
        else if (sscanf(argv[i + 1], known[place].format, field) != 1) {
            fail("%s wants a number", argv[i]);
        }
    }
}

/* -- connections ---------------------------------------------------------- */

static int
connect_socket(void)
{
    struct sockaddr_in port = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)options.port)};
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    const struct sockaddr *address = (struct sockaddr *)&port;
    socklen_t size = sizeof port;
    int type = options.udp ? SOCK_DGRAM : SOCK_STREAM, one = 1;
    port.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (options.path != NULL) {
        address = (struct sockaddr *)&path;
        size = sizeof path;
        if (strlen(options.path) >= sizeof path.sun_path) {
            fail("the path is too long");
        }
        strcpy(path.sun_path, options.path);
    }
    int fd = socket(address->sa_family, type | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, address, size) != 0) {
        fail("connect: %s", strerror(errno));
    }
    /* Only TCP has it. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Connects and watches the connection. */
static void
open_connection(Connection *connection)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    connection->fd = connect_socket();
    connection->sent = connection->received = 0;
    if (options.tls) {
        connection->session = SSL_new(context);
        if (connection->session == NULL
            || SSL_set_fd(connection->session, connection->fd) != 1)
        {
            fail("no TLS session");
        }
        SSL_set_connect_state(connection->session);
    }
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(polled, EPOLL_CTL_ADD, connection->fd, &event) != 0) {
        fail("epoll_ctl: %s", strerror(errno));
    }
}

/* Closes a connection and opens and watches another in its place. */
static void
reopen_connection(Connection *connection)
{
    if (connection->session != NULL) {
        SSL_shutdown(connection->session);
        SSL_free(connection->session);
        ERR_clear_error();
    }
    close(connection->fd);
    open_connection(connection);
}

/* Says that the call may be made again; ends the program otherwise. */
static void
wants_again(SSL *session, int result)
{
    int error = SSL_get_error(session, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
        fail("TLS: %s", ERR_error_string(ERR_get_error(), NULL));
    }
}

/* Sends once; returns how much went, 0 if it would block. */
static size_t
send_some(Connection *connection, const char *data, size_t size)
{
    if (connection->session != NULL) {
        size_t sent = 0;
        int result = SSL_write_ex(connection->session, data, size, &sent);
        if (result != 1) {
            wants_again(connection->session, result);
        }
        return sent;
    }
    ssize_t count = send(connection->fd, data, size, MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN) {
        fail("send: %s", strerror(errno));
    }
    return count > 0 ? (size_t)count : 0;
}

/* Sends what is left of `message`; returns whether all of it has left. */
static bool
send_rest(Connection *connection, const char *message, size_t size)
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

/* Reads once into the scratch; returns the count, 0 if it would block. */
static size_t
receive(Connection *connection)
{
    if (connection->session != NULL) {
        size_t received = 0;
        int result =
            SSL_read_ex(connection->session, scratch, SCRATCH, &received);
        if (result != 1) {
            wants_again(connection->session, result);
        }
        return received;
    }
    ssize_t count = recv(connection->fd, scratch, SCRATCH, 0);
    if (count == 0) {
        fail("the server closed connection %d", connection->number);
    }
    if (count < 0 && errno != EAGAIN) {
        fail("recv: %s", strerror(errno));
    }
    return count > 0 ? (size_t)count : 0;
}

/* -- what a connection sends and expects ---------------------------------- */

/* One message in flight, echoed or answered, or bytes that go one way as fast
 * as they can.
 *
 * Until the first window every byte of an echo is compared with what was sent;
 * each connection sends other bytes than its neighbours.  Of an answer of HTTP
 * the status is looked at.  Bytes that go one way are counted in KiB, so that
 * a window never counts none. */
#define SHIFTS 251

static const char status[] = "HTTP/1.1 200 ";

static char *pattern;
static size_t message_size, answer_size;

static const char *
message_of(const Connection *connection)
{
    if (options.request != NULL) {
        return options.request;
    }
    /* A line ends where the pattern does. */
    return pattern + (options.lines ? 0 : connection->number % SHIFTS);
}

static void
make_pattern(size_t size)
{
    uint32_t state = 1;
    pattern = malloc(size + SHIFTS);
    if (pattern == NULL) {
        fail("no memory");
    }
    for (size_t i = 0; i < size + SHIFTS; i++) {
        state = state * 1664525u + 1013904223u;
        pattern[i] = (char)(state >> 24);
        if (options.lines) {
            pattern[i] = i + 1 == size ? '\n' : (char)('a' + (state >> 29));
        }
    }
}

static void
check(const Connection *connection, size_t count)
{
    bool is_http = options.request != NULL;
    const char *expected = is_http ? status : message_of(connection);
    size_t known = is_http ? sizeof status - 1 : warm ? 0 : message_size;
    size_t begin = connection->received, end = begin + count;
    if (end > answer_size) {
        fail("the server answered more than it was asked");
    }
    end = end < known ? end : known;
    if (begin < end && memcmp(scratch, expected + begin, end - begin) != 0) {
        fail("the server answered other bytes than it should");
    }
}

static void
step_exchange(Connection *connection)
{
    const char *message = message_of(connection);
    for (;;) {
        bool all_sent = send_rest(connection, message, message_size);
        size_t count = receive(connection);
        if (count == 0) {
            return;
        }
        check(connection, count);
        connection->received += count;
        if (connection->received == answer_size) {
            answered++;
            if (options.fresh) {
                reopen_connection(connection);
                return;
            }
            connection->sent = connection->received = 0;
            all_sent = send_rest(connection, message, message_size);
        }
        /* The socket is empty: what comes next is a new edge.  Of TLS one
         * read brings one record. */
        if (all_sent && count < SCRATCH && connection->session == NULL) {
            return;
        }
    }
}

/* Level-triggered, a scratch at most: a server that keeps up would hold a
 * generator that goes on until the socket would block. */
static void
step_oneway(Connection *connection)
{
    static uint64_t total;
    if (options.receive) {
        total += receive(connection);
    }
    else {
        if (connection->session != NULL) {
            receive(connection); /* session tickets */
        }
        total -= connection->sent;
        send_rest(connection, scratch, SCRATCH);
        total += connection->sent;
        connection->sent %= SCRATCH;
    }
    answered = total / 1024;
}

/* -- events, each with the time when it was due ---------------------------- */

static double *latencies;
static size_t noted;
/* More are answered, but not noted. */
#define ROOM (1 << 22)

static void
note_latency(double microseconds)
{
    if (noted < ROOM) {
        latencies[noted++] = microseconds;
    }
}

static int
compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Prints what latencies of the window are, as the rest of a line of JSON. */
static void
print_latencies(void)
{
    if (noted == 0) {
        fail("the server answered nothing");
    }
    qsort(latencies, noted, sizeof(double), compare);
    printf(", \"p50\": %.3f, \"p99\": %.3f, \"p999\": %.3f",
           latencies[noted / 2], latencies[noted * 99 / 100],
           latencies[noted * 999 / 1000]);
}

/* Counts an event that was read at `at`; before the first window only the
 * first one of each connection, so that all of them are served by then. */
static void
count_event(Connection *connection, double at)
{
    answered += warm || connection->received == 0;
    connection->received++;
    if (warm) {
        note_latency((at - (double)connection->due_ns * 1e-9) * 1e6);
    }
}

/* Sends the request, and reads events: "@" stands before the nanoseconds of
 * the monotonic clock, which all processes read. */
static void
step_events(Connection *connection)
{
    size_t count;
    send_rest(connection, options.request, message_size);
    do {
        count = receive(connection);
        double at = now();
        for (const char *c = scratch; c < scratch + count; c++) {
            bool is_digit = *c >= '0' && *c <= '9';
            if (*c == '@') {
                connection->in_stamp = true;
                connection->due_ns = 0;
            }
            else if (connection->in_stamp && is_digit) {
                connection->due_ns *= 10;
                connection->due_ns += (uint64_t)(*c - '0');
            }
            else if (connection->in_stamp) {
                connection->in_stamp = false;
                count_event(connection, at);
            }
        }
    } while (count == SCRATCH);
}

/* Sets what is sent and which events are waited for; returns the step. */
static Step
set_up_exchange(void)
{
    if (options.oneway || options.receive) {
        events = EPOLLIN | (options.receive ? 0 : EPOLLOUT);
        return step_oneway;
    }
    events = EPOLLIN | EPOLLOUT | EPOLLET;
    if (options.request != NULL) {
        message_size = strlen(options.request);
        answer_size = (size_t)options.answer;
    }
    else {
        message_size = answer_size = (size_t)options.size;
        make_pattern(message_size);
    }
    return options.events ? step_events : step_exchange;
}

/* -- windows --------------------------------------------------------------- */

/* Steps the connections that are ready; returns how many. */
static int
poll_once(Step step, int timeout_ms)
{
    static struct epoll_event found[MAX_EVENTS];
    int count = epoll_wait(polled, found, MAX_EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) {
        step(found[i].data.ptr);
    }
    return count;
}

/* Keep the messages in flight until `end`, and longer until more than `least`
   were answered: a server that is slow is measured for longer. */
static void
run_until(Step step, double end, uint64_t least)
{
    while (now() < end || answered <= least) {
        if (poll_once(step, SILENCE_MS) == 0) {
            fail("the server has not answered for %d ms", SILENCE_MS);
        }
    }
}

/* Warm up, measure, and print the answer. */
static void
run_window(Step step)
{
    clockid_t cpu;
    run_until(step, now() + options.warmup, 0);
    if (clock_getcpuclockid((pid_t)options.server, &cpu) != 0) {
        fail("the server's process %d is gone", options.server);
    }
    double began = now(), used = read_clock(cpu), ended;
    uint64_t before = answered;
    warm = true;
    noted = 0;
    run_until(step, began + options.seconds, before);
    ended = now();
    printf("{\"answered\": %llu, \"seconds\": %.9f, \"cpu\": %.9f",
           (unsigned long long)(answered - before), ended - began,
           read_clock(cpu) - used);
    if (options.events) {
        print_latencies();
    }
    puts("}");
    fflush(stdout);
}

/* -- how late echoes come, from an open loop ------------------------------- */

/* README.md has the method.  This process sleeps only with --sleeps, where the
 * servers need its CPU: the wake-up of its own would be in every latency. */
#define PATIENCE 2.0
#define SLEEP_NS 100000
/* Seconds between two looks at the clock in which this process did not run. */
#define HELD_UP  1e-3

/* The message of a number goes over the connections in turns. */
static double *sent_at;
static uint64_t sent;
static double start; /* messages sent before it are warm-up */
static double looked, held_up;

/* Returns the seconds of a clock that stands still while we are held up. */
static double
tail_now(void)
{
    double at = now();
    if (at - looked > HELD_UP) {
        held_up += at - looked;
    }
    looked = at;
    return at - held_up;
}

/* Notes how late the next `count` bytes of echoes are. */
static void
count_echoes(Connection *connection, size_t count)
{
    size_t size = (size_t)options.size, before = connection->received / size;
    size_t step = (size_t)options.connections;
    size_t number = before * step + (size_t)connection->number;
    double at = tail_now();
    connection->received += count;
    size_t more = connection->received / size - before;
    for (; more > 0 && number < sent; more--, number += step) {
        if (sent_at[number] >= start) {
            note_latency((at - sent_at[number]) * 1e6);
        }
        answered++;
    }
}

/* Returns the bytes of all messages so far that are this connection's. */
static size_t
bytes_due(const Connection *connection)
{
    size_t others = (size_t)(options.connections - 1 - connection->number);
    return (sent + others) / (size_t)options.connections
           * (size_t)options.size;
}

/* Sends what is due, of any bytes, and reads echoes. */
static void
step_tail(Connection *connection)
{
    size_t due = bytes_due(connection), count = 1;
    while (connection->sent < due && count > 0) {
        size_t rest = due - connection->sent;
        count =
            send_some(connection, scratch, rest < SCRATCH ? rest : SCRATCH);
        connection->sent += count;
    }
    do {
        count = receive(connection);
        count_echoes(connection, count);
    } while (count == SCRATCH);
}

static void
poll_tail(void)
{
    if (options.sleeps) {
        struct pollfd any = {.fd = polled, .events = POLLIN};
        ppoll(&any, 1, &(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
    }
    poll_once(step_tail, 0);
}

/* Sends messages at the rate of the options, for their seconds, and prints the
 * percentiles of their latencies; one that does not come counts until now. */
static void
run_tail(void)
{
    double began = looked = now(), due = began;
    start = began + options.warmup;
    while (due < start + options.seconds && sent < ROOM) {
        double at = tail_now();
        if (at >= due) {
            sent_at[sent] = at;
            step_tail(&connections[sent++ % (uint64_t)options.connections]);
            due = began + (double)sent / options.rate;
        }
        poll_tail();
    }
    double end = tail_now() + PATIENCE;
    while (answered < sent && tail_now() < end) {
        poll_tail();
    }
    for (int i = 0; i < options.connections; i++) {
        Connection *one = &connections[i];
        count_echoes(one, bytes_due(one) - one->received);
    }
    printf("{\"answered\": %zu", noted);
    print_latencies();
    puts("}");
}

int
main(int argc, char **argv)
{
    /* It may be stopped when its parent is killed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    parse_options(argc, argv);
    scratch = calloc(1, SCRATCH);
    latencies = malloc(ROOM * sizeof(double));
    sent_at = malloc(ROOM * sizeof(double));
    connections = calloc((size_t)options.connections, sizeof *connections);
    polled = epoll_create1(EPOLL_CLOEXEC);
    context = SSL_CTX_new(TLS_client_method());
    if (scratch == NULL || latencies == NULL || sent_at == NULL
        || connections == NULL || polled < 0 || context == NULL)
    {
        fail("no memory");
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE);
    Step step = set_up_exchange();
    for (int i = 0; i < options.connections; i++) {
        connections[i].number = i;
        open_connection(&connections[i]);
    }
    if (options.rate > 0) {
        getchar();
        run_tail();
        return 0;
    }
    /* Not before each connection was answered: it may be shaking hands. */
    run_until(step, 0, (uint64_t)options.connections - 1);
    while (getchar() != EOF) {
        run_window(step);
    }
    return 0;
}
