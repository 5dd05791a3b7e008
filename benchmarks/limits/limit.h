/* What the plain C servers share: all but how bytes get in and out.
 *
 * A limit takes `--cpu N` and `--mode echo|sink|source`, prints {"port": P,
 * "pid": PID} when it listens, and serves until it is killed, or its parent
 * ends.  echo answers each read at once, sink reads only, source writes only.
 * Level-triggered epoll: a read, a write and a share of a poll for a message.
 */
#ifndef LIMIT_H
#define LIMIT_H

#include <stddef.h>
#include <sys/types.h>

/* How much one read may bring.  With libuv's suggestion of 64 KiB an echo of
 * 100 KiB takes two reads and a third more CPU time; smaller ones do not
 * care. */
#define LIMIT_CHUNK (256 * 1024)

typedef struct {
    int fd;
    void *session; /* what the transport's open() gave */
    size_t left;   /* what was not taken of an echo; reading waits for it */
    size_t done;
    char *kept;
} LimitConnection;

/* How bytes get in and out.  receive() and send() return how many, 0 if the
 * call would block, and -1 if the connection has ended. */
typedef struct {
    void *(*open)(int fd);
    ssize_t (*receive)(LimitConnection *connection, char *data, size_t size);
    ssize_t (*send)(LimitConnection *connection, const char *data,
                    size_t size);
    void (*close)(LimitConnection *connection);
} LimitTransport;

/* Serves as the command line says. */
_Noreturn void limit_serve(int argc, char **argv,
                           const LimitTransport *transport);

/* Ends the program with a message. */
_Noreturn void limit_fail(const char *what, const char *why);

#endif
