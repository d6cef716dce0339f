/* SQLite's file system over the simulated disks: real SQLite, with writes that a crash may lose. The default VFS of this
 * program, so that the store's code opens its database as ever; other paths are refused. */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"
#include "tests/sim/vfs.h"

struct file {
    sqlite3_file base;
    struct ofd *f;
    char *path; /* deleted at close; NULL = stays */
    bool fresh, shm;
    int level;
    uint16_t shm_shared, shm_exclusive; /* held by this handle */
};

static int code(int r, int io)
{
    return r >= 0 ? SQLITE_OK : r == -ENOSPC ? SQLITE_FULL : io;
}

static int v_unlock(sqlite3_file *b, int level)
{
    struct file *v = (struct file *)b;
    struct disk_locks *l = disk_locks(v->f);
    if (v->level <= level)
        return SQLITE_OK;
    if (v->level >= SQLITE_LOCK_RESERVED && level < SQLITE_LOCK_RESERVED)
        l->reserved = l->pending = l->exclusive = false;
    if (level == SQLITE_LOCK_NONE)
        l->shared--;
    v->level = level;
    return SQLITE_OK;
}

static int v_close(sqlite3_file *b)
{
    struct file *v = (struct file *)b;
    v_unlock(b, SQLITE_LOCK_NONE);
    if (v->path)
        disk_unlink(v->path);
    free(v->path);
    disk_close(v->f);
    return SQLITE_OK;
}

static int v_read(sqlite3_file *b, void *p, int n, sqlite3_int64 off)
{
    ssize_t r = disk_pread(((struct file *)b)->f, p, (size_t)n, (uint64_t)off);
    if (r < 0)
        return SQLITE_IOERR_READ;
    if (r == n)
        return SQLITE_OK;
    memset((char *)p + r, 0, (size_t)(n - r));
    return SQLITE_IOERR_SHORT_READ;
}

static int v_write(sqlite3_file *b, const void *p, int n, sqlite3_int64 off)
{
    ssize_t r = disk_pwrite(((struct file *)b)->f, p, (size_t)n, (uint64_t)off);
    return r == n ? SQLITE_OK : r >= 0 ? SQLITE_FULL : code((int)r, SQLITE_IOERR_WRITE);
}

static int v_truncate(sqlite3_file *b, sqlite3_int64 size)
{
    return code(disk_truncate(((struct file *)b)->f, (uint64_t)size), SQLITE_IOERR_TRUNCATE);
}

/* As the unix VFS: the first sync of a new journal or WAL syncs its folder as well. */
static int v_sync(sqlite3_file *b, int flags)
{
    struct file *v = (struct file *)b;
    (void)flags;
    int r = disk_sync(v->f);
    if (r >= 0 && v->fresh) {
        r = disk_sync_names(v->f);
        v->fresh = r < 0;
    }
    return code(r, SQLITE_IOERR_FSYNC);
}

static int v_size(sqlite3_file *b, sqlite3_int64 *ret)
{
    *ret = (sqlite3_int64)disk_size(((struct file *)b)->f);
    return SQLITE_OK;
}

static int v_lock(sqlite3_file *b, int level)
{
    struct file *v = (struct file *)b;
    struct disk_locks *l = disk_locks(v->f);
    if (v->level >= level)
        return SQLITE_OK;
    if (v->level == SQLITE_LOCK_NONE) {
        if (l->pending || l->exclusive)
            return SQLITE_BUSY;
        l->shared++;
        v->level = SQLITE_LOCK_SHARED;
    }
    if (level >= SQLITE_LOCK_RESERVED && v->level < SQLITE_LOCK_RESERVED) {
        if (l->reserved)
            return SQLITE_BUSY;
        l->reserved = true;
        v->level = SQLITE_LOCK_RESERVED;
    }
    if (level == SQLITE_LOCK_EXCLUSIVE) {
        l->pending = true;
        if (l->shared > 1)
            return SQLITE_BUSY;
        l->exclusive = true;
        v->level = SQLITE_LOCK_EXCLUSIVE;
    }
    return SQLITE_OK;
}

static int v_reserved(sqlite3_file *b, int *ret)
{
    *ret = disk_locks(((struct file *)b)->f)->reserved;
    return SQLITE_OK;
}

static int v_control(sqlite3_file *b, int op, void *arg)
{
    (void)b, (void)op, (void)arg;
    return SQLITE_NOTFOUND;
}

static int v_sector(sqlite3_file *b)
{
    (void)b;
    return 512;
}

/* As the unix VFS says: a torn write damages no byte outside of it. */
static int v_traits(sqlite3_file *b)
{
    (void)b;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static int v_shm_map(sqlite3_file *b, int page, int size, int extend, void volatile **ret)
{
    struct file *v = (struct file *)b;
    struct disk_locks *l = disk_locks(v->f);
    if (!v->shm) {
        l->shm_users++;
        v->shm = true;
    }
    *ret = NULL;
    if (page >= DISK_SHM_MAX)
        return SQLITE_NOMEM;
    if (!l->region[page] && extend)
        l->region[page] = calloc(1, (size_t)size);
    *ret = l->region[page];
    return SQLITE_OK;
}

static int v_shm_lock(sqlite3_file *b, int at, int n, int flags)
{
    struct file *v = (struct file *)b;
    struct disk_locks *l = disk_locks(v->f);
    for (int pass = 0; pass < 2; pass++)
        for (int i = at; i < at + n; i++) {
            uint16_t bit = (uint16_t)(1u << i);
            if (flags & SQLITE_SHM_UNLOCK) {
                if (!pass)
                    continue;
                if (v->shm_shared & bit)
                    l->shm_shared[i]--;
                if (v->shm_exclusive & bit)
                    l->shm_exclusive[i] = false;
                v->shm_shared &= (uint16_t)~bit;
                v->shm_exclusive &= (uint16_t)~bit;
            } else if (flags & SQLITE_SHM_SHARED) {
                if (v->shm_shared & bit)
                    continue;
                if (l->shm_exclusive[i])
                    return SQLITE_BUSY;
                if (pass) {
                    l->shm_shared[i]++;
                    v->shm_shared |= bit;
                }
            } else {
                if (v->shm_exclusive & bit)
                    continue;
                if (l->shm_exclusive[i] || l->shm_shared[i] > ((v->shm_shared & bit) != 0))
                    return SQLITE_BUSY;
                if (pass) {
                    l->shm_exclusive[i] = true;
                    v->shm_exclusive |= bit;
                }
            }
        }
    return SQLITE_OK;
}

static void v_shm_barrier(sqlite3_file *b)
{
    (void)b;
}

/* The last one out takes the memory with it, so that after a crash the index is made anew from the WAL. */
static int v_shm_unmap(sqlite3_file *b, int delete_flag)
{
    struct file *v = (struct file *)b;
    struct disk_locks *l = disk_locks(v->f);
    (void)delete_flag;
    if (!v->shm)
        return SQLITE_OK;
    v_shm_lock(b, 0, 8, SQLITE_SHM_UNLOCK);
    v->shm = false;
    if (--l->shm_users)
        return SQLITE_OK;
    for (size_t i = 0; i < DISK_SHM_MAX; i++) {
        free(l->region[i]);
        l->region[i] = NULL;
    }
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = v_close,
    .xRead = v_read,
    .xWrite = v_write,
    .xTruncate = v_truncate,
    .xSync = v_sync,
    .xFileSize = v_size,
    .xLock = v_lock,
    .xUnlock = v_unlock,
    .xCheckReservedLock = v_reserved,
    .xFileControl = v_control,
    .xSectorSize = v_sector,
    .xDeviceCharacteristics = v_traits,
    .xShmMap = v_shm_map,
    .xShmLock = v_shm_lock,
    .xShmBarrier = v_shm_barrier,
    .xShmUnmap = v_shm_unmap,
};

static int v_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *b, int flags, int *ret_flags)
{
    struct file *v = (struct file *)b;
    (void)vfs;
    memset(v, 0, sizeof(*v));
    if (!disk_owns(path))
        return SQLITE_CANTOPEN;
    int how = flags & SQLITE_OPEN_READONLY ? O_RDONLY : O_RDWR;
    struct stat st;
    bool is_new = disk_stat(path, &st) < 0;
    if (flags & SQLITE_OPEN_CREATE)
        how |= O_CREAT;
    int r = disk_open(path, how, 0600, &v->f);
    if (r < 0)
        return r == -ENOSPC ? SQLITE_FULL : SQLITE_CANTOPEN;
    v->fresh = is_new;
    if (flags & SQLITE_OPEN_DELETEONCLOSE)
        v->path = strdup(path);
    v->base.pMethods = &methods;
    if (ret_flags)
        *ret_flags = flags;
    return SQLITE_OK;
}

static int v_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
    (void)vfs;
    int r = disk_unlink(path);
    if (r == -ENOENT)
        return SQLITE_IOERR_DELETE_NOENT;
    if (r >= 0 && sync_dir) {
        char dir[256];
        struct ofd *d;
        snprintf(dir, sizeof(dir), "%s", path);
        *strrchr(dir, '/') = '\0';
        r = disk_open(dir, O_RDONLY | O_DIRECTORY, 0, &d);
        if (r >= 0) {
            r = disk_sync(d);
            disk_close(d);
        }
    }
    return code(r, SQLITE_IOERR_DELETE);
}

static int v_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret)
{
    struct stat st;
    (void)vfs;
    int r = disk_stat(path, &st);
    *ret = r >= 0 && (flags != SQLITE_ACCESS_EXISTS || st.st_size > 0);
    return r < 0 && r != -ENOENT && r != -ENOTDIR ? SQLITE_IOERR_ACCESS : SQLITE_OK;
}

static int v_full(sqlite3_vfs *vfs, const char *path, int n, char *out)
{
    (void)vfs;
    return (int)strlen(path) < n ? (memcpy(out, path, strlen(path) + 1), SQLITE_OK)
                                 : SQLITE_CANTOPEN;
}

static int v_random(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    for (int i = 0; i < n; i++)
        out[i] = (char)rng_u64(&world.rng);
    return n;
}

static int v_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return us;
}

static int v_time(sqlite3_vfs *vfs, sqlite3_int64 *ret)
{
    (void)vfs;
    *ret = (sqlite3_int64)world.now_ms + INT64_C(212666574000000);
    return SQLITE_OK;
}

static int v_time_d(sqlite3_vfs *vfs, double *ret)
{
    sqlite3_int64 ms;
    v_time(vfs, &ms);
    *ret = (double)ms / 86400000.0;
    return SQLITE_OK;
}

static int v_error(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs, (void)n, (void)out;
    return 0;
}

void vfs_register(void)
{
    static sqlite3_vfs vfs = { .iVersion = 2,
                               .szOsFile = sizeof(struct file),
                               .mxPathname = 255,
                               .zName = "sim",
                               .xOpen = v_open,
                               .xDelete = v_delete,
                               .xAccess = v_access,
                               .xFullPathname = v_full,
                               .xRandomness = v_random,
                               .xSleep = v_sleep,
                               .xCurrentTime = v_time_d,
                               .xCurrentTimeInt64 = v_time,
                               .xGetLastError = v_error };
    sqlite3_initialize();
    sqlite3_vfs_register(&vfs, 1);
}
