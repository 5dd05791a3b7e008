/* Loads an HTTP/1.1 server: one request in flight on every connection.
 *
 *     http_load --port P --server PID --connections N --path /
 *
 * Connections are kept alive.  An answer other than 200, or one without a
 * length, ends the run: its rate would mean nothing.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_HEADER 8192

/* Where in an answer a connection is.  The header is gathered whole, of the
 * body only the length is known. */
typedef struct {
    char header[MAX_HEADER];
    size_t gathered;
    size_t body_left;
    bool in_body;
} Answer;

static char request[1024];
static size_t request_size;

static Answer *
answer_of(LoadConnection *connection)
{
    if (connection->more == NULL) {
        connection->more = calloc(1, sizeof(Answer));
        if (connection->more == NULL) {
            load_fail("no memory");
        }
    }
    return connection->more;
}

static size_t
body_length(const char *header)
{
    if (strncmp(header, "HTTP/1.1 200 ", 13) != 0) {
        load_fail("the server answered %.40s", header);
    }
    const char *line = strstr(header, "\r\n");
    while (line != NULL) {
        if (strncasecmp(line + 2, "content-length:", 15) == 0) {
            return (size_t)strtoull(line + 17, NULL, 10);
        }
        line = strstr(line + 2, "\r\n");
    }
    load_fail("the server sent no content-length");
}

/* Takes header bytes; returns how many of `size` it took. */
static size_t
take_header(Answer *answer, const char *data, size_t size)
{
    size_t before = answer->gathered;
    size_t space = MAX_HEADER - 1 - before;
    size_t taken = size < space ? size : space;
    memcpy(answer->header + before, data, taken);
    answer->header[before + taken] = '\0';
    /* The end may have begun in what came before. */
    const char *from = answer->header + (before < 3 ? 0 : before - 3);
    const char *end = strstr(from, "\r\n\r\n");
    if (end == NULL) {
        if (taken == space) {
            load_fail("the server's header is too long");
        }
        answer->gathered += taken;
        return taken;
    }
    answer->body_left = body_length(answer->header);
    answer->in_body = true;
    answer->gathered = 0;
    return (size_t)(end + 4 - answer->header) - before;
}

/* Takes what was read; returns whether an answer ended with it. */
static bool
take(Answer *answer, const char *data, size_t size)
{
    while (size > 0 && !answer->in_body) {
        size_t taken = take_header(answer, data, size);
        data += taken;
        size -= taken;
    }
    if (!answer->in_body) {
        return false;
    }
    if (size > answer->body_left) {
        load_fail("the server answered more than it was asked");
    }
    answer->body_left -= size;
    if (answer->body_left > 0) {
        return false;
    }
    answer->in_body = false;
    return true;
}

static void
step(Load *load, LoadConnection *connection)
{
    bool all_sent = load_send(connection, request, request_size);
    size_t count = load_receive(load, connection);
    while (count > 0) {
        if (take(answer_of(connection), load->scratch, count)) {
            load->answered++;
            connection->sent = 0;
            all_sent = load_send(connection, request, request_size);
        }
        /* The socket is empty: what comes next is a new edge. */
        if (all_sent && count < LOAD_SCRATCH) {
            return;
        }
        count = load_receive(load, connection);
    }
}

int
main(int argc, char **argv)
{
    Load load = {0};
    load_options(&load.options, argc, argv);
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                        "User-Agent: http_load\r\nAccept: */*\r\n\r\n",
                        load.options.path, load.options.port);
    if (size < 0 || (size_t)size >= sizeof request) {
        load_fail("the path is too long");
    }
    request_size = (size_t)size;
    return load_run(&load, step);
}
