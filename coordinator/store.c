#include "coordinator/store.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
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

enum { STMT_MAX = 96, EVENTS_MAX = 100000 };

struct store {
    sqlite3 *db;
    sqlite3 *asker; /* read-only, for --sql; opened when first asked */
    char *dir, *path;
    int lock;
    bool open_tx, read_only;
    struct {
        const char *sql; /* a literal: its address is the key */
        sqlite3_stmt *st;
    } cache[STMT_MAX];
    size_t n_cache;
};

/* ---- schema. Versions are frozen texts: a change is a new version. What arch and statistics lists name comes by
 * add_columns(), because those lists only ever grow. */

static const char schema_1[] =
    "CREATE TABLE t_meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE t_sweep(seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, name TEXT NOT NULL,"
    " request_id TEXT UNIQUE, json TEXT NOT NULL, state INTEGER NOT NULL, held INTEGER NOT NULL,"
    " priority INTEGER NOT NULL, points INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0,"
    " failed INTEGER NOT NULL DEFAULT 0, invalid INTEGER NOT NULL DEFAULT 0, known INTEGER NOT "
    "NULL DEFAULT 0,"
    " equal INTEGER NOT NULL DEFAULT 0, late INTEGER NOT NULL DEFAULT 0, differing INTEGER NOT "
    "NULL DEFAULT 0,"
    " submitted_ms INTEGER NOT NULL, ended_ms INTEGER, by TEXT) STRICT;"
    "CREATE TABLE t_trace(num INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, tenants INTEGER, ord "
    "TEXT, burst INTEGER,"
    " seed INTEGER, replicate INTEGER, rules TEXT, info TEXT) STRICT;"
    "CREATE TABLE t_recipe(id BLOB PRIMARY KEY, trace INTEGER NOT NULL, json TEXT) STRICT, WITHOUT "
    "ROWID;"
    "CREATE TABLE t_artefact(id BLOB PRIMARY KEY, size_b INTEGER NOT NULL, kind TEXT NOT NULL, "
    "name TEXT NOT NULL,"
    " added_ms INTEGER NOT NULL, by TEXT) STRICT, WITHOUT ROWID;"
    "CREATE TABLE t_agent(install BLOB PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, "
    "version TEXT,"
    " labels TEXT, boot INTEGER NOT NULL, cores INTEGER, memory_mib INTEGER, kvm INTEGER, drained "
    "INTEGER NOT NULL"
    " DEFAULT 0, last_seen_ms INTEGER, engine BLOB, facts TEXT) STRICT, WITHOUT ROWID;"
    "CREATE TABLE t_reg(num INTEGER PRIMARY KEY, install BLOB NOT NULL, boot INTEGER NOT NULL, "
    "name TEXT NOT NULL,"
    " facts TEXT NOT NULL, UNIQUE(install, boot, facts)) STRICT;"
    "CREATE TABLE t_engine(num INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE) STRICT;"
    "CREATE TABLE t_row(sweep INTEGER NOT NULL, idx INTEGER NOT NULL, point BLOB, trace INTEGER, "
    "status INTEGER NOT NULL,"
    " error TEXT, by INTEGER NOT NULL, epoch INTEGER, n INTEGER, task INTEGER, reg INTEGER, engine "
    "INTEGER,"
    " threads INTEGER, started_ms INTEGER, duration_us INTEGER, PRIMARY KEY(sweep, idx)) STRICT, "
    "WITHOUT ROWID;"
    "CREATE INDEX i_row_point ON t_row(point) WHERE status = 0;"
    "CREATE TABLE t_differing(sweep INTEGER NOT NULL, idx INTEGER NOT NULL, point BLOB, status "
    "INTEGER, error TEXT,"
    " stats BLOB, epoch INTEGER, n INTEGER, task INTEGER, reg INTEGER, engine INTEGER, at_ms "
    "INTEGER) STRICT;"
    "CREATE INDEX i_differing ON t_differing(sweep, idx);"
    "CREATE TABLE t_attempt(task INTEGER NOT NULL, n INTEGER NOT NULL, epoch INTEGER NOT NULL, "
    "sweep INTEGER,"
    " kind TEXT NOT NULL, key BLOB, install BLOB, spans BLOB, points INTEGER, fails INTEGER NOT "
    "NULL,"
    " timeout_ms INTEGER, granted_ms INTEGER, ended_ms INTEGER, cause TEXT, exit INTEGER, signal "
    "INTEGER, tail TEXT,"
    " PRIMARY KEY(task, n)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX i_attempt_open ON t_attempt(task) WHERE ended_ms IS NULL;";

static const char schema_2[] = "CREATE TABLE t_event(seq INTEGER PRIMARY KEY, at_ms INTEGER NOT "
                               "NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,"
                               " text TEXT NOT NULL) STRICT;"
                               "CREATE INDEX i_attempt_sweep ON t_attempt(sweep);";

static const char *const schemas[STORE_VERSION] = { schema_1, schema_2 };

/* ---- columns of results: view expression and name, in the order that scripts rely on */

struct column {
    const char *name, *expr;
};
#define HEX(x) "lower(hex(" x "))"
#define TIME(x) "strftime('%Y-%m-%dT%H:%M:%fZ'," x "/1000.0,'unixepoch')"
#define DONE(x) "CASE r.status WHEN 0 THEN " x " END"
#define FACT(x) "json_extract(g.facts,'$." x "')"

#define ARCH_EXPR_NUM(name) "r.a_" #name
#define ARCH_EXPR_BOOL(name) "CASE r.a_" #name " WHEN 0 THEN 'no' WHEN 1 THEN 'yes' END"
#define ARCH_EXPR_POLICY(name)                                                                     \
    "CASE r.a_" #name " WHEN 0 THEN 'lru' WHEN 1 THEN 'lfu' WHEN 2 THEN 'oracle' END"

#define S(x)                                                                                       \
    {                                                                                              \
#x, "r.s_" #x                                                                              \
    }
static const struct column columns[] = {
    { "name", "w.name" },
    { "index", "r.idx" },
    { "point", "CASE WHEN r.point IS NOT NULL THEN " HEX("r.point") " END" },
    { "trace", "CASE WHEN t.id IS NOT NULL AND t.info IS NOT 'absent' THEN " HEX("t.id") " END" },
    { "rules", "json_extract(w.json,'$.rules')" },
    { "tenants", "nullif(t.tenants, 0)" },
    { "order", "t.ord" },
    { "burst", "t.burst" },
    { "seed", "t.seed" },
    { "replicate", "t.replicate" },
#define X(name, kind, def, lo, hi) { #name, ARCH_EXPR_##kind(name) },
    ARCH_KEYS(X)
#undef X
        { "status", "CASE r.status WHEN 0 THEN 'done' WHEN 1 THEN 'failed' ELSE 'invalid' END" },
    S(time_ps),
    S(requests),
    S(pkts_sent),
    S(pkts_dropped),
    S(mbps),
    S(util_ppm),
    S(cc_hit),
    S(cc_miss),
    S(cc_conflict),
    S(iotlb_hit),
    S(iotlb_miss),
    S(iotlb_conflict),
    S(l2_hit),
    S(l2_miss),
    S(l2_conflict),
    S(l3_hit),
    S(l3_miss),
    S(l3_conflict),
    S(pf_accesses),
    S(pf_predictions),
    S(pf_correct),
    S(pf_incorrect),
    S(pf_fill),
    S(pf_fill_same),
    S(pf_hit),
    S(pf_miss),
    S(jain_ppm),
};
static const struct column provenance[] = {
    { "sweep", HEX("w.id") },
    { "epoch", "r.epoch" },
    { "attempt", "r.n" },
    { "agent", "g.name" },
    { "boot", "g.boot" },
    { "host", FACT("host") },
    { "started", "CASE WHEN r.started_ms IS NOT NULL THEN " TIME("r.started_ms") " END" },
    { "duration_ms", "r.duration_us / 1000" },
    { "engine", "CASE WHEN n.id IS NOT NULL THEN " HEX("n.id") " END" },
    { "isa", FACT("isa") },
    { "threads", "r.threads" },
    { "cpu", FACT("cpu") },
    { "microcode", FACT("microcode") },
    { "kernel", FACT("kernel") },
    { "governor", FACT("governor") },
    { "logs",
      "(SELECT json_extract(c.json,'$.logs') FROM t_recipe c WHERE c.trace = r.trace LIMIT 1)" },
    { "qemu_series", "NULL" },
    { "accel", FACT("accel") },
    { "error", "r.error" },
    { "task", "r.task" },
};
enum {
    N_COLUMNS = ARRAY_LEN(columns),
    N_PROVENANCE = ARRAY_LEN(provenance),
    N_ALL = N_COLUMNS + N_PROVENANCE,
};
const size_t store_n_columns = N_COLUMNS, store_n_provenance = N_PROVENANCE;

static const struct column *column(size_t i)
{
    return i < N_COLUMNS ? &columns[i] : &provenance[i - N_COLUMNS];
}

/* The views are made anew when a store is opened for writing: they follow the program, not the file. */
static const char views[] =
    "DROP VIEW IF EXISTS sweeps; DROP VIEW IF EXISTS attempts; DROP VIEW "
    "IF EXISTS agents;"
    "DROP VIEW IF EXISTS artefacts; DROP VIEW IF EXISTS results;"
    "CREATE VIEW sweeps AS SELECT " HEX(
        "id") " AS sweep, seq, name, CASE state WHEN 0 THEN 'queued' WHEN "
              "1 THEN"
              " 'running' WHEN 2 THEN 'done' WHEN 3 THEN 'failed' ELSE "
              "'cancelled' END AS state, held, priority, points, done,"
              " failed, invalid, known, equal, late, differing, " TIME(
                  "sub"
                  "mit"
                  "ted"
                  "_m"
                  "s") " AS submitted, " TIME("ended_ms") " AS ended FROM t_sweep;"
                                                          "CREATE VIEW attempts AS SELECT "
                                                          "a.task, "
                                                          "a.epoch, a.n, " HEX(
                                                              "w.id") " AS sweep, a.kind, "
                                                                      "g.name AS "
                                                                      "agent,"
                                                                      " a.points, " TIME(
                                                                          "a."
                                                                          "grant"
                                                                          "ed_"
                                                                          "ms") " AS "
                                                                                "granted,"
                                                                                " " TIME(
                                                                                    "a."
                                                                                    "ended"
                                                                                    "_ms") " AS "
                                                                                           "ended,"
                                                                                           " "
                                                                                           "a."
                                                                                           "cause,"
                                                                                           " "
                                                                                           "a."
                                                                                           "exit, "
                                                                                           "a."
                                                                                           "signal"
                                                                                           ","
                                                                                           " a."
                                                                                           "tail "
                                                                                           "FROM "
                                                                                           "t_"
                                                                                           "attemp"
                                                                                           "t a "
                                                                                           "LEFT "
                                                                                           "JOIN "
                                                                                           "t_"
                                                                                           "sweep "
                                                                                           "w ON "
                                                                                           "w.seq "
                                                                                           "= "
                                                                                           "a."
                                                                                           "sweep "
                                                                                           "LEFT "
                                                                                           "JOIN "
                                                                                           "t_"
                                                                                           "agent "
                                                                                           "g ON "
                                                                                           "g."
                                                                                           "instal"
                                                                                           "l = "
                                                                                           "a."
                                                                                           "instal"
                                                                                           "l;"
                                                                                           "CREATE"
                                                                                           " VIEW "
                                                                                           "agents"
                                                                                           " AS "
                                                                                           "SELECT"
                                                                                           " "
                                                                                           "name,"
                                                                                           " " HEX(
                                                                                               "in"
                                                                                               "st"
                                                                                               "al"
                                                                                               "l") " AS install, version, labels, boot, cores, memory_mib,"
                                                                                                    " CASE kvm WHEN 1 THEN 'usable' ELSE 'unusable' END AS kvm, drained, " TIME(
                                                                                                        "last_seen_ms") " AS last_seen, facts FROM t_agent;"
                                                                                                                        "CREATE VIEW artefacts AS SELECT " HEX(
                                                                                                                            "id") " AS id, size_b, kind, name, " TIME("added_ms") " AS added, by FROM t_artefact;";

static const char results_from[] =
    " FROM t_row r JOIN t_sweep w ON w.seq = r.sweep LEFT JOIN t_trace t ON t.num = r.trace"
    " LEFT JOIN t_reg g ON g.num = r.reg LEFT JOIN t_engine n ON n.num = r.engine";

/* ---- errors and statements */

static int db_error(const struct store *st, int rc, struct err *e, const char *what)
{
    const char *why = st->db ? sqlite3_errmsg(st->db) : sqlite3_errstr(rc);
    switch (rc & 0xff) {
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

/* A prepared statement for a literal text: made once, reset. */
static sqlite3_stmt *use(struct store *st, const char *sql, struct err *e)
{
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

/* Bind from the first parameter on: u = uint64_t, t = const char * (NULL = null), b = const void *, size_t (NULL = null),
 * i = const struct id * (NULL = null), z = uint64_t where 0 is null. */
static void bind(sqlite3_stmt *s, const char *fmt, ...)
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

/* 1 = a row, 0 = done, or an error. The statement is reset unless a row came. */
static int step(struct store *st, sqlite3_stmt *s, struct err *e, const char *what)
{
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        return 1;
    int r = rc == SQLITE_DONE ? 0 : db_error(st, rc, e, what);
    sqlite3_reset(s);
    return r;
}

static uint64_t col_u64(sqlite3_stmt *s, int k)
{
    return (uint64_t)sqlite3_column_int64(s, k);
}
static void col_text(sqlite3_stmt *s, int k, char *out, size_t room)
{
    const unsigned char *t = sqlite3_column_text(s, k);
    snprintf(out, room, "%s", t ? (const char *)t : "");
}
static void col_id(sqlite3_stmt *s, int k, struct id *ret)
{
    memset(ret, 0, sizeof(*ret));
    const void *p = sqlite3_column_blob(s, k);
    if (p && sqlite3_column_bytes(s, k) == ID_LEN)
        memcpy(ret->b, p, ID_LEN);
}

static int exec(struct store *st, const char *sql, struct err *e, const char *what)
{
    int rc = sqlite3_exec(st->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : db_error(st, rc, e, what);
}

/* ---- transactions */

int store_begin(struct store *st, struct err *e)
{
    if (st->open_tx)
        return 0;
    int r = exec(st, "BEGIN IMMEDIATE", e, "begin");
    st->open_tx = r == 0;
    return r;
}

int store_commit(struct store *st, struct err *e)
{
    if (!st->open_tx)
        return 0;
    int r = exec(st, "COMMIT", e, "commit");
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
}

/* ---- open */

static int has_column(struct store *st, const char *table, const char *prefix, const char *name)
{
    sqlite3_stmt *s = NULL;
    char col[96];
    snprintf(col, sizeof(col), "%s%s", prefix, name);
    if (sqlite3_prepare_v2(st->db, "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2", -1, &s,
                           NULL) != SQLITE_OK)
        return 0;
    sqlite3_bind_text(s, 1, table, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, col, -1, SQLITE_STATIC);
    int has = sqlite3_step(s) == SQLITE_ROW;
    sqlite3_finalize(s);
    return has;
}

static int add_columns(struct store *st, struct err *e)
{
    char sql[160];
    for (size_t i = 0; i < (size_t)ARCH_N + ROW_STATS_N; i++) {
        const char *prefix = i < ARCH_N ? "a_" : "s_";
        const char *name = i < ARCH_N ? arch_names[i] : row_stats_names[i - ARCH_N];
        if (has_column(st, "t_row", prefix, name))
            continue;
        snprintf(sql, sizeof(sql), "ALTER TABLE t_row ADD COLUMN %s%s INTEGER", prefix, name);
        int r = exec(st, sql, e, "new column");
        if (r < 0)
            return r;
    }
    return 0;
}

static int make_views(struct store *st, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64 << 10);
    int r = buf_adds(&b, views);
    if (r >= 0)
        r = buf_adds(&b, "CREATE VIEW results AS SELECT ");
    for (size_t i = 0; r >= 0 && i < N_ALL; i++)
        r = buf_addf(&b, "%s%s AS \"%s\"", i ? ", " : "", column(i)->expr, column(i)->name);
    if (r >= 0)
        r = buf_addf(&b, "%s;", results_from);
    return r < 0 ? err_sys(e, -r, "%s: views", st->path)
                 : exec(st, (const char *)b.data, e, "views");
}

static int user_version(struct store *st, uint64_t *ret, struct err *e)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(st->db, "PRAGMA user_version", -1, &s, NULL);
    if (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        *ret = col_u64(s, 0);
        rc = SQLITE_OK;
    }
    int r = rc == SQLITE_OK ? 0 : db_error(st, rc, e, "read");
    sqlite3_finalize(s);
    if (r < 0)
        return r;
    return *ret > STORE_VERSION
               ? err_set(e, SF_EFORMAT,
                         "%s: store of version %" PRIu64 ", this program knows up to %d", st->path,
                         *ret, (int)STORE_VERSION)
               : 0;
}

static int migrate(struct store *st, struct err *e)
{
    uint64_t v = 0;
    int r = user_version(st, &v, e);
    if (r >= 0)
        r = store_begin(st, e);
    char sql[64];
    for (; r >= 0 && v < STORE_VERSION; v++) {
        r = exec(st, schemas[v], e, "migrate");
        snprintf(sql, sizeof(sql), "PRAGMA user_version = %" PRIu64, v + 1);
        if (r >= 0)
            r = exec(st, sql, e, "migrate");
    }
    if (r >= 0)
        r = add_columns(st, e);
    if (r >= 0)
        r = make_views(st, e);
    if (r >= 0)
        return store_commit(st, e);
    store_rollback(st);
    return r;
}

static int lock_dir(struct store *st, struct err *e)
{
    CLEANUP(freep) char *path = path_fmt("%s/lock", st->dir);
    if (!path)
        return -ENOMEM;
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
    st->lock = -1;
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
    sqlite3_close(st->db);
    closep(&st->lock);
    free(st->dir);
    free(st->path);
    free(st);
}

int store_open(const char *dir, struct store **ret, struct err *e)
{
    int r = dir_make(dir, 0700, e);
    if (r < 0)
        return r;
    CLEANUP(store_free) struct store *st = store_new(dir);
    if (!st)
        return err_sys(e, ENOMEM, "%s", dir);
    r = lock_dir(st, e);
    if (r < 0)
        return r;
    int rc = sqlite3_open_v2(
        st->path, &st->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return db_error(st, rc, e, "open");
    sqlite3_extended_result_codes(st->db, 1);
    sqlite3_busy_timeout(st->db, 2000); /* a reader that ends may checkpoint */
    r = exec(st,
             "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;"
             "PRAGMA wal_autocheckpoint = 4000",
             e, "open");
    if (r >= 0)
        r = migrate(st, e);
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
    bool still = (stat(wal, &sb) < 0 || sb.st_size == 0) && !strpbrk(st->path, "?#%");
    if (still) {
        CLEANUP(closep) int fd = open(lock, O_RDONLY | O_CLOEXEC);
        still = fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0;
    }
    int rc = sqlite3_open_v2(
        still ? uri : st->path, &st->db,
        SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | (still ? SQLITE_OPEN_URI : 0), NULL);
    if (rc != SQLITE_OK)
        return db_error(st, rc, e, "open");
    sqlite3_extended_result_codes(st->db, 1);
    sqlite3_busy_timeout(st->db, 2000);
    uint64_t v = 0;
    int r = user_version(st, &v, e);
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
    sqlite3_stmt *s = use(st, "SELECT value FROM t_meta WHERE key = ?", e);
    if (!s)
        return -EIO;
    bind(s, "t", key);
    int r = step(st, s, e, "read");
    if (r == 1)
        *ret = col_u64(s, 0);
    sqlite3_reset(s);
    return r < 0 ? r : 0;
}

int store_set(struct store *st, const char *key, uint64_t v, struct err *e)
{
    sqlite3_stmt *s = use(
        st, "INSERT INTO t_meta VALUES(?,?) ON CONFLICT DO UPDATE SET value = excluded.value", e);
    if (!s)
        return -EIO;
    bind(s, "tu", key, v);
    return step(st, s, e, "write");
}

int store_event(struct store *st, uint64_t wall_ms, const char *kind, const char *subject,
                const char *text, struct err *e)
{
    sqlite3_stmt *s = use(st, "INSERT INTO t_event(at_ms,kind,subject,text) VALUES(?,?,?,?)", e);
    if (!s)
        return -EIO;
    bind(s, "uttt", wall_ms, kind, subject, text);
    int r = step(st, s, e, "event");
    if (r < 0)
        return r;
    uint64_t seq = (uint64_t)sqlite3_last_insert_rowid(st->db);
    if (seq % 1000 || seq <= EVENTS_MAX)
        return 0;
    s = use(st, "DELETE FROM t_event WHERE seq <= ?", e);
    if (!s)
        return -EIO;
    bind(s, "u", seq - EVENTS_MAX);
    return step(st, s, e, "event");
}

/* ---- sweeps */

const char *sweep_state_name(enum sweep_state s, bool held)
{
    static const char *const names[] = { "queued", "running", "done", "failed", "cancelled" };
    return held && s <= SWEEP_RUNNING ? "held" : names[s];
}

#define SWEEP_COLS                                                                                 \
    "seq,id,name,request_id,state,held,priority,points,done,failed,invalid,known,equal,late,"      \
    "differing,submitted_ms,ended_ms"

static void get_sweep(sqlite3_stmt *s, struct store_sweep *w)
{
    *w = (struct store_sweep){ .seq = col_u64(s, 0) };
    col_id(s, 1, &w->id);
    col_text(s, 2, w->name, sizeof(w->name));
    col_text(s, 3, w->request_id, sizeof(w->request_id));
    w->state = (enum sweep_state)(col_u64(s, 4) % (SWEEP_CANCELLED + 1));
    w->held = col_u64(s, 5);
    w->priority = col_u64(s, 6);
    w->points = col_u64(s, 7);
    w->done = col_u64(s, 8);
    w->failed = col_u64(s, 9);
    w->invalid = col_u64(s, 10);
    w->known = col_u64(s, 11);
    w->equal = col_u64(s, 12);
    w->late = col_u64(s, 13);
    w->differing = col_u64(s, 14);
    w->submitted_ms = col_u64(s, 15);
    w->ended_ms = col_u64(s, 16);
}

int store_add_sweep(struct store *st, struct store_sweep *w, const char *json, const char *by,
                    struct err *e)
{
    sqlite3_stmt *s = use(
        st,
        "INSERT INTO t_sweep(id,name,request_id,json,state,held,priority,points,submitted_ms,by)"
        " VALUES(?,?,?,?,?,?,?,?,?,?)",
        e);
    if (!s)
        return -EIO;
    bind(s, "itttuuuuut", &w->id, w->name, *w->request_id ? w->request_id : NULL, json,
         (uint64_t)w->state, (uint64_t)w->held, w->priority, w->points, w->submitted_ms, by);
    int rc = sqlite3_step(s);
    sqlite3_reset(s);
    if ((rc & 0xff) == SQLITE_CONSTRAINT)
        return err_set(e, EEXIST, "sweep '%s': request id is taken", w->name);
    if (rc != SQLITE_DONE)
        return db_error(st, rc, e, "sweep");
    w->seq = (uint64_t)sqlite3_last_insert_rowid(st->db);
    return 0;
}

static int one_sweep(struct store *st, sqlite3_stmt *s, struct store_sweep *ret, char **ret_json,
                     struct err *e)
{
    int r = step(st, s, e, "read");
    if (r == 1) {
        get_sweep(s, ret);
        if (ret_json) {
            const unsigned char *t = sqlite3_column_text(s, 17);
            *ret_json = t ? strdup((const char *)t) : NULL;
            r = *ret_json ? 1 : -ENOMEM;
        }
    }
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : -ENOENT;
}

int store_sweep(struct store *st, uint64_t seq, struct store_sweep *ret, char **ret_json,
                struct err *e)
{
    sqlite3_stmt *s = use(st, "SELECT " SWEEP_COLS ",json FROM t_sweep WHERE seq = ?", e);
    if (!s)
        return -EIO;
    bind(s, "u", seq);
    int r = one_sweep(st, s, ret, ret_json, e);
    return r == -ENOENT ? err_set(e, ENOENT, "sweep %" PRIu64 ": none", seq) : r;
}

int store_sweep_by_request(struct store *st, const char *request_id, struct store_sweep *ret,
                           struct err *e)
{
    sqlite3_stmt *s = use(st, "SELECT " SWEEP_COLS ",json FROM t_sweep WHERE request_id = ?", e);
    if (!s)
        return -EIO;
    bind(s, "t", request_id);
    return one_sweep(st, s, ret, NULL, e);
}

/* "ab12..." of 8 to 64 hex digits -> its bytes as lowest and highest id. */
static bool id_range(const char *text, struct id *lo, struct id *hi)
{
    size_t n = strlen(text);
    if (n < 8 || n > 64 || strspn(text, "0123456789abcdef") != n)
        return false;
    memset(lo, 0, sizeof(*lo));
    memset(hi, 0xff, sizeof(*hi));
    for (size_t i = 0; i < n; i++) {
        uint8_t v = (uint8_t)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
        unsigned shift = i % 2 ? 0 : 4;
        lo->b[i / 2] = (uint8_t)(lo->b[i / 2] | v << shift);
        hi->b[i / 2] = (uint8_t)((hi->b[i / 2] & ~(0xf << shift)) | v << shift);
    }
    return true;
}

int store_find_sweep(struct store *st, const char *text, struct store_sweep *ret, struct err *e)
{
    sqlite3_stmt *s;
    struct id lo, hi;
    int r;
    if (!strcmp(text, "last")) {
        s = use(st, "SELECT " SWEEP_COLS " FROM t_sweep ORDER BY seq DESC LIMIT 1", e);
        r = s ? one_sweep(st, s, ret, NULL, e) : -EIO;
        return r == -ENOENT ? err_set(e, ENOENT, "last: there is no sweep yet") : r;
    }
    if (id_range(text, &lo, &hi)) {
        s = use(st,
                "SELECT " SWEEP_COLS ", (SELECT count(*) FROM t_sweep WHERE id BETWEEN ?1 AND ?2)"
                " FROM t_sweep WHERE id BETWEEN ?1 AND ?2 LIMIT 1",
                e);
        if (!s)
            return -EIO;
        bind(s, "ii", &lo, &hi);
        r = step(st, s, e, "read");
        uint64_t n = 0;
        if (r == 1) {
            get_sweep(s, ret);
            n = col_u64(s, 17);
        }
        sqlite3_reset(s);
        if (r < 0)
            return r;
        if (n > 1)
            return err_set(e, SF_EUSAGE, "%s: stands for %" PRIu64 " sweeps", text, n);
        if (n == 1)
            return 0;
    }
    s = use(st, "SELECT " SWEEP_COLS " FROM t_sweep WHERE name = ? ORDER BY seq DESC LIMIT 1", e);
    if (!s)
        return -EIO;
    bind(s, "t", text);
    r = one_sweep(st, s, ret, NULL, e);
    return r == -ENOENT ? err_set(e, ENOENT, "%.128s: no such sweep", text) : r;
}

int store_sweeps(struct store *st, uint64_t from, bool open_only,
                 int (*cb)(void *ctx, const struct store_sweep *s), void *ctx, struct err *e)
{
    int r = 0;
    for (;;) { /* one statement a sweep: the callback may use the store */
        sqlite3_stmt *s =
            use(st,
                "SELECT " SWEEP_COLS " FROM t_sweep WHERE seq >= ?1 AND (?2 = 0 OR state <= 1)"
                " ORDER BY seq LIMIT 1",
                e);
        if (!s)
            return -EIO;
        bind(s, "uu", from, (uint64_t)open_only);
        struct store_sweep w;
        r = one_sweep(st, s, &w, NULL, e);
        if (r < 0)
            return r == -ENOENT ? 0 : r;
        r = cb(ctx, &w);
        if (r)
            return r;
        from = w.seq + 1;
    }
}

int store_sweep_state(struct store *st, uint64_t seq, enum sweep_state state, uint64_t ended_ms,
                      struct err *e)
{
    sqlite3_stmt *s = use(st, "UPDATE t_sweep SET state = ?, ended_ms = ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    bind(s, "uzu", (uint64_t)state, ended_ms, seq);
    return step(st, s, e, "sweep");
}

int store_sweep_held(struct store *st, uint64_t seq, bool held, struct err *e)
{
    sqlite3_stmt *s = use(st, "UPDATE t_sweep SET held = ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    bind(s, "uu", (uint64_t)held, seq);
    return step(st, s, e, "sweep");
}

int store_sweep_late(struct store *st, uint64_t seq, uint64_t n, struct err *e)
{
    sqlite3_stmt *s = use(st, "UPDATE t_sweep SET late = late + ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    bind(s, "uu", n, seq);
    return step(st, s, e, "sweep");
}

/* ---- traces and artefacts */

#define TRACE_COLS "t.num,t.id,t.tenants,t.ord,t.burst,t.seed,t.replicate,t.rules"

static int one_trace(struct store *st, sqlite3_stmt *s, struct store_trace *t, struct err *e)
{
    int r = step(st, s, e, "read");
    if (r == 1) {
        *t = (struct store_trace){ .num = col_u64(s, 0),
                                   .tenants = col_u64(s, 2),
                                   .burst = col_u64(s, 4),
                                   .seed = col_u64(s, 5),
                                   .replicate = col_u64(s, 6) };
        col_id(s, 1, &t->id);
        col_text(s, 3, t->order, sizeof(t->order));
        col_text(s, 7, t->rules, sizeof(t->rules));
    }
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : -ENOENT;
}

int store_trace(struct store *st, const struct id *id, struct store_trace *ret, struct err *e)
{
    sqlite3_stmt *s = use(st, "SELECT " TRACE_COLS " FROM t_trace t WHERE t.id = ?", e);
    if (!s)
        return -EIO;
    bind(s, "i", id);
    return one_trace(st, s, ret, e);
}

int store_recipe(struct store *st, const struct id *recipe, struct store_trace *ret, struct err *e)
{
    sqlite3_stmt *s = use(st,
                          "SELECT " TRACE_COLS
                          " FROM t_recipe c JOIN t_trace t ON t.num = c.trace WHERE c.id = ?",
                          e);
    if (!s)
        return -EIO;
    bind(s, "i", recipe);
    return one_trace(st, s, ret, e);
}

int store_add_trace(struct store *st, struct store_trace *t, const char *info, struct err *e)
{
    sqlite3_stmt *s = use(st,
                          "INSERT INTO t_trace(id,tenants,ord,burst,seed,replicate,rules,info)"
                          " VALUES(?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
                          e);
    if (!s)
        return -EIO;
    bind(s, "iutuuutt", &t->id, t->tenants, t->order, t->burst, t->seed, t->replicate, t->rules,
         info);
    int r = step(st, s, e, "trace");
    return r < 0 ? r : store_trace(st, &t->id, t, e);
}

int store_add_recipe(struct store *st, const struct id *recipe, const struct id *trace,
                     const char *json, struct err *e)
{
    sqlite3_stmt *s =
        use(st,
            "INSERT INTO t_recipe(id,trace,json) SELECT ?1, num, ?3 FROM t_trace WHERE id = ?2"
            " ON CONFLICT DO UPDATE SET trace = excluded.trace, json = excluded.json",
            e);
    if (!s)
        return -EIO;
    bind(s, "iit", recipe, trace, json);
    return step(st, s, e, "recipe");
}

int store_add_artefact(struct store *st, const struct store_artefact *a, const char *by,
                       struct err *e)
{
    sqlite3_stmt *s =
        use(st, "INSERT INTO t_artefact VALUES(?,?,?,?,?,?) ON CONFLICT DO NOTHING", e);
    if (!s)
        return -EIO;
    bind(s, "iuttut", &a->id, a->size_b, a->kind, a->name, a->added_ms, by);
    return step(st, s, e, "artefact");
}

static void get_artefact(sqlite3_stmt *s, struct store_artefact *a)
{
    *a = (struct store_artefact){ .size_b = col_u64(s, 1), .added_ms = col_u64(s, 4) };
    col_id(s, 0, &a->id);
    col_text(s, 2, a->kind, sizeof(a->kind));
    col_text(s, 3, a->name, sizeof(a->name));
}

int store_artefact(struct store *st, const char *text, struct store_artefact *ret, struct err *e)
{
    struct id lo, hi;
    sqlite3_stmt *s;
    if (!strcmp(text, "last")) {
        s = use(
            st,
            "SELECT id,size_b,kind,name,added_ms,1 FROM t_artefact ORDER BY added_ms DESC LIMIT 1",
            e);
    } else {
        if (!id_range(text, &lo, &hi))
            return err_set(e, SF_EUSAGE, "%.128s: not an id, nor 8 or more digits of one", text);
        s = use(st,
                "SELECT id,size_b,kind,name,added_ms,(SELECT count(*) FROM t_artefact WHERE id "
                "BETWEEN ?1 AND ?2)"
                " FROM t_artefact WHERE id BETWEEN ?1 AND ?2 LIMIT 1",
                e);
        if (s)
            bind(s, "ii", &lo, &hi);
    }
    if (!s)
        return -EIO;
    int r = step(st, s, e, "read");
    uint64_t n = 0;
    if (r == 1) {
        get_artefact(s, ret);
        n = col_u64(s, 5);
    }
    sqlite3_reset(s);
    if (r < 0)
        return r;
    if (n > 1)
        return err_set(e, SF_EUSAGE, "%s: stands for %" PRIu64 " artefacts", text, n);
    return n ? 0 : err_set(e, ENOENT, "%.128s: no such artefact", text);
}

/* ---- agents */

#define AGENT_COLS                                                                                 \
    "install,key,name,version,labels,boot,cores,memory_mib,kvm,drained,last_seen_ms,engine"

static void get_agent(sqlite3_stmt *s, struct store_agent *a)
{
    memset(a, 0, sizeof(*a));
    if (sqlite3_column_bytes(s, 0) == 16)
        memcpy(a->install, sqlite3_column_blob(s, 0), 16);
    col_text(s, 1, a->key, sizeof(a->key));
    col_text(s, 2, a->name, sizeof(a->name));
    col_text(s, 3, a->version, sizeof(a->version));
    col_text(s, 4, a->labels, sizeof(a->labels));
    a->boot = col_u64(s, 5);
    a->cores = col_u64(s, 6);
    a->memory_mib = col_u64(s, 7);
    a->kvm = col_u64(s, 8);
    a->drained = col_u64(s, 9);
    a->last_seen_ms = col_u64(s, 10);
    col_id(s, 11, &a->engine);
}

int store_add_agent(struct store *st, struct store_agent *a, const char *facts, uint64_t *ret_reg,
                    struct err *e)
{
    sqlite3_stmt *s = use(
        st,
        "INSERT INTO "
        "t_agent(install,key,name,version,labels,boot,cores,memory_mib,kvm,last_seen_ms,"
        "engine,facts) VALUES(?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(install) DO UPDATE SET key ="
        " excluded.key, name = excluded.name, version = excluded.version, labels = excluded.labels,"
        " boot = excluded.boot, cores = excluded.cores, memory_mib = excluded.memory_mib, kvm ="
        " excluded.kvm, last_seen_ms = excluded.last_seen_ms, engine = excluded.engine, facts ="
        " excluded.facts",
        e);
    if (!s)
        return -EIO;
    bind(s, "btttt", a->install, (size_t)16, a->key, a->name, a->version, a->labels);
    sqlite3_bind_int64(s, 6, (sqlite3_int64)a->boot);
    sqlite3_bind_int64(s, 7, (sqlite3_int64)a->cores);
    sqlite3_bind_int64(s, 8, (sqlite3_int64)a->memory_mib);
    sqlite3_bind_int64(s, 9, a->kvm);
    sqlite3_bind_int64(s, 10, (sqlite3_int64)a->last_seen_ms);
    sqlite3_bind_blob(s, 11, a->engine.b, ID_LEN, SQLITE_TRANSIENT);
    sqlite3_bind_text(s, 12, facts, -1, SQLITE_TRANSIENT);
    int rc = sqlite3_step(s);
    sqlite3_reset(s);
    if ((rc & 0xff) == SQLITE_CONSTRAINT)
        return err_set(e, EEXIST, "agent '%s': its key belongs to another install", a->name);
    if (rc != SQLITE_DONE)
        return db_error(st, rc, e, "agent");
    s = use(st, "INSERT INTO t_reg(install,boot,name,facts) VALUES(?,?,?,?) ON CONFLICT DO NOTHING",
            e);
    if (!s)
        return -EIO;
    bind(s, "butt", a->install, (size_t)16, a->boot, a->name, facts);
    int r = step(st, s, e, "agent");
    if (r < 0)
        return r;
    s = use(st, "SELECT num FROM t_reg WHERE install = ? AND boot = ? AND facts = ?", e);
    if (!s)
        return -EIO;
    bind(s, "but", a->install, (size_t)16, a->boot, facts);
    r = step(st, s, e, "agent");
    if (r == 1)
        *ret_reg = col_u64(s, 0);
    sqlite3_reset(s);
    if (r < 0)
        return r;
    s = use(st, "SELECT " AGENT_COLS " FROM t_agent WHERE install = ?", e);
    if (!s)
        return -EIO;
    bind(s, "b", a->install, (size_t)16);
    r = step(st, s, e, "agent");
    if (r == 1)
        get_agent(s, a);
    sqlite3_reset(s);
    return r < 0 ? r : 0;
}

int store_find_agent(struct store *st, const char *name, struct store_agent *ret, struct err *e)
{
    sqlite3_stmt *s =
        use(st,
            "SELECT " AGENT_COLS " FROM t_agent WHERE name = ?1 OR lower(hex(install)) = ?1"
            " ORDER BY last_seen_ms DESC LIMIT 1",
            e);
    if (!s)
        return -EIO;
    bind(s, "t", name);
    int r = step(st, s, e, "read");
    if (r == 1)
        get_agent(s, ret);
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : err_set(e, ENOENT, "%.128s: no such agent", name);
}

int store_agent_drained(struct store *st, const uint8_t install[16], bool drained, struct err *e)
{
    sqlite3_stmt *s = use(st, "UPDATE t_agent SET drained = ? WHERE install = ?", e);
    if (!s)
        return -EIO;
    bind(s, "ub", (uint64_t)drained, install, (size_t)16);
    return step(st, s, e, "agent");
}

int store_agent_seen(struct store *st, const uint8_t install[16], uint64_t wall_ms, struct err *e)
{
    sqlite3_stmt *s = use(st, "UPDATE t_agent SET last_seen_ms = ? WHERE install = ?", e);
    if (!s)
        return -EIO;
    bind(s, "ub", wall_ms, install, (size_t)16);
    return step(st, s, e, "agent");
}

int store_agents(struct store *st, int (*cb)(void *ctx, const struct store_agent *a), void *ctx,
                 struct err *e)
{
    sqlite3_stmt *s = use(st, "SELECT " AGENT_COLS " FROM t_agent ORDER BY name, install", e);
    if (!s)
        return -EIO;
    int r;
    while ((r = step(st, s, e, "read")) == 1) {
        struct store_agent a;
        get_agent(s, &a);
        r = cb(ctx, &a);
        if (r) {
            sqlite3_reset(s);
            return r;
        }
    }
    return r;
}

int store_engine(struct store *st, const struct id *engine, uint64_t *ret_num, struct err *e)
{
    for (int turn = 0; turn < 2; turn++) {
        sqlite3_stmt *s = use(st, "SELECT num FROM t_engine WHERE id = ?", e);
        if (!s)
            return -EIO;
        bind(s, "i", engine);
        int r = step(st, s, e, "read");
        if (r == 1)
            *ret_num = col_u64(s, 0);
        sqlite3_reset(s);
        if (r)
            return r < 0 ? r : 0;
        if (turn || !(s = use(st, "INSERT INTO t_engine(id) VALUES(?)", e)))
            break;
        bind(s, "i", engine);
        r = step(st, s, e, "engine");
        if (r < 0)
            return r;
    }
    return -EIO;
}

/* ---- results */

#define X(name, kind, def, lo, hi) ",a_" #name
#define Y(name) ",s_" #name
#define ROW_COLS                                                                                   \
    "point,trace,status,error,by,epoch,n,task,reg,engine,threads,started_ms,duration_"             \
    "us" ARCH_KEYS(X) ROW_STATS(Y)
static const char row_insert_head[] = "INSERT INTO t_row(sweep,idx," ROW_COLS ") VALUES(?,?";
static const char row_select[] =
    "SELECT status,error,by,point" ROW_STATS(Y) " FROM t_row WHERE sweep = ? AND idx = ?";
static const char row_known[] =
    "SELECT " ROW_COLS " FROM t_row WHERE point = ? AND status = 0 AND by <> 1";
#undef X
#undef Y
enum { ROW_FIXED = 13, ROW_ALL = 2 + ROW_FIXED + ARCH_N + ROW_STATS_N };

static const char *row_insert(void)
{
    static char sql[8192]; /* made once; its address is the statement's key */
    if (!*sql) {
        char *p = sql + snprintf(sql, sizeof(sql), "%s", row_insert_head);
        for (int i = 2; i < ROW_ALL; i++)
            p += sprintf(p, ",?");
        sprintf(p, ")");
    }
    return sql;
}

static int insert_row(struct store *st, const struct store_row *r, struct err *e)
{
    sqlite3_stmt *s = use(st, row_insert(), e);
    if (!s)
        return -EIO;
    static const struct id none;
    bool has_point = !id_eq(&r->point, &none);
    bind(s, "uuizutuzzzzzzzu", r->sweep, r->index, has_point ? &r->point : NULL, r->trace,
         (uint64_t)r->status, r->error && *r->error ? r->error : NULL, (uint64_t)r->by, r->epoch,
         r->n, r->task, r->reg, r->engine, r->threads, r->started_ms, r->duration_us);
    int k = 2 + ROW_FIXED + 1;
    const uint32_t *arch = (const uint32_t *)(const void *)&r->arch;
    for (unsigned i = 0; i < ARCH_N; i++)
        sqlite3_bind_int64(s, k++, arch[i]);
    const uint64_t *stats = (const uint64_t *)(const void *)&r->stats;
    for (unsigned i = 0; i < ROW_STATS_N; i++, k++)
        if (r->status == ROW_DONE)
            sqlite3_bind_int64(s, k, (sqlite3_int64)stats[i]);
        else
            sqlite3_bind_null(s, k);
    return step(st, s, e, "row");
}

static int count_row(struct store *st, uint64_t sweep, enum row_status status, bool known, int sign,
                     struct err *e)
{
    sqlite3_stmt *s =
        use(st,
            "UPDATE t_sweep SET done = done + ?1, failed = failed + ?2, invalid = invalid + ?3,"
            " known = known + ?4 WHERE seq = ?5",
            e);
    if (!s)
        return -EIO;
    sqlite3_bind_int(s, 1, status == ROW_DONE ? sign : 0);
    sqlite3_bind_int(s, 2, status == ROW_FAILED ? sign : 0);
    sqlite3_bind_int(s, 3, status == ROW_INVALID ? sign : 0);
    sqlite3_bind_int(s, 4, known ? sign : 0);
    sqlite3_bind_int64(s, 5, (sqlite3_int64)sweep);
    return step(st, s, e, "sweep");
}

int store_put_row(struct store *st, const struct store_row *r, uint64_t wall_ms, struct err *e)
{
    sqlite3_stmt *s = use(st, row_select, e);
    if (!s)
        return -EIO;
    bind(s, "uu", r->sweep, r->index);
    int rc = step(st, s, e, "read");
    if (rc < 0)
        return rc;
    if (rc == 0) {
        rc = insert_row(st, r, e);
        if (rc >= 0)
            rc = count_row(st, r->sweep, r->status, false, 1, e);
        return rc < 0 ? rc : PUT_FIRST;
    }
    enum row_status old = (enum row_status)col_u64(s, 0);
    int old_by = (int)col_u64(s, 2);
    bool equal = old == r->status;
    if (equal && old == ROW_DONE) {
        const uint64_t *stats = (const uint64_t *)(const void *)&r->stats;
        for (unsigned i = 0; i < ROW_STATS_N; i++)
            equal &= col_u64(s, 4 + (int)i) == stats[i];
    }
    sqlite3_reset(s);
    if (old_by == BY_COORDINATOR && old == ROW_FAILED && r->by != BY_COORDINATOR) {
        /* given up on, then it came after all */
        s = use(st, "DELETE FROM t_row WHERE sweep = ? AND idx = ?", e);
        if (!s)
            return -EIO;
        bind(s, "uu", r->sweep, r->index);
        rc = step(st, s, e, "row");
        if (rc >= 0)
            rc = count_row(st, r->sweep, old, false, -1, e);
        if (rc >= 0)
            rc = insert_row(st, r, e);
        if (rc >= 0)
            rc = count_row(st, r->sweep, r->status, false, 1, e);
        return rc < 0 ? rc : PUT_REPLACED;
    }
    if (r->by == BY_COORDINATOR)
        return PUT_EQUAL; /* a real result is here: giving up is void */
    s = equal ? use(st, "UPDATE t_sweep SET equal = equal + 1 WHERE seq = ?", e)
              : use(st, "UPDATE t_sweep SET differing = differing + 1 WHERE seq = ?", e);
    if (!s)
        return -EIO;
    bind(s, "u", r->sweep);
    rc = step(st, s, e, "sweep");
    if (rc < 0 || equal)
        return rc < 0 ? rc : PUT_EQUAL;
    s = use(st, "INSERT INTO t_differing VALUES(?,?,?,?,?,?,?,?,?,?,?,?)", e);
    if (!s)
        return -EIO;
    uint8_t packed[ROW_STATS_BYTES];
    row_stats_pack(&r->stats, packed);
    bind(s, "uuiutbuuuzzu", r->sweep, r->index, &r->point, (uint64_t)r->status, r->error, packed,
         sizeof(packed), r->epoch, r->n, r->task, r->reg, r->engine, wall_ms);
    rc = step(st, s, e, "row");
    return rc < 0 ? rc : PUT_DIFFERS;
}

/* The first row of a point that one of the engines made; the statement stands on it. 1 = found. */
static int find_known(struct store *st, const struct id *point, const uint64_t engines[], size_t n,
                      sqlite3_stmt **ret, struct err *e)
{
    sqlite3_stmt *s = use(st, row_known, e);
    if (!s)
        return -EIO;
    bind(s, "i", point);
    int r;
    while ((r = step(st, s, e, "read")) == 1)
        for (size_t i = 0; i < n; i++)
            if (col_u64(s, 9) == engines[i]) {
                *ret = s;
                return 1;
            }
    return r;
}

int store_is_known(struct store *st, const struct id *point, const uint64_t engines[], size_t n,
                   struct err *e)
{
    sqlite3_stmt *s = NULL;
    int r = find_known(st, point, engines, n, &s, e);
    if (s)
        sqlite3_reset(s);
    return r;
}

int store_put_known(struct store *st, uint64_t sweep, uint64_t index, const struct id *point,
                    const uint64_t engines[], size_t n, struct err *e)
{
    sqlite3_stmt *s = NULL;
    int r = find_known(st, point, engines, n, &s, e);
    if (r <= 0)
        return r;
    sqlite3_stmt *in = use(st, row_insert(), e);
    if (!in) {
        sqlite3_reset(s);
        return -EIO;
    }
    bind(in, "uu", sweep, index);
    for (int k = 0; k < ROW_ALL - 2; k++)
        sqlite3_bind_value(in, k + 3, sqlite3_column_value(s, k));
    sqlite3_bind_int(in, 3 + 4, BY_COPY);
    sqlite3_reset(s);
    r = step(st, in, e, "row");
    if (r >= 0)
        r = count_row(st, sweep, ROW_DONE, true, 1, e);
    return r < 0 ? r : 1;
}

int store_missing(struct store *st, uint64_t sweep, uint64_t points, struct spans *ret,
                  struct err *e)
{
    sqlite3_stmt *s = use(st, "SELECT idx FROM t_row WHERE sweep = ? ORDER BY idx", e);
    if (!s)
        return -EIO;
    bind(s, "u", sweep);
    uint64_t next = 0;
    int r, bad = 0;
    while ((r = step(st, s, e, "read")) == 1) {
        uint64_t i = col_u64(s, 0);
        if (bad >= 0 && i > next)
            bad = spans_add(ret, next, i);
        next = i + 1;
    }
    if (r >= 0)
        r = bad < 0 ? bad : spans_add(ret, next, points);
    return r;
}

int store_take_failed(struct store *st, uint64_t sweep, struct spans *ret, struct err *e)
{
    sqlite3_stmt *s =
        use(st, "SELECT idx FROM t_row WHERE sweep = ? AND status = 1 ORDER BY idx", e);
    if (!s)
        return -EIO;
    bind(s, "u", sweep);
    int r, bad = 0;
    while ((r = step(st, s, e, "read")) == 1)
        if (bad >= 0)
            bad = spans_add(ret, col_u64(s, 0), col_u64(s, 0) + 1);
    if (r < 0 || bad < 0)
        return r < 0 ? r : bad;
    s = use(st, "DELETE FROM t_row WHERE sweep = ? AND status = 1", e);
    if (!s)
        return -EIO;
    bind(s, "u", sweep);
    r = step(st, s, e, "row");
    if (r < 0)
        return r;
    s = use(st, "UPDATE t_sweep SET failed = 0 WHERE seq = ?", e);
    if (!s)
        return -EIO;
    bind(s, "u", sweep);
    return step(st, s, e, "sweep");
}

/* ---- attempts */

int store_add_attempt(struct store *st, const struct store_attempt *a, struct err *e)
{
    sqlite3_stmt *s = use(
        st,
        "INSERT INTO t_attempt(task,n,epoch,sweep,kind,key,install,spans,points,fails,timeout_ms,"
        "granted_ms) VALUES(?,?,?,?,?,?,?,?,?,?,?,?)",
        e);
    if (!s)
        return -EIO;
    bind(s, "uuuztibbuuuu", a->task, a->n, a->epoch, a->sweep, a->kind, &a->key, a->install,
         (size_t)16, a->points.n ? (const void *)a->points.v : NULL,
         a->points.n * sizeof(struct span), a->points.total, a->fails, a->timeout_ms,
         a->granted_ms);
    return step(st, s, e, "attempt");
}

int store_end_attempt(struct store *st, uint64_t task, uint64_t epoch, uint64_t n,
                      const char *cause, uint64_t exit_status, uint64_t sig, uint64_t ended_ms,
                      const void *tail, size_t tail_len, struct err *e)
{
    sqlite3_stmt *s =
        use(st,
            "UPDATE t_attempt SET cause = ?, exit = ?, signal = ?, ended_ms = ?, tail = ?"
            " WHERE task = ? AND n = ? AND epoch = ? AND ended_ms IS NULL",
            e);
    if (!s)
        return -EIO;
    bind(s, "tuzu", cause, exit_status, sig, ended_ms);
    if (tail_len && strcmp(cause, "done") != 0)
        sqlite3_bind_text(s, 5, tail, (int)tail_len, SQLITE_TRANSIENT);
    else
        sqlite3_bind_null(s, 5);
    sqlite3_bind_int64(s, 6, (sqlite3_int64)task);
    sqlite3_bind_int64(s, 7, (sqlite3_int64)n);
    sqlite3_bind_int64(s, 8, (sqlite3_int64)epoch);
    return step(st, s, e, "attempt");
}

int store_open_attempts(struct store *st, int (*cb)(void *ctx, struct store_attempt *a), void *ctx,
                        struct err *e)
{
    uint64_t from = 0;
    for (;;) { /* one statement each: the callback may use the store */
        sqlite3_stmt *s =
            use(st,
                "SELECT task,n,epoch,sweep,kind,key,install,spans,fails,timeout_ms,granted_ms FROM"
                " t_attempt WHERE ended_ms IS NULL AND task >= ? ORDER BY task LIMIT 1",
                e);
        if (!s)
            return -EIO;
        bind(s, "u", from);
        int r = step(st, s, e, "read");
        if (r <= 0)
            return r;
        struct store_attempt a = { .task = col_u64(s, 0),
                                   .n = col_u64(s, 1),
                                   .epoch = col_u64(s, 2),
                                   .sweep = col_u64(s, 3),
                                   .fails = col_u64(s, 8),
                                   .timeout_ms = col_u64(s, 9),
                                   .granted_ms = col_u64(s, 10) };
        col_text(s, 4, a.kind, sizeof(a.kind));
        col_id(s, 5, &a.key);
        if (sqlite3_column_bytes(s, 6) == 16)
            memcpy(a.install, sqlite3_column_blob(s, 6), 16);
        size_t bytes = (size_t)sqlite3_column_bytes(s, 7);
        const struct span *v = sqlite3_column_blob(s, 7);
        for (size_t i = 0; r >= 0 && v && i < bytes / sizeof(*v); i++)
            r = spans_add(&a.points, v[i].lo, v[i].hi);
        sqlite3_reset(s);
        if (r >= 0)
            r = cb(ctx, &a);
        spans_clear(&a.points);
        if (r < 0)
            return r;
        from = a.task + 1;
    }
}

int store_next_task(struct store *st, uint64_t *ret, struct err *e)
{
    sqlite3_stmt *s = use(st, "SELECT coalesce(max(task), 0) + 1 FROM t_attempt", e);
    if (!s)
        return -EIO;
    int r = step(st, s, e, "read");
    if (r == 1)
        *ret = col_u64(s, 0);
    sqlite3_reset(s);
    return r < 0 ? r : 0;
}

/* ---- questions */

static int add_json(struct buf *b, json_t *j)
{
    CLEANUP(freep) char *s = j ? json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(j);
    return s ? buf_adds(b, s) : -ENOMEM;
}

static json_t *cell(sqlite3_stmt *s, int k)
{
    switch (sqlite3_column_type(s, k)) {
    case SQLITE_INTEGER: {
        sqlite3_int64 v = sqlite3_column_int64(s, k);
        if (v >= 0)
            return json_u64((uint64_t)v);
        return v >= -(INT64_C(1) << 53) + 1 ? json_integer(v)
                                            : json_str((const char *)sqlite3_column_text(s, k));
    }
    case SQLITE_FLOAT: {
        /* JSON has no infinity: null, or the row would lack a cell */
        json_t *j = json_real(sqlite3_column_double(s, k));
        return j ? j : json_null();
    }
    case SQLITE_NULL:
        return json_null();
    case SQLITE_BLOB: {
        const uint8_t *p = sqlite3_column_blob(s, k);
        int n = sqlite3_column_bytes(s, k);
        CLEANUP(freep) char *hex = malloc(2 * (size_t)n + 1);
        if (!hex)
            return NULL;
        hex[0] = 0;
        for (int i = 0; i < n; i++)
            sprintf(hex + 2 * i, "%02x", p[i]);
        return json_string(hex);
    }
    default:
        return json_str((const char *)sqlite3_column_text(s, k));
    }
}

static int add_row(struct buf *b, sqlite3_stmt *s, int n, bool first)
{
    json_t *row = json_array();
    for (int k = 0; k < n; k++)
        json_array_append_new(row, cell(s, k));
    int r = buf_adds(b, first ? "" : ",");
    return r < 0 ? (json_decref(row), r) : add_json(b, row);
}

static int begin_results(struct buf *b, sqlite3_stmt *s, int first_col)
{
    buf_reset(b);
    int r = buf_adds(b, "{\"schema\":\"siofleet.results/1\",\"columns\":[");
    for (int k = first_col; r >= 0 && k < sqlite3_column_count(s); k++) {
        r = buf_adds(b, k == first_col ? "" : ",");
        if (r >= 0)
            r = add_json(b, json_str(sqlite3_column_name(s, k)));
    }
    return r < 0 ? r : buf_adds(b, "],\"rows\":[");
}

/* WHERE and its values from args; values are kept in *bound (strings). */
static int add_filters(struct store *st, const json_t *args, struct buf *sql, json_t *bound,
                       struct err *e)
{
    json_t *sweeps = json_object_get(args, "sweeps"), *where = json_object_get(args, "where"), *v;
    size_t i;
    int r = 0;
    if (json_array_size(sweeps) > 1000 || json_array_size(where) > 100)
        return err_set(e, SF_EUSAGE, "results: too many sweeps or conditions");
    if (json_array_size(sweeps)) {
        r = buf_adds(sql, " AND r.sweep IN (");
        json_array_foreach (sweeps, i, v) {
            struct store_sweep w;
            r = r < 0 ? r
                      : store_find_sweep(st, json_is_string(v) ? json_string_value(v) : "", &w, e);
            if (r < 0)
                return r;
            r = buf_addf(sql, "%s%" PRIu64, i ? "," : "", w.seq);
        }
        r = r < 0 ? r : buf_adds(sql, ")");
    }
    json_array_foreach (where, i, v) {
        const char *key = json_string_value(json_array_get(v, 0)),
                   *val = json_string_value(json_array_get(v, 1));
        char name[64];
        const char *text = json_string_value(v), *eq = text ? strchr(text, '=') : NULL;
        if (eq && (size_t)(eq - text) < sizeof(name)) {
            snprintf(name, sizeof(name), "%.*s", (int)(eq - text), text);
            key = name;
            val = eq + 1;
        }
        if (!key || !val)
            return err_set(e, SF_EUSAGE, "where: a condition is COLUMN=VALUE");
        size_t k = 0;
        while (k < N_ALL && strcmp(column(k)->name, key) != 0)
            k++;
        if (k == N_ALL)
            return err_set(e, SF_EUSAGE, "where: '%.64s' is no column of results", key);
        bool id = !strcmp(key, "point") || !strcmp(key, "trace") || !strcmp(key, "sweep") ||
                  !strcmp(key, "engine");
        json_array_append_new(bound, json_str(val));
        size_t no = json_array_size(bound);
        if (r >= 0 && id && strlen(val) >= 8)
            r = buf_addf(sql, " AND substr(%s,1,%zu) = ?%zu", column(k)->expr, strlen(val), no);
        else if (r >= 0)
            r = buf_addf(sql, " AND CAST(%s AS TEXT) = ?%zu", column(k)->expr, no);
    }
    return r < 0 ? err_sys(e, -r, "results") : 0;
}

int store_results(struct store *st, const json_t *args, const char *cursor, struct buf *body,
                  char next[STORE_CURSOR], struct err *e)
{
    uint64_t seq = 0, idx = 0;
    bool from_start = !cursor || !*cursor;
    if (!from_start && sscanf(cursor, "%" SCNu64 ":%" SCNu64, &seq, &idx) != 2)
        return err_set(e, SF_EUSAGE, "results: bad cursor");
    bool more = json_is_true(json_object_get(args, "provenance"));
    CLEANUP(buf_clear) struct buf sql = BUF_INIT(256 << 10);
    json_t *bound = json_array();
    int r = buf_adds(&sql, "SELECT r.sweep, r.idx");
    for (size_t i = 0; r >= 0 && i < (more ? N_ALL : N_COLUMNS); i++)
        r = buf_addf(&sql, ", %s AS \"%s\"", column(i)->expr, column(i)->name);
    if (r >= 0)
        r = buf_addf(&sql, "%s WHERE 1", results_from);
    if (r >= 0 && !from_start)
        r = buf_addf(&sql, " AND (r.sweep, r.idx) > (%" PRIu64 ", %" PRIu64 ")", seq, idx);
    if (r >= 0)
        r = add_filters(st, args, &sql, bound, e);
    if (r >= 0)
        r = buf_addf(&sql, " ORDER BY r.sweep, r.idx LIMIT %d", (int)STORE_PAGE_ROWS);
    sqlite3_stmt *s = NULL;
    if (r >= 0) {
        int rc = sqlite3_prepare_v2(st->db, (const char *)sql.data, -1, &s, NULL);
        if (rc != SQLITE_OK)
            r = db_error(st, rc, e, "results");
    }
    for (size_t i = 0; r >= 0 && i < json_array_size(bound); i++)
        sqlite3_bind_text(s, (int)i + 1, json_string_value(json_array_get(bound, i)), -1,
                          SQLITE_STATIC);
    if (r >= 0)
        r = begin_results(body, s, 2);
    int n_cols = (int)(more ? N_ALL : N_COLUMNS);
    size_t n = 0;
    bool full = false;
    while (r >= 0 && !full) {
        int rc = sqlite3_step(s);
        if (rc == SQLITE_DONE)
            break;
        if (rc != SQLITE_ROW) {
            r = db_error(st, rc, e, "results");
            break;
        }
        r = buf_adds(body, n ? "," : "");
        json_t *row = json_array();
        for (int k = 0; k < n_cols; k++)
            json_array_append_new(row, cell(s, k + 2));
        r = r < 0 ? (json_decref(row), r) : add_json(body, row);
        seq = col_u64(s, 0);
        idx = col_u64(s, 1);
        n++;
        full = n == STORE_PAGE_ROWS || body->len > STORE_PAGE_B;
    }
    sqlite3_finalize(s);
    json_decref(bound);
    if (r >= 0)
        r = buf_adds(body, "]}");
    next[0] = 0;
    if (full)
        snprintf(next, STORE_CURSOR, "%" PRIu64 ":%" PRIu64, seq, idx);
    return r < 0 && e && !e->code ? err_sys(e, -r, "results") : r;
}

/* What a SELECT of a user may touch is the five views. SQLite's authorizer sees the tables behind them too, at times
 * without the name of the view that leads there, so it only keeps out everything that is no reading. The tables have names
 * that nothing else needs: those may not be spelled at all. */
static int authorize(void *ctx, int action, const char *a, const char *b, const char *db,
                     const char *view)
{
    (void)ctx;
    (void)a;
    (void)db;
    (void)view;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_RECURSIVE:
    case SQLITE_READ:
        return SQLITE_OK;
    case SQLITE_FUNCTION:
        return b && !strcmp(b, "load_extension") ? SQLITE_DENY : SQLITE_OK;
    default:
        return SQLITE_DENY;
    }
}

static const char *hidden_name(const char *sql)
{
    static const char *const hidden[] = { "t_sweep", "t_trace",     "t_recipe",  "t_artefact",
                                          "t_agent", "t_reg",       "t_engine",  "t_meta",
                                          "t_row",   "t_differing", "t_attempt", "t_event",
                                          "sqlite_", "pragma_" };
    for (size_t i = 0; i < ARRAY_LEN(hidden); i++)
        if (strcasestr(sql, hidden[i]))
            return hidden[i];
    return NULL;
}

struct patience {
    uint64_t until_ms;
};

static int impatient(void *ctx)
{
    return clock_mono_ms() > ((struct patience *)ctx)->until_ms;
}

static int open_asker(struct store *st, struct err *e)
{
    if (st->asker)
        return 0;
    const char *name = sqlite3_db_filename(st->db, "main");
    bool still = st->read_only && sqlite3_uri_boolean(name, "immutable", 0);
    CLEANUP(freep) char *uri = path_fmt("file:%s?immutable=1", st->path);
    if (!uri)
        return -ENOMEM;
    int rc = sqlite3_open_v2(
        still ? uri : st->path, &st->asker,
        SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | (still ? SQLITE_OPEN_URI : 0), NULL);
    if (rc != SQLITE_OK) {
        int r = db_error(st, rc, e, "open");
        sqlite3_close(st->asker);
        st->asker = NULL;
        return r;
    }
    sqlite3_busy_timeout(st->asker, 2000);
    sqlite3_limit(st->asker, SQLITE_LIMIT_LENGTH, 4 << 20);
    sqlite3_limit(st->asker, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_exec(st->asker, "PRAGMA query_only = ON", NULL, NULL, NULL);
    sqlite3_set_authorizer(st->asker, authorize, NULL);
    return 0;
}

int store_sql(struct store *st, const json_t *args, uint64_t limit_ms, const char *cursor,
              struct buf *body, char next[STORE_CURSOR], struct err *e)
{
    next[0] = 0;
    const char *sql = json_string_value(json_object_get(args, "sql"));
    uint64_t skip = 0;
    if (!sql || !*sql)
        return err_set(e, SF_EUSAGE,
                       "sql: give one SELECT over results, sweeps, attempts, agents, artefacts");
    if (cursor && *cursor && num_u64(cursor, 0, UINT64_MAX, "cursor", &skip, e) < 0)
        return -SF_EUSAGE;
    int r = open_asker(st, e);
    if (r < 0)
        return r;
    const char *hidden = hidden_name(sql);
    if (hidden)
        return err_set(e, SF_EUSAGE,
                       "sql: %s...: only results, sweeps, attempts, agents, artefacts can be asked",
                       hidden);
    sqlite3_stmt *s = NULL;
    const char *tail = "";
    int rc = sqlite3_prepare_v2(st->asker, sql, -1, &s, &tail);
    if (rc != SQLITE_OK) {
        r = (rc & 0xff) == SQLITE_BUSY
                ? err_set(e, EBUSY, "sql: the store is busy")
                : err_set(e, SF_EUSAGE, "sql: %s", sqlite3_errmsg(st->asker));
        sqlite3_finalize(s);
        return r;
    }
    while (tail &&
           (*tail == ' ' || *tail == '\n' || *tail == '\t' || *tail == '\r' || *tail == ';'))
        tail++;
    if (!s || (tail && *tail) || !sqlite3_stmt_readonly(s) || sqlite3_stmt_isexplain(s) ||
        !sqlite3_column_count(s)) {
        sqlite3_finalize(s);
        return err_set(e, SF_EUSAGE, "sql: not one SELECT");
    }
    struct patience p = { clock_mono_ms() + limit_ms };
    sqlite3_progress_handler(st->asker, limit_ms ? 10000 : 0, limit_ms ? impatient : NULL, &p);
    r = begin_results(body, s, 0);
    uint64_t n = 0;
    bool full = false;
    while (r >= 0 && !full) {
        rc = sqlite3_step(s);
        if (rc == SQLITE_DONE)
            break;
        if ((rc & 0xff) == SQLITE_INTERRUPT)
            r = err_set(e, ETIMEDOUT,
                        "sql: took longer than %" PRIu64 " ms; --data asks the store itself",
                        limit_ms);
        else if (rc != SQLITE_ROW)
            r = err_set(e, (rc & 0xff) == SQLITE_CORRUPT ? SF_EINTEGRITY : SF_EUSAGE, "sql: %s",
                        sqlite3_errmsg(st->asker));
        if (r < 0 || n++ < skip)
            continue;
        r = add_row(body, s, sqlite3_column_count(s), n == skip + 1);
        full = n - skip == STORE_PAGE_ROWS || body->len > STORE_PAGE_B;
    }
    sqlite3_progress_handler(st->asker, 0, NULL, NULL);
    sqlite3_finalize(s);
    if (r >= 0)
        r = buf_adds(body, "]}");
    if (full)
        snprintf(next, STORE_CURSOR, "%" PRIu64, n);
    return r < 0 && e && !e->code ? err_sys(e, -r, "sql: answer") : r;
}

int store_ls_artefacts(struct store *st, const char *cursor, struct buf *body,
                       char next[STORE_CURSOR], struct err *e)
{
    uint64_t skip = 0;
    next[0] = 0;
    if (cursor && *cursor && num_u64(cursor, 0, UINT64_MAX, "cursor", &skip, e) < 0)
        return -SF_EUSAGE;
    sqlite3_stmt *s =
        use(st,
            "SELECT id,size_b,kind,name,added_ms FROM t_artefact ORDER BY added_ms, id LIMIT 2001"
            " OFFSET ?",
            e);
    if (!s)
        return -EIO;
    bind(s, "u", skip);
    buf_reset(body);
    int r = buf_adds(body, "{\"schema\":\"siofleet.ls/1\",\"kind\":\"artefacts\",\"items\":["),
        n = 0;
    while (r >= 0 && (r = step(st, s, e, "read")) == 1) {
        if (n == 2000) {
            snprintf(next, STORE_CURSOR, "%" PRIu64, skip + 2000);
            sqlite3_reset(s);
            break;
        }
        struct store_artefact a;
        get_artefact(s, &a);
        char when[CLOCK_RFC3339_LEN];
        clock_rfc3339(a.added_ms, when);
        r = buf_adds(body, n++ ? "," : "");
        if (r >= 0)
            r = add_json(body, json_pack("{s:o,s:o,s:s,s:o,s:s}", "id", json_id(&a.id), "size_b",
                                         json_u64(a.size_b), "kind", a.kind, "name",
                                         json_str(a.name), "added", when));
    }
    return r < 0 ? r : buf_adds(body, "]}");
}

static const char *names_[N_ALL];
const char *const *store_column_names(void)
{
    for (size_t i = 0; i < N_ALL && !names_[i]; i++)
        names_[i] = column(i)->name;
    return names_;
}
