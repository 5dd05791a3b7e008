/* What the load generators share: connections, windows and the answer.
 *
 * A generator opens its connections, keeps one message (or request) in
 * flight on each, and prints a line of JSON for each window: how many were
 * answered, and how much CPU time the server's process spent on them.  That
 * time is read from the server's CPU clock when the window begins and ends, so
 * starting and warming up cost nothing.
 *
 * One thread, edge-triggered epoll, no allocation after the start: the
 * generator must never be what is measured.
 */
#ifndef LOAD_H
#define LOAD_H

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
    int paced;             /* a window for each byte on stdin, not only one */
    const char *path;      /* of an HTTP request */
    const char *unix_path; /* connect to this Unix socket, not to a port */
    int udp;               /* datagrams, not TCP */
    int lines;             /* a message is a line and ends with one */
    int fresh;             /* each message has a connection of its own */
    int receive;           /* one way: receive, do not send */
    int oneway;            /* send and expect no answer */
    double rate;           /* of an open loop: messages a second */
    double storm;          /* handshakes a second beside it */
    int bulky;             /* one more connection that never rests */
    int tls;               /* of an open loop: over TLS */
} LoadOptions;

typedef struct LoadConnection {
    int fd;
    int number;
    size_t sent;
    size_t received;
    void *more; /* the generator's own */
} LoadConnection;

typedef struct {
    LoadOptions options;
    bool warm;       /* the first window has begun */
    int poll;        /* the epoll descriptor */
    uint32_t events; /* that a connection is watched for; 0: all, by edge */
    uint64_t answered;
    char *scratch; /* for reads, LOAD_SCRATCH bytes */
} Load;

#define LOAD_SCRATCH (256 * 1024)

/* Called when a connection is open, and whenever it may be read or written.
 * Edge-triggered: goes on until the socket would block, or nothing is due. */
typedef void (*LoadStep)(Load *load, LoadConnection *connection);

/* Parses the command line, which is the same for all generators; exits with
 * a message if it is wrong. */
void load_options(LoadOptions *options, int argc, char **argv);

/* Connects, calls `step` until the measured time is over, and prints the
 * answer.  Returns the exit status. */
int load_run(Load *load, LoadStep step);

/* Opens a connection and watches it. */
void load_connect(Load *load, LoadConnection *connection);

/* Closes a connection and opens another in its place. */
void load_reconnect(Load *load, LoadConnection *connection);

/* Raises the limit of descriptors, pins the process and has it end with its
 * parent: the part of load_run() for generators that do not use it. */
void load_prepare(const LoadOptions *options);

/* Returns CLOCK_MONOTONIC in seconds. */
double load_now(void);

/* Sends what is left of `message`; returns whether all of it has left. */
bool load_send(LoadConnection *connection, const char *message, size_t size);

/* Reads once into load->scratch; returns the count, 0 if it would block. */
size_t load_receive(Load *load, LoadConnection *connection);

/* Ends the program with a message: a figure from a broken run is worthless. */
_Noreturn void load_fail(const char *format, ...);

#endif
