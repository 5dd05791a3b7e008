/* A plain C TLS server on epoll and OpenSSL: what TLS costs without a loop.
 *
 * OpenSSL reads and writes the socket itself.  The certificate is that of the
 * Python servers, so that handshakes cost the same.
 */
#include "limit.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>

static SSL_CTX *context;

/* Returns the count, or else whether the call may be made again (0, -1). */
static ssize_t
counted(SSL *session, int result, size_t count)
{
    if (count > 0) {
        ERR_clear_error(); /* of this session, not of the next call's */
        return (ssize_t)count;
    }
    int error = SSL_get_error(session, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0
                                                                         : -1;
}

static void *
open_tls(int fd)
{
    SSL *session = SSL_new(context);
    if (session == NULL || SSL_set_fd(session, fd) != 1) {
        limit_fail("accept", "no memory");
    }
    SSL_set_accept_state(session);
    return session;
}

/* Reads the records that one read of the socket brought. */
static ssize_t
receive_tls(LimitConnection *connection, char *data, size_t size)
{
    SSL *session = connection->session;
    size_t got = 0, count;
    int result;
    do {
        result = SSL_read_ex(session, data + got, size - got, &count);
        got += result == 1 ? count : 0;
    } while (result == 1 && got < size && SSL_has_pending(session));
    return counted(session, result, got);
}

/* Writes all it can. */
static ssize_t
send_tls(LimitConnection *connection, const char *data, size_t size)
{
    SSL *session = connection->session;
    size_t done = 0, count;
    int result = 1;
    while (result == 1 && done < size) {
        result = SSL_write_ex(session, data + done, size - done, &count);
        done += result == 1 ? count : 0;
    }
    return counted(session, result, done);
}

static void
close_tls(LimitConnection *connection)
{
    SSL_shutdown(connection->session);
    ERR_clear_error();
    SSL_free(connection->session);
}

static void
make_context(void)
{
    const char *folder = getenv("CERTIFICATES");
    char chain[4096], key[4096];
    context = SSL_CTX_new(TLS_server_method());
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
}

int
main(int argc, char **argv)
{
    static const LimitTransport tls = {open_tls, receive_tls, send_tls,
                                       close_tls};
    make_context();
    limit_serve(argc, argv, &tls);
}
