#include "proto/base/file.h"

#include <fcntl.h>
#include <ftw.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"

char *path_fmt(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    return n < 0 ? NULL : s;
}

char *path_xdg(const char *kind)
{
    char var[32];
    snprintf(var, sizeof(var), "XDG_%s_HOME", kind);
    const char *base = getenv(var);
    if (base && base[0] == '/')
        return path_fmt("%s/siofleet", base);
    const char *home = getenv("HOME");
    if (!home || home[0] != '/') {
        struct passwd *pw = getpwuid(getuid());
        home = pw ? pw->pw_dir : NULL;
    }
    const char *sub = !strcmp(kind, "CACHE")  ? ".cache"
                      : !strcmp(kind, "DATA") ? ".local/share"
                                              : ".config";
    /* never a shared folder: what lies there may be another user's, and keys go there */
    return path_fmt("%s/%s/siofleet", home && home[0] == '/' ? home : "/nonexistent", sub);
}

int write_all(int fd, const void *p, size_t n)
{
    const char *c = p;
    while (n) {
        ssize_t w = write(fd, c, n);
        if (w < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        c += w;
        n -= (size_t)w;
    }
    return 0;
}

int pwrite_all(int fd, const void *p, size_t n, off_t off)
{
    const char *c = p;
    while (n) {
        ssize_t w = pwrite(fd, c, n, off);
        if (w < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        c += w;
        off += w;
        n -= (size_t)w;
    }
    return 0;
}

ssize_t read_full(int fd, void *p, size_t n)
{
    size_t got = 0;
    while (got < n) {
        ssize_t r = read(fd, (char *)p + got, n - got);
        if (r < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (r == 0)
            break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

ssize_t pread_full(int fd, void *p, size_t n, off_t off)
{
    size_t got = 0;
    while (got < n) {
        ssize_t r = pread(fd, (char *)p + got, n - got, off + (off_t)got);
        if (r < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (r == 0)
            break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

int file_open_regular(const char *path, struct stat *ret_st, struct err *e)
{
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, ret_st) < 0)
        return err_sys(e, errno, "%s", path);
    if (!S_ISREG(ret_st->st_mode))
        return err_set(e, SF_EFORMAT, "%s: not a regular file", path);
    return take_fd(&fd);
}

int file_read(const char *path, struct buf *b, struct err *e)
{
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "%s", path);
    for (;;) {
        size_t room = b->cap - b->len;
        uint8_t *p = buf_reserve(b, room < 65536 ? room : 65536);
        if (!p)
            return err_sys(e, ENOMEM, "%s", path);
        if (room == 0) {
            char c;
            ssize_t r = read_full(fd, &c, 1);
            if (r == 0)
                return 0;
            return err_set(e, r < 0 ? (int)-r : EFBIG, "%s: longer than %zu bytes", path, b->cap);
        }
        ssize_t r = read_full(fd, p, room < 65536 ? room : 65536);
        if (r < 0)
            return err_sys(e, (int)-r, "%s", path);
        b->len += (size_t)r;
        b->data[b->len] = 0;
        if (r == 0)
            return 0;
    }
}

int file_read_text(const char *path, struct buf *b, struct err *e)
{
    int r = file_read(path, b, e);
    const uint8_t *zero = r < 0 || !b->len ? NULL : memchr(b->data, 0, b->len);
    if (!zero)
        return r;
    int line = 1;
    for (const uint8_t *p = b->data; p < zero; p++)
        line += *p == '\n';
    return err_set(e, SF_EUSAGE, "%s:%d: not a text file (it holds a zero byte)", path, line);
}

int dir_sync(const char *path)
{
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return fsync(fd) < 0 ? -errno : 0;
}

static int sync_parent(const char *path)
{
    CLEANUP(freep) char *dir = strdup(path);
    if (!dir)
        return -ENOMEM;
    char *slash = strrchr(dir, '/');
    if (!slash)
        return dir_sync(".");
    if (slash == dir)
        slash++;
    *slash = '\0';
    return dir_sync(dir);
}

/* Temporary names that a signal handler may have to remove; more than these are left to the next run. */
static char *_Atomic temps[16];

static void temp_swap(char *from, char *to)
{
    for (size_t i = 0; i < ARRAY_LEN(temps); i++) {
        char *want = from;
        if (atomic_compare_exchange_strong(&temps[i], &want, to))
            return;
    }
}

void file_abort_all(void)
{
    for (size_t i = 0; i < ARRAY_LEN(temps); i++) {
        char *t = atomic_load(&temps[i]);
        if (t)
            unlink(t);
    }
}

int file_begin(struct file_new *f, const char *path, mode_t mode, bool force, struct err *e)
{
    *f = (struct file_new){ .fd = -1, .force = force };
    struct stat st;
    if (!*path)
        return err_set(e, SF_EUSAGE, "'': is no name of a file");
    if (!force && lstat(path, &st) == 0)
        return err_set(e, EEXIST, "%s: exists already (--force replaces it)", path);
    /* the rename would put a file in the place of /dev/null, or of the link /dev/stdout */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return err_set(e, EEXIST, "%s: not a regular file", path);
    f->path = strdup(path);
    f->temp = path_fmt("%s.tmp-XXXXXX", path);
    if (!f->path || !f->temp) {
        file_abort(f);
        return err_sys(e, ENOMEM, "%s", path);
    }
    int fd = mkostemp(f->temp, O_CLOEXEC);
    if (fd < 0) {
        int r = err_sys(e, errno, "%s", path);
        freep(&f->temp);
        file_abort(f);
        return r;
    }
    temp_swap(NULL, f->temp);
    f->fd = fd;
    mode_t um = umask(0);
    umask(um);
    if (fchmod(fd, mode & ~um) < 0) {
        int r = err_sys(e, errno, "%s", path);
        file_abort(f);
        return r;
    }
    return 0;
}

int file_commit(struct file_new *f, struct err *e)
{
    int r = 0;
    if (fsync(f->fd) < 0)
        r = err_sys(e, errno, "%s", f->path);
    if (r == 0 && f->force && rename(f->temp, f->path) < 0)
        r = err_sys(e, errno, "%s", f->path);
    if (r == 0 && !f->force && link(f->temp, f->path) < 0)
        r = err_sys(e, errno, "%s", f->path);
    if (r == 0 && f->force) {
        temp_swap(f->temp, NULL);
        freep(&f->temp);
    }
    if (r == 0) {
        int s = sync_parent(f->path);
        if (s < 0)
            r = err_sys(e, -s, "%s", f->path);
    }
    file_abort(f);
    return r;
}

void file_abort(struct file_new *f)
{
    closep(&f->fd);
    if (f->temp) {
        unlink(f->temp);
        temp_swap(f->temp, NULL);
    }
    freep(&f->temp);
    freep(&f->path);
}

int file_write(const char *path, const void *p, size_t n, mode_t mode, bool force, struct err *e)
{
    CLEANUP(file_abort) struct file_new f = { .fd = -1 };
    int r = file_begin(&f, path, mode, force, e);
    if (r < 0)
        return r;
    r = write_all(f.fd, p, n);
    if (r < 0)
        return err_sys(e, -r, "%s", path);
    return file_commit(&f, e);
}

int dir_make(const char *path, mode_t mode, struct err *e)
{
    CLEANUP(freep) char *p = strdup(path);
    if (!p)
        return err_sys(e, ENOMEM, "%s", path);
    for (char *s = p + 1;; s++) {
        if (*s && *s != '/')
            continue;
        char c = *s;
        *s = '\0';
        if (mkdir(p, mode) < 0 && errno != EEXIST)
            return err_sys(e, errno, "%s", p);
        *s = c;
        if (!c)
            break;
    }
    struct stat st;
    if (stat(path, &st) < 0)
        return err_sys(e, errno, "%s", path);
    if (!S_ISDIR(st.st_mode))
        return err_sys(e, ENOTDIR, "%s", path);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

int dir_remove(const char *path, struct err *e)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
        return err_sys(e, errno, "%s", path);
    return 0;
}
