/* What the store's tables and views look like, and how an older store comes to look so. */
#include "coordinator/store_in.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"

/* ---- schema. Versions are frozen texts: a change is a new version. */

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

static const char schema_3[] =
    "CREATE TABLE t_task(task INTEGER PRIMARY KEY, sweep INTEGER, kind TEXT NOT NULL, key BLOB,"
    " spans BLOB, fails INTEGER NOT NULL, quarantined INTEGER NOT NULL, kills BLOB, why TEXT)"
    " STRICT;"
    "ALTER TABLE t_agent ADD COLUMN drained_why TEXT;"
    "ALTER TABLE t_agent ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE t_sweep ADD COLUMN misfit INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE t_aside(seq INTEGER PRIMARY KEY, sweep INTEGER NOT NULL, idx INTEGER NOT NULL,"
    " kind TEXT NOT NULL, task INTEGER, epoch INTEGER, n INTEGER, install BLOB, at_ms INTEGER)"
    " STRICT;"
    "CREATE INDEX i_aside ON t_aside(sweep, idx);"
    "CREATE TABLE t_canary(install BLOB NOT NULL, engine INTEGER NOT NULL, at_ms INTEGER NOT NULL,"
    " sweep INTEGER NOT NULL, idx INTEGER NOT NULL, verdict TEXT NOT NULL,"
    " PRIMARY KEY(install, engine)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX i_attempt_ended ON t_attempt(ended_ms) WHERE ended_ms IS NOT NULL;"
    "CREATE INDEX i_attempt_bad ON t_attempt(install, ended_ms) WHERE cause <> 'done';";

/* Jobs: commands and collections. A task of one has its number from the start and its answer when it is over. */
static const char schema_4[] =
    "CREATE TABLE t_job(seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, request_id TEXT UNIQUE,"
    " kind TEXT NOT NULL, name TEXT NOT NULL, json TEXT NOT NULL, state INTEGER NOT NULL,"
    " held INTEGER NOT NULL, priority INTEGER NOT NULL, submitted_ms INTEGER NOT NULL,"
    " ended_ms INTEGER, by TEXT) STRICT;"
    "CREATE TABLE t_jobtask(task INTEGER PRIMARY KEY, job INTEGER NOT NULL, idx INTEGER NOT NULL,"
    " key BLOB, install BLOB, state INTEGER NOT NULL, cause TEXT, exit INTEGER, signal INTEGER,"
    " duration_ms INTEGER, agent TEXT, info TEXT, tail TEXT, ended_ms INTEGER) STRICT;"
    "CREATE UNIQUE INDEX i_jobtask_job ON t_jobtask(job, idx);"
    "CREATE INDEX i_jobtask_key ON t_jobtask(key) WHERE state = 2;";

/* Sweeps with [collect]. */
static const char schema_5[] =
    "CREATE TABLE t_after(sweep INTEGER PRIMARY KEY, job INTEGER NOT NULL,"
    " bound INTEGER NOT NULL DEFAULT 0) STRICT;";

/* The log that a collection's task made: by it a row finds the QEMU series behind its trace. */
#define TASK_INFO(x)                                                                               \
    "CASE WHEN json_valid(" x "info) THEN json_extract(" x "info, '$.files[0].id') END"
static const char schema_6[] = "CREATE INDEX i_jobtask_log ON t_jobtask(" TASK_INFO(
    "") ");"
        "CREATE INDEX i_recipe_trace ON t_recipe(trace);"
        /* Trace files have a new version: what was built is built again when it is asked for. The recipes
         * stay under other names, for the provenance of old rows. */
        "UPDATE t_recipe SET id = randomblob(32);";

/* What needs which artefact: traces that results were computed from, and what people want kept. */
static const char schema_7[] =
    "ALTER TABLE t_artefact ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE t_trace ADD COLUMN used INTEGER NOT NULL DEFAULT 0;"
    "UPDATE t_trace SET used = 1 WHERE num IN (SELECT trace FROM t_row);";

static const char schema_8[] = "ALTER TABLE t_attempt ADD COLUMN boot INTEGER;";

static const char schema_9[] = "ALTER TABLE t_agent ADD COLUMN drained_until_ms INTEGER;";

/* Points are looked up by a number that keeps neighbours together: db_fill_near() adds the numbers and their index, at version 13. */
static const char schema_10[] = "ALTER TABLE t_row ADD COLUMN near INTEGER;"
                                "DROP INDEX i_row_point;";

/* Pages have checksums (store_sum.c): a program that does not know them must not write. */
static const char schema_11[] = "";

static const char schema_12[] = "ALTER TABLE t_agent ADD COLUMN drain_from_ms INTEGER;";

/* Architecture and statistics of a row are one value each (store_pack.c), no longer a column a number: db_pack_rows(). */
static const char schema_13[] = "";

static const char *const schemas[STORE_VERSION] = { schema_1, schema_2,  schema_3,  schema_4,
                                                    schema_5, schema_6,  schema_7,  schema_8,
                                                    schema_9, schema_10, schema_11, schema_12,
                                                    schema_13 };

/* ---- columns of results: view expression and name, in the order that scripts rely on */

#define HEX(x) "lower(hex(" x "))"
#define TIME(x) "strftime('%Y-%m-%dT%H:%M:%fZ'," x "/1000.0,'unixepoch')"
#define DONE(x) "CASE r.status WHEN 0 THEN " x " END"
#define FACT(x) "json_extract(g.facts,'$." x "')"

#define ARCH_OF(name) "arch_" #name "(r.arch)"
#define ARCH_EXPR_NUM(name) ARCH_OF(name), true
#define ARCH_EXPR_BOOL(name) "CASE " ARCH_OF(name) " WHEN 0 THEN 'no' WHEN 1 THEN 'yes' END", false
#define ARCH_EXPR_POLICY(name)                                                                     \
    "CASE " ARCH_OF(name) " WHEN 0 THEN 'lru' WHEN 1 THEN 'lfu' WHEN 2 THEN 'oracle' END", false

#define S(x)                                                                                       \
    {                                                                                              \
#x, "stat_" #x "(r.stats)", true                                                           \
    }
static const struct column columns[] = {
    { "name", "w.name", false },
    { "index", "r.idx", true },
    { "point", "CASE WHEN r.point IS NOT NULL THEN " HEX("r.point") " END", false },
    { "trace", "CASE WHEN t.id IS NOT NULL AND t.info IS NOT 'absent' THEN " HEX("t.id") " END",
      false },
    { "rules", "json_extract(w.json,'$.rules')", false },
    { "tenants", "nullif(t.tenants, 0)", true },
    { "order", "t.ord", false },
    { "burst", "t.burst", true },
    { "seed", "t.seed", true },
    { "replicate", "t.replicate", true },
#define X(name, kind, def, lo, hi) { #name, ARCH_EXPR_##kind(name) },
    ARCH_KEYS(X)
#undef X
        { "status", "CASE r.status WHEN 0 THEN 'done' WHEN 1 THEN 'failed' ELSE 'invalid' END",
          false },
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
    { "sweep", HEX("w.id"), false },
    { "epoch", "r.epoch", true },
    { "attempt", "r.n", true },
    { "agent", "g.name", false },
    { "boot", "g.boot", true },
    { "host", FACT("host"), false },
    { "started", "CASE WHEN r.started_ms IS NOT NULL THEN " TIME("r.started_ms") " END", false },
    { "duration_ms", "r.duration_us / 1000", true },
    { "engine", "CASE WHEN n.id IS NOT NULL THEN " HEX("n.id") " END", false },
    { "isa", FACT("isa"), false },
    { "threads", "r.threads", true },
    { "cpu", FACT("cpu"), false },
    { "microcode", FACT("microcode"), false },
    { "kernel", FACT("kernel"), false },
    { "governor", FACT("governor"), false },
    { "logs",
      "(SELECT json_extract(c.json,'$.logs') FROM t_recipe c WHERE c.trace = r.trace LIMIT 1)",
      false },
    { "qemu_series",
      "(SELECT group_concat(DISTINCT json_extract(j.info,'$.qemu.series')) FROM t_jobtask j "
      "WHERE " TASK_INFO(
          "j.") " IN (SELECT CASE l.type WHEN 'object' THEN json_extract(l.value,'$.id')"
                " ELSE l.value END FROM json_each((SELECT json_extract(c.json,'$.logs') FROM "
                "t_recipe c"
                " WHERE c.trace = r.trace LIMIT 1)) l))",
      false },
    { "accel", FACT("accel"), false },
    { "error", "r.error", false },
    { "task", "r.task", true },
};
enum {
    N_COLUMNS = ARRAY_LEN(columns),
    N_PROVENANCE = ARRAY_LEN(provenance),
    N_ALL = N_COLUMNS + N_PROVENANCE,
};
const size_t store_n_columns = N_COLUMNS, store_n_provenance = N_PROVENANCE;

const struct column *store_column(size_t i)
{
    return i < N_COLUMNS ? &columns[i] : &provenance[i - N_COLUMNS];
}

/* The views are made anew when a store is opened for writing: they follow the program, not the file. */
/* clang-format off */
static const char views[] =
    "DROP VIEW IF EXISTS sweeps; DROP VIEW IF EXISTS attempts; DROP VIEW IF EXISTS agents;"
    "DROP VIEW IF EXISTS artefacts; DROP VIEW IF EXISTS results;"
    "CREATE VIEW sweeps AS SELECT " HEX("id") " AS sweep, seq, name, CASE state WHEN 0 THEN 'queued' WHEN 1 THEN"
    " 'running' WHEN 2 THEN 'done' WHEN 3 THEN 'failed' ELSE 'cancelled' END AS state, held, priority, points, done,"
    " failed, invalid, known, equal, late, differing, " TIME("submitted_ms") " AS submitted, " TIME("ended_ms")
    " AS ended FROM t_sweep;"
    "CREATE VIEW attempts AS SELECT a.task, a.epoch, a.n, " HEX("w.id") " AS sweep, a.kind, g.name AS agent,"
    " a.points, " TIME("a.granted_ms") " AS granted, " TIME("a.ended_ms") " AS ended, a.cause, a.exit, a.signal,"
    " a.tail, a.boot FROM t_attempt a LEFT JOIN t_sweep w ON w.seq = a.sweep LEFT JOIN t_agent g ON g.install = a.install;"
    "CREATE VIEW agents AS SELECT name, " HEX("install") " AS install, version, labels, boot, cores, memory_mib,"
    " CASE kvm WHEN 1 THEN 'usable' ELSE 'unusable' END AS kvm, drained, " TIME("last_seen_ms")
    " AS last_seen, facts FROM t_agent;"
    "CREATE VIEW artefacts AS SELECT " HEX("id") " AS id, size_b, kind, name, " TIME("added_ms")
    " AS added, by, pinned FROM t_artefact;";
/* clang-format on */

const char store_results_from[] =
    " FROM t_row r JOIN t_sweep w ON w.seq = r.sweep LEFT JOIN t_trace t ON t.num = r.trace"
    " LEFT JOIN t_reg g ON g.num = r.reg LEFT JOIN t_engine n ON n.num = r.engine";

/* Made anew when this program would make others than those that are there. */
static int make_views(struct store *st, struct err *e)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(64 << 10);
    int r = buf_adds(&b, views);
    if (r >= 0)
        r = buf_adds(&b, "CREATE VIEW results AS SELECT ");
    for (size_t i = 0; r >= 0 && i < N_ALL; i++)
        r = buf_addf(&b, "%s%s AS \"%s\"", i ? ", " : "", store_column(i)->expr,
                     store_column(i)->name);
    if (r >= 0)
        r = buf_addf(&b, "%s;", store_results_from);
    if (r < 0)
        return err_sys(e, -r, "%s: views", st->path);
    uint64_t have, want = hash_fast(b.data, b.len, 0) >> 1; /* SQLite's integers have a sign */
    r = store_get(st, "views", &have, e);
    if (r < 0 || have == want)
        return r;
    r = db_exec(st, (const char *)b.data, e, "views");
    return r < 0 ? r : store_set(st, "views", want, e);
}

int db_version(struct store *st, uint64_t *ret, struct err *e)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(st->db, "PRAGMA user_version", -1, &s, NULL);
    if (rc == SQLITE_OK && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        *ret = db_u64(s, 0);
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

int db_migrate(struct store *st, struct err *e)
{
    uint64_t v = 0;
    int r = db_version(st, &v, e);
    if (r >= 0)
        r = store_begin(st, e);
    char sql[64];
    for (; r >= 0 && v < STORE_VERSION; v++) {
        r = db_exec(st, schemas[v], e, "migrate");
        if (r >= 0 && schemas[v] == schema_13)
            r = db_pack_rows(st, e);
        snprintf(sql, sizeof(sql), "PRAGMA user_version = %" PRIu64, v + 1);
        if (r >= 0)
            r = db_exec(st, sql, e, "migrate");
    }
    if (r >= 0)
        r = make_views(st, e);
    if (r >= 0)
        return store_commit(st, e);
    store_rollback(st);
    return r;
}
static const char *names_[N_ALL];
const char *const *store_column_names(void)
{
    for (size_t i = 0; i < N_ALL && !names_[i]; i++)
        names_[i] = store_column(i)->name;
    return names_;
}
