#include "tests/sim/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "proto/base/rng.h"
#include "tests/sim/mutants.h"
#include "tests/sim/sim.h"

enum { SECTOR = 512, COMMIT_MS = 5000, DEPTH_MAX = 8 };

/* A write that is not durable yet. bytes: what stood there before; after swap(), what was written. */
struct pending {
    struct pending *older;
    uint64_t off, len, size_before, size_after;
    uint8_t *bytes;
};

struct name {
    char *name;
    struct inode *inode;
};

struct inode {
    unsigned refs; /* names, open files, journal */
    bool dir;
    uint64_t ino, mtime_ms, faults; /* faults: of the disk, at the last sync that went well */
    uint8_t *data;
    uint64_t size, room;
    struct pending *pending; /* newest first */
    struct name *v;          /* of a directory */
    size_t n, room_v;
    int shared;
    bool exclusive;
    struct disk_locks *locks;
};

/* A change of a name that is not durable yet. */
struct change {
    uint64_t group, ms;
    struct inode *dir, *was, *is;
    char *name;
};

struct fault {
    uint64_t count, skip;
};

struct disk {
    unsigned host;
    uint64_t inos, groups;
    struct inode *root;
    struct change *log;
    size_t n_log, room_log;
    struct fault fault[DISK_FAULTS];
    uint64_t full_until_ms;
    uint64_t salt, down_ms; /* of a DISK_POWER or DISK_CRASH to come */
    uint64_t faults;        /* that were given */
    bool owe_enospc;
};

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

/* ---- inodes */

static struct inode *inode_new(struct disk *d, bool dir)
{
    struct inode *i = must(calloc(1, sizeof(*i)));
    i->refs = 1;
    i->dir = dir;
    i->ino = ++d->inos;
    i->faults = d->faults;
    i->mtime_ms = world.now_ms;
    return i;
}

static void settle(struct inode *i)
{
    for (struct pending *p = i->pending, *older; p; p = older) {
        older = p->older;
        free(p->bytes);
        free(p);
    }
    i->pending = NULL;
}

static void inode_put(struct inode *i)
{
    if (!i || --i->refs)
        return;
    for (size_t k = 0; k < i->n; k++) {
        inode_put(i->v[k].inode);
        free(i->v[k].name);
    }
    settle(i);
    free(i->v);
    free(i->data);
    for (size_t k = 0; i->locks && k < DISK_SHM_MAX; k++)
        free(i->locks->region[k]);
    free(i->locks);
    free(i);
}

static struct inode *inode_get(struct inode *i)
{
    if (i)
        i->refs++;
    return i;
}

static size_t find_name(const struct inode *dir, const char *name, size_t n)
{
    for (size_t k = 0; k < dir->n; k++)
        if (!strncmp(dir->v[k].name, name, n) && !dir->v[k].name[n])
            return k;
    return SIZE_MAX;
}

/* name -> inode (borrowed, NULL = no name), whatever was there. */
static void set_name(struct inode *dir, const char *name, struct inode *to)
{
    size_t k = find_name(dir, name, strlen(name));
    inode_get(to);
    if (k != SIZE_MAX) {
        inode_put(dir->v[k].inode);
        if (to) {
            dir->v[k].inode = to;
        } else {
            free(dir->v[k].name);
            memmove(dir->v + k, dir->v + k + 1, (--dir->n - k) * sizeof(*dir->v));
        }
    } else if (to) {
        if (dir->n == dir->room_v) {
            dir->room_v = dir->room_v ? 2 * dir->room_v : 8;
            dir->v = must(realloc(dir->v, dir->room_v * sizeof(*dir->v)));
        }
        dir->v[dir->n++] = (struct name){ must(strdup(name)), to };
    }
}

/* ---- the journal of names */

static void drop_changes(struct disk *d, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        inode_put(d->log[k].dir);
        inode_put(d->log[k].was);
        inode_put(d->log[k].is);
        free(d->log[k].name);
    }
    if (n)
        memmove(d->log, d->log + n, (d->n_log - n) * sizeof(*d->log));
    d->n_log -= n;
}

static void change(struct disk *d, struct inode *dir, const char *name, struct inode *to)
{
    size_t k = find_name(dir, name, strlen(name)), old = 0;
    while (old < d->n_log && d->log[old].ms + COMMIT_MS <= world.now_ms)
        old++;
    drop_changes(d, old);
    if (d->n_log == d->room_log) {
        d->room_log = d->room_log ? 2 * d->room_log : 32;
        d->log = must(realloc(d->log, d->room_log * sizeof(*d->log)));
    }
    d->log[d->n_log++] = (struct change){ .group = d->groups,
                                          .ms = world.now_ms,
                                          .dir = inode_get(dir),
                                          .was = k == SIZE_MAX ? NULL : inode_get(dir->v[k].inode),
                                          .is = inode_get(to),
                                          .name = must(strdup(name)) };
    set_name(dir, name, to);
}

/* ---- paths */

bool disk_owns(const char *path)
{
    return path && !strncmp(path, "/sim/", 5);
}

static struct disk *disk_of(const char *path, const char **ret_rest)
{
    const char *host = path + 5, *rest = strchr(host, '/');
    size_t n = rest ? (size_t)(rest - host) : strlen(host);
    for (unsigned i = 0; i < world.n_hosts; i++)
        if (strlen(world.host[i].name) == n && !strncmp(world.host[i].name, host, n)) {
            *ret_rest = rest ? rest : "";
            return world.host[i].disk;
        }
    return NULL;
}

/* The folder and the last name of a path. *ret_inode: what the name stands for, NULL = nothing. */
static int look(const char *path, struct disk **ret_disk, struct inode **ret_dir, char name[256],
                struct inode **ret_inode)
{
    const char *p;
    struct disk *d = disk_of(path, &p);
    if (!d)
        return -ENOENT;
    struct inode *dir = NULL, *at = d->root;
    name[0] = '\0';
    while (*p) {
        while (*p == '/')
            p++;
        size_t n = strcspn(p, "/");
        if (!n)
            break;
        if (!at)
            return -ENOENT;
        if (!at->dir)
            return -ENOTDIR;
        if (n > 255)
            return -ENAMETOOLONG;
        memcpy(name, p, n);
        name[n] = '\0';
        p += n;
        if (!strcmp(name, "."))
            continue;
        size_t k = find_name(at, name, n);
        dir = at;
        at = k == SIZE_MAX ? NULL : at->v[k].inode;
    }
    *ret_disk = d;
    *ret_dir = dir;
    *ret_inode = at;
    return 0;
}

/* ---- faults */

static bool strikes(struct disk *d, enum disk_fault f)
{
    struct fault *x = &d->fault[f];
    if (!x->count)
        return false;
    if (x->skip) {
        x->skip--;
        return false;
    }
    x->count--;
    return true;
}

enum { OP_GROWS = 1, OP_CHANGES = 2, OP_SYNC = 4, OP_READ = 8 };

/* What stands in the way of an operation: 0 or a negative errno; *ret_torn: only half of it is done. */
static int hit(struct disk *d, unsigned op, bool *ret_torn)
{
    struct part *p = world.cur;
    if (!p)
        return 0;
    if (p->dead)
        return -EIO;
    if (op & (OP_CHANGES | OP_SYNC)) {
        if (strikes(d, DISK_CRASH)) {
            part_kill_for(p, d->down_ms);
            return -EIO;
        }
        if (strikes(d, DISK_POWER)) {
            host_power(d->host, d->salt, d->down_ms);
            return -EIO;
        }
    }
    if (op & OP_GROWS) {
        if (d->owe_enospc || world.now_ms < d->full_until_ms || strikes(d, DISK_ENOSPC)) {
            d->owe_enospc = false;
            d->faults++;
            return -ENOSPC;
        }
        if (ret_torn && strikes(d, DISK_TORN)) {
            *ret_torn = d->owe_enospc = true;
            d->faults++;
            return 0;
        }
    }
    if (((op & OP_SYNC) && strikes(d, DISK_SYNC)) || strikes(d, DISK_EIO)) {
        d->faults++;
        return -EIO;
    }
    return 0;
}

static int obstacle(struct disk *d, unsigned op, bool *ret_torn)
{
    uint64_t faults = d->faults;
    int r = hit(d, op, ret_torn);
    if (r < 0 || d->faults != faults)
        check_reason(d->host, world.now_ms);
    return r;
}

void disk_fault(struct disk *d, enum disk_fault f, uint64_t count, uint64_t skip)
{
    d->fault[f] = (struct fault){ count, skip };
}

void disk_kill_at(struct disk *d, bool power, uint64_t skip, uint64_t down_ms)
{
    d->fault[power ? DISK_POWER : DISK_CRASH] = (struct fault){ 1, skip };
    d->salt = world.now_ms + skip;
    d->down_ms = down_ms;
}

void disk_full(struct disk *d, uint64_t until_ms)
{
    d->full_until_ms = until_ms;
}

bool disk_is_full(const char *path)
{
    const char *rest;
    const struct disk *d = disk_of(path, &rest);
    return d && world.now_ms < d->full_until_ms;
}

void disk_mend(struct disk *d)
{
    memset(d->fault, 0, sizeof(d->fault));
    d->full_until_ms = 0;
    d->owe_enospc = false;
}

/* ---- whole disks */

struct disk *disk_new(unsigned host)
{
    struct disk *d = must(calloc(1, sizeof(*d)));
    d->host = host;
    d->root = inode_new(d, true);
    return d;
}

void disk_free(struct disk **dp)
{
    struct disk *d = *dp;
    if (!d)
        return;
    *dp = NULL;
    drop_changes(d, d->n_log);
    inode_put(d->root);
    free(d->log);
    free(d);
}

static struct inode *tree_copy(struct disk *to, const struct inode *from)
{
    struct inode *i = inode_new(to, from->dir);
    if (from->size) {
        i->data = must(malloc(from->size));
        memcpy(i->data, from->data, from->size);
        i->size = i->room = from->size;
    }
    for (size_t k = 0; k < from->n; k++) {
        struct inode *child = tree_copy(to, from->v[k].inode);
        set_name(i, from->v[k].name, child);
        inode_put(child);
    }
    return i;
}

struct disk *disk_copy(const struct disk *from, unsigned host)
{
    struct disk *d = disk_new(host);
    inode_put(d->root);
    d->root = tree_copy(d, from->root);
    return d;
}

static void resize(struct inode *i, uint64_t size)
{
    if (size > i->room) {
        i->room = size + size / 2 + 64;
        i->data = must(realloc(i->data, i->room));
    }
    if (size > i->size)
        memset(i->data + i->size, 0, size - i->size);
    i->size = size;
}

/* The bytes of a pending write and those in the file change places; the size becomes the other one. */
static void swap_bytes(struct inode *i, struct pending *p, bool undo)
{
    if (i->size < p->off + p->len)
        resize(i, p->off + p->len);
    for (uint64_t k = 0; k < p->len; k++) {
        uint8_t b = i->data[p->off + k];
        i->data[p->off + k] = p->bytes[k];
        p->bytes[k] = b;
    }
    resize(i, undo ? p->size_before : p->size_after);
}

/* Unsynced writes of one file: mode 0 none survives, 1 all, 2 each as it falls, some torn. */
static void lose_writes(struct inode *i, struct rng *r, unsigned mode)
{
    if (mode == 1) {
        settle(i);
        return;
    }
    struct pending *forward = NULL;
    while (i->pending) {
        struct pending *p = i->pending;
        i->pending = p->older;
        swap_bytes(i, p, true);
        p->older = forward;
        forward = p;
    }
    while (forward) {
        struct pending *p = forward;
        unsigned fate = mode == 0 ? 0 : (unsigned)rng_below(r, 4);
        forward = p->older;
        if (fate >= 2) {
            if (fate == 2) /* torn: some sectors keep what they had */
                for (uint64_t at = 0; at < p->len; at += SECTOR)
                    if (rng_u64(r) & 1) {
                        uint64_t n = p->len - at < SECTOR ? p->len - at : SECTOR;
                        if (p->off + at + n <= i->size)
                            memcpy(p->bytes + at, i->data + p->off + at, n);
                        else
                            memset(p->bytes + at, 0, n);
                    }
            swap_bytes(i, p, false);
        }
        free(p->bytes);
        free(p);
    }
}

static void lose_tree(struct inode *i, struct rng *r, unsigned mode)
{
    if (i->pending)
        lose_writes(i, r, mode == 3 ? (unsigned)rng_below(r, 3) : mode);
    for (size_t k = 0; k < i->n; k++)
        lose_tree(i->v[k].inode, r, mode);
}

void disk_power_loss(struct disk *d, uint64_t salt)
{
    struct rng r = { salt };
    unsigned mode = (unsigned)rng_below(&r, 4);
    size_t old = 0;
    while (old < d->n_log && d->log[old].ms + COMMIT_MS <= world.now_ms)
        old++;
    drop_changes(d, old);
    size_t keep = mode == 0 ? 0 : mode == 1 ? d->n_log : (size_t)rng_below(&r, d->n_log + 1);
    while (keep && keep < d->n_log && d->log[keep].group == d->log[keep - 1].group)
        keep++; /* a rename is one */
    for (size_t k = d->n_log; k-- > keep;)
        set_name(d->log[k].dir, d->log[k].name, d->log[k].was);
    drop_changes(d, d->n_log);
    lose_tree(d->root, &r, mode);
}

/* ---- files */

static struct ofd *ofd_new(struct disk *d, struct inode *i, int flags)
{
    struct ofd *f = must(calloc(1, sizeof(*f)));
    *f = (struct ofd){ .kind = i->dir ? OFD_DIR : OFD_FILE,
                       .refs = 1,
                       .host = d->host,
                       .disk = d,
                       .inode = inode_get(i),
                       .flags = flags };
    return f;
}

int disk_open(const char *path, int flags, mode_t mode, struct ofd **ret)
{
    (void)mode;
    struct disk *d;
    struct inode *dir, *i;
    char name[256];
    int r = look(path, &d, &dir, name, &i);
    if (r < 0)
        return r;
    if (i && (flags & O_CREAT) && (flags & O_EXCL))
        return -EEXIST;
    if (i && i->dir && (flags & O_ACCMODE) != O_RDONLY)
        return -EISDIR;
    if (i && !i->dir && (flags & O_DIRECTORY))
        return -ENOTDIR;
    if (!i && !(flags & O_CREAT))
        return -ENOENT;
    bool make = !i, cut = i && (flags & O_TRUNC) && i->size;
    r = obstacle(d, make ? OP_GROWS | OP_CHANGES : cut ? OP_CHANGES : OP_READ, NULL);
    if (r < 0)
        return r;
    if (make) {
        if (!dir)
            return -ENOENT;
        d->groups++;
        i = inode_new(d, false);
        change(d, dir, name, i);
        inode_put(i);
    }
    *ret = ofd_new(d, i, flags);
    if (cut)
        disk_truncate(*ret, 0);
    return 0;
}

void disk_close(struct ofd *f)
{
    if (--f->refs)
        return;
    disk_unflock(f);
    inode_put(f->inode);
    free(f);
}

ssize_t disk_pread(struct ofd *f, void *p, size_t n, uint64_t off)
{
    if (f->inode->dir)
        return -EISDIR;
    int r = obstacle(f->disk, OP_READ, NULL);
    if (r < 0)
        return r;
    uint64_t size = f->inode->size;
    if (off >= size)
        return 0;
    if (n > size - off)
        n = (size_t)(size - off);
    memcpy(p, f->inode->data + off, n);
    return (ssize_t)n;
}

static struct pending *note_write(struct inode *i, uint64_t off, uint64_t len, uint64_t size_after)
{
    struct pending *p = must(malloc(sizeof(*p)));
    *p = (struct pending){ .older = i->pending,
                           .off = off,
                           .len = len,
                           .size_before = i->size,
                           .size_after = size_after,
                           .bytes = must(malloc(len ? len : 1)) };
    uint64_t have = off >= i->size ? 0 : i->size - off < len ? i->size - off : len;
    if (have)
        memcpy(p->bytes, i->data + off, have);
    if (len > have)
        memset(p->bytes + have, 0, len - have);
    i->pending = p;
    i->mtime_ms = world.now_ms;
    return p;
}

ssize_t disk_pwrite(struct ofd *f, const void *p, size_t n, uint64_t off)
{
    struct inode *i = f->inode;
    bool torn = false;
    int r = obstacle(f->disk, OP_CHANGES | (off + n > i->size ? OP_GROWS : 0), &torn);
    if (r < 0)
        return r;
    if (torn && n > 1)
        n /= 2;
    if (!n)
        return 0;
    uint64_t after = off + n > i->size ? off + n : i->size;
    note_write(i, off, n, after);
    resize(i, after);
    memcpy(i->data + off, p, n);
    return (ssize_t)n;
}

ssize_t disk_append(struct ofd *f, const void *p, size_t n)
{
    return disk_pwrite(f, p, n, f->inode->size);
}

int disk_truncate(struct ofd *f, uint64_t size)
{
    struct inode *i = f->inode;
    int r = obstacle(f->disk, OP_CHANGES, NULL);
    if (r < 0 || size == i->size)
        return r;
    uint64_t at = size < i->size ? size : i->size;
    note_write(i, at, i->size - at, size);
    resize(i, size);
    return 0;
}

int disk_reserve(struct ofd *f, uint64_t size)
{
    int r = obstacle(f->disk, OP_CHANGES | OP_GROWS, NULL);
    return r < 0 || size <= f->inode->size ? r : disk_truncate(f, size);
}

int disk_sync(struct ofd *f)
{
    struct disk *d = f->disk;
    int r = obstacle(d, OP_SYNC, NULL);
    if (r < 0)
        return r;
    f->inode->faults = d->faults;
    if (mutant("sync-lies") || mutant_lies)
        return 0;
    if (f->inode->dir && !mutant("names-unsynced"))
        drop_changes(d, d->n_log);
    settle(f->inode);
    return 0;
}

int disk_sync_names(struct ofd *f)
{
    int r = obstacle(f->disk, OP_SYNC, NULL);
    if (r >= 0 && !mutant("sync-lies") && !mutant("names-unsynced"))
        drop_changes(f->disk, f->disk->n_log);
    return r;
}

bool disk_is(const struct ofd *f, const char *path)
{
    struct disk *d;
    struct inode *dir, *i;
    char name[256];
    return f->inode && look(path, &d, &dir, name, &i) == 0 && i == f->inode;
}

uint64_t disk_size(const struct ofd *f)
{
    return f->inode->size;
}

const uint8_t *disk_bytes(const struct ofd *f)
{
    return f->inode->data;
}

uint64_t disk_unsynced(const char *path)
{
    struct disk *d;
    struct inode *dir, *i;
    char name[256];
    uint64_t n = 0;
    if (look(path, &d, &dir, name, &i) < 0 || !i || mutant("sync-lies") || i->faults < d->faults)
        return 0;
    for (struct pending *p = i->pending; p; p = p->older)
        n++;
    return n;
}

/* ---- names */

static void fill_stat(const struct inode *i, unsigned host, struct stat *st)
{
    memset(st, 0, sizeof(*st));
    st->st_mode = i->dir ? S_IFDIR | 0700 : S_IFREG | 0600;
    st->st_ino = i->ino;
    st->st_dev = host + 1;
    st->st_nlink = 1;
    st->st_size = (off_t)i->size;
    st->st_blksize = 4096;
    uint64_t wall = i->mtime_ms + UINT64_C(1800000000000);
    st->st_mtim.tv_sec = (time_t)(wall / 1000);
    st->st_mtim.tv_nsec = (long)(wall % 1000) * 1000000;
}

int disk_stat(const char *path, struct stat *st)
{
    struct disk *d;
    struct inode *dir, *i;
    char name[256];
    int r = look(path, &d, &dir, name, &i);
    if (r >= 0 && !i)
        r = -ENOENT;
    if (r >= 0 && world.cur && world.cur->dead)
        r = -EIO;
    if (r >= 0 && st)
        fill_stat(i, d->host, st);
    return r;
}

void disk_fstat(struct ofd *f, struct stat *st)
{
    fill_stat(f->inode, f->host, st);
}

static int remove_name(const char *path, bool is_dir)
{
    struct disk *d;
    struct inode *dir, *i;
    char name[256];
    int r = look(path, &d, &dir, name, &i);
    if (r < 0)
        return r;
    if (!i || !dir)
        return -ENOENT;
    if (i->dir != is_dir)
        return is_dir ? -ENOTDIR : -EISDIR;
    if (is_dir && i->n)
        return -ENOTEMPTY;
    r = obstacle(d, OP_CHANGES, NULL);
    if (r < 0)
        return r;
    d->groups++;
    change(d, dir, name, NULL);
    return 0;
}

int disk_unlink(const char *path)
{
    return remove_name(path, false);
}

int disk_rmdir(const char *path)
{
    return remove_name(path, true);
}

int disk_mkdir(const char *path)
{
    struct disk *d;
    struct inode *dir, *i;
    char name[256];
    if (!strcmp(path, "/sim"))
        return -EEXIST;
    int r = look(path, &d, &dir, name, &i);
    if (r < 0)
        return r;
    if (i)
        return -EEXIST;
    r = obstacle(d, OP_CHANGES | OP_GROWS, NULL);
    if (r < 0)
        return r;
    d->groups++;
    i = inode_new(d, true);
    change(d, dir, name, i);
    inode_put(i);
    return 0;
}

static int name_again(const char *from, const char *to, bool move)
{
    struct disk *d, *d2;
    struct inode *dir, *dir2, *i, *there;
    char name[256], name2[256];
    int r = look(from, &d, &dir, name, &i);
    if (r >= 0)
        r = look(to, &d2, &dir2, name2, &there);
    if (r < 0)
        return r;
    if (!i || !dir || !dir2)
        return -ENOENT;
    if (d != d2)
        return -EXDEV;
    if (there && !move)
        return -EEXIST;
    if (there && there->dir && !i->dir)
        return -EISDIR;
    if (there && there->dir && there->n)
        return -ENOTEMPTY;
    if (there && !there->dir && i->dir)
        return -ENOTDIR;
    r = obstacle(d, OP_CHANGES, NULL);
    if (r < 0)
        return r;
    inode_get(i);
    d->groups++;
    change(d, dir2, name2, i);
    if (move)
        change(d, dir, name, NULL);
    inode_put(i);
    return 0;
}

int disk_rename(const char *from, const char *to)
{
    return name_again(from, to, true);
}

int disk_link(const char *from, const char *to)
{
    return name_again(from, to, false);
}

int disk_touch(const char *path)
{
    struct disk *d;
    struct inode *dir, *i;
    char name[256];
    int r = look(path, &d, &dir, name, &i);
    if (r >= 0 && i)
        i->mtime_ms = world.now_ms;
    return r < 0 ? r : i ? 0 : -ENOENT;
}

const char *disk_name(struct ofd *dir, size_t i)
{
    return i < dir->inode->n ? dir->inode->v[i].name : NULL;
}

static bool path_of(const struct inode *from, const struct inode *want, char *path, size_t n)
{
    if (from == want)
        return true;
    size_t len = strlen(path);
    for (size_t k = 0; k < from->n; k++) {
        if (!from->v[k].inode->dir)
            continue;
        snprintf(path + len, n - len, "/%s", from->v[k].name);
        if (path_of(from->v[k].inode, want, path, n))
            return true;
        path[len] = '\0';
    }
    return false;
}

int disk_at(struct ofd *dir, const char *name, char *path, size_t n)
{
    snprintf(path, n, "/sim/%s", world.host[dir->host].name);
    if (!path_of(dir->disk->root, dir->inode, path, n))
        return -ENOENT;
    size_t len = strlen(path);
    return (size_t)snprintf(path + len, n - len, "/%s", name) < n - len ? 0 : -ENAMETOOLONG;
}

/* ---- locks */

void disk_unflock(struct ofd *f)
{
    if (!f->locked)
        return;
    if (f->shared)
        f->inode->shared--;
    else
        f->inode->exclusive = false;
    f->locked = false;
}

int disk_flock(struct ofd *f, int op)
{
    disk_unflock(f);
    if (op & LOCK_UN)
        return 0;
    f->shared = op & LOCK_SH;
    if (f->inode->exclusive || (!f->shared && f->inode->shared))
        return -EWOULDBLOCK;
    f->locked = true;
    if (f->shared)
        f->inode->shared++;
    else
        f->inode->exclusive = true;
    return 0;
}

struct disk_locks *disk_locks(struct ofd *f)
{
    if (!f->inode->locks)
        f->inode->locks = must(calloc(1, sizeof(struct disk_locks)));
    return f->inode->locks;
}

/* The n-th file with content below a folder, in order of names; *n is counted down. */
static struct inode *nth_file(struct inode *dir, uint64_t *n, char ret_name[128])
{
    for (size_t k = 0; k < dir->n; k++) {
        struct inode *i = dir->v[k].inode, *found = NULL;
        if (i->dir)
            found = nth_file(i, n, ret_name);
        else if (i->size && (*n)-- == 0)
            found = i;
        if (!found)
            continue;
        if (!i->dir)
            snprintf(ret_name, 128, "%.127s", dir->v[k].name);
        return found;
    }
    return NULL;
}

void disk_rot(struct disk *d, const char *folder, uint64_t salt, char ret_name[128])
{
    struct inode *dir = d->root;
    size_t k = 0, len;
    *ret_name = '\0';
    for (const char *at = folder; dir && *at; at += len + (at[len] == '/')) {
        len = strcspn(at, "/");
        k = find_name(dir, at, len);
        dir = k == SIZE_MAX ? NULL : dir->v[k].inode;
    }
    uint64_t left = UINT64_MAX, n;
    if (!dir || nth_file(dir, &left, ret_name) || left == UINT64_MAX)
        return;
    n = salt % (UINT64_MAX - left); /* of so many */
    struct inode *i = nth_file(dir, &n, ret_name);
    i->data[salt / 7 % i->size] ^= (uint8_t)(1u << salt % 8);
}
