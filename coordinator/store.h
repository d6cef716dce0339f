/* What a coordinator must not forget: one SQLite file, the only user of sqlite3.h.
 *
 * DIR/store.db in WAL mode with synchronous=FULL, one writer (DIR/lock is held while it is open). Writes of one turn of the
 * event loop go into one transaction; answers are sent after store_commit(). A sweep is kept as its recipe: a point costs
 * no row until it has a result. user_version tells the schema; older stores migrate forward when opened, newer ones are
 * refused.
 *
 * Errors  -ENOSPC disk full, -EIO, -SF_EINTEGRITY a damaged file, -SF_EFORMAT a newer schema, -EBUSY another coordinator
 *         has it, -ENOENT; after a failed write the transaction is rolled back with store_rollback().
 * Threads a store belongs to one.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/spans.h"
#include "perf/arch.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/format/row.h"
#include "proto/lib/hash.h"
#include "proto/lib/json.h"

enum { STORE_VERSION = 13 };

struct store;

int store_open(const char *dir, struct store **ret, struct err *e); /* makes DIR if need be */
int store_open_ro(const char *dir, struct store **ret,
                  struct err *e); /* beside a running coordinator or without one */
void store_free(struct store **st);

/* Whether the log beside store.db holds all that was acknowledged: 0, or -SF_EINTEGRITY with how much is left. Also done by
 * store_open() and, where no coordinator runs, store_open_ro(). Nobody may write meanwhile (hold DIR/lock). */
int store_check_log(const char *dir, struct err *e);

int store_begin(struct store *st, struct err *e);  /* fine when one is open */
int store_commit(struct store *st, struct err *e); /* durable on return; fine when none is open */
void store_rollback(struct store *st);

/* Numbers that outlive everything: "epoch", "next_task". 0 when never set. */
int store_get(struct store *st, const char *key, uint64_t *ret, struct err *e);
int store_set(struct store *st, const char *key, uint64_t v, struct err *e);

/* Something that changed state, for people: kind "agent", "sweep", "task", "store"; the oldest go beyond 100,000. */
int store_event(struct store *st, uint64_t wall_ms, const char *kind, const char *subject,
                const char *text, struct err *e);

/* ---- sweeps */

enum sweep_state { SWEEP_QUEUED, SWEEP_RUNNING, SWEEP_DONE, SWEEP_FAILED, SWEEP_CANCELLED };

struct store_sweep {
    uint64_t seq; /* submit order, from 1 */
    struct id id;
    char name[128];
    char request_id[129]; /* "" = none */
    enum sweep_state state;
    bool held;
    uint64_t priority, points;
    uint64_t done, failed, invalid,
        known; /* rows by status; known: of the done ones, how many were not run */
    uint64_t equal, late, differing, foreign; /* results beside the accepted ones */
    uint64_t submitted_ms, ended_ms;          /* wall */
};

/* Adds; sets s->seq. json: its recipe. -EEXIST when the request id is taken. */
int store_add_sweep(struct store *st, struct store_sweep *s, const char *json, const char *by,
                    struct err *e);
int store_sweep(struct store *st, uint64_t seq, struct store_sweep *ret, char **ret_json,
                struct err *e);
int store_sweep_by_request(struct store *st, const char *request_id, struct store_sweep *ret,
                           struct err *e);
/* text: an id, a unique prefix of 8 or more, `last`, or a name (the newest of that name). -ENOENT, -SF_EUSAGE when
 * not unique. */
int store_find_sweep(struct store *st, const char *text, struct store_sweep *ret, struct err *e);
/* In submit order from seq `from` on; cb returns 0 to go on. open_only: those queued or running. */
int store_sweeps(struct store *st, uint64_t from, bool open_only,
                 int (*cb)(void *ctx, const struct store_sweep *s), void *ctx, struct err *e);
int store_sweep_state(struct store *st, uint64_t seq, enum sweep_state state, uint64_t ended_ms,
                      struct err *e);
int store_sweep_held(struct store *st, uint64_t seq, bool held, struct err *e);
int store_sweep_priority(struct store *st, uint64_t seq, uint64_t priority, struct err *e);
/* Count rows of fenced attempts, and rows that are none of its points. */
int store_sweep_late(struct store *st, uint64_t seq, uint64_t late, uint64_t foreign,
                     struct err *e);
const char *sweep_state_name(enum sweep_state s, bool held);

/* ---- traces and artefacts */

/* What a row says about its trace besides the id. */
struct store_trace {
    uint64_t num;
    struct id id;
    uint64_t tenants, burst, seed, replicate;
    char order[16], rules[16];
};
/* Adds or finds by id (then *t is as stored); sets t->num. info: JSON, may be NULL; "absent" for one that could not be
 * had: id is then made up, rows show the rest of it only. */
int store_add_trace(struct store *st, struct store_trace *t, const char *info, struct err *e);
int store_trace(struct store *st, const struct id *id, struct store_trace *ret,
                struct err *e); /* -ENOENT */
int store_add_recipe(struct store *st, const struct id *recipe, const struct id *trace,
                     const char *json, struct err *e);
int store_recipe(struct store *st, const struct id *recipe, struct store_trace *ret,
                 struct err *e); /* -ENOENT */

struct store_artefact {
    struct id id;
    uint64_t size_b, added_ms;
    char kind[32], name[256];
    bool pinned; /* somebody wants it kept */
};
int store_add_artefact(struct store *st, const struct store_artefact *a, const char *by,
                       struct err *e);
int store_artefact(struct store *st, const char *text, struct store_artefact *ret,
                   struct err *e); /* id or prefix */

/* By id; cb returns 0 to go on, and may not use the store. */
int store_artefacts(struct store *st, int (*cb)(void *ctx, const struct store_artefact *a),
                    void *ctx, struct err *e);
int store_del_artefact(struct store *st, const struct id *id, struct err *e);
int store_pin_artefact(struct store *st, const struct id *id, bool pinned, struct err *e);

/* What names artefacts by their id, as hex digits somewhere in a text. */
enum store_doc_kind {
    DOC_SWEEP,  /* its recipe */
    DOC_JOB,    /* as submitted */
    DOC_OUTPUT, /* what a job's task left */
    DOC_RECIPE, /* of trace `id`; key: as whose recipe it is known */
    DOC_TRACE,  /* `id` alone; results were computed from it */
};
struct store_doc {
    enum store_doc_kind kind;
    uint64_t no;      /* of the task, for DOC_OUTPUT */
    const char *name; /* of the sweep or job, else "" */
    bool open;        /* of a sweep or job that is not over */
    bool used;        /* DOC_RECIPE: results were computed from its trace */
    struct id id, key;
    const char *text; /* "" = none */
};
/* All of them; cb returns 0 to go on, and may not use the store. Strings are borrowed for the call. */
int store_docs(struct store *st, int (*cb)(void *ctx, const struct store_doc *d), void *ctx,
               struct err *e);

/* Damaged: what can be read goes into a new store in its place; the old files go to the folder `aside`. Nobody may have it open (hold
 * DIR/lock). What depends on something that is lost is left out: rows of unknown traces and sweeps; a done sweep without all its
 * rows is open again. *ret (new reference): {"kept":aside, "readable":bool, "tables":[{"table","rows","whole"}], "reopened":N}.
 * -errno leaves the old one where it is. */
int store_salvage(const char *dir, const char *aside, json_t **ret, struct err *e);

/* Every page of the file, every index against its table. 0, or -SF_EINTEGRITY with what is wrong first. */
int store_check(struct store *st, struct err *e);
/* Whether pages have checksums; a store made before version 11 has none until it gets them: the file is written anew. */
bool store_has_sums(struct store *st);
int store_add_sums(struct store *st, struct err *e);

/* ---- agents */

struct store_agent {
    uint8_t install[16];
    char key[41], name[65], version[33], labels[1001];
    uint64_t boot, cores, memory_mib, last_seen_ms;
    bool kvm, drained, stopped; /* stopped: it went in order, nobody waits for it */
    struct id engine;
    uint64_t drained_until_ms; /* wall; then it takes tasks again by itself; 0 = not by itself */
    uint64_t drain_from_ms;    /* wall; not drained yet, then it is, by itself; 0 = no such plan */
    char why[161];             /* of drained or planned, if somebody said; "" = none */
};
/* Adds or replaces (drained stays). *ret_reg: number of (install, boot, facts), for rows. facts: JSON text. -EEXIST when the
 * key belongs to another install. */
int store_add_agent(struct store *st, struct store_agent *a, const char *facts, uint64_t *ret_reg,
                    struct err *e);
/* The newest agent of that name; its install in hex works too. */
int store_find_agent(struct store *st, const char *name, struct store_agent *ret, struct err *e);
/* why: NULL = nobody said. from_ms, until_ms: see drain_from_ms, drained_until_ms. */
int store_agent_drained(struct store *st, const uint8_t install[16], bool drained, const char *why,
                        uint64_t from_ms, uint64_t until_ms, struct err *e);
int store_agent_stopped(struct store *st, const uint8_t install[16], uint64_t wall_ms,
                        struct err *e);
int store_agents(struct store *st, int (*cb)(void *ctx, const struct store_agent *a), void *ctx,
                 struct err *e);
int store_engine(struct store *st, const struct id *engine, uint64_t *ret_num,
                 struct err *e); /* adds or finds */

/* ---- results */

enum { BY_ENGINE = 0, BY_COORDINATOR = 1, BY_COPY = 2 }; /* where a row comes from */

struct store_row {
    uint64_t sweep, index;
    struct id point;
    uint64_t trace; /* number; 0 = the trace was never had */
    struct arch arch;
    enum row_status status;
    const char *error;      /* NULL = none; borrowed */
    struct row_stats stats; /* when done */
    uint64_t epoch, n, task, reg, engine, threads, started_ms, duration_us; /* 0 = unknown */
    int by;
};

enum store_put { PUT_FIRST, PUT_EQUAL, PUT_DIFFERS, PUT_REPLACED };
/* The first valid result wins; an equal one is counted; a different one is kept aside and counted (PUT_DIFFERS). A row
 * that the coordinator itself gave up on is replaced by a real one (PUT_REPLACED). Returns enum store_put or an error. */
int store_put_row(struct store *st, const struct store_row *r, uint64_t wall_ms, struct err *e);
/* The same for n rows, quick where they are of one sweep, in order and new. ret[n]: what became of each. Returns 0 or an
 * error. */
int store_put_rows(struct store *st, const struct store_row rows[], size_t n, uint64_t wall_ms,
                   enum store_put ret[], struct err *e);
/* Keep word of a row that changed nothing: kind "late" (of a fenced attempt), "duplicate" or "foreign". The first
 * STORE_ASIDE of a sweep; beyond them the counters tell. */
enum { STORE_ASIDE = 10000 };
int store_aside(struct store *st, const struct store_row *r, const char *kind,
                const uint8_t install[16], uint64_t wall_ms, struct err *e);
/* Copy a done row of r's point from any sweep, made by one of n engines (numbers), as the row of (r->sweep, r->index). Of r:
 * sweep, index, trace, arch and point. Returns 1 = copied, 0 = not known. */
int store_put_known(struct store *st, const struct store_row *r, const uint64_t engines[], size_t n,
                    struct err *e);
int store_is_known(struct store *st, const struct store_row *r, const uint64_t engines[], size_t n,
                   struct err *e);
/* Which of n points may be known, without their ids: ret[i] false = surely not. Of rows: trace, arch. Returns 0 or an error. */
int store_maybe_known(struct store *st, const struct store_row rows[], size_t n, bool ret[],
                      struct err *e);
/* The points of a sweep that have no row. */
int store_missing(struct store *st, uint64_t sweep, uint64_t points, struct spans *ret,
                  struct err *e);
/* Forget the failed rows of a sweep and say which they were. */
int store_take_failed(struct store *st, uint64_t sweep, struct spans *ret, struct err *e);

/* ---- canaries */

/* A done row of this engine, made by another install, of a trace that is noted with its artefact of at most size_b bytes;
 * the quickest of the newest 2000 rows. -ENOENT when there is none. */
struct store_canary {
    uint64_t sweep, index;
    struct id sweep_id, trace, point;
};
int store_pick_canary(struct store *st, const uint8_t install[16], uint64_t engine, uint64_t size_b,
                      struct store_canary *ret, struct err *e);
/* When and how the last one of this install and program ended: "equal", "differs" or "failed". -ENOENT. */
int store_last_canary(struct store *st, const uint8_t install[16], uint64_t engine,
                      uint64_t *ret_at_ms, char ret_verdict[16], struct err *e);
int store_put_canary(struct store *st, const uint8_t install[16], uint64_t engine, uint64_t at_ms,
                     uint64_t sweep, uint64_t index, const char *verdict, struct err *e);
/* 1 = the stored row of (sweep, index) is done and has these statistics, 0 = not so. */
int store_row_is(struct store *st, uint64_t sweep, uint64_t index, const struct row_stats *stats,
                 struct err *e);

/* ---- attempts */

struct store_attempt {
    uint64_t task, epoch, n, sweep, granted_ms, timeout_ms;
    char kind[16];
    struct id key; /* of the trace or recipe */
    uint8_t install[16];
    uint64_t boot;       /* of the agent that it was granted to; 0 = not known */
    struct spans points; /* owned by whoever fills it */
    uint64_t fails;
};
int store_add_attempt(struct store *st, const struct store_attempt *a, struct err *e);
/* cause as in task_end, or lost, declined. tail: last lines, kept when the cause is not `done`. Unknown ones: no change. */
int store_end_attempt(struct store *st, uint64_t task, uint64_t epoch, uint64_t n,
                      const char *cause, uint64_t exit_status, uint64_t sig, uint64_t ended_ms,
                      const void *tail, size_t tail_len, struct err *e);
int store_open_attempts(struct store *st, int (*cb)(void *ctx, struct store_attempt *a), void *ctx,
                        struct err *e);

/* A task that failed, or that took agents with it: what a restart must know besides its attempts. */
enum { STORE_KILLS = 3 };
struct store_task {
    uint64_t task, sweep; /* sweep 0 = of none: a trace task */
    char kind[16];
    struct id key;       /* of the trace or recipe */
    struct spans points; /* owned by whoever fills it */
    uint64_t fails, n;   /* n: its last attempt, when read */
    bool quarantined;
    uint32_t n_kills;
    struct {
        uint8_t install[16];
        uint64_t boot;
    } kill[STORE_KILLS];
    char why[160];
};
int store_note_task(struct store *st, const struct store_task *t,
                    struct err *e); /* adds or replaces */
int store_forget_task(struct store *st, uint64_t task, struct err *e);
/* -ENOENT when there is no note. */
int store_task(struct store *st, uint64_t task, struct store_task *ret, struct err *e);
/* Those without an open attempt, by number. cb returns 0 to go on; it may use the store. */
int store_tasks(struct store *st, int (*cb)(void *ctx, struct store_task *t), void *ctx,
                struct err *e);

int store_next_task(struct store *st, uint64_t *ret,
                    struct err *e); /* a number that no attempt bears yet */

/* ---- what became of it: for `why` and `audit` */

struct store_try {
    uint64_t task, epoch, n, sweep, points, granted_ms, ended_ms, exit,
        signal;                          /* ended_ms 0 = open */
    char kind[16], agent[65], cause[33]; /* cause "" = open */
    const char *tail;                    /* last lines, "" = none; borrowed for the call */
    struct id sweep_id, job_id;
    bool has_sweep, has_job;
};
enum store_tries_of { TRIES_TASK, TRIES_SWEEP_BAD, TRIES_AGENT_BAD, TRIES_ENDED };
/* Newest first, at most limit: all of a task (no), those of a sweep (no = seq) or of an agent (install) that ended otherwise
 * than done, or the last that ended. cb returns 0 to go on, and may not use the store. */
int store_tries(struct store *st, enum store_tries_of of, uint64_t no, const uint8_t install[16],
                uint64_t limit, int (*cb)(void *ctx, const struct store_try *t), void *ctx,
                struct err *e);
/* Reasons of failed points, most frequent first: at most 20. */
int store_failures(struct store *st, uint64_t sweep,
                   int (*cb)(void *ctx, const char *error, uint64_t n, uint64_t first), void *ctx,
                   struct err *e);
/* Rows of a sweep from index `from` on, in order, at most limit. trace 0 = none. */
struct store_seen {
    uint64_t index, trace;
    struct id point;
    enum row_status status;
    bool has_point;
};
int store_scan(struct store *st, uint64_t sweep, uint64_t from, uint64_t limit,
               int (*cb)(void *ctx, const struct store_seen *r), void *ctx, struct err *e);
/* Rows beside the accepted ones: kind "late", "duplicate", "foreign", "differing". */
struct store_beside {
    uint64_t index, task, epoch, n, at_ms;
    char kind[16], agent[65];
};
int store_beside(struct store *st, uint64_t sweep, uint64_t limit, bool differing,
                 int (*cb)(void *ctx, const struct store_beside *b), void *ctx, struct err *e);

/* ---- jobs: commands and collections; a job's and a task's state is an enum sweep_state */

struct store_job {
    uint64_t seq;
    struct id id;
    char kind[16], name[128];
    char request_id[129]; /* "" = none */
    enum sweep_state state;
    bool held;
    uint64_t priority;
    uint64_t tasks, done, failed, cancelled,
        known; /* known: of the done ones, how many were not run */
    uint64_t submitted_ms, ended_ms;
};

struct store_job_task {
    uint64_t task, job, index; /* index: in its job */
    struct id key; /* of a run of a collection: what makes two runs the same; all zero = none */
    uint8_t install[16]; /* the only agent that may run it; all zero = any */
    enum sweep_state state;
    char cause[201]; /* of the end; "known" = copied from an earlier run; else words for people */
    uint64_t exit, signal, duration_ms, ended_ms;
    uint64_t n, fails; /* attempts so far, and those that count against it */
    char agent[65];
    char *info, *tail; /* owned by the store during a callback; NULL = none */
};

/* Adds; sets j->seq. json: as submitted. -EEXIST when the request id is taken. */
int store_add_job(struct store *st, struct store_job *j, const char *json, const char *by,
                  struct err *e);
int store_add_job_task(struct store *st, const struct store_job_task *t, struct err *e);
/* *ret_json owned; may be NULL. -ENOENT. */
int store_job(struct store *st, uint64_t seq, struct store_job *ret, char **ret_json,
              struct err *e);
/* The same without counting its tasks: tasks, done, failed, cancelled and known are 0. */
int store_job_head(struct store *st, uint64_t seq, struct store_job *ret, char **ret_json,
                   struct err *e);
int store_job_by_request(struct store *st, const char *request_id, struct store_job *ret,
                         struct err *e);
int store_find_job(struct store *st, const char *text, struct store_job *ret, struct err *e);
/* open_only: those queued or running, uncounted. */
int store_jobs(struct store *st, uint64_t from, bool open_only,
               int (*cb)(void *ctx, const struct store_job *j), void *ctx, struct err *e);
int store_job_state(struct store *st, uint64_t seq, enum sweep_state state, uint64_t ended_ms,
                    struct err *e);
/* The job and all its tasks that are not over. */
int store_cancel_job(struct store *st, uint64_t seq, uint64_t ended_ms, struct err *e);
int store_job_held(struct store *st, uint64_t seq, bool held, struct err *e);
int store_job_priority(struct store *st, uint64_t seq, uint64_t priority, struct err *e);
/* Those of a job that are not over, by number, then what each was tried: how often, and how many of these were its own
 * failures. install: NULL = not bound to a host. The callbacks may not use the store. */
int store_waiting_tasks(struct store *st, uint64_t job,
                        int (*task)(void *ctx, uint64_t task, const uint8_t install[16]),
                        void (*tried)(void *ctx, uint64_t task, uint64_t n, uint64_t fails),
                        void *ctx, struct err *e);
/* Tasks of a job from an index on; cb returns 0 to go on, and may use the store. */
int store_job_tasks(struct store *st, uint64_t job, uint64_t from,
                    int (*cb)(void *ctx, const struct store_job_task *t), void *ctx, struct err *e);
/* One task by number: cb is called once. -ENOENT. */
int store_job_task(struct store *st, uint64_t task,
                   int (*cb)(void *ctx, const struct store_job_task *t), void *ctx, struct err *e);
/* The newest done task with this key. -ENOENT. */
int store_find_run(struct store *st, const struct id *key,
                   int (*cb)(void *ctx, const struct store_job_task *t), void *ctx, struct err *e);
/* The answer of a task, once: state, cause, exit, signal, duration_ms, agent, info, tail, ended_ms. */
int store_end_job_task(struct store *st, const struct store_job_task *t, struct err *e);
/* Failed tasks (and cancelled ones) wait again. *ret: how many. */
int store_redo_job(struct store *st, uint64_t job, bool cancelled_too, uint64_t *ret,
                   struct err *e);
/* A sweep that needs the logs of a job. bound: it has them. */
int store_add_after(struct store *st, uint64_t sweep, uint64_t job, struct err *e);
/* -ENOENT: it needs none. */
int store_after(struct store *st, uint64_t sweep, uint64_t *ret_job, bool *ret_bound,
                struct err *e);
/* Those that still wait, of sweeps that are not over; cb returns 0 to go on, and may use the store. */
int store_afters(struct store *st, int (*cb)(void *ctx, uint64_t sweep, uint64_t job), void *ctx,
                 struct err *e);
/* The sweep has its logs: json is its recipe from here on. */
int store_bind_sweep(struct store *st, uint64_t sweep, const char *json, struct err *e);
/* How the newest attempt of any task ended: cause "" = it has not. -ENOENT. tail: owned, may be NULL. */
int store_last_attempt(struct store *st, uint64_t task, char cause[33], char kind[16], char **tail,
                       struct err *e);

/* ---- questions */

/* results: args {"sweeps":[TEXT...],"where":["K=V"|["K","V"]...],"provenance":bool}, in pages: body gets
 * {"schema":"siofleet.results/1","columns":[...],"rows":[[...]]}, cursor ("" = from the start) the place of the next page
 * or "" after the last. sql: args {"sql":TEXT}, limit_ms 0 = none. -SF_EUSAGE for what is no column, no sweep or not one
 * SELECT over the views. */
enum { STORE_CURSOR = 96, STORE_PAGE_ROWS = 1000, STORE_PAGE_B = 900 << 10 };
int store_results(struct store *st, const json_t *args, const char *cursor, struct buf *body,
                  char next[STORE_CURSOR], struct err *e);
int store_sql(struct store *st, const json_t *args, uint64_t limit_ms, const char *cursor,
              struct buf *body, char next[STORE_CURSOR], struct err *e);
/* siofleet.ls/1 of artefacts, in pages. */
int store_ls_artefacts(struct store *st, const char *cursor, struct buf *body,
                       char next[STORE_CURSOR], struct err *e);

/* The default columns, and those that --provenance adds, in order. */
const char *const *store_column_names(void);
extern const size_t store_n_columns, store_n_provenance; /* provenance follows the default ones */
