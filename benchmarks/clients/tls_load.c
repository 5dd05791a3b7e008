/* Loads a TLS echo server: one message in flight on every connection.
 *
 *     tls_load --port P --server PID --connections N --size BYTES
 *
 * --fresh 1: each connection shakes hands in full, closes, and another takes
 * its place; that is what is counted.  --oneway 1: it only sends, as fast as
 * it can, and counts KiB.
 *
 * The certificate is not verified: nobody listens in on this machine, and
 * the handshake is over before the first window.
 */
#include "load.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static SSL_CTX *context;
static char *message;

static SSL *
session_of(LoadConnection *connection)
{
    if (connection->more == NULL) {
        SSL *session = SSL_new(context);
        if (session == NULL || SSL_set_fd(session, connection->fd) != 1) {
            load_fail("no TLS session");
        }
        SSL_set_connect_state(session);
        connection->more = session;
    }
    return connection->more;
}

/* Says whether the call may be made again; ends the program otherwise. */
static bool
would_block(SSL *session, int result)
{
    int error = SSL_get_error(session, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return true;
    }
    load_fail("TLS: %s", ERR_error_string(ERR_get_error(), NULL));
}

static bool
tls_send(LoadConnection *connection, size_t size)
{
    SSL *session = session_of(connection);
    while (connection->sent < size) {
        size_t count = 0;
        int result = SSL_write_ex(session, message + connection->sent,
                                  size - connection->sent, &count);
        if (result != 1) {
            return !would_block(session, result);
        }
        connection->sent += count;
    }
    return true;
}

static size_t
tls_receive(Load *load, LoadConnection *connection)
{
    SSL *session = session_of(connection);
    size_t count = 0;
    int result = SSL_read_ex(session, load->scratch, LOAD_SCRATCH, &count);
    if (result != 1) {
        would_block(session, result);
        return 0;
    }
    return count;
}

static void
check(const Load *load, const LoadConnection *connection, size_t count)
{
    if (count > load->options.size - connection->received) {
        load_fail("the server sent more than it was sent");
    }
    if (!load->warm
        && memcmp(load->scratch, message + connection->received, count) != 0)
    {
        load_fail("the server sent other bytes than it was sent");
    }
}

static void
step(Load *load, LoadConnection *connection)
{
    size_t size = load->options.size;
    for (;;) {
        tls_send(connection, size);
        size_t count = tls_receive(load, connection);
        if (count == 0) {
            return;
        }
        check(load, connection, count);
        connection->received += count;
        if (connection->received == size) {
            load->answered++;
            connection->sent = connection->received = 0;
        }
    }
}

/* Sends some and returns: with level-triggered events it is called again. */
static void
step_oneway(Load *load, LoadConnection *connection)
{
    size_t chunk = load->options.size;
    static uint64_t total;
    tls_receive(load, connection); /* session tickets */
    total -= connection->sent;
    tls_send(connection, chunk);
    total += connection->sent;
    if (connection->sent == chunk) {
        connection->sent = 0;
    }
    load->answered = total / 1024;
}

/* Shakes hands, says goodbye, and waits for the server to close. */
static void
step_fresh(Load *load, LoadConnection *connection)
{
    SSL *session = session_of(connection);
    if (!connection->sent) {
        int result = SSL_do_handshake(session);
        if (result != 1) {
            would_block(session, result);
            return;
        }
        SSL_shutdown(session);
        shutdown(connection->fd, SHUT_WR);
        connection->sent = 1;
    }
    size_t count;
    int result = SSL_read_ex(session, load->scratch, LOAD_SCRATCH, &count);
    int error = SSL_get_error(session, result);
    if (result == 1 || error == SSL_ERROR_WANT_READ) {
        return;
    }
    /* The server may close without a goodbye. */
    ERR_clear_error();
    load->answered++;
    SSL_free(session);
    connection->more = NULL;
    load_reconnect(load, connection);
}

int
main(int argc, char **argv)
{
    Load load = {0};
    load_options(&load.options, argc, argv);
    context = SSL_CTX_new(TLS_client_method());
    message = malloc(load.options.size);
    if (context == NULL || message == NULL) {
        load_fail("no memory");
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE);
    for (size_t i = 0; i < load.options.size; i++) {
        message[i] = (char)(i * 31 + i / 256);
    }
    if (load.options.oneway) {
        load.events = EPOLLIN | EPOLLOUT;
        return load_run(&load, step_oneway);
    }
    return load_run(&load, load.options.fresh ? step_fresh : step);
}
