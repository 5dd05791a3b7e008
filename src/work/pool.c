/* The queue's few operations.

   1. A worker is in `idle` from fl_pool_take's NULL until someone takes it out
      to wake it; each has a semaphore of its own, so the wake-up picks whom.
   2. coming counts the workers that were woken or started and have not come
      to take a job: while there is one, nobody else needs to be woken, for it
      wakes the next.
   3. Semaphores are posted after the lock was given back; the places live as
      long as the pool does, so a post never touches freed memory.
   4. The first place is made with the pool.  For another there may be no
      memory: then the job waits for a thread that there is. */
#include "work/pool.h"

#include <stdlib.h>

static bool
make_place(FlPool *pool)
{
    FlWorker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL) {
        return false;
    }
    if (uv_sem_init(&worker->wake, 0) < 0) {
        free(worker);
        return false;
    }
    worker->index = pool->places == NULL ? 0 : pool->places->index + 1;
    worker->made = pool->places;
    pool->places = worker;
    worker->next = pool->vacant;
    pool->vacant = worker;
    return true;
}

FlPool *
fl_pool_new(unsigned limit)
{
    FlPool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL) {
        return NULL;
    }
    if (uv_mutex_init(&pool->lock) < 0) {
        free(pool);
        return NULL;
    }
    if (!make_place(pool)) {
        uv_mutex_destroy(&pool->lock);
        free(pool);
        return NULL;
    }
    pool->limit = limit;
    atomic_init(&pool->owners, 1);
    return pool;
}

void
fl_pool_retain(FlPool *pool)
{
    atomic_fetch_add(&pool->owners, 1);
}

void
fl_pool_release(FlPool *pool)
{
    if (atomic_fetch_sub(&pool->owners, 1) != 1) {
        return;
    }
    FlWorker *worker;
    while ((worker = pool->places) != NULL) {
        pool->places = worker->made;
        uv_sem_destroy(&worker->wake);
        free(worker);
    }
    uv_mutex_destroy(&pool->lock);
    free(pool);
}

/* --- under the lock ------------------------------------------------------ */

static void
mark_coming_locked(FlPool *pool, FlWorker *worker)
{
    worker->coming = true;
    pool->coming++;
}

static void
mark_here_locked(FlPool *pool, FlWorker *worker)
{
    if (worker->coming) {
        worker->coming = false;
        pool->coming--;
    }
}

/* The worker to wake for what is queued: NULL when none sleeps, or one is on
   its way (invariant 2). */
static FlWorker *
next_to_wake_locked(FlPool *pool)
{
    FlWorker *worker = pool->idle;
    if (worker == NULL || pool->coming > 0) {
        return NULL;
    }
    pool->idle = worker->next;
    pool->sleeping--;
    mark_coming_locked(pool, worker);
    return worker;
}

/* A place for one more thread, if all that sleep or come have enough to do,
   and there is memory for one (invariant 4). */
static FlWorker *
newcomer_locked(FlPool *pool)
{
    if (pool->queued <= (size_t)pool->sleeping + pool->coming
        || pool->threads == pool->limit)
    {
        return NULL;
    }
    FlWorker *worker = pool->vacant;
    if (worker == NULL) {
        if (!make_place(pool)) {
            return NULL;
        }
        worker = pool->vacant;
    }
    pool->vacant = worker->next;
    pool->threads++;
    mark_coming_locked(pool, worker);
    return worker;
}

static bool
remove_locked(FlPool *pool, FlJob *job)
{
    FlJob *before = NULL;
    for (FlJob *at = pool->first; at != NULL; before = at, at = at->next) {
        if (at != job) {
            continue;
        }
        if (before == NULL) {
            pool->first = job->next;
        }
        else {
            before->next = job->next;
        }
        if (pool->last == job) {
            pool->last = before;
        }
        pool->queued--;
        return true;
    }
    return false;
}

/* --- queueing ------------------------------------------------------------ */

FlPoolPhase
fl_pool_push(FlPool *pool, FlJob *job, FlWorker **newcomer)
{
    FlWorker *woken = NULL;
    *newcomer = NULL;
    job->next = NULL;
    uv_mutex_lock(&pool->lock);
    FlPoolPhase phase = pool->phase;
    if (phase == FL_POOL_OPEN) {
        if (pool->first == NULL) {
            pool->first = job;
        }
        else {
            pool->last->next = job;
        }
        pool->last = job;
        pool->queued++;
        /* A newcomer counts as coming: then no sleeper is woken beside it. */
        *newcomer = newcomer_locked(pool);
        woken = next_to_wake_locked(pool);
    }
    uv_mutex_unlock(&pool->lock);
    if (woken != NULL) {
        uv_sem_post(&woken->wake);
    }
    return phase;
}

bool
fl_pool_unstart(FlPool *pool, FlWorker *newcomer, FlJob *job)
{
    uv_mutex_lock(&pool->lock);
    mark_here_locked(pool, newcomer);
    newcomer->next = pool->vacant;
    pool->vacant = newcomer;
    pool->threads--;
    /* Any thread there is will come to the job in its turn. */
    bool removed = pool->threads == 0 && remove_locked(pool, job);
    /* Waking the next would have been the newcomer's (invariant 2). */
    FlWorker *woken = pool->first == NULL ? NULL : next_to_wake_locked(pool);
    uv_mutex_unlock(&pool->lock);
    if (woken != NULL) {
        uv_sem_post(&woken->wake);
    }
    return removed;
}

/* --- workers ------------------------------------------------------------- */

FlJob *
fl_pool_take(FlPool *pool, FlWorker *worker, bool *leave)
{
    FlWorker *woken = NULL;
    *leave = false;
    uv_mutex_lock(&pool->lock);
    mark_here_locked(pool, worker);
    FlJob *job = pool->first;
    if (job != NULL) {
        pool->first = job->next;
        pool->queued--;
        if (pool->first != NULL) {
            woken = next_to_wake_locked(pool);
        }
    }
    else if (pool->phase != FL_POOL_OPEN) {
        *leave = true;
    }
    else {
        worker->next = pool->idle;
        pool->idle = worker;
        pool->sleeping++;
    }
    uv_mutex_unlock(&pool->lock);
    if (woken != NULL) {
        uv_sem_post(&woken->wake);
    }
    return job;
}

void
fl_pool_sleep(FlWorker *worker)
{
    uv_sem_wait(&worker->wake);
}

/* --- the end ------------------------------------------------------------- */

FlJob *
fl_pool_stop(FlPool *pool, FlPoolPhase phase, bool drain)
{
    FlJob *drained = NULL;
    uv_mutex_lock(&pool->lock);
    /* The end of the interpreter outranks a shutdown: submit() says which. */
    if (phase > pool->phase) {
        pool->phase = phase;
    }
    if (drain) {
        drained = pool->first;
        pool->first = pool->last = NULL;
        pool->queued = 0;
    }
    FlWorker *woken = pool->idle;
    for (FlWorker *at = woken; at != NULL; at = at->next) {
        mark_coming_locked(pool, at);
    }
    pool->idle = NULL;
    pool->sleeping = 0;
    uv_mutex_unlock(&pool->lock);
    /* The links stay as they are without the lock: nobody falls asleep in a
       pool that is not open. */
    while (woken != NULL) {
        FlWorker *next = woken->next;
        uv_sem_post(&woken->wake);
        woken = next;
    }
    return drained;
}

FlPoolPhase
fl_pool_phase(FlPool *pool)
{
    uv_mutex_lock(&pool->lock);
    FlPoolPhase phase = pool->phase;
    uv_mutex_unlock(&pool->lock);
    return phase;
}

size_t
fl_pool_queued(FlPool *pool)
{
    uv_mutex_lock(&pool->lock);
    size_t queued = pool->queued;
    uv_mutex_unlock(&pool->lock);
    return queued;
}
