/* Many rows at once. A statement a row costs more than the row itself: here one statement takes a block of rows out of memory,
 * through a virtual table, and one looks up a block of points. */
#include "coordinator/store_in.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

enum { BLOCK = 128 };

struct block {
    const struct store_row *row; /* borrowed while a statement runs */
    const int64_t *near;
    size_t n;
};

/* ---- near: what points are looked up by. A point's id would scatter over all pages of an index whatever comes together, and
 * each page would be written anew for a row or two. So the upper half is one for points that lie close to each other:
 * values of a grid (powers of two and the like) count as close, others within steps of 32. The lower half tells them
 * apart. Two points may have the same number: whoever finds one compares ids. */

int64_t db_near(uint64_t trace, const struct arch *a)
{
    uint32_t close[ARCH_N];
    const uint32_t *v = (const uint32_t *)(const void *)a;
    for (unsigned i = 0; i < ARCH_N; i++)
        close[i] = !v[i] || v[i] >> __builtin_ctz(v[i]) < 16 ? 0 : 1 + v[i] / 32;
    uint64_t hi = hash_fast(close, sizeof(close), trace), lo = hash_fast(v, sizeof(*a), trace);
    return (int64_t)((hi << 32 | (uint32_t)lo) & INT64_MAX);
}

/* near_of(trace, packed architecture) for rows that were stored without it. */
static void near_of(sqlite3_context *c, int n, sqlite3_value **v)
{
    struct arch a;
    (void)n;
    db_unpack_arch(sqlite3_value_blob(v[1]), (size_t)sqlite3_value_bytes(v[1]), &a);
    sqlite3_result_int64(c, db_near((uint64_t)sqlite3_value_int64(v[0]), &a));
}

int db_fill_near(struct store *st, struct err *e)
{
    int rc = sqlite3_create_function_v2(st->db, "near_of", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
                                        NULL, near_of, NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        return db_error(st, rc, e, "rows");
    return db_exec(st,
                   "UPDATE t_row SET near = near_of(trace, arch) WHERE near IS NULL AND status = 0;"
                   "CREATE INDEX IF NOT EXISTS i_row_near ON t_row(near) WHERE status = 0",
                   e, "rows");
}

/* ---- the virtual table `row_block`: the rows of st->block, with the columns of t_row in the same order: then SQLite makes a
 * record of the values where they lie, without moving them. */

enum col {
    C_SWEEP, /* as ROW_COLS */
    C_IDX,
    C_STATUS,
    C_STATS,
    C_ARCH,
    C_POINT,
    C_TRACE,
    C_NEAR,
    C_BY,
    C_EPOCH,
    C_N,
    C_TASK,
    C_REG,
    C_ENGINE,
    C_THREADS,
    C_STARTED,
    C_DURATION,
    C_ERROR
};

struct place {
    sqlite3_vtab_cursor base;
    const struct block *b;
    size_t i;
    uint8_t arch[PACKED_ARCH], stats[PACKED_STATS]; /* of the row that is read */
};

struct view {
    sqlite3_vtab base;
    const struct store *st;
};

static int block_connect(sqlite3 *db, void *ctx, int argc, const char *const *argv,
                         sqlite3_vtab **ret, char **why)
{
    (void)argc;
    (void)argv;
    (void)why;
    struct view *v = calloc(1, sizeof(*v));
    if (!v)
        return SQLITE_NOMEM;
    int rc = sqlite3_declare_vtab(db, "CREATE TABLE x(" ROW_COLS ")");
    if (rc != SQLITE_OK) {
        free(v);
        return rc;
    }
    v->st = ctx;
    *ret = &v->base;
    return SQLITE_OK;
}

static int block_disconnect(sqlite3_vtab *v)
{
    free(v);
    return SQLITE_OK;
}

static int block_plan(sqlite3_vtab *v, sqlite3_index_info *info)
{
    (void)v;
    info->estimatedRows = BLOCK;
    info->estimatedCost = BLOCK;
    return SQLITE_OK;
}

static int block_open(sqlite3_vtab *v, sqlite3_vtab_cursor **ret)
{
    struct place *p = calloc(1, sizeof(*p));
    if (!p)
        return SQLITE_NOMEM;
    p->b = ((struct view *)(void *)v)->st->block;
    *ret = &p->base;
    return SQLITE_OK;
}

static int block_close(sqlite3_vtab_cursor *c)
{
    free(c);
    return SQLITE_OK;
}

static int block_first(sqlite3_vtab_cursor *c, int no, const char *text, int argc,
                       sqlite3_value **argv)
{
    (void)no;
    (void)text;
    (void)argc;
    (void)argv;
    ((struct place *)(void *)c)->i = 0;
    return SQLITE_OK;
}

static int block_next(sqlite3_vtab_cursor *c)
{
    ((struct place *)(void *)c)->i++;
    return SQLITE_OK;
}

static int block_end(sqlite3_vtab_cursor *c)
{
    struct place *p = (struct place *)(void *)c;
    return !p->b || p->i >= p->b->n;
}

static void some(sqlite3_context *c, uint64_t v)
{
    if (v)
        sqlite3_result_int64(c, (sqlite3_int64)v);
}

static int block_column(sqlite3_vtab_cursor *cur, sqlite3_context *c, int no)
{
    static const struct id none;
    struct place *p = (struct place *)(void *)cur;
    const struct store_row *r = &p->b->row[p->i];
    switch ((enum col)no) {
    case C_SWEEP:
        sqlite3_result_int64(c, (sqlite3_int64)r->sweep);
        break;
    case C_IDX:
        sqlite3_result_int64(c, (sqlite3_int64)r->index);
        break;
    case C_STATUS:
        sqlite3_result_int64(c, r->status);
        break;
    case C_STATS:
        if (r->status == ROW_DONE)
            sqlite3_result_blob(c, p->stats, (int)db_pack_stats(&r->stats, p->stats),
                                SQLITE_STATIC);
        break;
    case C_ARCH:
        sqlite3_result_blob(c, p->arch, (int)db_pack_arch(&r->arch, p->arch), SQLITE_STATIC);
        break;
    case C_POINT:
        if (!id_eq(&r->point, &none))
            sqlite3_result_blob(c, r->point.b, ID_LEN, SQLITE_STATIC);
        break;
    case C_TRACE:
        some(c, r->trace);
        break;
    case C_NEAR:
        if (r->status == ROW_DONE)
            sqlite3_result_int64(c, p->b->near[p->i]);
        break;
    case C_BY:
        sqlite3_result_int64(c, r->by);
        break;
    case C_EPOCH:
        some(c, r->epoch);
        break;
    case C_N:
        some(c, r->n);
        break;
    case C_TASK:
        some(c, r->task);
        break;
    case C_REG:
        some(c, r->reg);
        break;
    case C_ENGINE:
        some(c, r->engine);
        break;
    case C_THREADS:
        some(c, r->threads);
        break;
    case C_STARTED:
        some(c, r->started_ms);
        break;
    case C_DURATION:
        sqlite3_result_int64(c, (sqlite3_int64)r->duration_us);
        break;
    case C_ERROR:
        if (r->error && *r->error)
            sqlite3_result_text(c, r->error, -1, SQLITE_STATIC);
        break;
    }
    return SQLITE_OK;
}

static int block_rowid(sqlite3_vtab_cursor *c, sqlite3_int64 *ret)
{
    *ret = (sqlite3_int64)((struct place *)(void *)c)->i;
    return SQLITE_OK;
}

static const sqlite3_module module = { .xConnect = block_connect,
                                       .xDisconnect = block_disconnect,
                                       .xBestIndex = block_plan,
                                       .xOpen = block_open,
                                       .xClose = block_close,
                                       .xFilter = block_first,
                                       .xNext = block_next,
                                       .xEof = block_end,
                                       .xColumn = block_column,
                                       .xRowid = block_rowid };

/* A statement over the rows of *b; release() when it was stepped. */
static sqlite3_stmt *use(struct store *st, const char *sql, const struct block *b, struct err *e)
{
    if (!st->has_block) {
        int rc = sqlite3_create_module(st->db, "row_block", &module, st);
        if (rc != SQLITE_OK) {
            db_error(st, rc, e, "rows");
            return NULL;
        }
        st->has_block = true;
    }
    sqlite3_stmt *s = db_use_row(st, sql, e);
    st->block = s ? b : NULL;
    return s;
}

static void release(struct store *st, sqlite3_stmt *s)
{
    sqlite3_reset(s);
    st->block = NULL;
}

/* ---- known points */

static int maybe_known(struct store *st, const struct block *b, bool ret[], struct err *e)
{
    sqlite3_stmt *s = use(st,
                          "SELECT b.rowid FROM row_block b CROSS JOIN t_row r INDEXED BY i_row_near"
                          " ON r.near = b.near WHERE r.status = 0",
                          b, e);
    if (!s)
        return -EIO;
    int r;
    while ((r = db_step(st, s, e, "read")) == 1)
        ret[db_u64(s, 0)] = true;
    release(st, s);
    return r;
}

int store_maybe_known(struct store *st, const struct store_row rows[], size_t n, bool ret[],
                      struct err *e)
{
    memset(ret, 0, n * sizeof(*ret));
    int r = 0;
    for (size_t at = 0; r >= 0 && at < n; at += BLOCK) {
        int64_t near[BLOCK];
        struct block b = { rows + at, near, n - at < BLOCK ? n - at : BLOCK };
        for (size_t i = 0; i < b.n; i++)
            near[i] = db_near(b.row[i].trace, &b.row[i].arch);
        r = maybe_known(st, &b, ret + at, e);
    }
    return r;
}

/* ---- new rows */

/* Whether all of a block go in at once: indices in order, none of them there. 1, 0 or an error. */
static int all_new(struct store *st, const struct block *b, struct err *e)
{
    for (size_t i = 1; i < b->n; i++)
        if (b->row[i].sweep != b->row[0].sweep || b->row[i].index <= b->row[i - 1].index)
            return 0;
    sqlite3_stmt *s =
        db_use_row(st, "SELECT idx FROM t_row WHERE sweep = ? AND idx BETWEEN ? AND ? LIMIT ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "uuuu", b->row[0].sweep, b->row[0].index, b->row[b->n - 1].index,
            (uint64_t)BLOCK + 1);
    int r;
    size_t i = 0, seen = 0;
    bool clash = false;
    while ((r = db_step(st, s, e, "read")) == 1) {
        while (i < b->n && b->row[i].index < db_u64(s, 0))
            i++;
        clash |= i < b->n && b->row[i].index == db_u64(s, 0);
        seen++;
    }
    return r < 0 ? r : !clash && seen <= BLOCK;
}

static int put_block(struct store *st, const struct block *b, struct err *e)
{
    sqlite3_stmt *s = use(st,
                          "INSERT INTO t_row(" ROW_COLS
                          ") SELECT * FROM row_block WHERE 1 ON CONFLICT DO NOTHING",
                          b, e);
    if (!s)
        return -EIO;
    int r = db_step(st, s, e, "row");
    release(st, s);
    if (r >= 0 && (size_t)sqlite3_changes(st->db) != b->n)
        r = err_set(e, EIO, "%s: a row is not there and is", st->path);
    for (size_t i = 0; r >= 0 && i < b->n; i++) {
        if (!i || b->row[i].trace != b->row[i - 1].trace)
            r = db_mark_used(st, b->row[i].trace, e);
        if (r >= 0)
            r = db_count_row(st, b->row[i].sweep, b->row[i].status, e);
    }
    return r;
}

int store_put_rows(struct store *st, const struct store_row rows[], size_t n, uint64_t wall_ms,
                   enum store_put ret[], struct err *e)
{
    int r = 0;
    for (size_t at = 0; r >= 0 && at < n; at += BLOCK) {
        int64_t near[BLOCK];
        struct block b = { rows + at, near, n - at < BLOCK ? n - at : BLOCK };
        for (size_t i = 0; i < b.n; i++)
            near[i] = db_near(b.row[i].trace, &b.row[i].arch);
        r = b.n > 1 ? all_new(st, &b, e) : 0;
        if (r == 1) {
            r = put_block(st, &b, e);
            for (size_t i = 0; i < b.n; i++)
                ret[at + i] = PUT_FIRST;
            continue;
        }
        for (size_t i = 0; r >= 0 && i < b.n; i++)
            if ((r = store_put_row(st, &b.row[i], wall_ms, e)) >= 0)
                ret[at + i] = (enum store_put)r;
    }
    return r < 0 ? r : 0;
}
