/* Results: one row a point. */
#include "coordinator/store_in.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char row_insert[] =
    "INSERT INTO t_row(" ROW_COLS
    ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING";
static const char row_select[] = "SELECT status,by,stats FROM t_row WHERE sweep = ? AND idx = ?";
static const char row_known[] = "SELECT " ROW_COLS " FROM t_row INDEXED BY i_row_near"
                                " WHERE near = ? AND point = ? AND status = 0 AND by <> 1";
enum { ROW_ALL = 18, ROW_BY = 8, ROW_ENGINE = 13 }; /* columns, and two of them */

static int put_row(struct store *st, sqlite3_stmt *s, struct err *e)
{
    int r = db_step(st, s, e, "row");
    if (r < 0)
        return r;
    sqlite3_reset(s); /* changes are counted from here on */
    return sqlite3_changes(st->db) > 0;
}

/* 1 = put, 0 = there is one of this point already. */
static int insert_row(struct store *st, const struct store_row *r, struct err *e)
{
    sqlite3_stmt *s = db_use_row(st, row_insert, e);
    if (!s)
        return -EIO;
    static const struct id none;
    uint8_t arch[PACKED_ARCH], stats[PACKED_STATS];
    bool done = r->status == ROW_DONE;
    db_bind(s, "uuubbizuuzzzzzzzut", r->sweep, r->index, (uint64_t)r->status, done ? stats : NULL,
            db_pack_stats(&r->stats, stats), arch, db_pack_arch(&r->arch, arch),
            id_eq(&r->point, &none) ? NULL : &r->point, r->trace,
            (uint64_t)db_near(r->trace, &r->arch), (uint64_t)r->by, r->epoch, r->n, r->task, r->reg,
            r->engine, r->threads, r->started_ms, r->duration_us,
            r->error && *r->error ? r->error : NULL);
    if (!done)
        sqlite3_bind_null(s, 8);
    int rc = put_row(st, s, e);
    int bad = rc == 1 ? db_mark_used(st, r->trace, e) : 0;
    return bad < 0 ? bad : rc;
}

int db_flush_count(struct store *st, struct err *e)
{
    struct row_count c = st->count;
    if (!c.sweep)
        return 0;
    sqlite3_stmt *s =
        db_use_row(st,
                   "UPDATE t_sweep SET done = done + ?, failed = failed + ?, invalid = invalid + ?,"
                   " known = known + ?, equal = equal + ? WHERE seq = ?",
                   e);
    if (!s)
        return -EIO;
    const int64_t v[] = { c.done, c.failed, c.invalid, c.known, c.equal, (int64_t)c.sweep };
    for (int i = 0; i < 6; i++)
        sqlite3_bind_int64(s, i + 1, v[i]);
    st->count = (struct row_count){ 0 };
    return db_step(st, s, e, "sweep");
}

static int count_of(struct store *st, uint64_t sweep, struct err *e)
{
    int r = st->count.sweep == sweep && st->open_tx ? 0 : db_flush_count(st, e);
    st->count.sweep = sweep;
    return r;
}

static int count_row(struct store *st, uint64_t sweep, enum row_status status, bool known, int sign,
                     struct err *e)
{
    int r = count_of(st, sweep, e);
    *(status == ROW_DONE     ? &st->count.done
      : status == ROW_FAILED ? &st->count.failed
                             : &st->count.invalid) += sign;
    st->count.known += known ? sign : 0;
    return r;
}

int db_count_row(struct store *st, uint64_t sweep, enum row_status status, struct err *e)
{
    return count_row(st, sweep, status, false, 1, e);
}

/* Whether the packed statistics in column k are these. */
static bool same_stats(sqlite3_stmt *s, int k, const struct row_stats *stats)
{
    uint8_t packed[PACKED_STATS];
    size_t n = db_pack_stats(stats, packed);
    const void *p = sqlite3_column_blob(s, k);
    return (size_t)sqlite3_column_bytes(s, k) == n && (!n || !memcmp(p, packed, n));
}

/* As store_put_row(), where there is a row already. */
static int put_again(struct store *st, const struct store_row *r, uint64_t wall_ms, struct err *e)
{
    sqlite3_stmt *s = db_use_row(st, row_select, e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", r->sweep, r->index);
    int rc = db_step(st, s, e, "read");
    if (rc <= 0)
        return rc < 0 ? rc : err_set(e, EIO, "%s: a row is there and is not", st->path);
    enum row_status old = (enum row_status)db_u64(s, 0);
    int old_by = (int)db_u64(s, 1);
    bool equal = old == r->status && (old != ROW_DONE || same_stats(s, 2, &r->stats));
    sqlite3_reset(s);
    if (old_by == BY_COORDINATOR && old == ROW_FAILED && r->by != BY_COORDINATOR) {
        /* given up on, then it came after all */
        s = db_use_row(st, "DELETE FROM t_row WHERE sweep = ? AND idx = ?", e);
        if (!s)
            return -EIO;
        db_bind(s, "uu", r->sweep, r->index);
        rc = db_step(st, s, e, "row");
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
    if (equal) {
        rc = count_of(st, r->sweep, e);
        st->count.equal++;
        return rc < 0 ? rc : PUT_EQUAL;
    }
    s = db_use(st, "UPDATE t_sweep SET differing = differing + 1 WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", r->sweep);
    rc = db_step(st, s, e, "sweep");
    if (rc < 0)
        return rc;
    s = db_use(st, "INSERT INTO t_differing VALUES(?,?,?,?,?,?,?,?,?,?,?,?)", e);
    if (!s)
        return -EIO;
    uint8_t packed[ROW_STATS_BYTES];
    row_stats_pack(&r->stats, packed);
    db_bind(s, "uuiutbuuuzzu", r->sweep, r->index, &r->point, (uint64_t)r->status, r->error, packed,
            sizeof(packed), r->epoch, r->n, r->task, r->reg, r->engine, wall_ms);
    rc = db_step(st, s, e, "row");
    return rc < 0 ? rc : PUT_DIFFERS;
}

int store_put_row(struct store *st, const struct store_row *r, uint64_t wall_ms, struct err *e)
{
    int rc = insert_row(st, r, e);
    if (rc == 1)
        rc = count_row(st, r->sweep, r->status, false, 1, e);
    else if (rc == 0)
        return put_again(st, r, wall_ms, e);
    return rc < 0 ? rc : PUT_FIRST;
}

int store_aside(struct store *st, const struct store_row *r, const char *kind,
                const uint8_t install[16], uint64_t wall_ms, struct err *e)
{
    sqlite3_stmt *s = db_use(st,
                             "INSERT INTO t_aside(sweep,idx,kind,task,epoch,n,install,at_ms)"
                             " SELECT ?1,?2,?3,?4,?5,?6,?7,?8 FROM t_sweep WHERE seq = ?1 AND"
                             " late + equal + misfit <= ?9",
                             e);
    if (!s)
        return -EIO;
    db_bind(s, "uutuuubuu", r->sweep, r->index, kind, r->task, r->epoch, r->n, install, (size_t)16,
            wall_ms, (uint64_t)STORE_ASIDE);
    return db_step(st, s, e, "row");
}

/* The first row of a point that one of the engines made; the statement stands on it. 1 = found. */
static int find_known(struct store *st, const struct store_row *row, const uint64_t engines[],
                      size_t n, sqlite3_stmt **ret, struct err *e)
{
    sqlite3_stmt *s = db_use_row(st, row_known, e);
    if (!s)
        return -EIO;
    db_bind(s, "ui", (uint64_t)db_near(row->trace, &row->arch), &row->point);
    int r;
    while ((r = db_step(st, s, e, "read")) == 1)
        for (size_t i = 0; i < n; i++)
            if (db_u64(s, ROW_ENGINE) == engines[i]) {
                *ret = s;
                return 1;
            }
    return r;
}

int store_is_known(struct store *st, const struct store_row *row, const uint64_t engines[],
                   size_t n, struct err *e)
{
    sqlite3_stmt *s = NULL;
    int r = find_known(st, row, engines, n, &s, e);
    if (s)
        sqlite3_reset(s);
    return r;
}

int store_put_known(struct store *st, const struct store_row *row, const uint64_t engines[],
                    size_t n, struct err *e)
{
    sqlite3_stmt *s = NULL;
    int r = find_known(st, row, engines, n, &s, e);
    if (r <= 0)
        return r;
    sqlite3_stmt *in = db_use_row(st, row_insert, e);
    if (!in) {
        sqlite3_reset(s);
        return -EIO;
    }
    for (int k = 0; k < ROW_ALL; k++)
        sqlite3_bind_value(in, k + 1, sqlite3_column_value(s, k));
    db_bind(in, "uu", row->sweep, row->index);
    sqlite3_bind_int(in, ROW_BY + 1, BY_COPY);
    sqlite3_reset(s);
    r = put_row(st, in, e);
    if (r == 1)
        r = count_row(st, row->sweep, ROW_DONE, true, 1, e);
    return r < 0 ? r : 1;
}

int store_missing(struct store *st, uint64_t sweep, uint64_t points, struct spans *ret,
                  struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT idx FROM t_row WHERE sweep = ? ORDER BY idx", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", sweep);
    uint64_t next = 0;
    int r, bad = 0;
    while ((r = db_step(st, s, e, "read")) == 1) {
        uint64_t i = db_u64(s, 0);
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
        db_use(st, "SELECT idx FROM t_row WHERE sweep = ? AND status = 1 ORDER BY idx", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", sweep);
    int r, bad = 0;
    while ((r = db_step(st, s, e, "read")) == 1)
        if (bad >= 0)
            bad = spans_add(ret, db_u64(s, 0), db_u64(s, 0) + 1);
    if (r < 0 || bad < 0)
        return r < 0 ? r : bad;
    s = db_use(st, "DELETE FROM t_row WHERE sweep = ? AND status = 1", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", sweep);
    r = db_step(st, s, e, "row");
    if (r < 0)
        return r;
    s = db_use(st, "UPDATE t_sweep SET failed = 0 WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", sweep);
    return db_step(st, s, e, "sweep");
}

/* ---- canaries */

int store_pick_canary(struct store *st, const uint8_t install[16], uint64_t engine, uint64_t size_b,
                      struct store_canary *ret, struct err *e)
{
    sqlite3_stmt *s = db_use(
        st,
        "SELECT r.sweep, r.idx, w.id, t.id, r.point FROM (SELECT sweep, idx, trace, point, reg,"
        " engine, status, by, duration_us FROM t_row ORDER BY sweep DESC, idx DESC LIMIT 2000) r"
        " JOIN t_sweep w ON w.seq = r.sweep JOIN t_trace t ON t.num = r.trace JOIN t_reg g ON g.num"
        " = r.reg JOIN t_artefact f ON f.id = t.id WHERE r.engine = ?1 AND r.status = 0 AND r.by ="
        " 0 AND g.install <> ?2 AND f.size_b <= ?3 AND r.duration_us < 5000000"
        " ORDER BY r.duration_us LIMIT 1",
        e);
    if (!s)
        return -EIO;
    db_bind(s, "ubu", engine, install, (size_t)16, size_b);
    int r = db_step(st, s, e, "read");
    if (r == 1) {
        *ret = (struct store_canary){ .sweep = db_u64(s, 0), .index = db_u64(s, 1) };
        db_id(s, 2, &ret->sweep_id);
        db_id(s, 3, &ret->trace);
        db_id(s, 4, &ret->point);
    }
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : -ENOENT;
}

int store_last_canary(struct store *st, const uint8_t install[16], uint64_t engine,
                      uint64_t *ret_at_ms, char ret_verdict[16], struct err *e)
{
    sqlite3_stmt *s =
        db_use(st, "SELECT at_ms, verdict FROM t_canary WHERE install = ? AND engine = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "bu", install, (size_t)16, engine);
    int r = db_step(st, s, e, "read");
    if (r == 1) {
        *ret_at_ms = db_u64(s, 0);
        db_text(s, 1, ret_verdict, 16);
    }
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : -ENOENT;
}

int store_put_canary(struct store *st, const uint8_t install[16], uint64_t engine, uint64_t at_ms,
                     uint64_t sweep, uint64_t index, const char *verdict, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "INSERT OR REPLACE INTO t_canary VALUES(?,?,?,?,?,?)", e);
    if (!s)
        return -EIO;
    db_bind(s, "buuuut", install, (size_t)16, engine, at_ms, sweep, index, verdict);
    return db_step(st, s, e, "canary");
}

int store_row_is(struct store *st, uint64_t sweep, uint64_t index, const struct row_stats *stats,
                 struct err *e)
{
    sqlite3_stmt *s = db_use(st, row_select, e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", sweep, index);
    int r = db_step(st, s, e, "read");
    if (r <= 0)
        return r;
    bool equal = db_u64(s, 0) == ROW_DONE && same_stats(s, 2, stats);
    sqlite3_reset(s);
    return equal;
}
