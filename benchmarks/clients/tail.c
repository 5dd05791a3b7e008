/* Measures how late echoes come, from an open loop.
 *
 *     load --port P --connections N --size BYTES --rate MESSAGES_A_SECOND
 *
 * Messages are due at fixed times, whether or not the last was answered.  So a
 * server that stalls is charged for every message that waits, not for one
 * ("coordinated omission").  What this process is late itself is subtracted:
 * a latency counts from when it came to send a message that was due, which no
 * answer holds up, and its clock stands still while it does not run.
 *
 * It never sleeps: the wake-up of its own CPU would be in every latency.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define MAX_EVENTS  256
#define MAX_WAITING 4096
#define PATIENCE    2.0
/* Seconds between two looks at the clock in which this process did not run. */
#define HELD_UP     1e-3

/* The messages of a connection that are not answered. */
typedef struct {
    unsigned first, last;
    double sent_at[MAX_WAITING];
} Waiting;

typedef struct {
    Load *load;
    char *zeros;
    Waiting *waiting; /* by the number of the connection */
    double *latencies;
    size_t answered, room;
    double start; /* messages sent before it are warm-up */
    double looked, held_up;
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
note(Tail *tail, double sent_at, double now)
{
    if (sent_at >= tail->start && tail->answered < tail->room) {
        tail->latencies[tail->answered++] = (now - sent_at) * 1e6;
    }
}

/* Sends what is due of the messages that wait: `sent` and `received` count the
 * bytes of the first that was not answered and of those behind it. */
static void
send_due(Tail *tail, LoadConnection *connection)
{
    const Waiting *waiting = &tail->waiting[connection->number];
    size_t due = (waiting->last - waiting->first) * tail->load->options.size;
    load_send(connection, tail->zeros, due);
}

static void
receive(Tail *tail, LoadConnection *connection)
{
    Waiting *waiting = &tail->waiting[connection->number];
    size_t size = tail->load->options.size, count;
    while ((count = load_receive(tail->load, connection)) > 0) {
        double now = tail_now(tail);
        connection->received += count;
        while (connection->received >= size && waiting->first != waiting->last)
        {
            connection->received -= size;
            connection->sent -= size;
            note(tail, waiting->sent_at[waiting->first++ % MAX_WAITING], now);
        }
        if (count < LOAD_SCRATCH) {
            return; /* the socket is empty */
        }
    }
}

static void
poll_once(Tail *tail)
{
    static struct epoll_event events[MAX_EVENTS];
    int count = epoll_wait(tail->load->poll, events, MAX_EVENTS, 0);
    for (int i = 0; i < count; i++) {
        LoadConnection *connection = events[i].data.ptr;
        send_due(tail, connection);
        receive(tail, connection);
    }
}

/* Sends what is due until `end`, all of it. */
static void
run(Tail *tail, double end)
{
    const LoadOptions *options = &tail->load->options;
    double began = tail_now(tail), due = began;
    uint64_t sent = 0;
    while (due < end) {
        double now = tail_now(tail);
        if (now >= due) {
            uint64_t number = sent++ % (uint64_t)options->connections;
            Waiting *waiting = &tail->waiting[number];
            if (waiting->last - waiting->first == MAX_WAITING) {
                load_fail("the server is %d messages behind", MAX_WAITING);
            }
            waiting->sent_at[waiting->last++ % MAX_WAITING] = now;
            send_due(tail, &tail->load->connections[number]);
            due = began + (double)sent / options->rate;
        }
        poll_once(tail);
    }
}

/* Waits for late answers; one that does not come counts until now. */
static void
finish(Tail *tail)
{
    double end = tail_now(tail) + PATIENCE;
    for (int i = 0; i < tail->load->options.connections; i++) {
        Waiting *one = &tail->waiting[i];
        while (one->first != one->last && tail_now(tail) < end) {
            poll_once(tail);
        }
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
print_answer(const Tail *tail)
{
    static const struct {
        const char *name;
        double part;
    } parts[] = {{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}};
    if (tail->answered == 0) {
        load_fail("the server answered nothing");
    }
    qsort(tail->latencies, tail->answered, sizeof(double), compare);
    printf("{\"answered\": %zu", tail->answered);
    for (size_t i = 0; i < 3; i++) {
        size_t place = (size_t)(parts[i].part * (double)tail->answered);
        printf(", \"%s\": %.3f", parts[i].name, tail->latencies[place]);
    }
    printf("}\n");
}

void
load_tail(Load *load)
{
    const LoadOptions *options = &load->options;
    Tail tail = {.load = load, .looked = load_now()};
    double total = options->warmup + options->seconds;
    tail.room = (size_t)(options->rate * total) + 1024;
    tail.latencies = malloc(tail.room * sizeof(double));
    tail.waiting = calloc((size_t)options->connections, sizeof *tail.waiting);
    tail.zeros = calloc(MAX_WAITING, options->size);
    if (tail.latencies == NULL || tail.waiting == NULL || tail.zeros == NULL) {
        load_fail("no memory");
    }
    tail.start = tail.looked + options->warmup;
    run(&tail, tail.start + options->seconds);
    finish(&tail);
    print_answer(&tail);
}
