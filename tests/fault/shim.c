/* Makes what fastloop's extension calls fail, one call at a time.

   A test loads this library by ctypes and calls fault_hook(): the functions
   below take the place of those that the extension imports, in the slots that
   the dynamic linker filled.  So what the interpreter itself calls is left
   alone, "the third call" means the same in each run, and a sanitizer sees
   what it always sees.

   1. fault_arm(name, skip, count, errno): the calls skip .. skip+count-1 of
      this function fail with errno (0: nothing fails, calls are counted;
      SHORT: they move one byte).  Functions of CPython raise MemoryError.
   2. fault_cut(sides, bytes, again, errno): every read (sides 1), write (2)
      or both (3) moves at most so many bytes, or a thousandth if that is
      more (0: all), and each `again`-th ends by errno.
   3. fault_delay(microseconds): the thread is away for so long in each poll.
   4. fault_coarse(milliseconds): so long are the ticks of the coarse clock.
   5. fault_log: what was called so far, and from where, in order.
 */
#define _GNU_SOURCE
#include "shim_calls.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SHORT (-1)

typedef uintptr_t word;
typedef word generic(word, word, word, word, word, word, word, word, word,
                     word, word, word);

struct hook {
    const char *symbol;
    const char *name;
    int kind;
    void *replacement;
    void *original;
};

enum {
#define NUMBER(symbol, ...) H_##symbol,
    SPECIALS(NUMBER) GENERIC(NUMBER) HOOKS
};

static struct hook hooks[HOOKS];

static char armed[32];
static long skip_left, fail_left, hits, seen;
static int fail_errno;
static void *fail_caller;
enum {
    READS = 1,
    WRITES = 2
};

#define MOST_CALLS (1 << 18)

struct {
    const char *name;
    void *caller;
} fault_log[MOST_CALLS];
static long logged;

static int cut_sides;
static size_t cut_bytes;
static long again_every, moved;
static int again_errno;
static long delay_us;
static long long coarse_ns;

void
fault_arm(const char *name, long skip, long count, int code)
{
    strncpy(armed, name, sizeof(armed) - 1);
    skip_left = skip;
    fail_left = count;
    fail_errno = code;
    hits = seen = 0;
}

void
fault_cut(int sides, size_t bytes, long again, int code)
{
    cut_sides = sides;
    cut_bytes = bytes;
    again_every = again;
    again_errno = code;
}

/* How long a thread is away in each poll. */
void
fault_delay(long microseconds)
{
    delay_us = microseconds;
}

/* The coarse clock advances by so many milliseconds at a time. */
void
fault_coarse(long milliseconds)
{
    coarse_ns = milliseconds * 1000000LL;
}

long
fault_hits(void)
{
    return hits;
}

long
fault_seen(void)
{
    return seen;
}

#define INLINE static inline __attribute__((always_inline))

/* The library of the last call that failed, and the place in it, or 0. */
uintptr_t
fault_place(const char **library)
{
    Dl_info info;
    if (fail_caller == NULL || dladdr(fail_caller, &info) == 0) {
        return 0;
    }
    *library = info.dli_fname;
    return (uintptr_t)fail_caller - (uintptr_t)info.dli_fbase;
}

/* How many calls the log has: a sanitizer makes more than it holds. */
int
fault_logged(void)
{
    return (int)(logged < MOST_CALLS ? logged : MOST_CALLS);
}

/* The errno by which this call is to fail, SHORT, or 0. */
INLINE int
fails(int number)
{
    long call = __sync_fetch_and_add(&logged, 1);
    if (call < MOST_CALLS) {
        fault_log[call].name = hooks[number].name;
        fault_log[call].caller = __builtin_return_address(0);
    }
    if (armed[0] == 0 || strcmp(armed, hooks[number].name) != 0) {
        return 0;
    }
    __sync_add_and_fetch(&seen, 1);
    if (__sync_fetch_and_sub(&skip_left, 1) > 0 || fail_left <= 0
        || fail_errno == 0)
    {
        return 0;
    }
    fail_left--;
    hits++;
    fail_caller = __builtin_return_address(0);
    errno = fail_errno;
    return fail_errno;
}

static int
blocks(int side)
{
    if (again_every == 0 || !(cut_sides & side)
        || __sync_add_and_fetch(&moved, 1) % again_every != 0)
    {
        return 0;
    }
    errno = again_errno;
    return 1;
}

#define MOST_PIECES 1000

/* A datagram is whole, or not what was sent. */
static int
is_datagram(int fd)
{
    int type = 0;
    socklen_t size = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0
           && type == SOCK_DGRAM;
}

/* Whether calls move less than they could. */
static int
cuts(int side)
{
    return cut_bytes > 0 && (cut_sides & side);
}

/* Whether a call that moves `size` bytes fails; it moves fewer maybe. */
INLINE int
move_fails(int number, int side, int fd, size_t *size)
{
    int code = fails(number);
    if (code == SHORT) {
        *size = *size > 1 && !is_datagram(fd) ? 1 : *size;
        return 0;
    }
    if (code != 0 || blocks(side)) {
        return 1;
    }
    if (cuts(side) && *size > cut_bytes && !is_datagram(fd)) {
        /* A byte at a time of a lot takes too long. */
        size_t share = *size / MOST_PIECES;
        *size = share > cut_bytes ? share : cut_bytes;
    }
    return 0;
}

static void
raise_memory_error(void)
{
    static void *(*raise)(void);
    if (raise == NULL) {
        raise = (void *(*)(void))dlsym(RTLD_DEFAULT, "PyErr_NoMemory");
    }
    raise();
}

static word
give_up(int kind, int code, word second, word third, word result)
{
    switch (kind) {
    case UV:
        return (word)-code;
    case CODE:
        return (word)code;
    case MEMORY:
    case RAW:
        return 0;
    case BUILT:
        ((void (*)(word))dlsym(RTLD_DEFAULT, "Py_DecRef"))(result);
        /* fall through */
    case POINTER:
        raise_memory_error();
        return 0;
    case BUFFER:
        ((void **)second)[1] = NULL;
        raise_memory_error();
        break;
    case OUT2:
    case OUT3:
        *(void **)(kind == OUT2 ? second : third) = NULL;
        raise_memory_error();
        break;
    case INTEGER:
        raise_memory_error();
    }
    return (word)-1;
}

#define ORIGINAL(symbol) \
    ((__typeof__(&hook_##symbol))hooks[H_##symbol].original)

#define STUB(symbol, kind)                                                    \
    static word hook_##symbol(word a, word b, word c, word d, word e, word f, \
                              word g, word h, word i, word j, word k, word l) \
    {                                                                         \
        int code = fails(H_##symbol);                                         \
        word result = 0;                                                      \
        if (code == 0 || (kind) == BUILT) {                                   \
            result = ORIGINAL(symbol)(a, b, c, d, e, f, g, h, i, j, k, l);    \
        }                                                                     \
        return code == 0 ? result : give_up(kind, code, b, c, result);        \
    }
GENERIC(STUB)

/* A descriptor that is there already needs no room: that answer is the
   system's.  Nor does a wake-up, the one that is reported once. */
static int
hook_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    if (op == EPOLL_CTL_MOD && !(event->events & EPOLLONESHOT)
        && fails(H_epoll_ctl_mod))
    {
        return -1;
    }
    if (op == EPOLL_CTL_ADD && (event->events & EPOLLEXCLUSIVE)
        && fails(H_epoll_exclusive))
    {
        return -1;
    }
    int code = epoll_ctl(epfd, op, fd, event);
    if (op == EPOLL_CTL_ADD && code == 0 && fails(H_epoll_ctl)) {
        int error = errno;
        (void)epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
        errno = error;
        return -1;
    }
    return code;
}

/* By the name that is not called. */
#define hook_epoll_ctl_mod   NULL
#define hook_epoll_exclusive NULL

static void
be_away(void)
{
    if (delay_us > 0) {
        (void)usleep((useconds_t)delay_us);
    }
}

static int
hook_epoll_wait(int epfd, struct epoll_event *events, int most, int timeout)
{
    be_away();
    return fails(H_epoll_wait) ? -1 : epoll_wait(epfd, events, most, timeout);
}

static int
hook_epoll_pwait(int epfd, struct epoll_event *events, int most, int timeout,
                 const sigset_t *mask)
{
    be_away();
    return fails(H_epoll_pwait)
               ? -1
               : epoll_pwait(epfd, events, most, timeout, mask);
}

static int
hook_epoll_pwait2(int epfd, struct epoll_event *events, int most,
                  const struct timespec *timeout, const sigset_t *mask)
{
    be_away();
    return fails(H_epoll_pwait2)
               ? -1
               : epoll_pwait2(epfd, events, most, timeout, mask);
}

#define WRAP_FCNTL(name)                                            \
    static int hook_##name(int fd, int command, ...)                \
    {                                                               \
        va_list list;                                               \
        va_start(list, command);                                    \
        void *argument = va_arg(list, void *);                      \
        va_end(list);                                               \
        return fails(H_##name) ? -1 : fcntl(fd, command, argument); \
    }
WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)

#define WRAP_MMAP(name, offset_type)                                 \
    static void *hook_##name(void *address, size_t size, int access, \
                             int flags, int fd, offset_type offset)  \
    {                                                                \
        return fails(H_##name)                                       \
                   ? MAP_FAILED                                      \
                   : name(address, size, access, flags, fd, offset); \
    }
WRAP_MMAP(mmap, off_t)
WRAP_MMAP(mmap64, off64_t)

/* Linux has closed it, whatever it says. */
static int
hook_close(int fd)
{
    int code = fails(H_close);
    int result = close(fd);
    if (code == 0) {
        return result;
    }
    errno = code;
    return -1;
}

#define WRAP_MOVE(name, side, parameters, arguments)                        \
    static ssize_t hook_##name parameters                                   \
    {                                                                       \
        return move_fails(H_##name, side, fd, &size) ? -1 : name arguments; \
    }

WRAP_MOVE(recv, READS, (int fd, void *to, size_t size, int flags),
          (fd, to, size, flags))
WRAP_MOVE(send, WRITES, (int fd, const void *from, size_t size, int flags),
          (fd, from, size, flags))
WRAP_MOVE(recvfrom, READS,
          (int fd, void *to, size_t size, int flags, struct sockaddr *from,
           socklen_t *from_size),
          (fd, to, size, flags, from, from_size))

static ssize_t
hook_read(int fd, void *to, size_t size)
{
    int code = fails(H_read);
    return code > 0 ? -1 : read(fd, to, code == SHORT ? 1 : size);
}

static ssize_t
hook_write(int fd, const void *from, size_t size)
{
    int code = fails(H_write);
    return code > 0 ? -1 : write(fd, from, code == SHORT ? 1 : size);
}

/* A datagram leaves whole. */
static ssize_t
hook_sendto(int fd, const void *from, size_t size, int flags,
            const struct sockaddr *to, socklen_t to_size)
{
    size_t most = size;
    return move_fails(H_sendto, WRITES, fd, &most)
               ? -1
               : sendto(fd, from, size, flags, to, to_size);
}

/* Cut to less than the first part, the others wait. */
#define WRAP_MESSAGE(name, side, type)                           \
    static ssize_t hook_##name(int fd, type *message, int flags) \
    {                                                            \
        struct iovec part = {NULL, 0};                           \
        if (message->msg_iovlen > 0) {                           \
            part = message->msg_iov[0];                          \
        }                                                        \
        size_t size = part.iov_len;                              \
        if (move_fails(H_##name, side, fd, &size)) {             \
            return -1;                                           \
        }                                                        \
        if (size == part.iov_len && !cuts(side)) {               \
            return name(fd, message, flags);                     \
        }                                                        \
        struct msghdr first = *message;                          \
        part.iov_len = size;                                     \
        first.msg_iov = &part;                                   \
        first.msg_iovlen = 1;                                    \
        return name(fd, &first, flags);                          \
    }

WRAP_MESSAGE(sendmsg, WRITES, const struct msghdr)
WRAP_MESSAGE(recvmsg, READS, struct msghdr)

static ssize_t
hook_writev(int fd, const struct iovec *parts, int count)
{
    if (count > 0) {
        struct iovec part = parts[0];
        size_t size = part.iov_len;
        if (move_fails(H_writev, WRITES, fd, &size)) {
            return -1;
        }
        if (size < part.iov_len || cuts(WRITES)) {
            part.iov_len = size;
            return writev(fd, &part, 1);
        }
    }
    return writev(fd, parts, count);
}

/* Of several messages, one at a time under fault_cut. */
static int
hook_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
              struct timespec *limit)
{
    size_t most = count;
    if (move_fails(H_recvmmsg, READS, fd, &most)) {
        return -1;
    }
    bool alone = cuts(READS) && count > 0;
    return recvmmsg(fd, messages, alone ? 1 : (unsigned)most, flags, limit);
}

static int
hook_clock_gettime(clockid_t clock, struct timespec *now)
{
    int code = clock_gettime(clock, now);
    if (coarse_ns > 0 && clock == CLOCK_MONOTONIC_COARSE) {
        long long ns = now->tv_sec * 1000000000LL + now->tv_nsec;
        ns -= ns % coarse_ns;
        now->tv_sec = ns / 1000000000LL;
        now->tv_nsec = ns % 1000000000LL;
    }
    return code;
}

static void *
hook_PyFloat_FromDouble(double value)
{
    if (fails(H_PyFloat_FromDouble)) {
        raise_memory_error();
        return NULL;
    }
    return ORIGINAL(PyFloat_FromDouble)(value);
}

/* More than CPython allocates, on 32 bits too: the bytes are freed, as in any
   failure. */
static int
hook__PyBytes_Resize(void **bytes, ssize_t size)
{
    return ORIGINAL(
        _PyBytes_Resize)(bytes, fails(H__PyBytes_Resize) ? PTRDIFF_MAX : size);
}

static struct hook hooks[HOOKS] = {
#define SPECIAL_HOOK(symbol, name) \
    {#symbol, name, SPECIAL, (void *)hook_##symbol, NULL},
#define GENERIC_HOOK(symbol, kind) \
    {#symbol, #symbol, kind, (void *)hook_##symbol, NULL},
    SPECIALS(SPECIAL_HOOK) GENERIC(GENERIC_HOOK)};

/* Put the hook of a symbol, if there is one, into a slot. */
static void
fill_slot(void **slot, const char *symbol, void *library)
{
    for (struct hook *hook = hooks; hook < hooks + HOOKS; hook++) {
        if (strcmp(hook->symbol, symbol) != 0 || *slot == hook->replacement) {
            continue;
        }
        if (hook->original == NULL) {
            /* A slot that is filled by its first call has no address yet. */
            hook->original = dlsym(library, symbol);
        }
        if (hook->original == NULL) {
            hook->original = dlsym(RTLD_DEFAULT, symbol);
        }
        uintptr_t page = (uintptr_t)slot & -(uintptr_t)sysconf(_SC_PAGESIZE);
        (void)mprotect((void *)page, (size_t)sysconf(_SC_PAGESIZE),
                       PROT_READ | PROT_WRITE);
        *slot = hook->replacement;
    }
}

#define MOST_RELOCATIONS 3

static int
hook_library(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    const char *file = strrchr(info->dlpi_name, '/');
    bool is_ours = file != NULL && strncmp(file + 1, "_core.", 6) == 0;
    const ElfW(Dyn) *dynamic = NULL;
    for (int i = 0; is_ours && i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC) {
            dynamic = (void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
        }
    }
    if (dynamic == NULL) {
        return 0;
    }
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    const char *tables[MOST_RELOCATIONS] = {NULL};
    size_t sizes[MOST_RELOCATIONS] = {0};
    int with_addend = sizeof(void *) == 8;
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        const void *at = (const void *)dynamic->d_un.d_ptr;
        switch (dynamic->d_tag) {
        case DT_SYMTAB:
            symbols = at;
            break;
        case DT_STRTAB:
            names = at;
            break;
        case DT_JMPREL:
            tables[0] = at;
            break;
        case DT_PLTRELSZ:
            sizes[0] = dynamic->d_un.d_val;
            break;
        case DT_RELA:
        case DT_REL:
            tables[1] = at;
            break;
        case DT_RELASZ:
        case DT_RELSZ:
            sizes[1] = dynamic->d_un.d_val;
            break;
        }
    }
    void *library = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
    size_t step = with_addend ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
    for (int table = 0; table < 2; table++) {
        for (size_t at = 0; at + step <= sizes[table]; at += step) {
            /* Both kinds begin alike. */
            const ElfW(Rel) *one = (const void *)(tables[table] + at);
            size_t number =
                sizeof(void *) == 8 ? one->r_info >> 32 : one->r_info >> 8;
            if (number != 0) {
                fill_slot((void **)(info->dlpi_addr + one->r_offset),
                          names + symbols[number].st_name, library);
            }
        }
    }
    *(int *)found = 1;
    return 0;
}

/* Take the place of what is called; 1 if the extension was found. */
int
fault_hook(void)
{
    int found = 0;
    dl_iterate_phdr(hook_library, &found);
    return found;
}

/* A type's objects are allocated by this function, which no slot names. */
int
fault_hook_type(void **type, size_t words)
{
    void *generic_alloc = dlsym(RTLD_DEFAULT, "PyType_GenericAlloc");
    hooks[H_PyType_GenericAlloc].original = generic_alloc;
    for (size_t i = 0; i < words; i++) {
        if (type[i] == generic_alloc) {
            type[i] = (void *)hook_PyType_GenericAlloc;
            return 1;
        }
    }
    return 0;
}
