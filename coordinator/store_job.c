/* Jobs and their tasks. */
#include "coordinator/store_in.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

#define JOB_HEAD                                                                                   \
    "j.seq,j.id,j.kind,j.name,j.request_id,j.state,j.held,j.priority,j.submitted_ms,j.ended_ms,"
#define JOB_COLS                                                                                   \
    JOB_HEAD "(SELECT count(*) FROM t_jobtask t WHERE t.job = j.seq),"                             \
             "(SELECT count(*) FROM t_jobtask t WHERE t.job = j.seq AND t.state = 2),"             \
             "(SELECT count(*) FROM t_jobtask t WHERE t.job = j.seq AND t.state = 3),"             \
             "(SELECT count(*) FROM t_jobtask t WHERE t.job = j.seq AND t.state = 4),"             \
             "(SELECT count(*) FROM t_jobtask t WHERE t.job = j.seq AND t.state = 2"               \
             " AND t.cause = 'known')"
#define JOB_UNCOUNTED JOB_HEAD "0,0,0,0,0"
enum { N_JOB_COLS = 15 };

static enum sweep_state state_of(uint64_t v)
{
    return (enum sweep_state)(v % (SWEEP_CANCELLED + 1));
}

static void get_job(sqlite3_stmt *s, struct store_job *j)
{
    *j = (struct store_job){ .seq = db_u64(s, 0) };
    db_id(s, 1, &j->id);
    db_text(s, 2, j->kind, sizeof(j->kind));
    db_text(s, 3, j->name, sizeof(j->name));
    db_text(s, 4, j->request_id, sizeof(j->request_id));
    j->state = state_of(db_u64(s, 5));
    j->held = db_u64(s, 6);
    j->priority = db_u64(s, 7);
    j->submitted_ms = db_u64(s, 8);
    j->ended_ms = db_u64(s, 9);
    j->tasks = db_u64(s, 10);
    j->done = db_u64(s, 11);
    j->failed = db_u64(s, 12);
    j->cancelled = db_u64(s, 13);
    j->known = db_u64(s, 14);
}

int store_add_job(struct store *st, struct store_job *j, const char *json, const char *by,
                  struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "INSERT INTO t_job(id,kind,name,request_id,json,state,held,priority,submitted_ms,by)"
               " VALUES(?,?,?,?,?,?,?,?,?,?)",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "ittttuuuut", &j->id, j->kind, j->name, *j->request_id ? j->request_id : NULL, json,
            (uint64_t)j->state, (uint64_t)j->held, j->priority, j->submitted_ms, by);
    int rc = sqlite3_step(s);
    sqlite3_reset(s);
    if ((rc & 0xff) == SQLITE_CONSTRAINT)
        return err_set(e, EEXIST, "job '%s': request id is taken", j->name);
    if (rc != SQLITE_DONE)
        return db_error(st, rc, e, "job");
    j->seq = (uint64_t)sqlite3_last_insert_rowid(st->db);
    return 0;
}

static bool zero(const void *p, size_t n)
{
    const uint8_t *b = p;
    while (n && !b[n - 1])
        n--;
    return n == 0;
}

int store_add_job_task(struct store *st, const struct store_job_task *t, struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "INSERT INTO t_jobtask(task,job,idx,key,install,state,cause,agent,info,duration_ms,"
               "ended_ms) VALUES(?,?,?,?,?,?,?,?,?,?,?)",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "uuuibutttzz", t->task, t->job, t->index,
            zero(&t->key, sizeof(t->key)) ? NULL : &t->key,
            zero(t->install, sizeof(t->install)) ? NULL : (const void *)t->install, (size_t)16,
            (uint64_t)t->state, *t->cause ? t->cause : NULL, *t->agent ? t->agent : NULL, t->info,
            t->duration_ms, t->ended_ms);
    return db_step(st, s, e, "job");
}

static int one_job(struct store *st, sqlite3_stmt *s, struct store_job *ret, char **ret_json,
                   struct err *e)
{
    int r = db_step(st, s, e, "read");
    if (r == 1) {
        get_job(s, ret);
        if (ret_json) {
            const unsigned char *t = sqlite3_column_text(s, N_JOB_COLS);
            *ret_json = t ? strdup((const char *)t) : NULL;
            r = *ret_json ? 1 : -ENOMEM;
        }
    }
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : -ENOENT;
}

int store_job(struct store *st, uint64_t seq, struct store_job *ret, char **ret_json, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT " JOB_COLS ",j.json FROM t_job j WHERE j.seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", seq);
    int r = one_job(st, s, ret, ret_json, e);
    return r == -ENOENT ? err_set(e, ENOENT, "job %" PRIu64 ": none", seq) : r;
}

int store_job_head(struct store *st, uint64_t seq, struct store_job *ret, char **ret_json,
                   struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT " JOB_UNCOUNTED ",j.json FROM t_job j WHERE j.seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", seq);
    int r = one_job(st, s, ret, ret_json, e);
    return r == -ENOENT ? err_set(e, ENOENT, "job %" PRIu64 ": none", seq) : r;
}

int store_job_by_request(struct store *st, const char *request_id, struct store_job *ret,
                         struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT " JOB_COLS " FROM t_job j WHERE j.request_id = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "t", request_id);
    return one_job(st, s, ret, NULL, e);
}

int store_find_job(struct store *st, const char *text, struct store_job *ret, struct err *e)
{
    sqlite3_stmt *s;
    struct id lo, hi;
    int r;
    if (!strcmp(text, "last")) {
        s = db_use(st, "SELECT " JOB_COLS " FROM t_job j ORDER BY j.seq DESC LIMIT 1", e);
        r = s ? one_job(st, s, ret, NULL, e) : -EIO;
        return r == -ENOENT ? err_set(e, ENOENT, "last: there is no job yet") : r;
    }
    if (!db_id_range(text, &lo, &hi))
        return err_set(e, ENOENT, "%.128s: no such job", text);
    s = db_use(st,
               "SELECT " JOB_COLS ",(SELECT count(*) FROM t_job WHERE id BETWEEN ?1 AND ?2)"
               " FROM t_job j WHERE j.id BETWEEN ?1 AND ?2 LIMIT 1",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "ii", &lo, &hi);
    r = db_step(st, s, e, "read");
    uint64_t n = 0;
    if (r == 1) {
        get_job(s, ret);
        n = db_u64(s, N_JOB_COLS);
    }
    sqlite3_reset(s);
    if (r < 0)
        return r;
    if (n > 1)
        return err_set(e, SF_EUSAGE, "%s: stands for %" PRIu64 " jobs", text, n);
    return n ? 0 : err_set(e, ENOENT, "%.128s: no such job", text);
}

int store_jobs(struct store *st, uint64_t from, bool open_only,
               int (*cb)(void *ctx, const struct store_job *j), void *ctx, struct err *e)
{
    for (;;) { /* one statement a job: the callback may use the store */
        sqlite3_stmt *s =
            open_only
                ? db_use(st,
                         "SELECT " JOB_UNCOUNTED
                         " FROM t_job j WHERE j.seq >= ? AND j.state <= 1 ORDER BY j.seq LIMIT 1",
                         e)
                : db_use(st,
                         "SELECT " JOB_COLS " FROM t_job j WHERE j.seq >= ? ORDER BY j.seq LIMIT 1",
                         e);
        if (!s)
            return -EIO;
        db_bind(s, "u", from);
        struct store_job j;
        int r = one_job(st, s, &j, NULL, e);
        if (r < 0)
            return r == -ENOENT ? 0 : r;
        r = cb(ctx, &j);
        if (r)
            return r;
        from = j.seq + 1;
    }
}

int store_job_state(struct store *st, uint64_t seq, enum sweep_state state, uint64_t ended_ms,
                    struct err *e)
{
    sqlite3_stmt *s = db_use(st, "UPDATE t_job SET state = ?, ended_ms = ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "uzu", (uint64_t)state, ended_ms, seq);
    return db_step(st, s, e, "job");
}

int store_cancel_job(struct store *st, uint64_t seq, uint64_t ended_ms, struct err *e)
{
    sqlite3_stmt *s = db_use(st,
                             "UPDATE t_jobtask SET state = 4, cause = 'cancelled', ended_ms = ?"
                             " WHERE job = ? AND state <= 1",
                             e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", ended_ms, seq);
    int r = db_step(st, s, e, "job");
    return r < 0 ? r : store_job_state(st, seq, SWEEP_CANCELLED, ended_ms, e);
}

int store_job_priority(struct store *st, uint64_t seq, uint64_t priority, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "UPDATE t_job SET priority = ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", priority, seq);
    return db_step(st, s, e, "job");
}

int store_job_held(struct store *st, uint64_t seq, bool held, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "UPDATE t_job SET held = ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", (uint64_t)held, seq);
    return db_step(st, s, e, "job");
}

/* ---- tasks */

#define TASK_COLS                                                                                  \
    "t.task,t.job,t.idx,t.key,t.install,t.state,t.cause,t.exit,t.signal,t.duration_ms,t.agent,"    \
    "t.ended_ms,(SELECT coalesce(max(n), 0) FROM t_attempt a WHERE a.task = t.task),"              \
    "(SELECT count(*) FROM t_attempt a WHERE a.task = t.task AND a.cause NOT IN"                   \
    " ('done','lost','cancelled','declined','unsent','store')),t.info,t.tail"

static char *text_of(sqlite3_stmt *s, int k)
{
    const unsigned char *t = sqlite3_column_text(s, k);
    return t ? strdup((const char *)t) : NULL;
}

/* A row, if there is one, to cb. 1 = there was one and cb wants more. */
static int one_task(struct store *st, sqlite3_stmt *s,
                    int (*cb)(void *ctx, const struct store_job_task *t), void *ctx,
                    uint64_t *ret_index, struct err *e)
{
    int r = db_step(st, s, e, "read");
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    struct store_job_task t = { .task = db_u64(s, 0),
                                .job = db_u64(s, 1),
                                .index = db_u64(s, 2),
                                .state = state_of(db_u64(s, 5)),
                                .exit = db_u64(s, 7),
                                .signal = db_u64(s, 8),
                                .duration_ms = db_u64(s, 9),
                                .ended_ms = db_u64(s, 11),
                                .n = db_u64(s, 12),
                                .fails = db_u64(s, 13) };
    db_id(s, 3, &t.key);
    if (sqlite3_column_bytes(s, 4) == 16)
        memcpy(t.install, sqlite3_column_blob(s, 4), 16);
    db_text(s, 6, t.cause, sizeof(t.cause));
    db_text(s, 10, t.agent, sizeof(t.agent));
    CLEANUP(freep) char *info = text_of(s, 14), *tail = text_of(s, 15);
    t.info = info;
    t.tail = tail;
    sqlite3_reset(s);
    *ret_index = t.index;
    return cb(ctx, &t);
}

int store_job_tasks(struct store *st, uint64_t job, uint64_t from,
                    int (*cb)(void *ctx, const struct store_job_task *t), void *ctx, struct err *e)
{
    for (;;) { /* one statement each: the callback may use the store */
        sqlite3_stmt *s = db_use(st,
                                 "SELECT " TASK_COLS " FROM t_jobtask t WHERE t.job = ?1 AND"
                                 " t.idx >= ?2 ORDER BY t.idx LIMIT 1",
                                 e);
        if (!s)
            return -EIO;
        db_bind(s, "uu", job, from);
        uint64_t index = 0;
        int r = one_task(st, s, cb, ctx, &index, e);
        if (r)
            return r == -ENOENT ? 0 : r;
        from = index + 1;
    }
}

/* Two passes over neighbouring rows: asking for each task on its own took most of a start with a long queue. */
int store_waiting_tasks(struct store *st, uint64_t job,
                        int (*task)(void *ctx, uint64_t task, const uint8_t install[16]),
                        void (*tried)(void *ctx, uint64_t task, uint64_t n, uint64_t fails),
                        void *ctx, struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "SELECT (SELECT task FROM t_jobtask WHERE job = ?1 ORDER BY idx LIMIT 1),"
               " (SELECT task FROM t_jobtask WHERE job = ?1 ORDER BY idx DESC LIMIT 1)",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "u", job);
    int r = db_step(st, s, e, "read");
    uint64_t first = r == 1 ? db_u64(s, 0) : 0, last = r == 1 ? db_u64(s, 1) : 0;
    sqlite3_reset(s);
    if (r < 0)
        return r;
    s = db_use(st,
               "SELECT task, install FROM t_jobtask WHERE task BETWEEN ? AND ? AND +job = ? AND"
               " state <= 1 ORDER BY task",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "uuu", first, last, job);
    int bad = 0;
    while ((r = db_step(st, s, e, "read")) == 1 && bad >= 0)
        bad = task(ctx, db_u64(s, 0),
                   sqlite3_column_bytes(s, 1) == 16 ? sqlite3_column_blob(s, 1) : NULL);
    sqlite3_reset(s);
    if (r < 0 || bad < 0)
        return r < 0 ? r : err_sys(e, -bad, "job %" PRIu64, job);
    s = db_use(st,
               "SELECT task, max(n), coalesce(sum(cause NOT IN ('done','lost','cancelled',"
               "'declined','unsent','store')), 0) FROM t_attempt WHERE task BETWEEN ? AND ?"
               " GROUP BY task",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", first, last);
    while ((r = db_step(st, s, e, "read")) == 1)
        tried(ctx, db_u64(s, 0), db_u64(s, 1), db_u64(s, 2));
    return r;
}

int store_job_task(struct store *st, uint64_t task,
                   int (*cb)(void *ctx, const struct store_job_task *t), void *ctx, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT " TASK_COLS " FROM t_jobtask t WHERE t.task = ?", e);
    uint64_t index;
    if (!s)
        return -EIO;
    db_bind(s, "u", task);
    int r = one_task(st, s, cb, ctx, &index, e);
    return r == -ENOENT ? err_set(e, ENOENT, "task %" PRIu64 ": no such task", task) : r;
}

int store_find_run(struct store *st, const struct id *key,
                   int (*cb)(void *ctx, const struct store_job_task *t), void *ctx, struct err *e)
{
    sqlite3_stmt *s = db_use(st,
                             "SELECT " TASK_COLS " FROM t_jobtask t WHERE t.key = ? AND t.state = 2"
                             " ORDER BY t.task DESC LIMIT 1",
                             e);
    uint64_t index;
    if (!s)
        return -EIO;
    db_bind(s, "i", key);
    return one_task(st, s, cb, ctx, &index, e);
}

int store_end_job_task(struct store *st, const struct store_job_task *t, struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "UPDATE t_jobtask SET state = ?, cause = ?, exit = ?, signal = ?, duration_ms = ?,"
               " agent = coalesce(?, agent), info = ?, tail = ?, ended_ms = ? WHERE task = ? AND"
               " state <= 1",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "utuuutttuu", (uint64_t)t->state, t->cause, t->exit, t->signal, t->duration_ms,
            *t->agent ? t->agent : NULL, t->info, t->tail, t->ended_ms, t->task);
    return db_step(st, s, e, "job");
}

int store_redo_job(struct store *st, uint64_t job, bool cancelled_too, uint64_t *ret, struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "UPDATE t_jobtask SET state = 0, cause = NULL, info = NULL, tail = NULL, ended_ms ="
               " NULL WHERE job = ?1 AND (state = 3 OR (?2 AND state = 4))",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", job, (uint64_t)cancelled_too);
    int r = db_step(st, s, e, "job");
    *ret = r < 0 ? 0 : (uint64_t)sqlite3_changes(st->db);
    return r;
}

int store_last_attempt(struct store *st, uint64_t task, char cause[33], char kind[16], char **tail,
                       struct err *e)
{
    sqlite3_stmt *s = db_use(
        st, "SELECT cause,kind,tail FROM t_attempt WHERE task = ? ORDER BY n DESC LIMIT 1", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", task);
    int r = db_step(st, s, e, "read");
    if (r == 1) {
        db_text(s, 0, cause, 33);
        db_text(s, 1, kind, 16);
        *tail = text_of(s, 2);
    }
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : err_set(e, ENOENT, "task %" PRIu64 ": no such task", task);
}

/* ---- sweeps that wait for a job */

int store_add_after(struct store *st, uint64_t sweep, uint64_t job, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "INSERT INTO t_after(sweep,job) VALUES(?,?)", e);
    if (!s)
        return -EIO;
    db_bind(s, "uu", sweep, job);
    return db_step(st, s, e, "sweep");
}

int store_after(struct store *st, uint64_t sweep, uint64_t *ret_job, bool *ret_bound, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT job,bound FROM t_after WHERE sweep = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "u", sweep);
    int r = db_step(st, s, e, "read");
    if (r == 1) {
        *ret_job = db_u64(s, 0);
        *ret_bound = db_u64(s, 1);
    }
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : -ENOENT;
}

int store_afters(struct store *st, int (*cb)(void *ctx, uint64_t sweep, uint64_t job), void *ctx,
                 struct err *e)
{
    uint64_t from = 0;
    for (;;) { /* one statement each: the callback may use the store */
        sqlite3_stmt *s = db_use(st,
                                 "SELECT a.sweep,a.job FROM t_after a JOIN t_sweep w ON w.seq ="
                                 " a.sweep WHERE NOT a.bound AND w.state <= 1 AND a.sweep >= ?"
                                 " ORDER BY a.sweep LIMIT 1",
                                 e);
        if (!s)
            return -EIO;
        db_bind(s, "u", from);
        int r = db_step(st, s, e, "read");
        uint64_t sweep = db_u64(s, 0), job = db_u64(s, 1);
        sqlite3_reset(s);
        if (r <= 0)
            return r;
        r = cb(ctx, sweep, job);
        if (r)
            return r;
        from = sweep + 1;
    }
}

int store_bind_sweep(struct store *st, uint64_t sweep, const char *json, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "UPDATE t_sweep SET json = ? WHERE seq = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "tu", json, sweep);
    int r = db_step(st, s, e, "sweep");
    s = r < 0 ? NULL : db_use(st, "UPDATE t_after SET bound = 1 WHERE sweep = ?", e);
    if (!s)
        return r < 0 ? r : -EIO;
    db_bind(s, "u", sweep);
    return db_step(st, s, e, "sweep");
}
