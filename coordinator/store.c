/* The store's file: opened, locked, its transactions and what every table needs. */
#include "coordinator/store_in.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/num.h"

enum { EVENTS_MAX = 100000 };

/* ---- errors and statements */

int db_error(const struct store *st, int rc, struct err *e, const char *what)
{
    const char *why = st->db ? sqlite3_errmsg(st->db) : sqlite3_errstr(rc);
    switch (rc & 0xff) {
    case SQLITE_IOERR:
        if (rc == SQLITE_IOERR_DATA)
            return err_set(e, SF_EINTEGRITY,
                           "%s: damaged: page %" PRIu64
                           " does not have the sum it was written with",
                           st->path, st->db ? db_bad_page(st->db) : 0);
        return err_set(e, EIO, "%s: %s: %s", st->path, what, why);
    case SQLITE_FULL:
        return err_set(e, ENOSPC, "%s: %s: no space left on device", st->path, what);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return err_set(e, SF_EINTEGRITY, "%s: damaged: %s", st->path, why);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(e, EBUSY, "%s: %s: %s", st->path, what, why);
    case SQLITE_READONLY:
        return err_set(e, EROFS, "%s: %s: %s", st->path, what, why);
    case SQLITE_CANTOPEN:
        return err_set(e, ENOENT, "%s: %s: %s", st->path, what, why);
    case SQLITE_NOMEM:
        return err_set(e, ENOMEM, "%s: %s", st->path, what);
    default:
        return err_set(e, EIO, "%s: %s: %s", st->path, what, why);
    }
}

/* SQLite itself rolls back at an I/O error or a full disk, also at one of a mere question. What is written from then on
 * would be committed statement by statement: half a turn. */
static int check_open(struct store *st, struct err *e)
{
    return st->open_tx && sqlite3_get_autocommit(st->db)
               ? err_set(e, EIO, "%s: the transaction was given up after an error", st->path)
               : 0;
}

sqlite3_stmt *db_use(struct store *st, const char *sql, struct err *e)
{
    return st->count.sweep && db_flush_count(st, e) < 0 ? NULL : db_use_row(st, sql, e);
}

sqlite3_stmt *db_use_row(struct store *st, const char *sql, struct err *e)
{
    if (check_open(st, e) < 0)
        return NULL;
    for (size_t i = 0; i < st->n_cache; i++)
        if (st->cache[i].sql == sql) {
            sqlite3_reset(st->cache[i].st);
            return st->cache[i].st;
        }
    sqlite3_stmt *s = NULL;
    int rc = st->n_cache < STMT_MAX
                 ? sqlite3_prepare_v3(st->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL)
                 : SQLITE_NOMEM;
    if (rc != SQLITE_OK) {
        db_error(st, rc, e, "prepare");
        return NULL;
    }
    st->cache[st->n_cache].sql = sql;
    st->cache[st->n_cache++].st = s;
    return s;
}

void db_bind(sqlite3_stmt *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    for (int k = 1; *fmt; fmt++, k++) {
        switch (*fmt) {
        case 'u':
            sqlite3_bind_int64(s, k, (sqlite3_int64)va_arg(ap, uint64_t));
            break;
        case 'z': {
            uint64_t v = va_arg(ap, uint64_t);
            if (v)
                sqlite3_bind_int64(s, k, (sqlite3_int64)v);
            else
                sqlite3_bind_null(s, k);
            break;
        }
        case 't':
            sqlite3_bind_text(s, k, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
            break;
        case 'i': {
            const struct id *id = va_arg(ap, const struct id *);
            sqlite3_bind_blob(s, k, id ? id->b : NULL, id ? ID_LEN : 0, SQLITE_TRANSIENT);
            break;
        }
        case 'b': {
            const void *p = va_arg(ap, const void *);
            size_t n = va_arg(ap, size_t);
            sqlite3_bind_blob(s, k, p, (int)n, SQLITE_TRANSIENT);
            break;
        }
        default:
            break;
        }
    }
    va_end(ap);
}

int db_step(struct store *st, sqlite3_stmt *s, struct err *e, const char *what)
{
    if (!sqlite3_stmt_readonly(s) && check_open(st, e) < 0) {
        sqlite3_reset(s);
        return -EIO;
    }
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        return 1;
    int r = rc == SQLITE_DONE ? 0 : db_error(st, rc, e, what);
    sqlite3_reset(s);
    return r;
}

uint64_t db_u64(sqlite3_stmt *s, int k)
{
    return (uint64_t)sqlite3_column_int64(s, k);
}
void db_text(sqlite3_stmt *s, int k, char *out, size_t room)
{
    const unsigned char *t = sqlite3_column_text(s, k);
    snprintf(out, room, "%s", t ? (const char *)t : "");
}
void db_id(sqlite3_stmt *s, int k, struct id *ret)
{
    memset(ret, 0, sizeof(*ret));
    const void *p = sqlite3_column_blob(s, k);
    if (p && sqlite3_column_bytes(s, k) == ID_LEN)
        memcpy(ret->b, p, ID_LEN);
}

int db_exec(struct store *st, const char *sql, struct err *e, const char *what)
{
    int rc = sqlite3_exec(st->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : db_error(st, rc, e, what);
}

int db_connect(const char *path, int flags, sqlite3 **ret)
{
    int rc = sqlite3_open_v2(path, ret, flags | SQLITE_OPEN_NOMUTEX, db_vfs());
    if (rc != SQLITE_OK)
        return rc;
    sqlite3_extended_result_codes(*ret, 1);
    sqlite3_busy_timeout(*ret, 2000); /* a reader that ends may checkpoint */
    return db_functions(*ret);
}

/* ---- transactions */

int store_begin(struct store *st, struct err *e)
{
    if (st->open_tx)
        return 0;
    int r = db_exec(st, "BEGIN IMMEDIATE", e, "begin");
    st->open_tx = r == 0;
    return r;
}

int store_commit(struct store *st, struct err *e)
{
    if (!st->open_tx)
        return 0;
    int r = db_flush_count(st, e);
    if (r >= 0)
        r = db_exec(st, "COMMIT", e, "commit");
    if (r < 0) {
        store_rollback(st);
        return r;
    }
    st->open_tx = false;
    return 0;
}

void store_rollback(struct store *st)
{
    for (size_t i = 0; i < st->n_cache; i++)
        sqlite3_reset(st->cache[i].st);
    if (st->open_tx && !sqlite3_get_autocommit(st->db))
        sqlite3_exec(st->db, "ROLLBACK", NULL, NULL, NULL);
    st->open_tx = false;
    free(st->used); /* some of it may have been undone */
    st->used = NULL;
    st->n_used = 0;
    st->count = (struct row_count){ 0 };
}

/* ---- open */

static int lock_dir(struct store *st, struct err *e)
{
    CLEANUP(freep)
    char *path = path_fmt("%s/lock", st->dir), *db = path_fmt("%s/store.db", st->dir),
         *install = path_fmt("%s/install", st->dir);
    if (!path || !db || !install)
        return -ENOMEM;
    if (access(install, F_OK) == 0 && access(db, F_OK) < 0)
        return err_set(e, EBUSY, "%s: the data folder of an agent", st->dir);
    st->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (st->lock < 0)
        return err_sys(e, errno, "%s", path);
    if (flock(st->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(e, EBUSY, "%s: another coordinator has this store", st->dir);
    return err_sys(e, errno, "%s", path);
}

static struct store *store_new(const char *dir)
{
    struct store *st = calloc(1, sizeof(*st));
    if (!st)
        return NULL;
    st->lock = st->mark = -1;
    st->dir = strdup(dir);
    st->path = path_fmt("%s/store.db", dir);
    if (!st->dir || !st->path)
        store_free(&st);
    return st;
}

void store_free(struct store **pst)
{
    struct store *st = *pst;
    *pst = NULL;
    if (!st)
        return;
    if (st->db)
        store_rollback(st);
    for (size_t i = 0; i < st->n_cache; i++)
        sqlite3_finalize(st->cache[i].st);
    sqlite3_close(st->asker);
    mark_close(st);
    sqlite3_close(st->db);
    closep(&st->lock);
    free(st->dir);
    free(st->path);
    free(st->used);
    free(st->page);
    free(st);
}

/* The file that a message of damage names: the store or its log. */
static const char *file_of(const struct err *e, const struct store *st, char path[512])
{
    const char *end = strstr(e->text, ": damaged");
    if (!end || end - e->text >= 512)
        return st->path;
    memcpy(path, e->text, (size_t)(end - e->text));
    path[end - e->text] = 0;
    return path;
}

/* The part of a message behind its places. */
static const char *last_cause(const struct err *e)
{
    static char text[160]; /* e is written over with it */
    const char *p = strstr(e->text, "damaged: ");
    snprintf(text, sizeof(text), "%.159s", p ? p + 9 : e->text);
    text[strcspn(text, "\n")] = 0;
    return text;
}

static int open_file(struct store *st, struct err *e)
{
    int rc = db_connect(st->path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &st->db);
    if (rc != SQLITE_OK)
        return db_error(st, rc, e, "open");
    struct stat sb;
    if (stat(st->path, &sb) < 0 || !sb.st_size)
        db_want_sums(st->db);
    return mark_open(st, e);
}

int store_open(const char *dir, struct store **ret, struct err *e)
{
    int r = dir_make(dir, 0700, e);
    if (r < 0)
        return r;
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* counting its memory takes a lock an allocation */
    CLEANUP(store_free) struct store *st = store_new(dir);
    if (!st)
        return err_sys(e, ENOMEM, "%s", dir);
    r = lock_dir(st, e);
    if (r >= 0)
        r = store_check_log(dir, e);
    if (r >= 0)
        r = open_file(st, e);
    if (r >= 0)
        r = db_exec(
            st,
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;"
            "PRAGMA cache_size = -8192;" /* 8 MiB */
            /* Debian's SQLite else writes zeros over what it frees: a table that goes would be in memory as a whole */
            "PRAGMA secure_delete = OFF",
            e, "open");
    if (r >= 0)
        r = db_quick_check(st, e);
    if (r >= 0)
        r = db_migrate(st, e);
    char path[512];
    if (r == -SF_EINTEGRITY)
        return err_set(e, SF_EINTEGRITY,
                       "%s: damaged; `siofleet fsck --data %s --repair` saves what can be read: %s",
                       file_of(e, st, path), dir, last_cause(e));
    if (r < 0)
        return r;
    *ret = TAKE(st);
    return 0;
}

int store_open_ro(const char *dir, struct store **ret, struct err *e)
{
    CLEANUP(store_free) struct store *st = store_new(dir);
    if (!st)
        return err_sys(e, ENOMEM, "%s", dir);
    st->read_only = true;
    if (access(st->path, R_OK) < 0)
        return err_sys(e, errno, "%s", st->path);
    /* Where nobody writes and nothing waits in the log, the file is opened as unchanging: that works in a folder without
     * write permission too, and leaves no file behind. */
    CLEANUP(freep) char *wal = path_fmt("%s-wal", st->path);
    CLEANUP(freep) char *lock = path_fmt("%s/lock", dir);
    CLEANUP(freep) char *uri = path_fmt("file:%s?immutable=1", st->path);
    if (!wal || !lock || !uri)
        return err_sys(e, ENOMEM, "%s", dir);
    struct stat sb;
    CLEANUP(closep) int fd = open(lock, O_RDONLY | O_CLOEXEC);
    bool still = fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0;
    int r = still ? store_check_log(dir, e) : 0;
    closep(&fd);
    if (r < 0)
        return r;
    still = still && (stat(wal, &sb) < 0 || sb.st_size == 0) && !strpbrk(st->path, "?#%");
    int rc = db_connect(still ? uri : st->path,
                        SQLITE_OPEN_READONLY | (still ? SQLITE_OPEN_URI : 0), &st->db);
    if (rc != SQLITE_OK)
        return db_error(st, rc, e, "open");
    uint64_t v = 0;
    r = db_version(st, &v, e);
    if (r < 0)
        return r;
    if (v < STORE_VERSION)
        return err_set(e, SF_EFORMAT,
                       "%s: store of version %" PRIu64
                       ", start a coordinator on it once to bring it to %d",
                       st->path, v, (int)STORE_VERSION);
    *ret = TAKE(st);
    return 0;
}

int store_get(struct store *st, const char *key, uint64_t *ret, struct err *e)
{
    *ret = 0;
    sqlite3_stmt *s = db_use(st, "SELECT value FROM t_meta WHERE key = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "t", key);
    int r = db_step(st, s, e, "read");
    if (r == 1)
        *ret = db_u64(s, 0);
    sqlite3_reset(s);
    return r < 0 ? r : 0;
}

int store_set(struct store *st, const char *key, uint64_t v, struct err *e)
{
    sqlite3_stmt *s = db_use(
        st, "INSERT INTO t_meta VALUES(?,?) ON CONFLICT DO UPDATE SET value = excluded.value", e);
    if (!s)
        return -EIO;
    db_bind(s, "tu", key, v);
    return db_step(st, s, e, "write");
}

int store_event(struct store *st, uint64_t wall_ms, const char *kind, const char *subject,
                const char *text, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "INSERT INTO t_event(at_ms,kind,subject,text) VALUES(?,?,?,?)", e);
    if (!s)
        return -EIO;
    db_bind(s, "uttt", wall_ms, kind, subject, text);
    int r = db_step(st, s, e, "event");
    if (r < 0)
        return r;
    uint64_t seq = (uint64_t)sqlite3_last_insert_rowid(st->db);
    if (seq % 1000 || seq <= EVENTS_MAX)
        return 0;
    s = db_use(st, "DELETE FROM t_event WHERE seq <= ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", seq - EVENTS_MAX);
    return db_step(st, s, e, "event");
}
