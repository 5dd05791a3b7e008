/* Measures how late answers come, from an open loop.
 *
 *     tail_load --port P --connections N --size BYTES --rate MESSAGES_A_SECOND
 *
 * Messages are due at fixed times, whether or not the last was answered.  So a
 * server that stalls is charged for every message that waits, not for one
 * ("coordinated omission").  What this process is late itself is subtracted:
 * a latency counts from when it came to send a message that was due, which no
 * answer holds up, and its clock stands still while it does not run.
 *
 * --tls 1 does it over TLS.  Beside it run --storm N, full TLS handshakes a
 * second on connections of their own, and --bulky 1, one connection that
 * echoes as much as it can.
 *
 * It never sleeps: the wake-up of its own CPU would be in every latency.
 */
#include "load.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_EVENTS  256
#define MAX_WAITING 4096
#define BULKY_CHUNK (64 * 1024)
#define PATIENCE    2.0
/* Seconds between two looks at the clock in which this process did not run, or
 * was busy with handshakes. */
#define HELD_UP     1e-3

typedef enum {
    SMALL,
    BULKY,
    STORM
} Kind;

/* What a connection of the open loop adds to LoadConnection. */
typedef struct {
    Kind kind;
    SSL *session;
    size_t owed;     /* bytes that are due and not sent */
    size_t received; /* bytes of the answer that is under way */
    unsigned first, last;
    double sent_at[MAX_WAITING]; /* of the messages that are not answered */
} Small;

typedef struct {
    Load load;
    SSL_CTX *context;
    char *zeros;
    double *latencies;
    size_t answered, room;
    double start; /* messages sent before it are warm-up */
    double looked, held_up;
    size_t handshakes, bulky_bytes;
} Tail;

/* Returns the seconds of a clock that stands still while we are held up. */
static double
tail_now(Tail *tail)
{
    double now = load_now();
    if (now - tail->looked > HELD_UP) {
        tail->held_up += now - tail->looked;
    }
    tail->looked = now;
    return now - tail->held_up;
}

static void
wants_again(SSL *session, int result)
{
    int error = SSL_get_error(session, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
        load_fail("TLS: %s", ERR_error_string(ERR_get_error(), NULL));
    }
}

static LoadConnection *
open_connection(Tail *tail, Kind kind, bool tls)
{
    LoadConnection *connection = calloc(1, sizeof *connection);
    Small *small = calloc(1, sizeof *small);
    if (connection == NULL || small == NULL) {
        load_fail("no memory");
    }
    small->kind = kind;
    connection->more = small;
    load_connect(&tail->load, connection);
    if (tls) {
        small->session = SSL_new(tail->context);
        if (small->session == NULL
            || SSL_set_fd(small->session, connection->fd) != 1) {
            load_fail("no TLS session");
        }
        SSL_set_connect_state(small->session);
    }
    return connection;
}

static void
close_connection(LoadConnection *connection)
{
    Small *small = connection->more;
    SSL_free(small->session);
    close(connection->fd);
    free(small);
    free(connection);
}

/* Sends at most `size` bytes; returns how many went. */
static size_t
send_some(Tail *tail, LoadConnection *connection, size_t size)
{
    Small *small = connection->more;
    if (small->session != NULL) {
        size_t count = 0;
        int result = SSL_write_ex(small->session, tail->zeros, size, &count);
        if (result != 1) {
            wants_again(small->session, result);
        }
        return count;
    }
    ssize_t count = send(connection->fd, tail->zeros, size, MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN) {
        load_fail("send: %s", strerror(errno));
    }
    return count > 0 ? (size_t)count : 0;
}

static size_t
receive_some(Tail *tail, LoadConnection *connection)
{
    Small *small = connection->more;
    if (small->session != NULL) {
        size_t count = 0;
        int result = SSL_read_ex(small->session, tail->load.scratch,
                                 LOAD_SCRATCH, &count);
        if (result != 1) {
            wants_again(small->session, result);
        }
        return count;
    }
    return load_receive(&tail->load, connection);
}

static void
send_owed(Tail *tail, LoadConnection *connection)
{
    Small *small = connection->more;
    while (small->owed > 0) {
        size_t most = small->owed < BULKY_CHUNK ? small->owed : BULKY_CHUNK;
        size_t count = send_some(tail, connection, most);
        if (count == 0) {
            return;
        }
        small->owed -= count;
    }
}

static void
note(Tail *tail, double sent_at, double now)
{
    if (sent_at >= tail->start && tail->answered < tail->room) {
        tail->latencies[tail->answered++] = (now - sent_at) * 1e6;
    }
}

static void
small_step(Tail *tail, LoadConnection *connection)
{
    Small *small = connection->more;
    size_t size = tail->load.options.size, count;
    send_owed(tail, connection);
    while ((count = receive_some(tail, connection)) > 0) {
        double now = tail_now(tail);
        small->received += count;
        while (small->received >= size && small->first != small->last) {
            small->received -= size;
            note(tail, small->sent_at[small->first++ % MAX_WAITING], now);
        }
        if (small->session == NULL && count < LOAD_SCRATCH) {
            return; /* the socket is empty */
        }
    }
}

/* One handshake of the storm: when it is done the connection goes. */
static void
storm_step(Tail *tail, LoadConnection *connection)
{
    Small *small = connection->more;
    int result = SSL_do_handshake(small->session);
    if (result != 1) {
        wants_again(small->session, result);
        return;
    }
    SSL_shutdown(small->session);
    tail->handshakes++;
    close_connection(connection);
}

/* Little at a time, or the generator itself would be late. */
static void
bulky_step(Tail *tail, LoadConnection *connection)
{
    send_some(tail, connection, BULKY_CHUNK);
    tail->bulky_bytes += receive_some(tail, connection);
}

static void
poll_once(Tail *tail)
{
    static struct epoll_event events[MAX_EVENTS];
    int count = epoll_wait(tail->load.poll, events, MAX_EVENTS, 0);
    for (int i = 0; i < count; i++) {
        LoadConnection *connection = events[i].data.ptr;
        Small *small = connection->more;
        if (small->kind == SMALL) {
            small_step(tail, connection);
        }
        else if (small->kind == STORM) {
            storm_step(tail, connection);
        }
    }
}

static void
send_due(Tail *tail, LoadConnection *connection, double now)
{
    Small *small = connection->more;
    if (small->last - small->first == MAX_WAITING) {
        load_fail("the server is %d messages behind", MAX_WAITING);
    }
    small->sent_at[small->last++ % MAX_WAITING] = now;
    small->owed += tail->load.options.size;
    send_owed(tail, connection);
}

/* Sends what is due until `end`, all of it. */
static void
run(Tail *tail, LoadConnection **small, LoadConnection *bulky, double end)
{
    const LoadOptions *options = &tail->load.options;
    double began = tail_now(tail), due = began;
    uint64_t sent = 0, stormed = 0;
    while (due < end) {
        double now = tail_now(tail);
        if (now >= due) {
            send_due(tail, small[sent++ % (uint64_t)options->connections],
                     now);
            due = began + (double)sent / options->rate;
        }
        if (options->storm > 0
            && now >= began + (double)stormed / options->storm) {
            open_connection(tail, STORM, true);
            stormed++;
        }
        if (bulky != NULL) {
            bulky_step(tail, bulky);
        }
        poll_once(tail);
    }
}

/* Waits for late answers; one that does not come counts until now. */
static void
finish(Tail *tail, LoadConnection **small)
{
    double end = tail_now(tail) + PATIENCE;
    bool waiting = true;
    while (waiting && tail_now(tail) < end) {
        poll_once(tail);
        waiting = false;
        for (int i = 0; i < tail->load.options.connections; i++) {
            Small *one = small[i]->more;
            waiting = waiting || one->first != one->last;
        }
    }
    for (int i = 0; i < tail->load.options.connections; i++) {
        Small *one = small[i]->more;
        while (one->first != one->last) {
            note(tail, one->sent_at[one->first++ % MAX_WAITING],
                 tail_now(tail));
        }
    }
}

static int
compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void
print_answer(Tail *tail)
{
    static const struct {
        const char *name;
        double part;
    } parts[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}};
    if (tail->answered == 0) {
        load_fail("the server answered nothing");
    }
    qsort(tail->latencies, tail->answered, sizeof(double), compare);
    printf("{\"answered\": %zu, \"handshakes\": %zu, \"bulky_mib\": %.3f",
           tail->answered, tail->handshakes,
           (double)tail->bulky_bytes / 1048576);
    printf(", \"held_up\": %.6f", tail->held_up);
    for (size_t i = 0; i < 3; i++) {
        size_t place = (size_t)(parts[i].part * (double)tail->answered);
        printf(", \"%s\": %.3f", parts[i].name, tail->latencies[place]);
    }
    printf("}\n");
}

static void
prepare(Tail *tail, int argc, char **argv)
{
    LoadOptions *options = &tail->load.options;
    load_options(options, argc, argv);
    load_prepare(options);
    if (options->rate <= 0) {
        load_fail("--rate is wanted");
    }
    double total = options->warmup + options->seconds;
    tail->room = (size_t)(options->rate * total) + 1024;
    tail->latencies = malloc(tail->room * sizeof(double));
    tail->zeros = calloc(1, BULKY_CHUNK);
    tail->load.scratch = malloc(LOAD_SCRATCH);
    tail->load.poll = epoll_create1(EPOLL_CLOEXEC);
    tail->context = SSL_CTX_new(TLS_client_method());
    if (tail->latencies == NULL || tail->zeros == NULL
        || tail->load.scratch == NULL || tail->load.poll < 0
        || tail->context == NULL)
    {
        load_fail("no memory");
    }
    SSL_CTX_set_mode(tail->context, SSL_MODE_ENABLE_PARTIAL_WRITE
                                        | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

int
main(int argc, char **argv)
{
    Tail tail = {0};
    prepare(&tail, argc, argv);
    const LoadOptions *options = &tail.load.options;
    size_t count = (size_t)options->connections;
    LoadConnection **small = calloc(count, sizeof *small);
    if (small == NULL) {
        load_fail("no memory");
    }
    for (size_t i = 0; i < count; i++) {
        small[i] = open_connection(&tail, SMALL, options->tls);
        Small *one = small[i]->more;
        int result = 0;
        while (one->session && (result = SSL_do_handshake(one->session)) != 1)
        {
            wants_again(one->session, result);
        }
    }
    LoadConnection *bulky =
        options->bulky ? open_connection(&tail, BULKY, false) : NULL;
    tail.looked = load_now();
    tail.start = tail.looked + options->warmup;
    run(&tail, small, bulky, tail.start + options->seconds);
    finish(&tail, small);
    print_answer(&tail);
    return 0;
}
