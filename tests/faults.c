/* Faults at the n-th write: preloaded, it counts every call that changes a file below one folder, and at the n-th
 * kills the process, fails the call with an errno, or writes half and kills. Armed by fault_arm(), or by FAULT_FOLDER,
 * FAULT_AT, FAULT_ACTION and FAULT_ERRNO in the environment. */
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
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, FAIL, TEAR, FAIL_FROM };

static char folder[PATH_MAX];
static int action = COUNT, number = 0;
static long at = -1, calls = 0, inside = 0;

void fault_arm(const char *below, long n, int what, int error) {
    calls = inside = 0;
    at = n;
    action = what;
    number = error;
    snprintf(folder, sizeof folder, "%s", below);
}

long fault_calls(void) { return calls; }

__attribute__((constructor)) static void from_environment(void) {
    const char *below = getenv("FAULT_FOLDER");
    if (below)
        fault_arm(below, atol(getenv("FAULT_AT")), atoi(getenv("FAULT_ACTION")), atoi(getenv("FAULT_ERRNO")));
}

static int below(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    if (!*folder || fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int at_below(int dir, const char *path) {
    char whole[PATH_MAX * 2], start[PATH_MAX];
    if (!*folder || !path) return 0;
    if (*path == '/') return below(path);
    if (dir == AT_FDCWD) {
        if (!getcwd(start, sizeof start)) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t length = readlink(link, start, sizeof start - 1);
        if (length < 0) return 0;
        start[length] = 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", start, path);
    return below(whole);
}

/* 0: go on; 1: fail with errno set; 2: write half, then die. */
static int strike(void) {
    long now = __sync_add_and_fetch(&calls, 1);
    if (action == FAIL_FROM && now >= at) { errno = number; return 1; }
    if (now != at) return 0;
    if (action == KILL) { kill(getpid(), SIGKILL); pause(); }
    if (action == FAIL) { errno = number; return 1; }
    return action == TEAR ? 2 : 0;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define DIE do { kill(getpid(), SIGKILL); pause(); } while (0)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(write);
    if (fd_below(fd)) {
        int what = strike();
        if (what == 1) return -1;
        if (what == 2) { real(fd, bytes, count / 2); DIE; }
    }
    return real(fd, bytes, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    REAL(pwrite64);
    if (fd_below(fd)) {
        int what = strike();
        if (what == 1) return -1;
        if (what == 2) { real(fd, bytes, count / 2, offset); DIE; }
    }
    return real(fd, bytes, count, offset);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return pwrite64(fd, bytes, count, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (fd_below(fd)) {
        int what = strike();
        if (what == 1) return -1;
        if (what == 2) { real(fd, parts, 1); DIE; }
    }
    return real(fd, parts, count);
}

#define CHECKED(condition, failed) \
    if (condition) { int what = strike(); if (what == 1) return failed; if (what == 2) DIE; }

int fsync(int fd) { REAL(fsync); CHECKED(fd_below(fd), -1) return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); CHECKED(fd_below(fd), -1) return real(fd); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); CHECKED(fd_below(fd), -1) return real(fd, size); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); CHECKED(fd_below(fd), -1) return real(fd, size); }
int rename(const char *a, const char *b) {
    REAL(rename);
    CHECKED(at_below(AT_FDCWD, b), -1) return real(a, b);
}
int renameat(int da, const char *a, int db, const char *b) {
    REAL(renameat);
    CHECKED(at_below(db, b), -1) return real(da, a, db, b);
}
int unlink(const char *a) { REAL(unlink); CHECKED(at_below(AT_FDCWD, a), -1) return real(a); }
int unlinkat(int d, const char *a, int flags) { REAL(unlinkat); CHECKED(at_below(d, a), -1) return real(d, a, flags); }
int rmdir(const char *a) { REAL(rmdir); CHECKED(at_below(AT_FDCWD, a), -1) return real(a); }
int mkdir(const char *a, mode_t mode) { REAL(mkdir); CHECKED(at_below(AT_FDCWD, a), -1) return real(a, mode); }
int mkdirat(int d, const char *a, mode_t mode) { REAL(mkdirat); CHECKED(at_below(d, a), -1) return real(d, a, mode); }

#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define OPENER(name, first, dir, path, ...) \
    int name(first const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; va_start(more, flags); \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        if (WRITES(flags)) { CHECKED(at_below(dir, path), -1) } \
        return real(__VA_ARGS__ flags, mode); \
    }
#define NOTHING
OPENER(open, NOTHING, AT_FDCWD, path, path,)
OPENER(open64, NOTHING, AT_FDCWD, path, path,)
#define DIR int d,
OPENER(openat, DIR, d, path, d, path,)
OPENER(openat64, DIR, d, path, d, path,)
