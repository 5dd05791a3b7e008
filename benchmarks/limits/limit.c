/* The part of a plain C server that has nothing to do with serving. */
#include "limit.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LIFETIME    600
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

void
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
    if (argc == 3 && strcmp(argv[1], "--cpu") == 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(atoi(argv[2]), &cpus);
        if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) {
            limit_fail("sched_setaffinity", strerror(errno));
        }
    }
    /* A client that leaves with an echo under way is no failure. */
    signal(SIGPIPE, SIG_IGN);
    alarm(LIFETIME);
}
