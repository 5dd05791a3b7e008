/* The part of a plain C server that has nothing to do with serving. */
#include "limit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESCRIPTORS 4096

void
limit_fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

void
limit_announce(int port)
{
    printf("{\"port\": %d, \"pid\": %ld}\n", port, (long)getpid());
    fflush(stdout);
}

const char *
limit_prepare(int argc, char **argv)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = DESCRIPTORS;
        if (files.rlim_max < DESCRIPTORS) {
            files.rlim_cur = files.rlim_max;
        }
        setrlimit(RLIMIT_NOFILE, &files);
    }
    const char *mode = "echo";
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--mode") == 0) {
            mode = argv[i + 1];
            continue;
        }
        if (strcmp(argv[i], "--cpu") != 0) {
            limit_fail(argv[i], "is no option");
        }
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(atoi(argv[i + 1]), &cpus);
        if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) {
            limit_fail("sched_setaffinity", strerror(errno));
        }
    }
    /* A client that leaves with an echo under way is no failure. */
    signal(SIGPIPE, SIG_IGN);
    /* Nothing else ends a server whose parent was killed. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    return mode;
}

int
limit_listen(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0
        || listen(fd, SOMAXCONN) != 0
        || getsockname(fd, (struct sockaddr *)&address, &size) != 0)
    {
        limit_fail("listen", strerror(errno));
    }
    limit_announce(ntohs(address.sin_port));
    return fd;
}

int
limit_accept(int listener)
{
    int one = 1;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    return fd;
}
