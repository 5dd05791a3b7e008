/* The poller: one uv_loop_t that only we run.

   1. Between polls no libuv callback runs, so nothing here is re-entered by
      Python code.
   2. A watch is in `fired` or in the ready ring at most once; `fired` bits
      that its owner no longer wants are dropped where they would be run.
   3. Deadlines: uv's timer counts whole milliseconds from a clock that is cut
      down to them, so it is set to the next millisecond; what is left below
      one goes to a timerfd.  Neither ever fires early: the loop looks at its
      own clock afterwards.
   4. A poller that fl_poller_settle called clean carries nothing over: its
      timer is stopped, its timerfd closed, its signal pipe empty. */
#include "loop/poller.h"

#include "base/clock.h"
#include "base/codes.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/epoll.h>
#include <sys/timerfd.h>
#endif

/* asyncio's MAXIMUM_SELECT_TIMEOUT: a day. */
#define LONGEST_POLL_NS (24 * 3600 * FL_NS_PER_S)

static void
on_async(uv_async_t *async)
{
    (void)async; /* its only work is to end the poll */
}

/* libuv before 1.45 runs due timers first and polls then: where this deadline
   passed in between, nothing else would end that poll. */
static void
on_timer(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void
on_poll(uv_poll_t *uv, int status, int uv_events)
{
    FlWatch *watch = uv->data;
    int events = 0;
    if (status < 0) {
        events = FL_READABLE | FL_WRITABLE | FL_POLL_ERROR;
    }
    else {
        if (uv_events & UV_READABLE) {
            events |= FL_READABLE;
        }
        if (uv_events & UV_WRITABLE) {
            events |= FL_WRITABLE;
        }
    }
    if (watch->fired == 0) {
        fl_list_append(&watch->poller->fired, &watch->fired_link);
    }
    watch->fired |= (uint8_t)events;
}

FlWatch *
fl_poller_pop_fired(FlPoller *poller)
{
    FlList *link = fl_list_pop(&poller->fired);
    return link == NULL ? NULL : FL_LIST_ENTRY(link, FlWatch, fired_link);
}

/* --- watches ------------------------------------------------------------- */

int
fl_watch_open(FlPoller *poller, int fd, bool keep_flags, FlWatch **out)
{
    FlWatch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        return FL_NO_MEMORY;
    }
    int flags = keep_flags ? fcntl(fd, F_GETFL) : 0;
    if (flags < 0) {
        int code = -errno;
        free(watch);
        return code;
    }
    int code = uv_poll_init(&poller->uv, &watch->uv, fd);
    if (code < 0) {
        free(watch);
        return code;
    }
    if (keep_flags && !(flags & O_NONBLOCK)) {
        (void)fcntl(fd, F_SETFL, flags);
    }
    fl_list_init(&watch->fired_link);
    fl_list_init(&watch->fresh_link);
    watch->uv.data = watch;
    watch->poller = poller;
    watch->fd = fd;
    watch->foreign = keep_flags;
    watch->position = UINT64_MAX;
    poller->watch_count++;
    *out = watch;
    return 0;
}

/* Have the next poll look whether the system takes a watch just started. */
static void
note_fresh(FlWatch *watch)
{
    fl_list_remove(&watch->fresh_link);
    fl_list_append(&watch->poller->fresh, &watch->fresh_link);
}

void
fl_watch_share(FlWatch *watch)
{
    if (!watch->foreign && uv_is_active((uv_handle_t *)&watch->uv)) {
        note_fresh(watch);
    }
    watch->foreign = true;
}

static int
watch_start(FlWatch *watch)
{
    int uv_events = 0;
    if (watch->wanted & FL_READABLE) {
        uv_events |= UV_READABLE;
    }
    if (watch->wanted & FL_WRITABLE) {
        uv_events |= UV_WRITABLE;
    }
    int code = uv_poll_start(&watch->uv, uv_events, on_poll);
    if (code == 0 && watch->foreign) {
        note_fresh(watch);
    }
    return code;
}

/* libuv registers a started watch in the next poll, and aborts the process if
   the system refuses: which it does when the user closed the descriptor, or
   let its number become a file's, in between.  So try it first; a watch that
   is refused never fires, as it would not in asyncio. */
static bool
system_takes(FlWatch *watch)
{
#ifdef __linux__
    struct epoll_event event = {.events = 0, .data.fd = watch->fd};
    int backend = uv_backend_fd(&watch->poller->uv);
    return epoll_ctl(backend, EPOLL_CTL_ADD, watch->fd, &event) == 0
           || errno == EEXIST;
#else
    return fcntl(watch->fd, F_GETFD) >= 0;
#endif
}

static void
try_fresh(FlPoller *poller)
{
    FlList *link;
    while ((link = fl_list_pop(&poller->fresh)) != NULL) {
        FlWatch *watch = FL_LIST_ENTRY(link, FlWatch, fresh_link);
        if (uv_is_active((uv_handle_t *)&watch->uv) && !system_takes(watch)) {
            (void)uv_poll_stop(&watch->uv);
        }
    }
}

int
fl_watch_set(FlWatch *watch, int wanted)
{
    watch->wanted = (uint8_t)wanted;
    watch->fired &= (uint8_t)wanted;
    if (watch->fired == 0) {
        fl_list_remove(&watch->fired_link);
    }
    if (wanted != 0) {
        return watch_start(watch);
    }
    (void)uv_poll_stop(&watch->uv);
    /* Someone closed the number under us: where a copy of it lives on in
       this process or a child, the system still reports its events, and
       libuv would spin on them.  The next poll starts from a new backend. */
    if (watch->foreign && fcntl(watch->fd, F_GETFD) < 0 && errno == EBADF) {
        watch->poller->suspect = true;
    }
    return 0;
}

int
fl_watch_rearm(FlWatch *watch)
{
    if (watch->wanted == 0 || uv_is_active((uv_handle_t *)&watch->uv)) {
        return 0;
    }
    return watch_start(watch);
}

static void
on_watch_closed(uv_handle_t *handle)
{
    FlWatch *watch = handle->data;
    watch->poller->watch_count--;
    free(watch);
}

void
fl_watch_close(FlWatch *watch)
{
    if (watch->wanted != 0) {
        (void)fl_watch_set(watch, 0);
    }
    watch->fired = 0;
    fl_list_remove(&watch->fired_link);
    fl_list_remove(&watch->fresh_link);
    watch->owner = NULL;
    uv_close((uv_handle_t *)&watch->uv, on_watch_closed);
}

/* --- opening and closing ------------------------------------------------- */

/* libuv 1.45 to 1.48 start a kernel polling thread with every loop unless
   UV_USE_IO_URING forbids it; the answer is read once a process, so one loop
   made under the variable settles it for all. */
static int
avoid_sqpoll_thread(void)
{
    unsigned version = uv_version();
    if (version < 0x012d00 || version >= 0x013100
        || getenv("UV_USE_IO_URING") != NULL)
    {
        return 0;
    }
    uv_loop_t throwaway;
    if (setenv("UV_USE_IO_URING", "0", 1) < 0) {
        return -errno;
    }
    int code = uv_loop_init(&throwaway);
    if (code == 0) {
        (void)uv_loop_close(&throwaway);
    }
    (void)unsetenv("UV_USE_IO_URING");
    return code;
}

#ifdef __linux__
static int
run_timerfd(void *loop, FlWatch *watch, int events)
{
    (void)loop;
    (void)events;
    uint64_t expirations;
    /* Not readable any more means that it was armed anew: nothing is lost. */
    ssize_t got = read(watch->fd, &expirations, sizeof(expirations));
    if (got == (ssize_t)sizeof(expirations)) {
        watch->poller->timerfd_ns = 0;
    }
    return 0;
}

/* Sandboxes may refuse it: then deadlines are rounded up to milliseconds. */
static void
open_timerfd(FlPoller *poller)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) {
        return;
    }
    FlWatch *watch;
    if (fl_watch_open(poller, fd, false, &watch) < 0) {
        (void)close(fd);
        return;
    }
    watch->owner = poller;
    watch->on_events = run_timerfd;
    poller->timerfd = fd;
    poller->timerfd_watch = watch;
    if (fl_watch_set(watch, FL_READABLE) < 0) {
        poller->timerfd_watch = NULL;
        fl_watch_close(watch);
        poller->timerfd = -1;
        (void)close(fd);
    }
}
#endif

/* libuv 1.44 forgets its epoll descriptor where what it opens next fails. */
static void
close_forgotten_backend(uv_loop_t *uv)
{
#ifdef __linux__
    struct epoll_event event;
    int fd = uv_backend_fd(uv);
    if (fd >= 0 && epoll_wait(fd, &event, 1, 0) >= 0) {
        (void)close(fd);
    }
#else
    (void)uv;
#endif
}

static int
poller_init(FlPoller *poller)
{
    int code = avoid_sqpoll_thread();
    if (code < 0) {
        return code;
    }
    poller->uv.backend_fd = -1;
    code = uv_loop_init(&poller->uv);
    if (code < 0) {
        close_forgotten_backend(&poller->uv);
        return code;
    }
    code = uv_async_init(&poller->uv, &poller->async, on_async);
    if (code < 0) {
        (void)uv_loop_close(&poller->uv);
        return code;
    }
    (void)uv_timer_init(&poller->uv, &poller->timer);
    return 0;
}

int
fl_poller_open(FlPoller **out, bool use_timerfd)
{
    FlPoller *poller = calloc(1, sizeof(*poller));
    if (poller == NULL) {
        return FL_NO_MEMORY;
    }
    fl_list_init(&poller->fired);
    fl_list_init(&poller->fresh);
    poller->timerfd = poller->signal_fds[0] = poller->signal_fds[1] = -1;
    poller->pid = (int)getpid();
    poller->use_timerfd = use_timerfd;
    atomic_init(&poller->sleeping, 0);
    atomic_init(&poller->owed, 0);
    int code = poller_init(poller);
    if (code < 0) {
        free(poller);
        return code;
    }
    *out = poller;
    return 0;
}

static void
close_any(uv_handle_t *handle, void *arg)
{
    FlPoller *poller = arg;
    if (uv_is_closing(handle)) {
        return;
    }
    if (handle == (uv_handle_t *)&poller->async
        || handle == (uv_handle_t *)&poller->timer)
    {
        uv_close(handle, NULL);
    }
    else {
        fl_watch_close(handle->data);
    }
}

static void
close_fd(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

static void
note_any_fresh(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (handle->type == UV_POLL && uv_is_active(handle)) {
        note_fresh(handle->data);
    }
}

int
fl_poller_leave_parent(FlPoller *poller)
{
    if (poller->pid == (int)getpid()) {
        return 0;
    }
    int code = uv_loop_fork(&poller->uv);
    if (code == 0) {
        uv_walk(&poller->uv, note_any_fresh, NULL);
        poller->pid = (int)getpid();
        /* What other threads of the parent were about to do. */
        atomic_store(&poller->sleeping, 0);
        atomic_store(&poller->owed, 0);
    }
    return code;
}

void
fl_poller_close_own(FlPoller *poller)
{
    FlWatch **watches[] = {&poller->timerfd_watch, &poller->signal_watch};
    for (size_t at = 0; at < 2; at++) {
        if (*watches[at] != NULL) {
            fl_watch_close(*watches[at]);
            *watches[at] = NULL;
        }
    }
    close_fd(&poller->timerfd);
    close_fd(&poller->signal_fds[0]);
    close_fd(&poller->signal_fds[1]);
}

void
fl_poller_free(FlPoller *poller)
{
    bool is_ours = poller->pid == (int)getpid();
    while (is_ours && atomic_load(&poller->owed) > 0) {
        (void)sched_yield(); /* a wake-up is being sent this very moment */
    }
    (void)fl_poller_leave_parent(poller); /* where it fails, nothing helps */
    uv_walk(&poller->uv, close_any, poller);
    while (uv_loop_close(&poller->uv) == UV_EBUSY) {
        (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
    }
    close_fd(&poller->timerfd);
    close_fd(&poller->signal_fds[0]);
    close_fd(&poller->signal_fds[1]);
    free(poller);
}

/* Signals that came for a loop are not the next one's. */
static void
drain(int fd)
{
    char bytes[128];
    ssize_t got;
    do {
        got = read(fd, bytes, sizeof(bytes));
    } while (got == (ssize_t)sizeof(bytes));
}

bool
fl_poller_settle(FlPoller *poller)
{
    (void)uv_timer_stop(&poller->timer);
    if (poller->suspect) {
        return false;
    }
    if (poller->signal_watch != NULL) {
        drain(poller->signal_fds[0]);
    }
    if (poller->timerfd_watch != NULL) {
        /* Made when a loop first needs it: kept, it would be a descriptor
           more than there was before that loop. */
        fl_watch_close(poller->timerfd_watch);
        poller->timerfd_watch = NULL;
        close_fd(&poller->timerfd);
    }
    unsigned own = poller->signal_watch != NULL;
    if (poller->watch_count > own) {
        (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
    }
    return poller->watch_count == own && fl_list_is_empty(&poller->fired);
}

static int
open_pipe(int fds[2])
{
#ifdef __linux__
    return pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0 ? -errno : 0;
#else
    if (pipe(fds) < 0) {
        return -errno;
    }
    for (int end = 0; end < 2; end++) {
        (void)fcntl(fds[end], F_SETFL, O_NONBLOCK);
        (void)fcntl(fds[end], F_SETFD, FD_CLOEXEC);
    }
    return 0;
#endif
}

int
fl_poller_signal_pipe(FlPoller *poller,
                      int (*on_signal)(void *loop, FlWatch *watch, int events))
{
    if (poller->signal_watch != NULL) {
        return 0;
    }
    FlWatch *watch;
    int code = open_pipe(poller->signal_fds);
    if (code < 0) {
        return code;
    }
    code = fl_watch_open(poller, poller->signal_fds[0], false, &watch);
    if (code == 0) {
        watch->owner = poller;
        watch->on_events = on_signal;
        code = fl_watch_set(watch, FL_READABLE);
        if (code == 0) {
            poller->signal_watch = watch;
            return 0;
        }
        fl_watch_close(watch);
    }
    close_fd(&poller->signal_fds[0]);
    close_fd(&poller->signal_fds[1]);
    return code;
}

/* --- polling ------------------------------------------------------------- */

/* Arm what ends a poll at a timeout below a millisecond; false where there
   is no timerfd. */
static bool
arm_timerfd(FlPoller *poller, int64_t timeout_ns)
{
#ifdef __linux__
    if (!poller->use_timerfd) {
        return false;
    }
    if (poller->timerfd_watch == NULL) {
        open_timerfd(poller);
        if (poller->timerfd_watch == NULL) {
            poller->use_timerfd = false;
            return false;
        }
    }
    struct itimerspec when;
    memset(&when, 0, sizeof(when));
    when.it_value.tv_nsec = timeout_ns;
    if (timerfd_settime(poller->timerfd, 0, &when, NULL) < 0) {
        return false;
    }
    poller->timerfd_ns = timeout_ns;
    return true;
#else
    (void)poller;
    (void)timeout_ns;
    return false;
#endif
}

static void
arm_deadline(FlPoller *poller, int64_t timeout_ns)
{
    if (timeout_ns > LONGEST_POLL_NS) {
        timeout_ns = LONGEST_POLL_NS;
    }
    if (timeout_ns < FL_NS_PER_MS && arm_timerfd(poller, timeout_ns)) {
        return;
    }
    int64_t timeout_ms = (timeout_ns + FL_NS_PER_MS - 1) / FL_NS_PER_MS;
    uv_update_time(&poller->uv);
    (void)uv_timer_start(&poller->timer, on_timer, (uint64_t)timeout_ms, 0);
}

/* A transport whose descriptor was closed under it will end its watch on that
   number, and perhaps close it once more: what the new backend opens must not
   get it, or it would lose its events. */
static void
hold_number(uv_handle_t *handle, void *arg)
{
    FlPoller *poller = arg;
    FlWatch *watch = handle->data;
    if (handle->type != UV_POLL || fcntl(watch->fd, F_GETFD) >= 0) {
        return;
    }
    int fd = fcntl(uv_backend_fd(&poller->uv), F_DUPFD_CLOEXEC, watch->fd);
    watch->held = fd == watch->fd;
    if (fd >= 0 && !watch->held) {
        (void)close(fd); /* another thread was faster: it is taken */
    }
}

static void
let_number_go(uv_handle_t *handle, void *arg)
{
    (void)arg;
    FlWatch *watch = handle->data;
    if (handle->type == UV_POLL && watch->held) {
        watch->held = false;
        (void)close(watch->fd);
    }
}

/* A new backend is given all watches anew, also of other descriptors that were
   closed meanwhile. */
static void
renew_backend(FlPoller *poller)
{
    uv_walk(&poller->uv, hold_number, poller);
    poller->suspect = uv_loop_fork(&poller->uv) < 0;
    uv_walk(&poller->uv, let_number_go, NULL);
    uv_walk(&poller->uv, note_any_fresh, NULL);
}

void
fl_poller_run(FlPoller *poller, int64_t timeout_ns)
{
    if (poller->suspect) {
        renew_backend(poller);
    }
    try_fresh(poller);
    if (timeout_ns == 0) {
        (void)uv_run(&poller->uv, UV_RUN_NOWAIT);
        return;
    }
    if (timeout_ns > 0) {
        arm_deadline(poller, timeout_ns);
    }
    (void)uv_run(&poller->uv, UV_RUN_ONCE);
    if (timeout_ns > 0) {
        (void)uv_timer_stop(&poller->timer);
    }
}
