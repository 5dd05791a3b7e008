/* A lock that a forked child initializes again (src/base/forks.c), with
   several threads as its first users: see test_forks.py. */
#include "base/forks.h"

#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 8

static FlForkRenewal renewal;
static atomic_int initialized, too_early, arrived;

static void *
use(void *ignored)
{
    (void)atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < THREADS) {
        (void)sched_yield();
    }
    if (fl_fork_renewal_begin(&renewal)) {
        for (int at = 0; at < 100; at++) {
            (void)sched_yield(); /* the others begin before this ends */
        }
        (void)atomic_fetch_add(&initialized, 1);
        fl_fork_renewal_end(&renewal);
    }
    else if (atomic_load(&initialized) != 1) {
        (void)atomic_fetch_add(&too_early, 1);
    }
    return ignored;
}

/* 0 if one thread of this process initialized the lock, and the others used it
   only then. */
static int
use_in_threads(void)
{
    pthread_t threads[THREADS];
    for (int at = 0; at < THREADS; at++) {
        if (pthread_create(&threads[at], NULL, use, NULL) != 0) {
            return 1;
        }
    }
    for (int at = 0; at < THREADS; at++) {
        (void)pthread_join(threads[at], NULL);
    }
    return atomic_load(&initialized) != 1 || atomic_load(&too_early) != 0;
}

/* The status of a child that uses the lock of this process, and then of a
   child of that child; 0 is right. */
int
use_in_children(void)
{
    int status = -1;
    if (fl_forks_init() < 0) {
        return -1;
    }
    fl_fork_renewal_init(&renewal);
    pid_t pid = fork();
    if (pid == 0) {
        int code = fl_fork_renewal_begin(&renewal) ? 0 : 2;
        /* The child's child gets a renewal that has begun and not ended. */
        pid = fork();
        if (pid == 0) {
            _exit(use_in_threads());
        }
        (void)waitpid(pid, &status, 0);
        _exit(code != 0 ? code : status != 0);
    }
    (void)waitpid(pid, &status, 0);
    return status;
}

/* Whether the lock has to be initialized without a fork. */
int
use_here(void)
{
    fl_fork_renewal_init(&renewal);
    return fl_fork_renewal_begin(&renewal);
}
