/* A plain C TLS server on epoll and OpenSSL: what TLS costs without a loop.
 *
 *     c_tls [--cpu N] [--mode echo|sink]
 *
 * OpenSSL reads and writes the socket itself.  The certificate is that of the
 * Python servers, so that handshakes cost the same.
 */
#include "limit.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MAX_EVENTS 256

/* What OpenSSL did not take of an echo; reading waits until it has. */
typedef struct {
    int fd;
    SSL *session;
    size_t left;
    size_t done;
    char *kept;
} Connection;

static char scratch[LIMIT_CHUNK];
static bool sinks;

static void
drop(Connection *connection)
{
    SSL_shutdown(connection->session);
    ERR_clear_error();
    SSL_free(connection->session);
    close(connection->fd);
    free(connection->kept);
    free(connection);
}

static void
watch(int poll, int action, Connection *connection, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poll, action, connection->fd, &event) != 0) {
        limit_fail("epoll_ctl", strerror(errno));
    }
}

/* Says whether the call may be made again. */
static bool
would_block(Connection *connection, int result)
{
    int error = SSL_get_error(connection->session, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static bool
keep(int poll, Connection *connection, const char *data, size_t size)
{
    connection->kept = malloc(size);
    if (connection->kept == NULL) {
        return false;
    }
    memcpy(connection->kept, data, size);
    connection->left = size;
    connection->done = 0;
    watch(poll, EPOLL_CTL_MOD, connection, EPOLLOUT);
    return true;
}

/* Writes all it can; returns how much, or -1 if the connection is broken. */
static ssize_t
put(Connection *connection, const char *data, size_t size)
{
    size_t done = 0, count;
    while (done < size) {
        int result = SSL_write_ex(connection->session, data + done,
                                  size - done, &count);
        if (result != 1) {
            return would_block(connection, result) ? (ssize_t)done : -1;
        }
        done += count;
    }
    return (ssize_t)done;
}

/* Reads the records that one read of the socket brought. */
static void
serve(int poll, Connection *connection)
{
    size_t got = 0, count;
    int result;
    do {
        result = SSL_read_ex(connection->session, scratch + got,
                             LIMIT_CHUNK - got, &count);
        if (result == 1) {
            got += sinks ? 0 : count;
        }
    } while (result == 1 && got < LIMIT_CHUNK
             && SSL_has_pending(connection->session));
    if (result != 1 && !would_block(connection, result)) {
        drop(connection);
        return;
    }
    if (got == 0) {
        return;
    }
    ssize_t sent = put(connection, scratch, got);
    if (sent < 0
        || (sent < (ssize_t)got
            && !keep(poll, connection, scratch + sent, got - (size_t)sent)))
    {
        drop(connection);
    }
}

static void
flush(int poll, Connection *connection)
{
    ssize_t sent =
        put(connection, connection->kept + connection->done, connection->left);
    if (sent < 0) {
        drop(connection);
        return;
    }
    connection->done += (size_t)sent;
    connection->left -= (size_t)sent;
    if (connection->left == 0) {
        free(connection->kept);
        connection->kept = NULL;
        watch(poll, EPOLL_CTL_MOD, connection, EPOLLIN);
    }
}

static void
accept_all(int poll, int listener, SSL_CTX *context)
{
    int fd;
    while ((fd = limit_accept(listener)) >= 0) {
        Connection *connection = calloc(1, sizeof *connection);
        SSL *session = SSL_new(context);
        if (connection == NULL || session == NULL
            || SSL_set_fd(session, fd) != 1) {
            limit_fail("accept", "no memory");
        }
        SSL_set_accept_state(session);
        connection->fd = fd;
        connection->session = session;
        watch(poll, EPOLL_CTL_ADD, connection, EPOLLIN);
    }
}

static SSL_CTX *
make_context(void)
{
    const char *folder = getenv("CERTIFICATES");
    char chain[4096], key[4096];
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    snprintf(chain, sizeof chain, "%s/localhost.pem", folder ? folder : ".");
    snprintf(key, sizeof key, "%s/localhost.key", folder ? folder : ".");
    if (context == NULL
        || SSL_CTX_use_certificate_chain_file(context, chain) != 1
        || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
    {
        limit_fail("CERTIFICATES", "wants the folder of localhost.pem");
    }
    /* The modes that CPython sets. */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE
                                  | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                                  | SSL_MODE_AUTO_RETRY
                                  | SSL_MODE_RELEASE_BUFFERS);
    /* One read brings a record's header with the rest of it. */
    SSL_CTX_set_read_ahead(context, 1);
    return context;
}

int
main(int argc, char **argv)
{
    static struct epoll_event events[MAX_EVENTS];
    sinks = strcmp(limit_prepare(argc, argv), "sink") == 0;
    SSL_CTX *context = make_context();
    int listener = limit_listen();
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) != 0) {
        limit_fail("epoll", strerror(errno));
    }
    for (;;) {
        int count = epoll_wait(poll, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            Connection *connection = events[i].data.ptr;
            if (connection == NULL) {
                accept_all(poll, listener, context);
            }
            else if (connection->left) {
                flush(poll, connection);
            }
            else {
                serve(poll, connection);
            }
        }
    }
}
