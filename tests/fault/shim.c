/* Makes the system calls of fastloop and libuv fail, one at a time.

   Preloaded into an interpreter; a test arms it through ctypes.  Only calls
   whose caller lies in fastloop's extension or in libuv count, so that the
   interpreter's own work is left alone and "the third call" means the same in
   each run.

   1. fault_arm(name, skip, count, errno): the calls skip .. skip+count-1 of
      this function fail with errno (0: nothing fails, calls are counted).
   2. fault_cut(bytes, again): every read and write moves at most so many
      bytes, and each `again`-th would block.
   3. fault_delay(microseconds): the thread is away for so long after it set
      libuv's timer, and in each poll.
   4. fault_coarse(milliseconds): so long are the ticks of the coarse clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char armed[32];
static long skip_left, fail_left, hits, hits_last, seen;
static int fail_errno;
static size_t cut_bytes;
static long again_every, moved;

void
fault_arm(const char *name, long skip, long count, int code)
{
    strncpy(armed, name, sizeof(armed) - 1);
    hits_last = hits;
    skip_left = skip;
    fail_left = count;
    fail_errno = code;
    hits = seen = 0;
}

void
fault_cut(size_t bytes, long again)
{
    cut_bytes = bytes;
    again_every = again;
}

long
fault_hits(void)
{
    return hits;
}

/* Of the arming before the present one. */
long
fault_hits_last(void)
{
    return hits_last;
}

long
fault_seen(void)
{
    return seen;
}

static int
lies_in(void *caller, const char *library)
{
    Dl_info info;
    return dladdr(caller, &info) != 0 && info.dli_fname != NULL
           && strstr(info.dli_fname, library) != NULL;
}

static int
is_extension(void *caller)
{
    return lies_in(caller, "/_core.");
}

static int
is_ours(void *caller)
{
    return is_extension(caller) || lies_in(caller, "libuv");
}

/* Whether this call is to fail; errno is set if so. */
static int
fails(const char *name, void *caller)
{
    if (armed[0] == 0 || strcmp(armed, name) != 0 || !is_ours(caller)) {
        return 0;
    }
    seen++;
    if (skip_left > 0) {
        skip_left--;
        return 0;
    }
    if (fail_left <= 0 || fail_errno == 0) {
        return 0;
    }
    fail_left--;
    hits++;
    errno = fail_errno;
    return 1;
}

static size_t
cut(size_t size, void *caller)
{
    return cut_bytes > 0 && size > cut_bytes && is_ours(caller) ? cut_bytes
                                                                : size;
}

static int
blocks(void *caller)
{
    if (again_every == 0 || !is_ours(caller)
        || __sync_add_and_fetch(&moved, 1) % again_every != 0)
    {
        return 0;
    }
    errno = EAGAIN;
    return 1;
}

#define CALLER     __builtin_return_address(0)
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRAP(type, name, parameters, arguments)                        \
    type name parameters                                               \
    {                                                                  \
        return fails(#name, CALLER) ? (type)-1 : NEXT(name) arguments; \
    }

WRAP(int, epoll_create1, (int flags), (flags))

/* Only the calls whose failure libuv reports: its trial of a descriptor, which
   has no number in its data.  That the trial went well and the registration
   fails is, to libuv, a reason to abort. */
int
epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    /* libuv's trial of a descriptor, or a registration of our own set. */
    if (op == EPOLL_CTL_ADD
        && (event->data.fd == -1 || (event->events & (EPOLLET | EPOLLONESHOT)))
        && fails("epoll_ctl", CALLER))
    {
        return -1;
    }
    /* Any registration: where libuv's own fails it aborts. */
    if (op == EPOLL_CTL_ADD && fails("epoll_ctl_any", CALLER)) {
        return -1;
    }
    /* Our set's registrations that are armed again, by a name of their own.
       Their data has a generation beside the number. */
    if (op == EPOLL_CTL_MOD && event->data.u64 >> 32 != 0
        && fails("epoll_ctl_mod", CALLER))
    {
        return -1;
    }
    return NEXT(epoll_ctl)(epfd, op, fd, event);
}

WRAP(int, timerfd_create, (int clock, int flags), (clock, flags))
WRAP(int, timerfd_settime,
     (int fd, int flags, const struct itimerspec *when,
      struct itimerspec *old),
     (fd, flags, when, old))
WRAP(int, eventfd, (unsigned count, int flags), (count, flags))
WRAP(int, pipe2, (int fds[2], int flags), (fds, flags))
WRAP(int, accept4, (int fd, struct sockaddr *at, socklen_t *size, int flags),
     (fd, at, size, flags))
WRAP(int, getsockname, (int fd, struct sockaddr *at, socklen_t *size),
     (fd, at, size))
WRAP(int, getpeername, (int fd, struct sockaddr *at, socklen_t *size),
     (fd, at, size))
WRAP(int, setsockopt,
     (int fd, int level, int name, const void *value, socklen_t size),
     (fd, level, name, value, size))
WRAP(int, shutdown, (int fd, int how), (fd, how))

int
fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (fails("fcntl", CALLER)) {
        return -1;
    }
    int (*next)(int, int, ...) =
        (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl");
    return next(fd, command, argument);
}

int
fcntl64(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (fails("fcntl", CALLER)) {
        return -1;
    }
    int (*next)(int, int, ...) =
        (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl64");
    return next(fd, command, argument);
}

int
ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (fails("ioctl", CALLER)) {
        return -1;
    }
    int (*next)(int, unsigned long, ...) =
        (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    return next(fd, request, argument);
}

#define WRAP_MOVE(name, parameters, arguments, shorten) \
    ssize_t name parameters                             \
    {                                                   \
        void *caller = CALLER;                          \
        if (fails(#name, caller)) {                     \
            return -1;                                  \
        }                                               \
        shorten;                                        \
        return NEXT(name) arguments;                    \
    }

#define SHORTEN           \
    if (blocks(caller)) { \
        return -1;        \
    }                     \
    size = cut(size, caller)

WRAP_MOVE(read, (int fd, void *to, size_t size), (fd, to, size), (void)0)
WRAP_MOVE(write, (int fd, const void *from, size_t size), (fd, from, size),
          (void)0)
WRAP_MOVE(recv, (int fd, void *to, size_t size, int flags),
          (fd, to, size, flags), SHORTEN)
WRAP_MOVE(send, (int fd, const void *from, size_t size, int flags),
          (fd, from, size, flags), SHORTEN)

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    void *caller = CALLER;
    if (fails("sendmsg", caller) || blocks(caller)) {
        return -1;
    }
    struct msghdr first = *message;
    struct iovec part;
    if (cut_bytes > 0 && message->msg_iovlen > 0 && is_ours(caller)) {
        part = message->msg_iov[0];
        part.iov_len = cut(part.iov_len, caller);
        first.msg_iov = &part;
        first.msg_iovlen = 1;
    }
    return NEXT(sendmsg)(fd, &first, flags);
}

ssize_t
writev(int fd, const struct iovec *parts, int count)
{
    void *caller = CALLER;
    if (fails("writev", caller) || blocks(caller)) {
        return -1;
    }
    struct iovec part;
    if (cut_bytes > 0 && count > 0 && is_ours(caller)) {
        part = parts[0];
        part.iov_len = cut(part.iov_len, caller);
        return NEXT(writev)(fd, &part, 1);
    }
    return NEXT(writev)(fd, parts, count);
}

/* Of several messages, one at a time under fault_cut. */
#define WRAP_MESSAGES(name, parameters, arguments)    \
    int name parameters                               \
    {                                                 \
        void *caller = CALLER;                        \
        if (fails(#name, caller) || blocks(caller)) { \
            return -1;                                \
        }                                             \
        if (cut_bytes > 0 && is_ours(caller)) {       \
            count = 1;                                \
        }                                             \
        return NEXT(name) arguments;                  \
    }

WRAP_MESSAGES(recvmmsg,
              (int fd, struct mmsghdr *messages, unsigned count, int flags,
               struct timespec *limit),
              (fd, messages, count, flags, limit))
WRAP_MESSAGES(sendmmsg,
              (int fd, struct mmsghdr *messages, unsigned count, int flags),
              (fd, messages, count, flags))
WRAP_MOVE(recvfrom,
          (int fd, void *to, size_t size, int flags, struct sockaddr *from,
           socklen_t *from_size),
          (fd, to, size, flags, from, from_size), SHORTEN)
WRAP_MOVE(sendto,
          (int fd, const void *from, size_t size, int flags,
           const struct sockaddr *to, socklen_t to_size),
          (fd, from, size, flags, to, to_size), if (blocks(caller)) return -1)

static long delay_us;

/* How long a thread is away after it set libuv's timer, and in each poll. */
void
fault_delay(long microseconds)
{
    delay_us = microseconds;
}

static void
be_away(void)
{
    if (delay_us > 0) {
        (void)usleep((useconds_t)delay_us);
    }
}

int
uv_timer_start(void *timer, void *callback, uint64_t timeout, uint64_t repeat)
{
    /* libuv came with the extension: it is in nobody's search order. */
    void *libuv = dlopen("libuv.so.1", RTLD_LAZY | RTLD_NOLOAD);
    int (*next)(void *, void *, uint64_t, uint64_t) =
        (int (*)(void *, void *, uint64_t, uint64_t))dlsym(libuv,
                                                           "uv_timer_start");
    int code = next(timer, callback, timeout, repeat);
    be_away();
    return code;
}

static long long coarse_ns;

/* The coarse clock advances by so many milliseconds at a time. */
void
fault_coarse(long milliseconds)
{
    coarse_ns = milliseconds * 1000000LL;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
    int code = NEXT(clock_gettime)(clock, now);
    if (coarse_ns > 0 && clock == CLOCK_MONOTONIC_COARSE) {
        long long ns = now->tv_sec * 1000000000LL + now->tv_nsec;
        ns -= ns % coarse_ns;
        now->tv_sec = ns / 1000000000LL;
        now->tv_nsec = ns % 1000000000LL;
    }
    return code;
}

int
epoll_wait(int epfd, struct epoll_event *events, int most, int timeout)
{
    be_away();
    return fails("epoll_wait", CALLER)
               ? -1
               : NEXT(epoll_wait)(epfd, events, most, timeout);
}

int
epoll_pwait(int epfd, struct epoll_event *events, int most, int timeout,
            const sigset_t *mask)
{
    be_away();
    return fails("epoll_wait", CALLER)
               ? -1
               : NEXT(epoll_pwait)(epfd, events, most, timeout, mask);
}

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

void *
malloc(size_t size)
{
    return fails("malloc", CALLER) ? NULL : __libc_malloc(size);
}

void *
aligned_alloc(size_t alignment, size_t size)
{
    return fails("aligned_alloc", CALLER)
               ? NULL
               : NEXT(aligned_alloc)(alignment, size);
}

/* mmap() by the name that Python's headers give it. */
void *
mmap64(void *address, size_t size, int access, int flags, int fd,
       off64_t offset)
{
    return is_extension(CALLER) && fails("mmap", CALLER)
               ? MAP_FAILED
               : NEXT(mmap64)(address, size, access, flags, fd, offset);
}

void *
calloc(size_t count, size_t size)
{
    return fails("calloc", CALLER) ? NULL : __libc_calloc(count, size);
}

void *
realloc(void *block, size_t size)
{
    /* libuv aborts when it cannot grow its table of descriptors. */
    return is_extension(CALLER) && fails("realloc", CALLER)
               ? NULL
               : __libc_realloc(block, size);
}
