/* What the parts of the load generator share.
 *
 * The generator opens its connections and keeps one message in flight on each
 * (exchange.c), or sends messages by the clock (tail.c).  For each line on its
 * stdin it measures a window and prints a line of JSON: how many messages were
 * answered, and how much CPU time the server's process spent on them.  That
 * time is read from the server's CPU clock when the window begins and ends, so
 * starting and warming up cost nothing.
 *
 * One thread, edge-triggered epoll, no allocation after the start: the
 * generator must never be what is measured.
 */
#ifndef LOAD_H
#define LOAD_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int port;
    int connections;
    int cpu;               /* pin to this one; -1: not at all */
    long server;           /* whose CPU time is read, a process id */
    size_t size;           /* of a message, in bytes */
    double warmup;         /* seconds before a window */
    double seconds;        /* of a window */
    const char *unix_path; /* connect to this Unix socket, not to a port */
    int udp;               /* datagrams, not TCP */
    int tls;               /* TLS; the certificate is not verified */
    int http;              /* a message is a request of HTTP/1.1 */
    int lines;             /* a message is a line and ends with one */
    int fresh;             /* each message has a connection of its own */
    int receive;           /* one way: receive, do not send */
    int oneway;            /* one way: send, expect no answer */
    double rate;           /* messages a second, by the clock */
} LoadOptions;

typedef struct {
    int fd;
    int number;
    SSL *session; /* NULL without TLS */
    size_t sent;
    size_t received;
} LoadConnection;

typedef struct {
    LoadOptions options;
    bool warm;       /* the first window has begun */
    int poll;        /* the epoll descriptor */
    uint32_t events; /* that a connection is watched for; 0: all, by edge */
    uint64_t answered;
    char *scratch; /* for reads, LOAD_SCRATCH bytes */
    LoadConnection *connections;
    SSL_CTX *context;
} Load;

#define LOAD_SCRATCH (256 * 1024)

/* Called when a connection is open, and whenever it may be read or written.
 * Edge-triggered: goes on until the socket would block, or nothing is due. */
typedef void (*LoadStep)(Load *load, LoadConnection *connection);

/* Returns the step of the exchange that the options name, and sets what it
 * sends and which events it waits for. */
LoadStep load_exchange(Load *load);

/* Sends messages at the rate of the options, for their seconds, and prints the
 * percentiles of their latencies. */
void load_tail(Load *load);

/* Connects, with a socket that blocks until load_watch(). */
void load_connect(Load *load, LoadConnection *connection);

/* Has load->poll report the connection. */
void load_watch(Load *load, LoadConnection *connection);

/* Closes a connection and opens and watches another in its place. */
void load_reconnect(Load *load, LoadConnection *connection);

/* Closes a connection. */
void load_close(LoadConnection *connection);

/* Returns CLOCK_MONOTONIC in seconds. */
double load_now(void);

/* Sends what is left of `message`; returns whether all of it has left. */
bool load_send(LoadConnection *connection, const char *message, size_t size);

/* Reads once into load->scratch; returns the count, 0 if it would block. */
size_t load_receive(Load *load, LoadConnection *connection);

/* Ends the program with a message: a figure from a broken run is worthless. */
_Noreturn void load_fail(const char *format, ...);

#endif
