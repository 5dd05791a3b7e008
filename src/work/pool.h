/* The thread pool's queue, and how its workers sleep: C without Python.

   Jobs are taken one at a time, in the order they came.  A push wakes the
   worker that fell asleep last, and nobody while another one is on its way;
   a worker that takes a job and leaves more behind wakes the next.  So a burst
   of short jobs is run by one worker that keeps the GIL, and jobs that block
   soon have a worker each.

   Any thread may call any of this, holding the GIL or not: the lock is held
   for a few instructions and never while Python runs.  fl_pool_sleep blocks
   and is for a thread that holds no GIL.

   Ownership: the pool is counted; each worker thread and the executor hold
   one.  A queued job belongs to the pool until it is taken or drained. */
#ifndef FL_WORK_POOL_H
#define FL_WORK_POOL_H

#include <stdbool.h>
#include <stdatomic.h>
#include <stddef.h>
#include <uv.h>

/* Embedded in what is to be done. */
typedef struct FlJob {
    struct FlJob *next;
} FlJob;

/* A worker's place in the pool, made when a thread is wanted first. */
typedef struct FlWorker {
    uv_sem_t wake;
    struct FlWorker *next; /* the one that fell asleep, or left, before */
    struct FlWorker *made; /* the one that was made before */
    unsigned index;        /* how many were made before */
    bool coming;           /* counted in pool->coming */
} FlWorker;

typedef enum {
    FL_POOL_OPEN,
    FL_POOL_SHUT,    /* takes no more jobs; workers end when none is left */
    FL_POOL_EXITING, /* likewise, for the interpreter's end */
} FlPoolPhase;

typedef struct {
    atomic_int owners;
    uv_mutex_t lock;
    FlPoolPhase phase;
    FlJob *first;
    FlJob *last;
    size_t queued;
    FlWorker *places;  /* all, the latest first */
    FlWorker *vacant;  /* without a thread */
    FlWorker *idle;    /* asleep, the latest first */
    unsigned sleeping; /* how many */
    unsigned coming;   /* woken or being started, and not here yet */
    unsigned threads;
    unsigned limit;
} FlPool;

/* A pool of at most `limit` threads, with one owner; NULL: no memory. */
FlPool *fl_pool_new(unsigned limit);
void fl_pool_retain(FlPool *pool);
void fl_pool_release(FlPool *pool);

/* Queue a job.  Returns the phase: only an open pool took the job.  When one
   more thread is wanted *newcomer is its place, and the caller starts it. */
FlPoolPhase fl_pool_push(FlPool *pool, FlJob *job, FlWorker **newcomer);

/* The thread for `newcomer` could not be started.  True when no other thread
   will run `job`: it was taken out again, and is the caller's. */
bool fl_pool_unstart(FlPool *pool, FlWorker *newcomer, FlJob *job);

/* The next job, the caller's now.  NULL: either the worker is to end (*leave),
   or it counts as asleep and calls fl_pool_sleep next. */
FlJob *fl_pool_take(FlPool *pool, FlWorker *worker, bool *leave);

/* Sleep until there may be something to take. */
void fl_pool_sleep(FlWorker *worker);

/* Take no more jobs, and wake everybody to finish.  With `drain` the queued
   jobs are returned, linked, and are the caller's. */
FlJob *fl_pool_stop(FlPool *pool, FlPoolPhase phase, bool drain);

FlPoolPhase fl_pool_phase(FlPool *pool);
size_t fl_pool_queued(FlPool *pool);

#endif
