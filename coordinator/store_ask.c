/* What people ask: results, SELECTs of their own, lists. */
#include "coordinator/store_in.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/num.h"

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

/* The value of a condition as the column shows it. Numbers and what stands in [arch] are read as in SWEEP.ini: what no row
 * can hold is a mistake, not a condition that nothing meets. Owned; NULL: *e says why. */
static char *shown(const struct column *c, const char *val, struct err *e)
{
    char place[64], text[32];
    int k = arch_key(c->name);
    struct arch a;
    uint64_t n;
    uint32_t v;
    snprintf(place, sizeof(place), "where: %s", c->name);
    if (k >= 0) {
        if (arch_value((unsigned)k, val, place, &v, e) < 0)
            return NULL;
        arch_put(&a, (unsigned)k, v);
        arch_text(&a, (unsigned)k, text);
        val = text;
    } else if (c->number) {
        if (num_u64(val, 0, UINT64_MAX, place, &n, e) < 0)
            return NULL;
        snprintf(text, sizeof(text), "%" PRIu64, n);
        val = text;
    }
    char *s = strdup(val);
    if (!s)
        err_sys(e, ENOMEM, "results");
    return s;
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
        while (k < (store_n_columns + store_n_provenance) &&
               strcmp(store_column(k)->name, key) != 0)
            k++;
        if (k == (store_n_columns + store_n_provenance))
            return err_set(e, SF_EUSAGE, "where: '%.64s' is no column of results", key);
        bool id = !strcmp(key, "point") || !strcmp(key, "trace") || !strcmp(key, "sweep") ||
                  !strcmp(key, "engine");
        CLEANUP(freep) char *value = shown(store_column(k), val, e);
        if (!value)
            return -e->code;
        json_array_append_new(bound, json_str(value));
        size_t no = json_array_size(bound);
        if (r >= 0 && id && strlen(val) >= 8)
            r = buf_addf(sql, " AND substr(%s,1,%zu) = ?%zu", store_column(k)->expr, strlen(val),
                         no);
        else if (r >= 0)
            r = buf_addf(sql, " AND CAST(%s AS TEXT) = ?%zu", store_column(k)->expr, no);
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
    for (size_t i = 0;
         r >= 0 && i < (more ? (store_n_columns + store_n_provenance) : store_n_columns); i++)
        r = buf_addf(&sql, ", %s AS \"%s\"", store_column(i)->expr, store_column(i)->name);
    if (r >= 0)
        r = buf_addf(&sql, "%s WHERE 1", store_results_from);
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
    int n_cols = (int)(more ? (store_n_columns + store_n_provenance) : store_n_columns);
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
        seq = db_u64(s, 0);
        idx = db_u64(s, 1);
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

/* The store's own names begin so, and no column of a view does. */
static const char *hidden_name(const char *sql)
{
    static const char *const hidden[] = { "t_", "sqlite_", "pragma_" };
    for (const char *p = sql; *p; p++) {
        bool inside = p > sql && (isalnum((unsigned char)p[-1]) || p[-1] == '_');
        for (size_t i = 0; !inside && i < ARRAY_LEN(hidden); i++)
            if (!strncasecmp(p, hidden[i], strlen(hidden[i])))
                return hidden[i];
    }
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
    int rc = db_connect(still ? uri : st->path,
                        SQLITE_OPEN_READONLY | (still ? SQLITE_OPEN_URI : 0), &st->asker);
    if (rc != SQLITE_OK) {
        int r = db_error(st, rc, e, "open");
        sqlite3_close(st->asker);
        st->asker = NULL;
        return r;
    }
    sqlite3_limit(st->asker, SQLITE_LIMIT_LENGTH, 4 << 20);
    sqlite3_limit(st->asker, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_exec(st->asker, "PRAGMA query_only = ON", NULL, NULL, NULL);
    sqlite3_set_authorizer(st->asker, authorize, NULL);
    return 0;
}

/* Behind blanks and comments. */
static const char *first_word(const char *sql)
{
    for (;;) {
        sql += strspn(sql, " \t\r\n");
        if (!strncmp(sql, "--", 2)) {
            sql += strcspn(sql, "\n");
        } else if (!strncmp(sql, "/*", 2)) {
            const char *end = strstr(sql + 2, "*/");
            sql = end ? end + 2 : sql + strlen(sql);
        } else {
            return sql;
        }
    }
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
    const char *word = first_word(sql);
    if (strncasecmp(word, "SELECT", 6) != 0 && strncasecmp(word, "WITH", 4) != 0)
        return err_set(e, SF_EUSAGE, "sql: not one SELECT");
    const char *hidden = hidden_name(sql);
    if (hidden)
        return err_set(e, SF_EUSAGE,
                       "sql: %s*: only results, sweeps, attempts, agents, artefacts can be asked",
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

#define TRY_COLS                                                                                   \
    "SELECT a.task,a.epoch,a.n,a.sweep,a.points,a.granted_ms,a.ended_ms,a.exit,a.signal,a.kind,"   \
    "coalesce(g.name, lower(hex(a.install))),a.cause,a.tail,w.id,j.id FROM t_attempt a LEFT JOIN"  \
    " t_agent g ON g.install = a.install LEFT JOIN t_sweep w ON w.seq = a.sweep LEFT JOIN"         \
    " t_jobtask k ON k.task = a.task LEFT JOIN t_job j ON j.seq = k.job WHERE "

int store_tries(struct store *st, enum store_tries_of of, uint64_t no, const uint8_t install[16],
                uint64_t limit, int (*cb)(void *ctx, const struct store_try *t), void *ctx,
                struct err *e)
{
    static const char *const sql[] = {
        [TRIES_TASK] = TRY_COLS "a.task = ?1 ORDER BY a.n DESC LIMIT ?2",
        [TRIES_SWEEP_BAD] = TRY_COLS "a.sweep = ?1 AND a.cause <> 'done' ORDER BY a.ended_ms DESC,"
                                     " a.task, a.n DESC LIMIT ?2",
        [TRIES_AGENT_BAD] = TRY_COLS "a.install = ?3 AND a.cause <> 'done' ORDER BY a.ended_ms"
                                     " DESC LIMIT ?2",
        [TRIES_ENDED] = TRY_COLS "a.ended_ms IS NOT NULL ORDER BY a.ended_ms DESC LIMIT ?2",
    };
    sqlite3_stmt *s = db_use(st, sql[of], e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", no, limit);
    if (of == TRIES_AGENT_BAD)
        sqlite3_bind_blob(s, 3, install, 16, SQLITE_TRANSIENT);
    int r, stop = 0;
    while (!stop && (r = db_step(st, s, e, "read")) == 1) {
        struct store_try t = { .task = db_u64(s, 0),
                               .epoch = db_u64(s, 1),
                               .n = db_u64(s, 2),
                               .sweep = db_u64(s, 3),
                               .points = db_u64(s, 4),
                               .granted_ms = db_u64(s, 5),
                               .ended_ms = db_u64(s, 6),
                               .exit = db_u64(s, 7),
                               .signal = db_u64(s, 8) };
        db_text(s, 9, t.kind, sizeof(t.kind));
        db_text(s, 10, t.agent, sizeof(t.agent));
        db_text(s, 11, t.cause, sizeof(t.cause));
        const unsigned char *tail = sqlite3_column_text(s, 12);
        t.tail = tail ? (const char *)tail : "";
        t.has_sweep = sqlite3_column_type(s, 13) != SQLITE_NULL;
        db_id(s, 13, &t.sweep_id);
        t.has_job = sqlite3_column_type(s, 14) != SQLITE_NULL;
        db_id(s, 14, &t.job_id);
        stop = cb(ctx, &t);
    }
    sqlite3_reset(s);
    return stop ? stop : r;
}

int store_failures(struct store *st, uint64_t sweep,
                   int (*cb)(void *ctx, const char *error, uint64_t n, uint64_t first), void *ctx,
                   struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "SELECT coalesce(error,''), count(*), min(idx) FROM t_row WHERE sweep = ? AND"
               " status = 1 GROUP BY 1 ORDER BY 2 DESC, 3 LIMIT 20",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "u", sweep);
    int r, stop = 0;
    while (!stop && (r = db_step(st, s, e, "read")) == 1)
        stop = cb(ctx, (const char *)sqlite3_column_text(s, 0), db_u64(s, 1), db_u64(s, 2));
    sqlite3_reset(s);
    return stop ? stop : r;
}

int store_scan(struct store *st, uint64_t sweep, uint64_t from, uint64_t limit,
               int (*cb)(void *ctx, const struct store_seen *r), void *ctx, struct err *e)
{
    sqlite3_stmt *s = db_use(st,
                             "SELECT idx,trace,point,status FROM t_row WHERE sweep = ? AND idx >= ?"
                             " ORDER BY idx LIMIT ?",
                             e);
    if (!s)
        return -EIO;
    db_bind(s, "uuu", sweep, from, limit);
    int r, stop = 0;
    while (!stop && (r = db_step(st, s, e, "read")) == 1) {
        struct store_seen v = { .index = db_u64(s, 0),
                                .trace = db_u64(s, 1),
                                .status = (enum row_status)db_u64(s, 3),
                                .has_point = sqlite3_column_type(s, 2) != SQLITE_NULL };
        db_id(s, 2, &v.point);
        stop = cb(ctx, &v);
    }
    sqlite3_reset(s);
    return stop ? stop : r;
}

int store_beside(struct store *st, uint64_t sweep, uint64_t limit, bool differing,
                 int (*cb)(void *ctx, const struct store_beside *b), void *ctx, struct err *e)
{
    sqlite3_stmt *s =
        differing
            ? db_use(st,
                     "SELECT d.idx,d.task,d.epoch,d.n,d.at_ms,'differing',g.name FROM t_differing d"
                     " LEFT JOIN t_reg g ON g.num = d.reg WHERE d.sweep = ? ORDER BY d.idx,"
                     " d.rowid LIMIT ?",
                     e)
            : db_use(st,
                     "SELECT d.idx,d.task,d.epoch,d.n,d.at_ms,d.kind,g.name FROM t_aside d LEFT"
                     " JOIN t_agent g ON g.install = d.install WHERE d.sweep = ? ORDER BY d.seq"
                     " LIMIT ?",
                     e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", sweep, limit);
    int r, stop = 0;
    while (!stop && (r = db_step(st, s, e, "read")) == 1) {
        struct store_beside b = { .index = db_u64(s, 0),
                                  .task = db_u64(s, 1),
                                  .epoch = db_u64(s, 2),
                                  .n = db_u64(s, 3),
                                  .at_ms = db_u64(s, 4) };
        db_text(s, 5, b.kind, sizeof(b.kind));
        db_text(s, 6, b.agent, sizeof(b.agent));
        stop = cb(ctx, &b);
    }
    sqlite3_reset(s);
    return stop ? stop : r;
}

int store_ls_artefacts(struct store *st, const char *cursor, struct buf *body,
                       char next[STORE_CURSOR], struct err *e)
{
    uint64_t skip = 0;
    next[0] = 0;
    if (cursor && *cursor && num_u64(cursor, 0, UINT64_MAX, "cursor", &skip, e) < 0)
        return -SF_EUSAGE;
    sqlite3_stmt *s = db_use(st,
                             "SELECT id,size_b,kind,name,added_ms,pinned FROM t_artefact ORDER BY "
                             "added_ms, id LIMIT 2001"
                             " OFFSET ?",
                             e);
    if (!s)
        return -EIO;
    db_bind(s, "u", skip);
    buf_reset(body);
    int r = buf_adds(body, "{\"schema\":\"siofleet.ls/1\",\"kind\":\"artefacts\",\"items\":["),
        n = 0;
    while (r >= 0 && (r = db_step(st, s, e, "read")) == 1) {
        if (n == 2000) {
            snprintf(next, STORE_CURSOR, "%" PRIu64, skip + 2000);
            sqlite3_reset(s);
            break;
        }
        struct store_artefact a;
        db_artefact(s, &a);
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
