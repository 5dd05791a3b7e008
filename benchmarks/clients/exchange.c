/* What a connection sends and expects: one message in flight, echoed or
 * answered, or bytes that go one way as fast as they can.
 *
 * Until the first window every byte of an echo is compared with what was sent;
 * each connection sends other bytes than its neighbours.  Of an answer of HTTP
 * the status is looked at.  Bytes that go one way are counted in KiB, so that
 * a window never counts none.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

#define SHIFTS 251

static const char request[] =
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n";
static const char status[] = "HTTP/1.1 200 ";

static char *pattern;
static size_t message_size, answer_size;

static const char *
message_of(const Load *load, const LoadConnection *connection)
{
    if (load->options.http) {
        return request;
    }
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

/* Asks once and returns the size of the answer: that of all, for the servers
 * answer each request with the same words. */
static size_t
size_of_answer(Load *load)
{
    static const char name[] = "content-length:";
    LoadConnection first = {.fd = -1};
    load_connect(load, &first);
    load_send(&first, request, message_size);
    char *head = load->scratch, *end = NULL, *length = NULL;
    size_t size = 0;
    while (end == NULL && size < LOAD_SCRATCH / 2) {
        load->scratch = head + size;
        size += load_receive(load, &first);
        head[size] = '\0';
        end = strstr(head, "\r\n\r\n");
    }
    load->scratch = head;
    load_close(&first);
    for (length = strstr(head, "\r\n"); length != NULL && length < end;
         length = strstr(length + 2, "\r\n"))
    {
        if (strncasecmp(length + 2, name, sizeof name - 1) == 0) {
            return (size_t)(end + 4 - head)
                   + strtoull(length + 2 + sizeof name - 1, NULL, 10);
        }
    }
    load_fail("the server sent no content-length but %.200s", head);
}

static void
check(const Load *load, const LoadConnection *connection, size_t count)
{
    size_t place = connection->received, wanted = count;
    const char *expected = message_of(load, connection);
    if (count > answer_size - place) {
        load_fail("the server answered more than it was asked");
    }
    if (load->options.http) {
        size_t most = sizeof status - 1;
        size_t end = place + count < most ? place + count : most;
        expected = status;
        wanted = place < end ? end - place : 0;
    }
    else if (load->warm) {
        return;
    }
    if (memcmp(load->scratch, expected + place, wanted) != 0) {
        load_fail("the server answered other bytes than it should");
    }
}

static void
step(Load *load, LoadConnection *connection)
{
    const char *message = message_of(load, connection);
    for (;;) {
        bool all_sent = load_send(connection, message, message_size);
        size_t count = load_receive(load, connection);
        if (count == 0) {
            return;
        }
        check(load, connection, count);
        connection->received += count;
        if (connection->received == answer_size) {
            load->answered++;
            if (load->options.fresh) {
                load_reconnect(load, connection);
                return;
            }
            connection->sent = connection->received = 0;
            all_sent = load_send(connection, message, message_size);
        }
        /* The socket is empty: what comes next is a new edge.  Of TLS one
         * read brings one record. */
        if (all_sent && count < LOAD_SCRATCH && connection->session == NULL) {
            return;
        }
    }
}

/* Level-triggered, a scratch at most: a server that keeps up would hold a
 * generator that goes on until the socket would block. */
static void
step_oneway(Load *load, LoadConnection *connection)
{
    static uint64_t total;
    if (load->options.receive) {
        total += load_receive(load, connection);
    }
    else {
        if (connection->session != NULL) {
            load_receive(load, connection); /* session tickets */
        }
        total -= connection->sent;
        load_send(connection, load->scratch, LOAD_SCRATCH);
        total += connection->sent;
        connection->sent %= LOAD_SCRATCH;
    }
    load->answered = total / 1024;
}

LoadStep
load_exchange(Load *load)
{
    const LoadOptions *options = &load->options;
    if (options->oneway || options->receive) {
        load->events = EPOLLIN | (options->receive ? 0 : EPOLLOUT);
        return step_oneway;
    }
    if (options->http) {
        message_size = sizeof request - 1;
        answer_size = size_of_answer(load);
    }
    else {
        message_size = answer_size = options->size;
        make_pattern(options->size, options->lines);
    }
    return step;
}
