/* Loads a server: one message in flight on every connection, or bytes that go
 * one way as fast as they can.
 *
 *     echo_load --port P --server PID --connections N --size BYTES
 *
 * --unix PATH and --udp 1 choose other sockets than TCP's, --lines 1 makes
 * each message a line, --fresh 1 gives each a connection of its own.  --oneway 1 sends and expects no answer,
 * --receive 1 only receives; these count KiB, so that a window never counts
 * none.
 *
 * Until the first window every byte that comes back is compared with what
 * was sent; each connection sends other bytes than its neighbours.
 */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define SHIFTS 251

static char *pattern;

static const char *
message_of(const Load *load, const LoadConnection *connection)
{
    /* A line ends where the pattern does. */
    return pattern + (load->options.lines ? 0 : connection->number % SHIFTS);
}

static void
make_pattern(size_t size, bool lines)
{
    uint32_t state = 1;
    pattern = malloc(size + SHIFTS);
    if (pattern == NULL) {
        load_fail("no memory");
    }
    for (size_t i = 0; i < size + SHIFTS; i++) {
        state = state * 1664525u + 1013904223u;
        pattern[i] = (char)(state >> 24);
        if (lines) {
            pattern[i] = i + 1 == size ? '\n' : (char)('a' + (state >> 29));
        }
    }
}

static void
check(const Load *load, const LoadConnection *connection, size_t count)
{
    size_t size = load->options.size;
    if (count > size - connection->received) {
        load_fail("the server sent more than it was sent");
    }
    if (!load->warm
        && memcmp(load->scratch,
                  message_of(load, connection) + connection->received, count)
               != 0)
    {
        load_fail("the server sent other bytes than it was sent");
    }
}

static void
step(Load *load, LoadConnection *connection)
{
    const char *message = message_of(load, connection);
    size_t size = load->options.size;
    for (;;) {
        bool all_sent = load_send(connection, message, size);
        size_t count = load_receive(load, connection);
        if (count == 0) {
            return;
        }
        check(load, connection, count);
        connection->received += count;
        if (connection->received == size) {
            load->answered++;
            if (load->options.fresh) {
                load_reconnect(load, connection);
                return;
            }
            connection->sent = connection->received = 0;
            all_sent = load_send(connection, message, size);
        }
        /* The socket is empty: what comes next is a new edge. */
        if (all_sent && count < LOAD_SCRATCH) {
            return;
        }
    }
}

/* Level-triggered, one call each time: a server that keeps up would hold a
 * generator that goes on until the socket would block. */
static void
step_oneway(Load *load, LoadConnection *connection)
{
    static uint64_t total;
    if (load->options.receive) {
        total += load_receive(load, connection);
    }
    else {
        ssize_t count =
            send(connection->fd, load->scratch, LOAD_SCRATCH, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN) {
            load_fail("send: %s", strerror(errno));
        }
        total += count > 0 ? (uint64_t)count : 0;
    }
    load->answered = total / 1024;
}

int
main(int argc, char **argv)
{
    Load load = {0};
    load_options(&load.options, argc, argv);
    if (load.options.oneway || load.options.receive) {
        load.events = load.options.receive ? EPOLLIN : EPOLLOUT;
        return load_run(&load, step_oneway);
    }
    make_pattern(load.options.size, load.options.lines);
    return load_run(&load, step);
}
