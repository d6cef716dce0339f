/* Checksums of the pages of store.db: a layer between SQLite and its file system. SQLite leaves 8 bytes at the end of each
 * page to us (byte 20 of the file says so); what goes to the file gets its sum there, what is read must have the right one.
 *
 * In memory and in the log those bytes are 0, and a page of the file where they are 0 is taken as it is: another program that
 * writes the log back (a sqlite3 shell after a crash) leaves such pages, and so do pages that were never written. The head of
 * the file (100 bytes) is SQLite's own affair: a backup by its means counts there. The log has sums of its own, by SQLite. */
#include "coordinator/store_in.h"

#include <string.h>

enum { SUM_B = 8, HEAD_B = 100, PAGE_MIN = 512, OP_BAD_PAGE = 0x51f0, OP_LENIENT };

struct sum_file {
    sqlite3_file base; /* the real one follows */
    uint64_t bad_page; /* last that was read with a wrong sum; 0 = none */
    uint8_t *out;      /* room for one page */
    int page;          /* bytes; 0 = no sums in this file */
    bool lenient;
};

static sqlite3_file *real(sqlite3_file *b)
{
    return (sqlite3_file *)((struct sum_file *)b + 1);
}

static uint64_t page_sum(const uint8_t *p, int n, uint64_t page)
{
    int skip = page == 1 ? HEAD_B : 0;
    uint64_t sum = hash_fast(p + skip, (size_t)(n - skip - SUM_B), page);
    return sum ? sum : 1;
}

/* What the head of the file says of its pages. */
static void learn(struct sum_file *f, const uint8_t *head)
{
    int page = head[16] << 8 | head[17];
    page = page == 1 ? 65536 : page;
    if (memcmp(head, "SQLite format 3", 16) != 0 || head[20] != SUM_B || page < PAGE_MIN ||
        (page & (page - 1)))
        page = 0;
    if (page == f->page)
        return;
    sqlite3_free(f->out);
    f->out = NULL;
    f->page = page;
}

static bool is_page(const struct sum_file *f, int n, sqlite3_int64 off)
{
    return f->page && n == f->page && off % n == 0;
}

static int sum_read(sqlite3_file *b, void *p, int n, sqlite3_int64 off)
{
    struct sum_file *f = (struct sum_file *)b;
    uint64_t sum;
    int rc = real(b)->pMethods->xRead(real(b), p, n, off);
    if (rc != SQLITE_OK)
        return rc;
    if (!off && n >= HEAD_B)
        learn(f, p);
    if (!is_page(f, n, off))
        return SQLITE_OK;
    uint64_t page = (uint64_t)(off / n) + 1;
    uint8_t *end = (uint8_t *)p + n - SUM_B;
    memcpy(&sum, end, SUM_B);
    if (sum && sum != page_sum(p, n, page)) {
        f->bad_page = page;
        if (!f->lenient)
            return SQLITE_IOERR_DATA;
    }
    memset(end, 0, SUM_B);
    return SQLITE_OK;
}

static int sum_write(sqlite3_file *b, const void *p, int n, sqlite3_int64 off)
{
    struct sum_file *f = (struct sum_file *)b;
    if (!off && n >= HEAD_B)
        learn(f, p);
    if (!is_page(f, n, off))
        return real(b)->pMethods->xWrite(real(b), p, n, off);
    if (!f->out && !(f->out = sqlite3_malloc(n)))
        return SQLITE_IOERR_NOMEM;
    uint64_t sum = page_sum(p, n, (uint64_t)(off / n) + 1);
    memcpy(f->out, p, (size_t)n - SUM_B);
    memcpy(f->out + n - SUM_B, &sum, SUM_B);
    return real(b)->pMethods->xWrite(real(b), f->out, n, off);
}

static int sum_close(sqlite3_file *b)
{
    sqlite3_free(((struct sum_file *)b)->out);
    return real(b)->pMethods->xClose(real(b));
}

static int sum_control(sqlite3_file *b, int op, void *arg)
{
    struct sum_file *f = (struct sum_file *)b;
    if (op == OP_BAD_PAGE) {
        *(uint64_t *)arg = f->bad_page;
        f->bad_page = 0;
    } else if (op == OP_LENIENT) {
        f->lenient = *(bool *)arg;
    } else {
        return real(b)->pMethods->xFileControl(real(b), op, arg);
    }
    return SQLITE_OK;
}

uint64_t db_bad_page(sqlite3 *db)
{
    uint64_t page = 0;
    return sqlite3_file_control(db, "main", OP_BAD_PAGE, &page) == SQLITE_OK ? page : 0;
}

void db_lenient(sqlite3 *db, bool on)
{
    sqlite3_file_control(db, "main", OP_LENIENT, &on);
}

/* ---- all else goes through */

static int sum_truncate(sqlite3_file *b, sqlite3_int64 n)
{
    return real(b)->pMethods->xTruncate(real(b), n);
}
static int sum_sync(sqlite3_file *b, int flags)
{
    return real(b)->pMethods->xSync(real(b), flags);
}
static int sum_size(sqlite3_file *b, sqlite3_int64 *ret)
{
    return real(b)->pMethods->xFileSize(real(b), ret);
}
static int sum_lock(sqlite3_file *b, int level)
{
    return real(b)->pMethods->xLock(real(b), level);
}
static int sum_unlock(sqlite3_file *b, int level)
{
    return real(b)->pMethods->xUnlock(real(b), level);
}
static int sum_reserved(sqlite3_file *b, int *ret)
{
    return real(b)->pMethods->xCheckReservedLock(real(b), ret);
}
static int sum_sector(sqlite3_file *b)
{
    return real(b)->pMethods->xSectorSize(real(b));
}
static int sum_traits(sqlite3_file *b)
{
    return real(b)->pMethods->xDeviceCharacteristics(real(b));
}
static int sum_shm_map(sqlite3_file *b, int page, int size, int extend, void volatile **ret)
{
    return real(b)->pMethods->xShmMap(real(b), page, size, extend, ret);
}
static int sum_shm_lock(sqlite3_file *b, int at, int n, int flags)
{
    return real(b)->pMethods->xShmLock(real(b), at, n, flags);
}
static void sum_shm_barrier(sqlite3_file *b)
{
    real(b)->pMethods->xShmBarrier(real(b));
}
static int sum_shm_unmap(sqlite3_file *b, int remove)
{
    return real(b)->pMethods->xShmUnmap(real(b), remove);
}

/* Version 2: no mapped reads, they would go around us. */
static const sqlite3_io_methods methods = { .iVersion = 2,
                                            .xClose = sum_close,
                                            .xRead = sum_read,
                                            .xWrite = sum_write,
                                            .xTruncate = sum_truncate,
                                            .xSync = sum_sync,
                                            .xFileSize = sum_size,
                                            .xLock = sum_lock,
                                            .xUnlock = sum_unlock,
                                            .xCheckReservedLock = sum_reserved,
                                            .xFileControl = sum_control,
                                            .xSectorSize = sum_sector,
                                            .xDeviceCharacteristics = sum_traits,
                                            .xShmMap = sum_shm_map,
                                            .xShmLock = sum_shm_lock,
                                            .xShmBarrier = sum_shm_barrier,
                                            .xShmUnmap = sum_shm_unmap };

static sqlite3_vfs *under(sqlite3_vfs *vfs)
{
    return vfs->pAppData;
}

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *b, int flags, int *ret_flags)
{
    if (!(flags & SQLITE_OPEN_MAIN_DB))
        return under(vfs)->xOpen(under(vfs), path, b, flags, ret_flags);
    struct sum_file *f = (struct sum_file *)b;
    memset(f, 0, sizeof(*f));
    int rc = under(vfs)->xOpen(under(vfs), path, real(b), flags, ret_flags);
    if (rc == SQLITE_OK && real(b)->pMethods->iVersion < 2) {
        real(b)->pMethods->xClose(real(b));
        rc = SQLITE_CANTOPEN; /* no shared memory: no log */
    }
    if (rc == SQLITE_OK)
        f->base.pMethods = &methods;
    return rc;
}
static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
    return under(vfs)->xDelete(under(vfs), path, sync_dir);
}
static int vfs_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret)
{
    return under(vfs)->xAccess(under(vfs), path, flags, ret);
}
static int vfs_full(sqlite3_vfs *vfs, const char *path, int n, char *out)
{
    return under(vfs)->xFullPathname(under(vfs), path, n, out);
}
static int vfs_random(sqlite3_vfs *vfs, int n, char *out)
{
    return under(vfs)->xRandomness(under(vfs), n, out);
}
static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    return under(vfs)->xSleep(under(vfs), us);
}
static int vfs_time(sqlite3_vfs *vfs, double *ret)
{
    return under(vfs)->xCurrentTime(under(vfs), ret);
}
static int vfs_time_ms(sqlite3_vfs *vfs, sqlite3_int64 *ret)
{
    return under(vfs)->xCurrentTimeInt64(under(vfs), ret);
}
static int vfs_error(sqlite3_vfs *vfs, int n, char *out)
{
    return under(vfs)->xGetLastError(under(vfs), n, out);
}

const char *db_vfs(void)
{
    static sqlite3_vfs vfs = { .iVersion = 2,
                               .zName = "siofleet",
                               .xOpen = vfs_open,
                               .xDelete = vfs_delete,
                               .xAccess = vfs_access,
                               .xFullPathname = vfs_full,
                               .xRandomness = vfs_random,
                               .xSleep = vfs_sleep,
                               .xCurrentTime = vfs_time,
                               .xCurrentTimeInt64 = vfs_time_ms,
                               .xGetLastError = vfs_error };
    sqlite3_vfs *base;
    if (vfs.pAppData || !(base = sqlite3_vfs_find(NULL)))
        return vfs.pAppData ? vfs.zName : NULL;
    vfs.pAppData = base;
    vfs.szOsFile = (int)sizeof(struct sum_file) + base->szOsFile;
    vfs.mxPathname = base->mxPathname;
    return sqlite3_vfs_register(&vfs, 0) == SQLITE_OK ? vfs.zName : NULL;
}

int db_want_sums(sqlite3 *db)
{
    int n = SUM_B;
    return sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &n);
}

bool db_has_sums(sqlite3 *db)
{
    int n = -1;
    return sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &n) == SQLITE_OK &&
           n == SUM_B;
}
