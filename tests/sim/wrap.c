/* System calls of the fleet's code, taken over by the linker (--wrap, CMakeLists.txt). Paths below /sim go to the disks
 * of disk.h, time is virtual, processes are parts; all else is left to libc, so that the simulator itself can read files.
 */
#include "tests/sim/wrap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/facts.h"
#include "tests/sim/sim.h"

/* Declared here once: the linker's names of what stands before and behind each wrap. */
#define WRAP(ret, name, ...)                                                                       \
    ret __real_##name(__VA_ARGS__);                                                                \
    ret __wrap_##name(__VA_ARGS__);                                                                \
    ret __wrap_##name(__VA_ARGS__)

enum { FD_BASE = 1 << 20, FDS_MAX = 4096, MAPS_MAX = 256 };

static struct ofd *fds[FDS_MAX];
static int fd_next;

static int fd_give(struct ofd *f)
{
    for (int i = 0; i < FDS_MAX; i++) {
        int k = (fd_next + i) % FDS_MAX;
        if (!fds[k]) {
            fds[k] = f;
            fd_next = (k + 1) % FDS_MAX;
            return FD_BASE + k;
        }
    }
    abort();
}

static struct ofd *fd_get(int fd)
{
    return fd >= FD_BASE && fd < FD_BASE + FDS_MAX ? fds[fd - FD_BASE] : NULL;
}

unsigned wrap_fds_open(void)
{
    unsigned n = 0;
    for (int i = 0; i < FDS_MAX; i++)
        n += fds[i] != NULL;
    return n;
}

static int done(long r)
{
    if (r >= 0)
        return (int)r;
    errno = (int)-r;
    return -1;
}

bool wrap_fd_ready(int fd)
{
    struct ofd *f = fd_get(fd);
    if (f && f->kind == OFD_SIGNALS)
        return world.cur && world.cur->signals;
    if (f && f->kind == OFD_BULK)
        return bulk_ready(f->bulk);
    return f && f->kind == OFD_PID && !task_by_pid(f->pid);
}

int wrap_fd_bulk(const struct bulk *b)
{
    struct ofd *f = calloc(1, sizeof(*f));
    if (!f)
        abort();
    *f = (struct ofd){ .kind = OFD_BULK, .refs = 1, .bulk = b };
    return fd_give(f);
}

/* /proc/self/exe of a part is its host's program file. */
static const char *mapped(const char *path, char out[64])
{
    if (!world.cur || strcmp(path, "/proc/self/exe") != 0)
        return path;
    snprintf(out, 64, "/sim/%s/bin/siofleet", world.host[world.cur->host].name);
    return out;
}

/* ---- descriptors */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    char exe[64];
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    path = mapped(path, exe);
    if (!disk_owns(path))
        return __real_open(path, flags, mode);
    struct ofd *f;
    int r = disk_open(path, flags, mode, &f);
    return r < 0 ? done(r) : fd_give(f);
}

WRAP(int, close, int fd)
{
    struct ofd *f = fd_get(fd);
    if (!f)
        return __real_close(fd);
    fds[fd - FD_BASE] = NULL;
    disk_close(f);
    return 0;
}

WRAP(ssize_t, read, int fd, void *p, size_t n)
{
    struct ofd *f = fd_get(fd);
    if (!f)
        return __real_read(fd, p, n);
    if (f->kind == OFD_SIGNALS) {
        if (!world.cur->signals)
            return done(-EAGAIN);
        world.cur->signals--;
        memset(p, 0, n);
        ((struct signalfd_siginfo *)p)->ssi_signo = SIGTERM;
        return (ssize_t)sizeof(struct signalfd_siginfo);
    }
    ssize_t r = disk_pread(f, p, n, f->pos);
    if (r > 0)
        f->pos += (uint64_t)r;
    return r < 0 ? done(r) : r;
}

WRAP(ssize_t, pread, int fd, void *p, size_t n, off_t off)
{
    struct ofd *f = fd_get(fd);
    if (!f)
        return __real_pread(fd, p, n, off);
    ssize_t r = disk_pread(f, p, n, (uint64_t)off);
    return r < 0 ? done(r) : r;
}

WRAP(ssize_t, write, int fd, const void *p, size_t n)
{
    struct ofd *f = fd_get(fd);
    if (!f)
        return __real_write(fd, p, n);
    ssize_t r = f->flags & O_APPEND ? disk_append(f, p, n) : disk_pwrite(f, p, n, f->pos);
    if (r > 0)
        f->pos += (uint64_t)r;
    return r < 0 ? done(r) : r;
}

WRAP(ssize_t, pwrite, int fd, const void *p, size_t n, off_t off)
{
    struct ofd *f = fd_get(fd);
    if (!f)
        return __real_pwrite(fd, p, n, off);
    ssize_t r = disk_pwrite(f, p, n, (uint64_t)off);
    return r < 0 ? done(r) : r;
}

WRAP(off_t, lseek, int fd, off_t off, int whence)
{
    struct ofd *f = fd_get(fd);
    if (!f)
        return __real_lseek(fd, off, whence);
    f->pos = (uint64_t)(off + (whence == SEEK_CUR   ? (off_t)f->pos
                               : whence == SEEK_END ? (off_t)disk_size(f)
                                                    : 0));
    return (off_t)f->pos;
}

WRAP(int, fsync, int fd)
{
    struct ofd *f = fd_get(fd);
    return f ? done(disk_sync(f)) : __real_fsync(fd);
}

WRAP(int, fdatasync, int fd)
{
    struct ofd *f = fd_get(fd);
    return f ? done(disk_sync(f)) : __real_fdatasync(fd);
}

WRAP(int, sync_file_range, int fd, off64_t off, off64_t n, unsigned flags)
{
    return fd_get(fd) ? 0 : __real_sync_file_range(fd, off, n, flags);
}

WRAP(int, ftruncate, int fd, off_t size)
{
    struct ofd *f = fd_get(fd);
    return f ? done(disk_truncate(f, (uint64_t)size)) : __real_ftruncate(fd, size);
}

WRAP(int, posix_fallocate, int fd, off_t off, off_t n)
{
    struct ofd *f = fd_get(fd);
    return f ? -disk_reserve(f, (uint64_t)(off + n)) : __real_posix_fallocate(fd, off, n);
}

/* A hole: all that is left is that it reads as zeros. */
WRAP(int, fallocate, int fd, int mode, off_t off, off_t n)
{
    static const uint8_t zeros[65536];
    struct ofd *f = fd_get(fd);
    if (!f)
        return __real_fallocate(fd, mode, off, n);
    while (n > 0) {
        size_t part = n < (off_t)sizeof(zeros) ? (size_t)n : sizeof(zeros);
        ssize_t r = disk_pwrite(f, zeros, part, (uint64_t)off);
        if (r < 0)
            return (int)done(r);
        off += r;
        n -= r;
    }
    return 0;
}

WRAP(int, fstat, int fd, struct stat *st)
{
    struct ofd *f = fd_get(fd);
    if (!f)
        return __real_fstat(fd, st);
    disk_fstat(f, st);
    return 0;
}

WRAP(int, fchmod, int fd, mode_t mode)
{
    return fd_get(fd) ? 0 : __real_fchmod(fd, mode);
}

WRAP(int, flock, int fd, int op)
{
    struct ofd *f = fd_get(fd);
    return f ? done(disk_flock(f, op)) : __real_flock(fd, op);
}

int __real_ioctl(int fd, unsigned long what, ...);
int __wrap_ioctl(int fd, unsigned long what, ...);
int __wrap_ioctl(int fd, unsigned long what, ...)
{
    va_list ap;
    va_start(ap, what);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    return fd_get(fd) ? done(-EOPNOTSUPP) : __real_ioctl(fd, what, arg);
}

/* ---- maps: copies, since files that are mapped are never changed */

static struct {
    void *p;
    size_t n;
} maps[MAPS_MAX];

WRAP(void *, mmap, void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    struct ofd *f = fd_get(fd);
    if (!f)
        return __real_mmap(at, n, prot, flags, fd, off);
    for (size_t i = 0; i < MAPS_MAX; i++)
        if (!maps[i].p) {
            maps[i].p = calloc(1, n);
            maps[i].n = n;
            if (!maps[i].p)
                abort();
            ssize_t r = disk_pread(f, maps[i].p, n, (uint64_t)off);
            if (r >= 0)
                return maps[i].p;
            free(maps[i].p);
            maps[i].p = NULL;
            done(r);
            return MAP_FAILED;
        }
    abort();
}

WRAP(int, munmap, void *p, size_t n)
{
    for (size_t i = 0; p && i < MAPS_MAX; i++)
        if (maps[i].p == p) {
            free(p);
            maps[i].p = NULL;
            return 0;
        }
    return __real_munmap(p, n);
}

/* ---- names */

WRAP(int, access, const char *path, int mode)
{
    return disk_owns(path) ? done(disk_stat(path, NULL)) : __real_access(path, mode);
}

WRAP(int, statvfs, const char *path, struct statvfs *st)
{
    if (!disk_owns(path))
        return __real_statvfs(path, st);
    *st = (struct statvfs){ .f_frsize = 4096, .f_blocks = 1 << 20 };
    st->f_bavail = disk_is_full(path) ? 0 : st->f_blocks / 2;
    return done(disk_stat(path, NULL));
}

WRAP(int, stat, const char *path, struct stat *st)
{
    return disk_owns(path) ? done(disk_stat(path, st)) : __real_stat(path, st);
}

WRAP(int, lstat, const char *path, struct stat *st)
{
    return disk_owns(path) ? done(disk_stat(path, st)) : __real_lstat(path, st);
}

WRAP(int, unlink, const char *path)
{
    if (!disk_owns(path))
        return __real_unlink(path);
    check_gone(path);
    return done(disk_unlink(path));
}

WRAP(int, rmdir, const char *path)
{
    return disk_owns(path) ? done(disk_rmdir(path)) : __real_rmdir(path);
}

WRAP(int, remove, const char *path)
{
    if (!disk_owns(path))
        return __real_remove(path);
    int r = disk_unlink(path);
    return done(r == -EISDIR ? disk_rmdir(path) : r);
}

WRAP(int, mkdir, const char *path, mode_t mode)
{
    return disk_owns(path) || !strcmp(path, "/sim") ? done(disk_mkdir(path))
                                                    : __real_mkdir(path, mode);
}

WRAP(int, rename, const char *from, const char *to)
{
    if (!disk_owns(from))
        return __real_rename(from, to);
    if (strstr(to, "/damaged/"))
        check_gone(from);
    return done(disk_rename(from, to));
}

WRAP(int, link, const char *from, const char *to)
{
    return disk_owns(from) ? done(disk_link(from, to)) : __real_link(from, to);
}

WRAP(int, utimensat, int dir, const char *path, const struct timespec t[2], int flags)
{
    return disk_owns(path) ? done(disk_touch(path)) : __real_utimensat(dir, path, t, flags);
}

WRAP(int, mkostemp, char *name, int flags)
{
    if (!disk_owns(name))
        return __real_mkostemp(name, flags);
    size_t n = strlen(name);
    for (int i = 0; i < 6; i++)
        name[n - 6 + (size_t)i] = (char)('a' + rng_below(&world.rng, 26));
    return __wrap_open(name, flags | O_RDWR | O_CREAT | O_EXCL, 0600);
}

WRAP(char *, realpath, const char *path, char *out)
{
    char exe[64];
    path = mapped(path, exe);
    if (!disk_owns(path))
        return __real_realpath(path, out);
    int r = disk_stat(path, NULL);
    if (r >= 0)
        return strdup(path);
    done(r);
    return NULL;
}

/* A folder being read: entries that come or go meanwhile may be missed, as on a real one. */
struct sim_dir {
    int fd;
    size_t at;
    struct dirent de;
};

DIR *__wrap_opendir(const char *path);
DIR *__wrap_opendir(const char *path)
{
    int fd = disk_owns(path) ? __wrap_open(path, O_RDONLY | O_DIRECTORY) : done(-ENOENT);
    if (fd < 0)
        return NULL;
    struct sim_dir *d = calloc(1, sizeof(*d));
    if (!d)
        abort();
    d->fd = fd;
    return (DIR *)d;
}

struct dirent *__wrap_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir)
{
    struct sim_dir *d = (struct sim_dir *)dir;
    const char *name = disk_name(fd_get(d->fd), d->at);
    if (!name)
        return NULL;
    /* the caller may remove what it was given: then the next one stands in its place */
    if (!strcmp(name, d->de.d_name) && !(name = disk_name(fd_get(d->fd), ++d->at)))
        return NULL;
    snprintf(d->de.d_name, sizeof(d->de.d_name), "%s", name);
    return &d->de;
}

int __wrap_closedir(DIR *dir);
int __wrap_closedir(DIR *dir)
{
    __wrap_close(((struct sim_dir *)dir)->fd);
    free(dir);
    return 0;
}

int __wrap_dirfd(DIR *dir);
int __wrap_dirfd(DIR *dir)
{
    return ((struct sim_dir *)dir)->fd;
}

WRAP(int, fstatat, int dir, const char *name, struct stat *st, int flags)
{
    struct ofd *f = fd_get(dir);
    char path[512];
    if (!f)
        return disk_owns(name) ? done(disk_stat(name, st)) : __real_fstatat(dir, name, st, flags);
    int r = disk_at(f, name, path, sizeof(path));
    return done(r < 0 ? r : disk_stat(path, st));
}

WRAP(int, unlinkat, int dir, const char *name, int flags)
{
    struct ofd *f = fd_get(dir);
    char path[512];
    if (!f)
        return __real_unlinkat(dir, name, flags);
    int r = disk_at(f, name, path, sizeof(path));
    return done(r < 0 ? r : flags & AT_REMOVEDIR ? disk_rmdir(path) : disk_unlink(path));
}

/* Depth first, as dir_remove() wants it. */
static int walk(const char *path, int (*fn)(const char *, const struct stat *, int, struct FTW *))
{
    struct stat st;
    struct FTW at = { 0 };
    int r = disk_stat(path, &st);
    if (r < 0)
        return done(r);
    if (S_ISDIR(st.st_mode)) {
        struct ofd *d;
        r = disk_open(path, O_RDONLY, 0, &d);
        if (r < 0)
            return done(r);
        const char *name;
        for (size_t i = 0; r == 0 && (name = disk_name(d, i));) {
            char sub[512], was[256];
            snprintf(was, sizeof(was), "%s", name);
            snprintf(sub, sizeof(sub), "%s/%s", path, was);
            r = walk(sub, fn);
            name = disk_name(d, i);
            i += name && !strcmp(name, was);
        }
        int keep = errno;
        disk_close(d);
        errno = keep;
        if (r)
            return r;
    }
    return fn(path, &st, S_ISDIR(st.st_mode) ? FTW_DP : FTW_F, &at);
}

WRAP(int, nftw, const char *path, int (*fn)(const char *, const struct stat *, int, struct FTW *),
     int n, int flags)
{
    return disk_owns(path) ? walk(path, fn) : __real_nftw(path, fn, n, flags);
}

/* ---- time, processes, signals */

WRAP(int, clock_gettime, clockid_t id, struct timespec *ts)
{
    if (!world.cur)
        return __real_clock_gettime(id, ts);
    const struct host *h = &world.host[world.cur->host];
    /* a monotonic clock starts anew with its host */
    uint64_t ms =
        id == CLOCK_REALTIME
            ? (uint64_t)((int64_t)(UINT64_C(1800000000000) + world.now_ms) + h->wall_off_ms)
            : world.now_ms - h->boot_ms + 5000;
    ts->tv_sec = (time_t)(ms / 1000);
    ts->tv_nsec = (long)(ms % 1000) * 1000000;
    return 0;
}

WRAP(int, nanosleep, const struct timespec *t, struct timespec *left)
{
    if (!world.cur)
        return __real_nanosleep(t, left);
    uint64_t ms = (uint64_t)t->tv_sec * 1000 + (uint64_t)t->tv_nsec / 1000000;
    if (world.cur->kind != PART_TASK || task_work(ms) == 0)
        return 0;
    errno = EINTR;
    return -1;
}

WRAP(int, poll, struct pollfd p[], nfds_t n, int timeout)
{
    int ready = 0;
    if (!world.cur)
        return __real_poll(p, n, timeout);
    for (bool waited = false;; waited = true) {
        for (nfds_t i = 0; i < n; i++) {
            p[i].revents = wrap_fd_ready(p[i].fd) ? POLLIN : 0;
            ready += p[i].revents != 0;
        }
        if (ready || waited || timeout <= 0 || part_wait(world.now_ms + (uint64_t)timeout) < 0)
            return ready;
    }
}

WRAP(int, signalfd, int fd, const sigset_t *set, int flags)
{
    if (!world.cur)
        return __real_signalfd(fd, set, flags);
    struct ofd *f = calloc(1, sizeof(*f));
    if (!f)
        abort();
    *f = (struct ofd){ .kind = OFD_SIGNALS, .refs = 1 };
    return fd_give(f);
}

WRAP(int, sigprocmask, int how, const sigset_t *set, sigset_t *old)
{
    return world.cur ? 0 : __real_sigprocmask(how, set, old);
}

typedef void (*handler)(int);
WRAP(handler, signal, int sig, handler h)
{
    return world.cur ? SIG_DFL : __real_signal(sig, h);
}

WRAP(pid_t, getpid, void)
{
    return world.cur ? (pid_t)world.cur->pid : __real_getpid();
}

WRAP(int, kill, pid_t pid, int sig)
{
    return world.cur ? done(-ESRCH) : __real_kill(pid, sig);
}

/* Only the agent's runner spawns: siofleet-shim with its task's folder. */
WRAP(int, posix_spawn, pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa,
     const posix_spawnattr_t *attr, char *const argv[], char *const env[])
{
    if (!world.cur)
        return __real_posix_spawn(pid, path, fa, attr, argv, env);
    const char *dir = NULL;
    uint64_t timeout_ms = 0, n;
    int words = 1;
    while (argv[words] && strcmp(argv[words], "--") != 0)
        words++;
    for (int i = 1; i < words; i++) {
        if (!strcmp(argv[i], "--timeout-ms"))
            timeout_ms = strtoull(argv[i + 1], NULL, 10);
        if (disk_owns(argv[i]) && !dir)
            dir = argv[i];
    }
    if (!dir || world.cur->dead)
        return EIO;
    char lock[512];
    struct ofd *f = NULL;
    snprintf(lock, sizeof(lock), "%s/lock", dir);
    for (int i = 0; i < FDS_MAX && !f; i++)
        if (fds[i] && fds[i]->locked && disk_is(fds[i], lock))
            f = fds[i];
    if (!f)
        sim_fail("%s starts %s without its lock", world.cur->name, dir);
    else
        f->refs++;
    tasks_spawn(dir, f, timeout_ms, argv + words + (argv[words] != NULL), &n);
    *pid = (pid_t)n;
    return 0;
}

WRAP(pid_t, waitpid, pid_t pid, int *status, int flags)
{
    return world.cur ? done(-ECHILD) : __real_waitpid(pid, status, flags);
}

WRAP(int, waitid, idtype_t type, id_t id, siginfo_t *info, int flags)
{
    return world.cur ? 0 : __real_waitid(type, id, info, flags);
}

long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list ap;
    va_start(ap, number);
    int first = va_arg(ap, int), second = va_arg(ap, int);
    va_end(ap);
    if (number == SYS_pidfd_open) {
        if (!task_by_pid((uint64_t)first))
            return done(-ESRCH);
        struct ofd *f = calloc(1, sizeof(*f));
        if (!f)
            abort();
        *f = (struct ofd){ .kind = OFD_PID, .refs = 1, .pid = (uint64_t)first };
        return fd_give(f);
    }
    if (number == SYS_pidfd_send_signal) {
        struct ofd *f = fd_get(first);
        struct part *p = f ? task_by_pid(f->pid) : NULL;
        if (p && !world.cur->dead && second == SIGTERM)
            part_sigterm(p);
        return p ? 0 : done(-ESRCH);
    }
    return done(-ENOSYS);
}

/* ---- what is found out about a host */

int __wrap_facts_get(const char *proc, const char *sys, bool kvm, struct facts *ret, struct err *e);
int __wrap_facts_get(const char *proc, const char *sys, bool kvm, struct facts *ret, struct err *e)
{
    (void)proc, (void)sys, (void)e;
    *ret = (struct facts){ .cores = world.plan->cores, .memory_mib = 4096, .kvm = kvm };
    ret->json = json_pack("{s:s,s:s,s:i}", "host", world.host[world.cur->host].name, "isa",
                          "scalar", "cores", (int)world.plan->cores);
    return 0;
}

void __wrap_facts_boot(char out[FACTS_BOOT]);
void __wrap_facts_boot(char out[FACTS_BOOT])
{
    const struct host *h = &world.host[world.cur->host];
    snprintf(out, FACTS_BOOT, "%s-%llu", h->name, (unsigned long long)h->boot_ms);
}

bool __wrap_facts_kvm(const char *cache);
bool __wrap_facts_kvm(const char *cache)
{
    (void)cache;
    return false;
}

/* ---- what is under the tasks: a host without control groups, whose killed tasks leave no process */

int __wrap_cgroup_base(const char *proc, char *ret_path, char *ret_why);
int __wrap_cgroup_base(const char *proc, char *ret_path, char *ret_why)
{
    (void)proc;
    ret_path[0] = ret_why[0] = '\0';
    return -ENOENT;
}

unsigned __wrap_orphans_kill(const char *base, const char *dir);
unsigned __wrap_orphans_kill(const char *base, const char *dir)
{
    (void)base, (void)dir;
    return 0;
}

void __wrap_vm_sweep(void);
void __wrap_vm_sweep(void)
{
}
