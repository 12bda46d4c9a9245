/* Faults of the file system, and of the clock, at the n-th call below a folder.
 *
 * Loaded with LD_PRELOAD, and off until `fault_at` is called. Calls of other processes aren't counted, so a process that
 * is started meanwhile has none. A call is counted before it is made: a process that is killed at call n hasn't made it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE = 2, SYNC = 4, NAME = 8, READ = 16 };
enum action { FAIL, SIGNAL, MOVE, FORBID, SET_BACK };

static char under[PATH_MAX], from[PATH_MAX], to[PATH_MAX];
static size_t n_under;
static int kinds, action, value;
static long first, count;
static time_t offset_s;
static pid_t owner;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* From call `number` on, of these kinds, below a folder: FAIL with an errno; once: send this process a signal, move a
 * file or folder to another name, set the mode of one, set the clock back by seconds. Number 0 only counts. */
void fault_at(const char *folder, int of_kinds, long number, int what, int with, const char *a, const char *b) {
    snprintf(under, sizeof under, "%s", folder);
    snprintf(from, sizeof from, "%s", a);
    snprintf(to, sizeof to, "%s", b);
    kinds = of_kinds, first = number, action = what, value = with, count = 0, owner = getpid();
    n_under = strlen(under);
}

long fault_count(void) { return count; }

/* Whether the call is to fail; errno is set then. */
static int fails(enum kind kind, const char *path) {
    if (!n_under || !(kinds & kind) || strncmp(path, under, n_under) || getpid() != owner) return 0;
    long number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (first < 1 || number < first) return 0;
    if (action == FAIL) {
        errno = value;
        return 1;
    }
    if (number > first) return 0;
    int before = errno;
    if (action == SIGNAL) kill(getpid(), value);
    if (action == MOVE) REAL(rename)(from, to);
    if (action == FORBID) chmod(from, value);
    if (action == SET_BACK) offset_s = value;
    errno = before;
    return 0;
}

static int fails_fd(enum kind kind, int fd) {
    if (!n_under || !(kinds & kind)) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return fails(kind, path);
}

static int fails_at(enum kind kind, int folder, const char *path) {
    return folder == AT_FDCWD || path[0] == '/' ? fails(kind, path) : fails_fd(kind, folder);
}

#define MODE(flags)                                     \
    mode_t mode = 0;                                    \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {            \
        va_list rest;                                   \
        va_start(rest, flags);                          \
        mode = va_arg(rest, mode_t);                    \
        va_end(rest);                                   \
    }
#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        MODE(flags)                                                                 \
        if ((flags & O_CREAT) && fails(CREATE, path)) return -1;                    \
        return REAL(name)(path, flags, mode);                                       \
    }
#define OPENAT(name)                                                                \
    int name(int folder, const char *path, int flags, ...) {                        \
        MODE(flags)                                                                 \
        if ((flags & O_CREAT) && fails_at(CREATE, folder, path)) return -1;         \
        return REAL(name)(folder, path, flags, mode);                               \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define CALL(type, name, check, types, names) \
    type name types { return check ? -1 : REAL(name) names; }
CALL(ssize_t, write, fails_fd(WRITE, fd), (int fd, const void *bytes, size_t n), (fd, bytes, n))
CALL(ssize_t, pwrite, fails_fd(WRITE, fd), (int fd, const void *bytes, size_t n, off_t at), (fd, bytes, n, at))
CALL(ssize_t, pwrite64, fails_fd(WRITE, fd), (int fd, const void *bytes, size_t n, off64_t at), (fd, bytes, n, at))
CALL(ssize_t, writev, fails_fd(WRITE, fd), (int fd, const struct iovec *parts, int n), (fd, parts, n))
CALL(int, ftruncate, fails_fd(WRITE, fd), (int fd, off_t n), (fd, n))
CALL(int, ftruncate64, fails_fd(WRITE, fd), (int fd, off64_t n), (fd, n))
CALL(ssize_t, sendfile, fails_fd(WRITE, out), (int out, int in, off_t *at, size_t n), (out, in, at, n))
CALL(ssize_t, sendfile64, fails_fd(WRITE, out), (int out, int in, off64_t *at, size_t n), (out, in, at, n))
CALL(int, fsync, fails_fd(SYNC, fd), (int fd), (fd))
CALL(int, fdatasync, fails_fd(SYNC, fd), (int fd), (fd))
CALL(ssize_t, read, fails_fd(READ, fd), (int fd, void *bytes, size_t n), (fd, bytes, n))
CALL(ssize_t, pread, fails_fd(READ, fd), (int fd, void *bytes, size_t n, off_t at), (fd, bytes, n, at))
CALL(ssize_t, pread64, fails_fd(READ, fd), (int fd, void *bytes, size_t n, off64_t at), (fd, bytes, n, at))
CALL(int, mkdir, fails(CREATE, path), (const char *path, mode_t mode), (path, mode))
CALL(int, mkdirat, fails_at(CREATE, folder, path), (int folder, const char *path, mode_t mode), (folder, path, mode))
CALL(int, rename, fails(NAME, new), (const char *old, const char *new), (old, new))
CALL(int, renameat, fails_at(NAME, b, new), (int a, const char *old, int b, const char *new), (a, old, b, new))
CALL(int, unlink, fails(NAME, path), (const char *path), (path))
CALL(int, unlinkat, fails_at(NAME, folder, path), (int folder, const char *path, int flags), (folder, path, flags))
CALL(int, rmdir, fails(NAME, path), (const char *path), (path))

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec -= offset_s;
    return result;
}

time_t time(time_t *to_set) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to_set) *to_set = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec exact;
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec, now->tv_usec = exact.tv_nsec / 1000;
    return result;
}
