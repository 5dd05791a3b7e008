/* What the plain C servers share: how they start, announce and end.
 *
 * A limit takes `--cpu N` and `--mode M`, prints {"port": P, "pid": PID} when
 * it listens, and serves until it is killed, or its parent ends.
 */
#ifndef LIMIT_H
#define LIMIT_H

/* How much one read may bring.  With libuv's suggestion of 64 KiB an echo of
 * 100 KiB takes two reads and a third more CPU time; smaller ones do not
 * care. */
#define LIMIT_CHUNK (256 * 1024)

/* Pins the process and raises its descriptor limit; exits on failure.
 * Returns the mode, "echo" if none was given. */
const char *limit_prepare(int argc, char **argv);

/* Returns a descriptor that listens on a port of the kernel's choice, which
 * does not block, and announces it. */
int limit_listen(void);

/* Accepts a connection that does not block; -1 if there is none. */
int limit_accept(int listener);

/* Says on stdout that clients may come. */
void limit_announce(int port);

/* Ends the program with a message. */
_Noreturn void limit_fail(const char *what, const char *why);

#endif
