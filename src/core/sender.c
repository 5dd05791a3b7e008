/* The sender's thread: see sender.h.

   1. It looks at each watched loop once in a period.  If a look finds the
      corked bytes of the look before it (cork.h), it sends them.  So bytes
      wait for two periods at most, a header waits for its body, and where
      iterations are short the loop's thread makes all sends.
   2. The sender sleeps while nothing is OFFERED.  A loop first offers and
      then looks whether the sender is idle; the sender first says that it
      is idle and then looks at the turns.  All four are sequentially
      consistent, so one of the two sees the other.
   3. A loop is watched from its first corked write until it is freed.  In a
      forked child the thread is missing, and its lock may be taken: the child
      begins with a new state, and leaves the parent's loops out. */
#include "core/sender.h"

#include "base/clock.h"
#include "base/forks.h"
#include "base/list.h"
#include "core/cork.h"
#include "core/flush.h"
#include "core/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

/* The period after a sleep, and each later one. */
#define FIRST_NS    (2 * FL_NS_PER_MS)
#define PERIOD_NS   (3 * FL_NS_PER_MS)
#define STACK_BYTES ((size_t)128 * 1024)

#ifdef __APPLE__ /* its conditions know no other clock */
#define WAIT_CLOCK CLOCK_REALTIME
#else
#define WAIT_CLOCK CLOCK_MONOTONIC
#endif

atomic_bool fl_sender_idle = true;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    FlList loops; /* FlCork.watch_link */
    FlForkRenewal renewal;
    pthread_t thread;
    bool running, stopping;
} sender;
static pthread_once_t sender_once = PTHREAD_ONCE_INIT;

/* --- the thread ---------------------------------------------------------- */

/* Whether any loop has something OFFERED, or has a thread that sends it. */
static bool
any_is_offered(void)
{
    bool offered = false;
    for (FlList *link = sender.loops.next; link != &sender.loops && !offered;
         link = link->next)
    {
        const FlCork *cork = FL_LIST_ENTRY(link, FlCork, watch_link);
        uint64_t turn = atomic_load(&cork->turn);
        offered = (turn & FL_CORK_STATE) >= FL_CORK_OFFERED;
    }
    return offered;
}

/* Look at all loops: invariant 1.  `stops`: nobody looks before the next turn,
   so what they have corked is sent now.  Returns whether any turn has changed
   since the last look, or something is OFFERED. */
static bool
look_at_all(bool stops)
{
    bool active = false;
    for (FlList *link = sender.loops.next; link != &sender.loops;
         link = link->next)
    {
        FlLoop *loop = FL_LIST_ENTRY(link, FlLoop, cork.watch_link);
        uint64_t turn = atomic_load(&loop->cork.turn);
        uint64_t seen = loop->cork.seen_turn;
        loop->cork.seen_turn = turn;
        bool waits = (seen & FL_CORK_STATE) >= FL_CORK_OFFERED
                     && (turn | FL_CORK_STATE) == (seen | FL_CORK_STATE);
        if (stops || waits) {
            fl_cork_send_ahead(loop);
        }
        active |= turn != seen;
    }
    return active || any_is_offered();
}

static void
wait_for(int64_t period_ns)
{
    struct timespec end;
    (void)clock_gettime(WAIT_CLOCK, &end);
    end.tv_nsec += (long)period_ns;
    if (end.tv_nsec >= FL_NS_PER_S) {
        end.tv_nsec -= FL_NS_PER_S;
        end.tv_sec++;
    }
    (void)pthread_cond_timedwait(&sender.wake, &sender.lock, &end);
}

static void *
sender_run(void *unused)
{
    int64_t period_ns = FIRST_NS;
    (void)pthread_mutex_lock(&sender.lock);
    while (!sender.stopping) {
        if (look_at_all(false)) {
            wait_for(period_ns);
            period_ns = PERIOD_NS;
            continue;
        }
        period_ns = FIRST_NS;
        atomic_store(&fl_sender_idle, true);
        if (any_is_offered()) { /* invariant 2 */
            atomic_store(&fl_sender_idle, false);
        }
        while (atomic_load(&fl_sender_idle) && !sender.stopping) {
            (void)pthread_cond_wait(&sender.wake, &sender.lock);
        }
    }
    (void)look_at_all(true);
    (void)pthread_mutex_unlock(&sender.lock);
    return unused;
}

/* --- its beginning and end ----------------------------------------------- */

static void
init_state(void)
{
    pthread_condattr_t attributes;
    (void)pthread_mutex_init(&sender.lock, NULL);
    (void)pthread_condattr_init(&attributes);
#ifndef __APPLE__
    (void)pthread_condattr_setclock(&attributes, WAIT_CLOCK);
#endif
    (void)pthread_cond_init(&sender.wake, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    fl_list_init(&sender.loops);
    sender.running = sender.stopping = false;
    atomic_store(&fl_sender_idle, true);
}

static void
init_once(void)
{
    init_state();
    fl_fork_renewal_init(&sender.renewal);
}

static void
lock(void)
{
    (void)pthread_once(&sender_once, init_once);
    if (FL_UNLIKELY(fl_fork_renewal_begin(&sender.renewal))) {
        init_state(); /* invariant 3 */
        fl_fork_renewal_end(&sender.renewal);
    }
    (void)pthread_mutex_lock(&sender.lock);
}

static void
unlock(void)
{
    (void)pthread_mutex_unlock(&sender.lock);
}

/* Start the thread, which handles no signals.  0 or a positive errno. */
static int
start(void)
{
    sigset_t all, previous;
    pthread_attr_t attributes;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &previous);
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int code = pthread_create(&sender.thread, &attributes, sender_run, NULL);
    if (code == EINVAL) { /* the thread-local data of libraries is larger */
        code = pthread_create(&sender.thread, NULL, sender_run, NULL);
    }
    (void)pthread_attr_destroy(&attributes);
    (void)pthread_sigmask(SIG_SETMASK, &previous, NULL);
#ifdef __linux__
    if (code == 0) {
        (void)pthread_setname_np(sender.thread, "fastloop-send");
    }
#endif
    return code;
}

void
fl_sender_watch(FlCork *cork)
{
    lock();
    cork->seen_turn = atomic_load(&cork->turn);
    cork->watched = true;
    fl_list_append(&sender.loops, &cork->watch_link);
    unlock();
}

void
fl_sender_unwatch(FlCork *cork)
{
    bool watched = cork->watched;
    cork->watched = false;
    if (watched && !fl_loop_is_inherited(fl_loop_of_cork(cork))) {
        lock(); /* see invariant 3 */
        fl_list_remove(&cork->watch_link);
        unlock();
    }
}

/* Wake the thread, or start it.  Returns whether there is one. */
static bool
sender_wake(void)
{
    if (!sender.running && start() == 0) {
        sender.running = true;
    }
    if (sender.running) {
        atomic_store(&fl_sender_idle, false);
        (void)pthread_cond_signal(&sender.wake);
    }
    return sender.running;
}

void
fl_sender_wake(FlCork *cork)
{
    lock();
    bool wakes = sender_wake();
    unlock();
    if (!wakes) {
        cork->thread = cork->busy_thread = cork->writer = NULL;
        fl_loop_flush_corked_now(fl_loop_of_cork(cork));
    }
}

void
fl_sender_stop(void)
{
    lock();
    bool stops = sender.running && !sender.stopping;
    sender.stopping |= stops;
    (void)pthread_cond_signal(&sender.wake);
    unlock();
    if (stops) {
        (void)pthread_join(sender.thread, NULL);
        lock();
        sender.running = sender.stopping = false;
        atomic_store(&fl_sender_idle, true);
        unlock();
    }
}

void
fl_sender_resume(void)
{
    lock();
    if (any_is_offered()) { /* else os.fork() would warn of a thread */
        (void)sender_wake();
    }
    unlock();
}

/* --- a stream that is corked no more ------------------------------------- */

void
fl_cork_remove(FlCork *cork, FlOutbox *out)
{
    fl_cork_take(cork);
    fl_list_remove(&out->link);
    out->send_errno = 0;
    if (fl_list_is_empty(&cork->streams)) {
        fl_cork_end_turn(cork);
    }
    else {
        fl_cork_offer(cork);
    }
}
