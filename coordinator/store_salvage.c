/* What can be read of a damaged store goes into a new one. */
#include "coordinator/store_in.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"

enum { NAME_MAX_B = 64, TABLES_MAX = 64, JUMPS_MAX = 200 };

struct table {
    char name[NAME_MAX_B];
    char key[NAME_MAX_B];    /* first column of the primary key, or rowid */
    char second[NAME_MAX_B]; /* of t_row: where damage is stepped over inside one sweep */
    bool ints;               /* key and second are numbers */
    uint64_t rows;
    bool whole;
    bool doubtful; /* some came from a page with a wrong sum */
};

struct salvage {
    struct store *old, *new;
    struct table *t; /* the one at work */
    sqlite3_stmt *in;
    char *cols; /* owned: those that both stores have, and rowid where that is the key */
    int n_cols, key_col, second_col;
    uint64_t last, saved; /* of the scan at work: last key, rows that were new */
};

static void finalizep(sqlite3_stmt **s)
{
    sqlite3_finalize(*s);
}

/* One scan. Returns 1 = to its end, 0 = it met damage, or an error of the new store. */
static int scan(struct salvage *v, const char *sql, const int64_t bind[], int n_bind, int last_col,
                struct err *e)
{
    CLEANUP(finalizep) sqlite3_stmt *s = NULL;
    v->saved = 0;
    if (sqlite3_prepare_v2(v->old->db, sql, -1, &s, NULL) != SQLITE_OK)
        return 0;
    for (int i = 0; i < n_bind; i++)
        sqlite3_bind_int64(s, i + 1, bind[i]);
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        sqlite3_reset(v->in);
        for (int k = 0; k < v->n_cols; k++)
            sqlite3_bind_value(v->in, k + 1, sqlite3_column_value(s, k));
        v->last = (uint64_t)sqlite3_column_int64(s, last_col);
        int w = sqlite3_step(v->in);
        if (w == SQLITE_DONE)
            v->saved += (uint64_t)sqlite3_changes(v->new->db);
        else if ((w & 0xff) != SQLITE_CONSTRAINT && (w & 0xff) != SQLITE_MISMATCH)
            return db_error(v->new, w, e, "salvage");
        else
            v->t->whole = false; /* a row that is none: damage, too */
    }
    v->t->rows += v->saved;
    return rc == SQLITE_DONE;
}

/* Numbers lo..hi of column col, where the first key has the value first (or there is one key only). Damage is stepped over with
 * longer and longer jumps; what a jump left out is read from behind. */
static int copy_numbers(struct salvage *v, const char *col, int last_col, const int64_t *first,
                        int64_t lo, int64_t hi, struct err *e)
{
    const struct table *t = v->t;
    CLEANUP(freep)
    char *up =
        path_fmt("SELECT %s FROM %s WHERE %s BETWEEN ?1 AND ?2 %s%s%s ORDER BY %s", v->cols,
                 t->name, col, first ? "AND " : "", first ? t->key : "", first ? " = ?3" : "", col);
    CLEANUP(freep) char *down = up ? path_fmt("%s DESC", up) : NULL;
    if (!down)
        return err_sys(e, ENOMEM, "%s", t->name);
    int64_t jump = 1;
    for (int n = 0; lo <= hi && n < JUMPS_MAX; n++) {
        int64_t from = lo, bind[3] = { lo, hi, first ? *first : 0 };
        v->last = (uint64_t)lo - 1;
        int r = scan(v, up, bind, first ? 3 : 2, last_col, e);
        if (r)
            return r < 0 ? r : 0;
        v->t->whole = false;
        int64_t at = (int64_t)v->last; /* all up to here is saved */
        if (at >= from)
            jump = 1;
        if (hi - at <= jump)
            lo = hi + 1;
        else
            lo = at + 1 + jump;
        jump = jump < INT64_MAX / 4 ? jump * 2 : jump;
        /* and from the jump's end back to the damage */
        int64_t back[3] = { at + 1, lo - 1 < hi ? lo - 1 : hi, first ? *first : 0 };
        if (back[0] <= back[1] && scan(v, down, back, first ? 3 : 2, last_col, e) < 0)
            return -e->code;
    }
    if (lo <= hi) { /* enough jumps: the rest from its end */
        int64_t back[3] = { lo, hi, first ? *first : 0 };
        int r = scan(v, down, back, first ? 3 : 2, last_col, e);
        return r < 0 ? r : 0;
    }
    return 0;
}

static int64_t number(sqlite3 *db, const char *sql, int64_t otherwise)
{
    CLEANUP(finalizep) sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW &&
        sqlite3_column_type(s, 0) == SQLITE_INTEGER)
        return sqlite3_column_int64(s, 0);
    return otherwise;
}

static bool has_column(sqlite3 *db, const char *table, const char *column)
{
    char sql[200];
    snprintf(sql, sizeof(sql), "SELECT 1 FROM pragma_table_info('%.60s') WHERE name = '%.60s'",
             table, column);
    return number(db, sql, 0) == 1;
}

/* Rows sweep by sweep: damage of one costs the others nothing. */
static int copy_by_sweep(struct salvage *v, struct err *e)
{
    int64_t n = number(v->new->db, "SELECT max(seq) FROM t_sweep", 0);
    for (int64_t seq = 1; seq <= n; seq++) {
        char sql[100];
        snprintf(sql, sizeof(sql), "SELECT points FROM t_sweep WHERE seq = %" PRId64, seq);
        int64_t points = number(v->new->db, sql, 0);
        int r = points ? copy_numbers(v, v->t->second, v->second_col, &seq, 0, points - 1, e) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

static int copy_table(struct salvage *v, struct err *e)
{
    struct table *t = v->t;
    t->whole = true;
    /* Results of a page with a wrong sum are computed again; of all else as much as can be read is better than nothing. */
    db_lenient(v->old->db, strcmp(t->name, "t_row") != 0);
    db_bad_page(v->old->db);
    if (t->ints && *t->second)
        return copy_by_sweep(v, e);
    if (t->ints)
        return copy_numbers(v, t->key, v->key_col, NULL, 0, INT64_MAX - 1, e);
    CLEANUP(freep)
    char *up = path_fmt("SELECT %s FROM %s ORDER BY %s", v->cols, t->name, t->key);
    CLEANUP(freep) char *down = up ? path_fmt("%s DESC", up) : NULL;
    if (!down)
        return err_sys(e, ENOMEM, "%s", t->name);
    int r = scan(v, up, NULL, 0, v->key_col, e);
    if (r)
        return r < 0 ? r : 0;
    t->whole = false;
    r = scan(v, down, NULL, 0, v->key_col, e);
    return r < 0 ? r : 0;
}

/* What the old store has of a column of the new one: the column itself, or how its numbers are packed. NULL = nothing. */
static const char *source_of(const struct salvage *v, const char *column, const struct buf *arch,
                             const struct buf *stats)
{
    if (has_column(v->old->db, v->t->name, column))
        return column;
    if (strcmp(v->t->name, "t_row") != 0 || !has_column(v->old->db, "t_row", "idx"))
        return NULL;
    return !strcmp(column, "arch")    ? (const char *)arch->data
           : !strcmp(column, "stats") ? (const char *)stats->data
                                      : NULL;
}

/* Which columns both stores have, the key, and the statement that adds a row. Returns 1 = ready, 0 = the old one has no such table. */
static int prepare_table(struct salvage *v, struct err *e)
{
    struct table *t = v->t;
    CLEANUP(buf_clear) struct buf in = BUF_INIT(64 << 10), cols = BUF_INIT(32 << 10);
    CLEANUP(buf_clear) struct buf arch = BUF_INIT(8 << 10), stats = BUF_INIT(8 << 10);
    CLEANUP(finalizep) sqlite3_stmt *s = NULL;
    bool rowid = true;
    char sql[200];
    snprintf(sql, sizeof(sql), "SELECT name, type, pk FROM pragma_table_info('%s') ORDER BY cid",
             t->name);
    if (sqlite3_prepare_v2(v->new->db, sql, -1, &s, NULL) != SQLITE_OK)
        return db_error(v->new, SQLITE_ERROR, e, t->name);
    if (db_old_numbers(v->old->db, &arch, &stats) < 0 ||
        buf_addf(&in, "INSERT OR IGNORE INTO %s(", t->name) < 0)
        return err_sys(e, ENOMEM, "%s", t->name);
    v->n_cols = 0;
    v->key_col = v->second_col = -1;
    while (sqlite3_step(s) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(s, 0),
                   *type = (const char *)sqlite3_column_text(s, 1);
        int pk = sqlite3_column_int(s, 2);
        bool num = type && !strcmp(type, "INTEGER");
        const char *source = name ? source_of(v, name, &arch, &stats) : NULL;
        if (!source)
            continue;
        if (pk == 1) {
            snprintf(t->key, sizeof(t->key), "%s", name);
            v->key_col = v->n_cols;
            t->ints = num;
            rowid = false;
        }
        if (pk == 2 && num && !strcmp(t->name, "t_row")) {
            snprintf(t->second, sizeof(t->second), "%s", name);
            v->second_col = v->n_cols;
        }
        if (buf_addf(&cols, "%s%s", v->n_cols ? "," : "", source) < 0 ||
            buf_addf(&in, "%s%s", v->n_cols ? "," : "", name) < 0)
            return err_sys(e, ENOMEM, "%s", t->name);
        v->n_cols++;
    }
    if (!v->n_cols)
        return 0;
    if (rowid) {
        snprintf(t->key, sizeof(t->key), "rowid");
        v->key_col = v->n_cols;
        t->ints = true;
    }
    int r = buf_adds(&in, ") VALUES(?");
    for (int i = 1; r >= 0 && i < v->n_cols; i++)
        r = buf_adds(&in, ",?");
    if (r >= 0)
        r = buf_adds(&in, ")");
    if (r >= 0 && rowid)
        r = buf_adds(&cols, ",rowid");
    free(v->cols);
    v->cols = r >= 0 ? strndup((const char *)cols.data, cols.len) : NULL;
    CLEANUP(freep) char *text = r >= 0 ? strndup((const char *)in.data, in.len) : NULL;
    if (!v->cols || !text)
        return err_sys(e, ENOMEM, "%s", t->name);
    sqlite3_finalize(v->in);
    v->in = NULL;
    int rc = sqlite3_prepare_v2(v->new->db, text, -1, &v->in, NULL);
    return rc == SQLITE_OK ? 1 : db_error(v->new, rc, e, t->name);
}

/* Our tables, sweeps first: rows are read sweep by sweep. */
static size_t list_tables(struct salvage *v, struct table *t)
{
    CLEANUP(finalizep) sqlite3_stmt *s = NULL;
    size_t n = 0;
    if (sqlite3_prepare_v2(v->new->db,
                           "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE"
                           " 't\\_%' ESCAPE '\\' ORDER BY name <> 't_sweep', name",
                           -1, &s, NULL) != SQLITE_OK)
        return 0;
    while (sqlite3_step(s) == SQLITE_ROW && n < TABLES_MAX)
        snprintf(t[n++].name, NAME_MAX_B, "%s", (const char *)sqlite3_column_text(s, 0));
    return n;
}

/* What is left must fit together: no row without its sweep or trace (it is computed again), counters that are true, sweeps
 * whose rows are not all there open again; numbers that agents know never come again. */
static int mend(struct salvage *v, bool whole, uint64_t *ret_reopened, struct err *e)
{
    uint64_t version = 0;
    static const char *const sql[] = {
        "DELETE FROM t_row WHERE sweep NOT IN (SELECT seq FROM t_sweep)",
        "DELETE FROM t_row WHERE trace > 0 AND trace NOT IN (SELECT num FROM t_trace)",
        "DELETE FROM t_attempt WHERE sweep > 0 AND sweep NOT IN (SELECT seq FROM t_sweep)",
        "DELETE FROM t_recipe WHERE trace NOT IN (SELECT num FROM t_trace)",
        "DELETE FROM t_differing WHERE sweep NOT IN (SELECT seq FROM t_sweep)",
        "DELETE FROM t_aside WHERE sweep NOT IN (SELECT seq FROM t_sweep)",
        "DELETE FROM t_task WHERE sweep > 0 AND sweep NOT IN (SELECT seq FROM t_sweep)",
        "DELETE FROM t_jobtask WHERE job NOT IN (SELECT seq FROM t_job)",
        "DELETE FROM t_after WHERE sweep NOT IN (SELECT seq FROM t_sweep)",
        "UPDATE t_sweep SET done = (SELECT count(*) FROM t_row r WHERE r.sweep = seq AND r.status "
        "= 0),"
        " failed = (SELECT count(*) FROM t_row r WHERE r.sweep = seq AND r.status = 1),"
        " invalid = (SELECT count(*) FROM t_row r WHERE r.sweep = seq AND r.status = 2),"
        " known = (SELECT count(*) FROM t_row r WHERE r.sweep = seq AND r.status = 0 AND r.by = 2)",
    };
    char text[400];
    int r = 0;
    for (size_t i = 0; r >= 0 && i < ARRAY_LEN(sql); i++)
        r = db_exec(v->new, sql[i], e, "salvage");
    /* what migrations did to rows, see store_schema.c */
    if (r >= 0 && db_version(v->old, &version, NULL) >= 0 && version < 6)
        r = db_exec(v->new, "UPDATE t_recipe SET id = randomblob(32)", e, "salvage");
    if (r >= 0)
        r = db_fill_near(v->new, e);
    if (r >= 0)
        r = db_exec(v->new, "UPDATE t_trace SET used = 1 WHERE num IN (SELECT trace FROM t_row)", e,
                    "salvage");
    if (r >= 0)
        r = db_exec(v->new,
                    "UPDATE t_sweep SET state = 0, ended_ms = NULL WHERE state IN (2, 3) AND done +"
                    " failed + invalid < points",
                    e, "salvage");
    *ret_reopened = r >= 0 ? (uint64_t)sqlite3_changes(v->new->db) : 0;
    if (r < 0 || whole)
        return r;
    int64_t epoch = number(v->new->db, "SELECT value FROM t_meta WHERE key = 'epoch'", 0),
            seen = number(v->new->db, "SELECT max(epoch) FROM t_attempt", 0),
            task = number(v->new->db, "SELECT max(task) FROM t_attempt", 0),
            job_task = number(v->new->db, "SELECT max(task) FROM t_jobtask", 0),
            next = number(v->new->db, "SELECT value FROM t_meta WHERE key = 'next_task'", 0);
    if (!epoch) /* it is lost: one that no coordinator can have reached by starting */
        epoch = (int64_t)(clock_wall_ms() / 1000);
    task = task > job_task ? task : job_task;
    snprintf(text, sizeof(text),
             "INSERT OR REPLACE INTO t_meta VALUES('epoch',%" PRId64 "),('next_task',%" PRId64 ")",
             (epoch > seen ? epoch : seen) + 1, (next > task ? next : task) + 1000000);
    return db_exec(v->new, text, e, "salvage");
}

static int open_old(struct store *st, struct err *e)
{
    int rc = db_connect(st->path, SQLITE_OPEN_READWRITE, &st->db);
    if (rc != SQLITE_OK)
        return db_error(st, rc, e, "open");
    sqlite3_db_config(st->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* kept as it is */
    /* so that what is wrong in one place does not keep us from the others */
    sqlite3_exec(st->db, "PRAGMA writable_schema = ON; PRAGMA cell_size_check = ON", NULL, NULL,
                 NULL);
    return 0;
}

static int open_new(struct store *st, struct err *e)
{
    unlink(st->path);
    int rc = db_connect(st->path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &st->db);
    if (rc != SQLITE_OK)
        return db_error(st, rc, e, "open");
    db_want_sums(st->db);
    int r = db_exec(st, "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL", e, "open");
    return r < 0 ? r : db_migrate(st, e);
}

/* The old file with its log goes to `aside`, then the new one to its place; last the mark, which until then keeps a coordinator from
 * starting on a store whose log is gone. */
static int swap(const char *dir, const char *aside, const char *made, struct err *e)
{
    static const char *const ends[] = { "-wal", "-shm", "", NULL, "-mark" };
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        CLEANUP(freep) char *from = path_fmt("%s/store.db%s", dir, ends[i] ? ends[i] : "");
        CLEANUP(freep) char *to = path_fmt("%s/store.db%s", aside, ends[i] ? ends[i] : "");
        if (!from || !to)
            return err_sys(e, ENOMEM, "%s", dir);
        if (ends[i] ? rename(from, to) < 0 && errno != ENOENT : rename(made, from) < 0)
            return err_sys(e, errno, "%s", ends[i] ? to : from);
    }
    dir_sync(aside);
    int r = dir_sync(dir);
    return r < 0 ? err_sys(e, -r, "%s", dir) : 0;
}

static struct store *store_at(const char *dir, const char *name)
{
    struct store *st = calloc(1, sizeof(*st));
    if (!st)
        return NULL;
    st->lock = st->mark = -1;
    st->dir = strdup(dir);
    st->path = path_fmt("%s/%s", dir, name);
    if (!st->dir || !st->path)
        store_free(&st);
    return st;
}

int store_salvage(const char *dir, const char *aside, json_t **ret, struct err *e)
{
    CLEANUP(store_free) struct store *old = store_at(dir, "store.db");
    CLEANUP(store_free) struct store *new = store_at(dir, "store.db.salvaged");
    CLEANUP(freep) struct table *t = calloc(TABLES_MAX, sizeof(*t));
    struct salvage v = { .old = old, .new = new };
    uint64_t reopened = 0;
    bool whole = store_check_log(dir, NULL) != -SF_EINTEGRITY; /* else: commits are lost */
    if (!old || !new || !t)
        return err_sys(e, ENOMEM, "%s", dir);
    int r = dir_make(aside, 0700, e);
    if (r >= 0)
        r = open_new(new, e);
    size_t n = r >= 0 ? list_tables(&v, t) : 0, found = 0;
    bool readable = r >= 0 && open_old(old, NULL) >= 0;
    if (readable)
        db_lenient(old->db, true); /* also its schema */
    if (r >= 0)
        r = db_exec(new, "BEGIN", e, "salvage");
    for (size_t i = 0; r >= 0 && readable && i < n; i++) {
        v.t = &t[i];
        r = prepare_table(&v, e);
        if (r == 1) {
            found++;
            r = copy_table(&v, e);
            t[i].doubtful = strcmp(t[i].name, "t_row") != 0 && db_bad_page(old->db);
        }
        whole &= t[i].whole && !t[i].doubtful;
    }
    sqlite3_finalize(v.in);
    free(v.cols);
    if (r >= 0)
        r = mend(&v, whole, &reopened, e);
    if (r >= 0)
        r = db_exec(new, "COMMIT", e, "salvage");
    if (r < 0) {
        unlink(new->path);
        return r;
    }
    json_t *tables = json_array();
    for (size_t i = 0; found && i < n; i++)
        json_array_append_new(tables, json_pack("{s:s, s:o, s:b, s:b}", "table", t[i].name, "rows",
                                                json_u64(t[i].rows), "whole", t[i].whole,
                                                "doubtful", t[i].doubtful));
    CLEANUP(freep) char *made = TAKE(new->path);
    store_free(&old); /* closed before their files move */
    store_free(&new);
    r = swap(dir, aside, made, e);
    if (r < 0) {
        json_decref(tables);
        return r;
    }
    *ret = json_pack("{s:s, s:b, s:o, s:o}", "kept", aside, "readable", found > 0, "tables", tables,
                     "reopened", json_u64(reopened));
    return 0;
}
