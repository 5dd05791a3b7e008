/* A poller: a set of fds that other code may close, and how another thread
   wakes the one that waits for it.  Two kinds:

   poller_epoll.c  Linux: an epoll instance of our own with an eventfd.
   poller_uv.c     everywhere: a uv_loop_t.  Where there is no epoll it is the
                   one kind; on Linux FASTLOOP_POLLER=libuv chooses it.

   Each registration carries a generation, which the caller compares, so it
   recognizes events of a file that the fd referred to earlier; and what the
   system refuses is an error code.

   Registrations are level-triggered: they report as long as the file is ready.

   Rejected: edge-triggered registrations of sockets.  A registration whose
   fd now refers to another file, or a short read that did not empty the
   socket, would wait for ever.  A Unix or UDP socket would also report an edge
   each time its peer reads, which wakes the loop for nothing.

   What libuv's kind cannot do, because libuv knows a file by its fd alone:
   - If other code closes an fd whose file lives on in a duplicate, it reports
     that file's events under the fd, or spins.
   - It aborts if another thread closes an fd while it is being registered, if
     its own fds were closed, or if none are left for the process's first loop.
   - If other files get the numbers of libuv's fds, also in a child that has
     closed what it inherited, a wake-up writes into one, and close() closes
     them.
   - It waits whole milliseconds.
   - For a moment it sets O_NONBLOCK on a file that is registered.

   Threads: any thread may call, also while another one waits for the poller.
   Ownership: the caller owns the FlPoller and closes it; the poller owns its
   own fds and none of those registered in it.  Where other code has closed one
   of epoll's two, the other one leaks.  Errors are negative errnos. */
#ifndef FL_CORE_POLLER_H
#define FL_CORE_POLLER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FL_READABLE      1
#define FL_WRITABLE      2
/* Beside an event, for epoll's kind: of the pollers that have the file
   exclusively, an event wakes the one that registered it first, not all.  For
   listening sockets: transport/listener.c, invariant 4. */
#define FL_EXCLUSIVE     4
/* Beside the interest of an FL_POLLER_CHANGE: the registration was made with
   FL_EXCLUSIVE.  epoll cannot change such a one: it is removed and added. */
#define FL_WAS_EXCLUSIVE 8

/* The most events that one call takes. */
#define FL_POLLER_EVENTS 1024

typedef struct {
    uint32_t fd, generation; /* as they were registered */
    int events;              /* FL_READABLE | FL_WRITABLE */
} FlPollerEvent;

/* FL_POLLER_ADD registers an fd.  interest: FL_READABLE, FL_WRITABLE, and
   FL_EXCLUSIVE if the kind has it.  -EEXIST: this fd is already registered for
   the same file; libuv's kind changes the registration there, and returns 0.
   FL_POLLER_CHANGE changes a registration; what is ready already is reported
   at once.  Without an interest (0) it removes the registration.  -ENOENT: the
   file that the fd refers to now is not registered, or no longer: an exclusive
   registration is changed by removing and adding it, and the second failed.
   -EBADF, -EPERM: the fd is closed, or refers to a file that cannot be
   registered. */
typedef enum {
    FL_POLLER_ADD,
    FL_POLLER_CHANGE
} FlPollerControl;

typedef struct FlPoller FlPoller;

/* What a kind does. */
typedef struct {
    bool exclusive; /* it has FL_EXCLUSIVE */
    int (*open)(FlPoller *poller);
    void (*close)(FlPoller *poller);
    int (*control)(FlPoller *poller, FlPollerControl control, int fd,
                   int interest, uint32_t generation);
    /* Wait for events, at most timeout_ns (0: not at all; negative: without a
       limit), and take them into an array of FL_POLLER_EVENTS.  Returns how
       many: 0 also after a wake-up.
       -EBADF or -EINVAL: the poller's own fd was closed.  -EINTR: a signal
       came first; nothing was taken. */
    int (*wait)(FlPoller *poller, FlPollerEvent *events, int64_t timeout_ns);
    void (*wake_anythread)(FlPoller *poller);
    /* In a forked child: replace the poller shared with the parent by an empty
       one, which the parent's does not notice.  -EBADF: the child has closed
       the fds, which may belong to the application by now.  After a failure
       the poller is not used any more, and not closed either. */
    int (*after_fork)(FlPoller *poller);
    /* Put an empty poller in this one's place, under the same fd.  On failure
       the poller stays as it is.  NULL: the kind cannot. */
    int (*replace)(FlPoller *poller);
} FlPollerKind;

struct FlPoller {
    const FlPollerKind *kind;
    int fd;                /* the epoll instance, or libuv's backend fd */
    int wake_fd;           /* epoll's kind: the eventfd that wakes it */
    struct FlUvPoller *uv; /* libuv's kind */
    atomic_int sleeping;   /* a wait runs that may block, or is about to */
};

extern const FlPollerKind fl_poller_epoll, fl_poller_uv;

/* Open an empty poller, of libuv's kind if there is no other or `portable`.
   After a failure there is nothing to close. */
static inline int
fl_poller_open(FlPoller *poller, bool portable)
{
    poller->kind = &fl_poller_uv;
#ifdef __linux__
    if (!portable) {
        poller->kind = &fl_poller_epoll;
    }
#endif
    poller->sleeping = 0;
    return poller->kind->open(poller);
}

/* Prepare a wait that may block, before the caller looks at its queues: a
   thread that pushes later sees this and wakes it. */
static inline void
fl_poller_let_wake(FlPoller *poller)
{
    atomic_store(&poller->sleeping, 1);
}

/* The wait has ended, or will not block after all. */
static inline void
fl_poller_end_wait(FlPoller *poller)
{
    atomic_store(&poller->sleeping, 0);
}

/* Make a wait return, if one runs that may block, or is about to. */
static inline void
fl_poller_wake_anythread(FlPoller *poller)
{
    if (atomic_load(&poller->sleeping)
        && atomic_exchange(&poller->sleeping, 0)) {
        poller->kind->wake_anythread(poller);
    }
}

#endif
