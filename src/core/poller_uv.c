/* A poller made of a uv_loop_t, with a uv_poll_t for each: see poller.h.

   1. A wait polls libuv's backend fd itself, so that a signal interrupts it.
      If that fd was closed, libuv would abort: it is not run again.
   2. Any thread may change the poller while another one polls.  So the lock
      guards the uv_loop_t, and each change runs libuv at once: the poll sees
      it, and no other code closes the fd before, at which libuv would abort.
      What such a run reports is dropped, as the next wait reports it again; a
      wake-up is sent again.
   3. libuv does not see that an fd refers to another file by now.  So each
      change compares the files; and uv_poll_start() always registers anew.
   4. libuv stops a handle that reports an error.  The next wait starts it. */
#include "core/poller.h"

#include "base/clock.h"
#include "base/codes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

/* A registered fd; freed when libuv has closed it. */
typedef struct {
    uv_poll_t poll;   /* first */
    struct stat file; /* invariant 3 */
    int fd;
    uint32_t generation;
    int interest;
} UvFd;

_Static_assert((int)UV_READABLE == FL_READABLE
                   && (int)UV_WRITABLE == FL_WRITABLE,
               "what libuv reports is passed on");

typedef struct FlUvPoller {
    uv_loop_t loop;
    uv_async_t async;
    uv_mutex_t lock;
    UvFd **fds; /* indexed by fd; NULL: none */
    int fds_size;
    bool has_stopped;      /* a handle: invariant 4 */
    FlPollerEvent *events; /* where a wait wants them; NULL in a change */
    int event_count;
} UvPoller;

/* --- running libuv and changing it, within the lock ---------------------- */

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    UvPoller *uv = poll->loop->data;
    if (status < 0) {
        uv->has_stopped = true;
        events = FL_READABLE | FL_WRITABLE;
    }
    if (uv->events != NULL && uv->event_count < FL_POLLER_EVENTS) {
        const UvFd *self = (UvFd *)poll;
        uv->events[uv->event_count++] =
            (FlPollerEvent){(uint32_t)self->fd, self->generation, events};
    }
}

static void
on_async(uv_async_t *async)
{
    if (((UvPoller *)async->loop->data)->events == NULL) {
        (void)uv_async_send(async);
    }
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle);
}

static void
run(UvPoller *uv, FlPollerEvent *events)
{
    uv->events = events;
    uv->event_count = 0;
    (void)uv_run(&uv->loop, UV_RUN_NOWAIT);
    uv->events = NULL;
    if (uv->has_stopped) {
        (void)uv_async_send(&uv->async); /* the next wait is short */
    }
}

/* Drop what is registered for the fd; -1: for all. */
static void
drop(UvPoller *uv, int fd)
{
    for (int at = fd < 0 ? 0 : fd; at < uv->fds_size; at++) {
        if (uv->fds[at] != NULL) {
            uv_close((uv_handle_t *)uv->fds[at], on_closed);
            uv->fds[at] = NULL;
        }
        if (at == fd) {
            return;
        }
    }
}

/* What is registered for the fd's present file, or NULL: an earlier file's is
   dropped. */
static UvFd *
find(UvPoller *uv, int fd)
{
    struct stat file;
    UvFd *self = fd < uv->fds_size ? uv->fds[fd] : NULL;
    if (self != NULL
        && (fstat(fd, &file) < 0 || self->file.st_dev != file.st_dev
            || self->file.st_ino != file.st_ino))
    {
        drop(uv, fd);
        self = NULL;
    }
    return self;
}

/* Register the fd without an interest.  0 or an error code. */
static int
add(UvPoller *uv, int fd)
{
    if (fd >= uv->fds_size) {
        int size = 2 * fd + 64;
        UvFd **fds = realloc(uv->fds, (size_t)size * sizeof(*fds));
        if (fds == NULL) {
            return FL_NO_MEMORY;
        }
        memset(fds + uv->fds_size, 0,
               (size_t)(size - uv->fds_size) * sizeof(*fds));
        uv->fds = fds;
        uv->fds_size = size;
    }
    UvFd *self = malloc(sizeof(*self));
    int flags = fcntl(fd, F_GETFL);
    int code = self == NULL ? FL_NO_MEMORY
               : fstat(fd, &self->file) < 0
                   ? -errno
                   : uv_poll_init(&uv->loop, &self->poll, fd);
    if (code == -EINVAL
        && (S_ISREG(self->file.st_mode) || S_ISDIR(self->file.st_mode)))
    {
        code = -EPERM; /* as epoll; kqueue's libuv says EINVAL */
    }
    if (code < 0) {
        free(self);
        return code;
    }
    (void)fcntl(fd, F_SETFL, flags); /* libuv has set O_NONBLOCK */
    self->fd = fd;
    uv->fds[fd] = self;
    return 0;
}

static int
change(UvPoller *uv, FlPollerControl control, int fd, int interest,
       uint32_t generation)
{
    UvFd *self = find(uv, fd);
    int code = self != NULL                  ? 0
               : control == FL_POLLER_CHANGE ? -ENOENT
                                             : add(uv, fd);
    if (code < 0) {
        return code;
    }
    if (interest == 0) {
        drop(uv, fd);
        return 0;
    }
    self = uv->fds[fd];
    self->generation = generation;
    self->interest = interest;
    return uv_poll_start(&self->poll, self->interest, on_poll);
}

static int
control_uv(FlPoller *poller, FlPollerControl control, int fd, int interest,
           uint32_t generation)
{
    UvPoller *uv = poller->uv;
    uv_mutex_lock(&uv->lock);
    int code = change(uv, control, fd, interest, generation);
    run(uv, NULL);
    uv_mutex_unlock(&uv->lock);
    return code;
}

/* 1: libuv has something to do; 0; -EBADF: its fd was closed; -EINTR: a signal
   came, or memory ran out. */
static int
poll_backend(const FlPoller *poller, int timeout_ms)
{
    struct pollfd backend = {poller->fd, POLLIN, 0};
    int count = poll(&backend, 1, timeout_ms);
    return count < 0 ? -EINTR : backend.revents & POLLNVAL ? -EBADF : count;
}

static int
wait_uv(FlPoller *poller, FlPollerEvent *events, int64_t timeout_ns)
{
    int64_t ms = (timeout_ns + FL_NS_PER_MS - 1) / FL_NS_PER_MS;
    int code = poll_backend(poller, timeout_ns < 0 ? -1 : (int)ms);
    if (code <= 0) {
        return code;
    }
    UvPoller *uv = poller->uv;
    uv_mutex_lock(&uv->lock);
    for (int fd = 0; uv->has_stopped && fd < uv->fds_size; fd++) {
        UvFd *self = uv->fds[fd];
        if (self != NULL && !uv_is_active((uv_handle_t *)self)
            && find(uv, fd) != NULL) {
            (void)uv_poll_start(&self->poll, self->interest, on_poll);
        }
    }
    uv->has_stopped = false;
    run(uv, events);
    int count = uv->event_count;
    uv_mutex_unlock(&uv->lock);
    return count;
}

static void
wake_uv(FlPoller *poller)
{
    (void)uv_async_send(&poller->uv->async);
}

/* --- opening, forking and closing ---------------------------------------- */

/* Have libuv open its fds, none from 0 to 2: it aborts when it closes those.
   0 or a negative errno. */
static int
open_fds(int (*open_loop)(uv_loop_t *), UvPoller *uv)
{
    int held[4], count = 0;
    do {
        held[count] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    } while (held[count] >= 0 && held[count++] <= STDERR_FILENO);
    int code = open_loop(&uv->loop);
    while (count > 0) {
        (void)close(held[--count]);
    }
    return code;
}

static int
open_uv(FlPoller *poller)
{
    UvPoller *uv = calloc(1, sizeof(*uv));
    int code = uv == NULL || uv_mutex_init(&uv->lock) < 0
                   ? FL_NO_MEMORY
                   : open_fds(uv_loop_init, uv);
    if (code < 0) {
        free(uv);
        return code;
    }
    uv->loop.data = uv;
    (void)uv_async_init(&uv->loop, &uv->async, on_async); /* cannot fail */
    run(uv, NULL);
    poller->uv = uv;
    poller->fd = uv_backend_fd(&uv->loop);
    return 0;
}

static void
close_uv(FlPoller *poller)
{
    UvPoller *uv = poller->uv;
    if (poll_backend(poller, 0) == -EBADF) {
        return; /* invariant 1: it leaks */
    }
    drop(uv, -1);
    uv_close((uv_handle_t *)&uv->async, NULL);
    while (uv_loop_close(&uv->loop) == UV_EBUSY) {
        (void)uv_run(&uv->loop, UV_RUN_NOWAIT);
    }
    uv_mutex_destroy(&uv->lock);
    free(uv->fds);
    free(uv);
}

static int
after_fork_uv(FlPoller *poller)
{
    UvPoller *uv = poller->uv;
#ifdef __linux__ /* elsewhere a child does not inherit it */
    if (poll_backend(poller, 0) == -EBADF) {
        return -EBADF;
    }
#endif
    (void)uv_mutex_init(&uv->lock); /* a thread of the parent may have it */
    int code = open_fds(uv_loop_fork, uv);
    if (code == 0) {
        uv->async.pending = 0; /* one sent in the parent, before libuv 1.45 */
        drop(uv, -1); /* before it runs: the child may have closed their fds */
        run(uv, NULL);
        poller->fd = uv_backend_fd(&uv->loop);
    }
    return code;
}

const FlPollerKind fl_poller_uv = {
    .open = open_uv,
    .close = close_uv,
    .control = control_uv,
    .wait = wait_uv,
    .wake_anythread = wake_uv,
    .after_fork = after_fork_uv,
};
