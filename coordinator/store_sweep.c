/* Sweeps, and the attempts at their tasks. */
#include "coordinator/store_in.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- sweeps */

const char *sweep_state_name(enum sweep_state s, bool held)
{
    static const char *const names[] = { "queued", "running", "done", "failed", "cancelled" };
    return held && s <= SWEEP_RUNNING ? "held" : names[s];
}

#define SWEEP_COLS                                                                                 \
    "seq,id,name,request_id,state,held,priority,points,done,failed,invalid,known,equal,late,"      \
    "differing,submitted_ms,ended_ms,misfit"

static void get_sweep(sqlite3_stmt *s, struct store_sweep *w)
{
    *w = (struct store_sweep){ .seq = db_u64(s, 0) };
    db_id(s, 1, &w->id);
    db_text(s, 2, w->name, sizeof(w->name));
    db_text(s, 3, w->request_id, sizeof(w->request_id));
    w->state = (enum sweep_state)(db_u64(s, 4) % (SWEEP_CANCELLED + 1));
    w->held = db_u64(s, 5);
    w->priority = db_u64(s, 6);
    w->points = db_u64(s, 7);
    w->done = db_u64(s, 8);
    w->failed = db_u64(s, 9);
    w->invalid = db_u64(s, 10);
    w->known = db_u64(s, 11);
    w->equal = db_u64(s, 12);
    w->late = db_u64(s, 13);
    w->differing = db_u64(s, 14);
    w->submitted_ms = db_u64(s, 15);
    w->ended_ms = db_u64(s, 16);
    w->foreign = db_u64(s, 17);
}

int store_add_sweep(struct store *st, struct store_sweep *w, const char *json, const char *by,
                    struct err *e)
{
    sqlite3_stmt *s = db_use(
        st,
        "INSERT INTO t_sweep(id,name,request_id,json,state,held,priority,points,submitted_ms,by)"
        " VALUES(?,?,?,?,?,?,?,?,?,?)",
        e);
    if (!s)
        return -EIO;
    db_bind(s, "itttuuuuut", &w->id, w->name, *w->request_id ? w->request_id : NULL, json,
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
    int r = db_step(st, s, e, "read");
    if (r == 1) {
        get_sweep(s, ret);
        if (ret_json) {
            const unsigned char *t = sqlite3_column_text(s, 18);
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
    sqlite3_stmt *s = db_use(st, "SELECT " SWEEP_COLS ",json FROM t_sweep WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", seq);
    int r = one_sweep(st, s, ret, ret_json, e);
    return r == -ENOENT ? err_set(e, ENOENT, "sweep %" PRIu64 ": none", seq) : r;
}

int store_sweep_by_request(struct store *st, const char *request_id, struct store_sweep *ret,
                           struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT " SWEEP_COLS ",json FROM t_sweep WHERE request_id = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "t", request_id);
    return one_sweep(st, s, ret, NULL, e);
}
int store_find_sweep(struct store *st, const char *text, struct store_sweep *ret, struct err *e)
{
    sqlite3_stmt *s;
    struct id lo, hi;
    int r;
    if (!strcmp(text, "last")) {
        s = db_use(st, "SELECT " SWEEP_COLS " FROM t_sweep ORDER BY seq DESC LIMIT 1", e);
        r = s ? one_sweep(st, s, ret, NULL, e) : -EIO;
        return r == -ENOENT ? err_set(e, ENOENT, "last: there is no sweep yet") : r;
    }
    if (db_id_range(text, &lo, &hi)) {
        s = db_use(st,
                   "SELECT " SWEEP_COLS
                   ", (SELECT count(*) FROM t_sweep WHERE id BETWEEN ?1 AND ?2)"
                   " FROM t_sweep WHERE id BETWEEN ?1 AND ?2 LIMIT 1",
                   e);
        if (!s)
            return -EIO;
        db_bind(s, "ii", &lo, &hi);
        r = db_step(st, s, e, "read");
        uint64_t n = 0;
        if (r == 1) {
            get_sweep(s, ret);
            n = db_u64(s, 18);
        }
        sqlite3_reset(s);
        if (r < 0)
            return r;
        if (n > 1)
            return err_set(e, SF_EUSAGE, "%s: stands for %" PRIu64 " sweeps", text, n);
        if (n == 1)
            return 0;
    }
    s = db_use(st, "SELECT " SWEEP_COLS " FROM t_sweep WHERE name = ? ORDER BY seq DESC LIMIT 1",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "t", text);
    r = one_sweep(st, s, ret, NULL, e);
    return r == -ENOENT ? err_set(e, ENOENT, "%.128s: no such sweep", text) : r;
}

int store_sweeps(struct store *st, uint64_t from, bool open_only,
                 int (*cb)(void *ctx, const struct store_sweep *s), void *ctx, struct err *e)
{
    int r = 0;
    for (;;) { /* one statement a sweep: the callback may use the store */
        sqlite3_stmt *s =
            db_use(st,
                   "SELECT " SWEEP_COLS " FROM t_sweep WHERE seq >= ?1 AND (?2 = 0 OR state <= 1)"
                   " ORDER BY seq LIMIT 1",
                   e);
        if (!s)
            return -EIO;
        db_bind(s, "uu", from, (uint64_t)open_only);
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
    sqlite3_stmt *s = db_use(st, "UPDATE t_sweep SET state = ?, ended_ms = ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "uzu", (uint64_t)state, ended_ms, seq);
    return db_step(st, s, e, "sweep");
}

int store_sweep_held(struct store *st, uint64_t seq, bool held, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "UPDATE t_sweep SET held = ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", (uint64_t)held, seq);
    return db_step(st, s, e, "sweep");
}

int store_sweep_priority(struct store *st, uint64_t seq, uint64_t priority, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "UPDATE t_sweep SET priority = ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", priority, seq);
    return db_step(st, s, e, "sweep");
}

int store_sweep_late(struct store *st, uint64_t seq, uint64_t late, uint64_t foreign, struct err *e)
{
    sqlite3_stmt *s =
        db_use(st, "UPDATE t_sweep SET late = late + ?, misfit = misfit + ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "uuu", late, foreign, seq);
    return db_step(st, s, e, "sweep");
}

/* ---- attempts */

int store_add_attempt(struct store *st, const struct store_attempt *a, struct err *e)
{
    sqlite3_stmt *s = db_use(
        st,
        "INSERT INTO t_attempt(task,n,epoch,sweep,kind,key,install,spans,points,fails,timeout_ms,"
        "granted_ms,boot) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
        e);
    if (!s)
        return -EIO;
    db_bind(s, "uuuztibbuuuuz", a->task, a->n, a->epoch, a->sweep, a->kind, &a->key, a->install,
            (size_t)16, a->points.n ? (const void *)a->points.v : NULL,
            a->points.n * sizeof(struct span), a->points.total, a->fails, a->timeout_ms,
            a->granted_ms, a->boot);
    return db_step(st, s, e, "attempt");
}

int store_end_attempt(struct store *st, uint64_t task, uint64_t epoch, uint64_t n,
                      const char *cause, uint64_t exit_status, uint64_t sig, uint64_t ended_ms,
                      const void *tail, size_t tail_len, struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "UPDATE t_attempt SET cause = ?, exit = ?, signal = ?, ended_ms = ?, tail = ?"
               " WHERE task = ? AND n = ? AND epoch = ? AND ended_ms IS NULL",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "tuzu", cause, exit_status, sig, ended_ms);
    if (tail_len && strcmp(cause, "done") != 0)
        sqlite3_bind_text(s, 5, tail, (int)tail_len, SQLITE_TRANSIENT);
    else
        sqlite3_bind_null(s, 5);
    sqlite3_bind_int64(s, 6, (sqlite3_int64)task);
    sqlite3_bind_int64(s, 7, (sqlite3_int64)n);
    sqlite3_bind_int64(s, 8, (sqlite3_int64)epoch);
    return db_step(st, s, e, "attempt");
}

/* 0 or -ENOMEM. */
static int get_spans(sqlite3_stmt *s, int k, struct spans *ret)
{
    size_t bytes = (size_t)sqlite3_column_bytes(s, k);
    const struct span *v = sqlite3_column_blob(s, k);
    int r = 0;
    for (size_t i = 0; r >= 0 && v && i < bytes / sizeof(*v); i++)
        r = spans_add(ret, v[i].lo, v[i].hi);
    return r;
}

int store_open_attempts(struct store *st, int (*cb)(void *ctx, struct store_attempt *a), void *ctx,
                        struct err *e)
{
    uint64_t from = 0;
    for (;;) { /* one statement each: the callback may use the store */
        sqlite3_stmt *s = db_use(
            st,
            "SELECT task,n,epoch,sweep,kind,key,install,spans,fails,timeout_ms,granted_ms,boot FROM"
            " t_attempt WHERE ended_ms IS NULL AND task >= ? ORDER BY task LIMIT 1",
            e);
        if (!s)
            return -EIO;
        db_bind(s, "u", from);
        int r = db_step(st, s, e, "read");
        if (r <= 0)
            return r;
        struct store_attempt a = { .task = db_u64(s, 0),
                                   .n = db_u64(s, 1),
                                   .epoch = db_u64(s, 2),
                                   .sweep = db_u64(s, 3),
                                   .fails = db_u64(s, 8),
                                   .timeout_ms = db_u64(s, 9),
                                   .granted_ms = db_u64(s, 10),
                                   .boot = db_u64(s, 11) };
        db_text(s, 4, a.kind, sizeof(a.kind));
        db_id(s, 5, &a.key);
        if (sqlite3_column_bytes(s, 6) == 16)
            memcpy(a.install, sqlite3_column_blob(s, 6), 16);
        int bad = get_spans(s, 7, &a.points);
        r = bad < 0 ? bad : r;
        sqlite3_reset(s);
        if (r >= 0)
            r = cb(ctx, &a);
        spans_clear(&a.points);
        if (r < 0)
            return r;
        from = a.task + 1;
    }
}

/* ---- notes of tasks */

int store_note_task(struct store *st, const struct store_task *t, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "INSERT OR REPLACE INTO t_task VALUES(?,?,?,?,?,?,?,?,?)", e);
    if (!s)
        return -EIO;
    db_bind(s, "uztibuubt", t->task, t->sweep, t->kind, &t->key,
            t->points.n ? (const void *)t->points.v : NULL, t->points.n * sizeof(struct span),
            t->fails, (uint64_t)t->quarantined, t->n_kills ? (const void *)t->kill : NULL,
            t->n_kills * sizeof(t->kill[0]), t->why);
    return db_step(st, s, e, "task");
}

int store_forget_task(struct store *st, uint64_t task, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "DELETE FROM t_task WHERE task = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", task);
    return db_step(st, s, e, "task");
}

#define TASK_COLS                                                                                  \
    "task,sweep,kind,key,spans,fails,quarantined,kills,why,(SELECT max(n) FROM t_attempt a WHERE " \
    "a.task = t_task.task)"

static int get_task(sqlite3_stmt *s, struct store_task *t)
{
    *t = (struct store_task){ .task = db_u64(s, 0),
                              .sweep = db_u64(s, 1),
                              .fails = db_u64(s, 5),
                              .quarantined = db_u64(s, 6),
                              .n = db_u64(s, 9) };
    db_text(s, 2, t->kind, sizeof(t->kind));
    db_id(s, 3, &t->key);
    db_text(s, 8, t->why, sizeof(t->why));
    size_t bytes = (size_t)sqlite3_column_bytes(s, 7);
    const void *kills = sqlite3_column_blob(s, 7);
    t->n_kills = (uint32_t)(bytes / sizeof(t->kill[0]));
    if (t->n_kills > STORE_KILLS)
        t->n_kills = STORE_KILLS;
    if (t->n_kills)
        memcpy(t->kill, kills, t->n_kills * sizeof(t->kill[0]));
    return get_spans(s, 4, &t->points);
}

static int one_task(struct store *st, sqlite3_stmt *s, struct store_task *ret, struct err *e)
{
    int r = db_step(st, s, e, "read");
    int bad = r == 1 ? get_task(s, ret) : 0;
    sqlite3_reset(s);
    if (bad < 0)
        spans_clear(&ret->points);
    return r < 0 ? r : bad < 0 ? err_sys(e, -bad, "task") : r ? 0 : -ENOENT;
}

int store_task(struct store *st, uint64_t task, struct store_task *ret, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT " TASK_COLS " FROM t_task WHERE task = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", task);
    return one_task(st, s, ret, e);
}

int store_tasks(struct store *st, int (*cb)(void *ctx, struct store_task *t), void *ctx,
                struct err *e)
{
    uint64_t from = 0;
    for (;;) {
        sqlite3_stmt *s = db_use(st,
                                 "SELECT " TASK_COLS " FROM t_task WHERE task >= ? AND NOT EXISTS("
                                 "SELECT 1 FROM t_attempt o WHERE o.task = t_task.task AND"
                                 " o.ended_ms IS NULL) ORDER BY task LIMIT 1",
                                 e);
        if (!s)
            return -EIO;
        db_bind(s, "u", from);
        struct store_task t = { 0 };
        int r = one_task(st, s, &t, e);
        if (r < 0)
            return r == -ENOENT ? 0 : r;
        from = t.task + 1;
        r = cb(ctx, &t);
        spans_clear(&t.points);
        if (r)
            return r;
    }
}

int store_next_task(struct store *st, uint64_t *ret, struct err *e)
{
    sqlite3_stmt *s = db_use(st,
                             "SELECT 1 + max(coalesce((SELECT max(task) FROM t_attempt), 0),"
                             " coalesce((SELECT max(task) FROM t_task), 0),"
                             " coalesce((SELECT max(task) FROM t_jobtask), 0))",
                             e);
    if (!s)
        return -EIO;
    int r = db_step(st, s, e, "read");
    if (r == 1)
        *ret = db_u64(s, 0);
    sqlite3_reset(s);
    return r < 0 ? r : 0;
}
