/* Traces, artefacts and agents. */
#include "coordinator/store_in.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool db_id_range(const char *text, struct id *lo, struct id *hi)
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
/* ---- traces and artefacts */

#define TRACE_COLS "t.num,t.id,t.tenants,t.ord,t.burst,t.seed,t.replicate,t.rules"

static int one_trace(struct store *st, sqlite3_stmt *s, struct store_trace *t, struct err *e)
{
    int r = db_step(st, s, e, "read");
    if (r == 1) {
        *t = (struct store_trace){ .num = db_u64(s, 0),
                                   .tenants = db_u64(s, 2),
                                   .burst = db_u64(s, 4),
                                   .seed = db_u64(s, 5),
                                   .replicate = db_u64(s, 6) };
        db_id(s, 1, &t->id);
        db_text(s, 3, t->order, sizeof(t->order));
        db_text(s, 7, t->rules, sizeof(t->rules));
    }
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : -ENOENT;
}

int store_trace(struct store *st, const struct id *id, struct store_trace *ret, struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT " TRACE_COLS " FROM t_trace t WHERE t.id = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "i", id);
    return one_trace(st, s, ret, e);
}

int store_recipe(struct store *st, const struct id *recipe, struct store_trace *ret, struct err *e)
{
    sqlite3_stmt *s = db_use(st,
                             "SELECT " TRACE_COLS
                             " FROM t_recipe c JOIN t_trace t ON t.num = c.trace WHERE c.id = ?",
                             e);
    if (!s)
        return -EIO;
    db_bind(s, "i", recipe);
    return one_trace(st, s, ret, e);
}

int store_add_trace(struct store *st, struct store_trace *t, const char *info, struct err *e)
{
    sqlite3_stmt *s = db_use(st,
                             "INSERT INTO t_trace(id,tenants,ord,burst,seed,replicate,rules,info)"
                             " VALUES(?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
                             e);
    if (!s)
        return -EIO;
    db_bind(s, "iutuuutt", &t->id, t->tenants, t->order, t->burst, t->seed, t->replicate, t->rules,
            info);
    int r = db_step(st, s, e, "trace");
    return r < 0 ? r : store_trace(st, &t->id, t, e);
}

int store_add_recipe(struct store *st, const struct id *recipe, const struct id *trace,
                     const char *json, struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "INSERT INTO t_recipe(id,trace,json) SELECT ?1, num, ?3 FROM t_trace WHERE id = ?2"
               " ON CONFLICT DO UPDATE SET trace = excluded.trace, json = excluded.json",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "iit", recipe, trace, json);
    return db_step(st, s, e, "recipe");
}

int store_add_artefact(struct store *st, const struct store_artefact *a, const char *by,
                       struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "INSERT INTO t_artefact(id,size_b,kind,name,added_ms,by) VALUES(?,?,?,?,?,?)"
               " ON CONFLICT DO NOTHING",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "iuttut", &a->id, a->size_b, a->kind, a->name, a->added_ms, by);
    return db_step(st, s, e, "artefact");
}

void db_artefact(sqlite3_stmt *s, struct store_artefact *a)
{
    *a = (struct store_artefact){ .size_b = db_u64(s, 1),
                                  .added_ms = db_u64(s, 4),
                                  .pinned = db_u64(s, 5) };
    db_id(s, 0, &a->id);
    db_text(s, 2, a->kind, sizeof(a->kind));
    db_text(s, 3, a->name, sizeof(a->name));
}

int store_artefact(struct store *st, const char *text, struct store_artefact *ret, struct err *e)
{
    struct id lo, hi;
    sqlite3_stmt *s;
    if (!strcmp(text, "last")) {
        s = db_use(
            st,
            "SELECT id,size_b,kind,name,added_ms,pinned,1 FROM t_artefact ORDER BY added_ms DESC"
            " LIMIT 1",
            e);
    } else {
        if (!db_id_range(text, &lo, &hi))
            return err_set(e, SF_EUSAGE, "%.128s: not an id, nor 8 or more digits of one", text);
        s = db_use(
            st,
            "SELECT id,size_b,kind,name,added_ms,pinned,(SELECT count(*) FROM t_artefact WHERE id "
            "BETWEEN ?1 AND ?2)"
            " FROM t_artefact WHERE id BETWEEN ?1 AND ?2 LIMIT 1",
            e);
        if (s)
            db_bind(s, "ii", &lo, &hi);
    }
    if (!s)
        return -EIO;
    int r = db_step(st, s, e, "read");
    uint64_t n = 0;
    if (r == 1) {
        db_artefact(s, ret);
        n = db_u64(s, 6);
    }
    sqlite3_reset(s);
    if (r < 0)
        return r;
    if (n > 1)
        return err_set(e, SF_EUSAGE, "%s: stands for %" PRIu64 " artefacts", text, n);
    return n ? 0 : err_set(e, ENOENT, "%.128s: no such artefact", text);
}

int store_artefacts(struct store *st, int (*cb)(void *ctx, const struct store_artefact *a),
                    void *ctx, struct err *e)
{
    sqlite3_stmt *s =
        db_use(st, "SELECT id,size_b,kind,name,added_ms,pinned FROM t_artefact ORDER BY id", e);
    if (!s)
        return -EIO;
    int r, stop = 0;
    while (!stop && (r = db_step(st, s, e, "read")) == 1) {
        struct store_artefact a;
        db_artefact(s, &a);
        stop = cb(ctx, &a);
    }
    sqlite3_reset(s);
    return stop ? stop : r;
}

/* ---- agents */

#define AGENT_COLS                                                                                 \
    "install,key,name,version,labels,boot,cores,memory_mib,kvm,drained,last_seen_ms,engine,"       \
    "drained_why,stopped,drained_until_ms,drain_from_ms"

static void get_agent(sqlite3_stmt *s, struct store_agent *a)
{
    memset(a, 0, sizeof(*a));
    if (sqlite3_column_bytes(s, 0) == 16)
        memcpy(a->install, sqlite3_column_blob(s, 0), 16);
    db_text(s, 1, a->key, sizeof(a->key));
    db_text(s, 2, a->name, sizeof(a->name));
    db_text(s, 3, a->version, sizeof(a->version));
    db_text(s, 4, a->labels, sizeof(a->labels));
    a->boot = db_u64(s, 5);
    a->cores = db_u64(s, 6);
    a->memory_mib = db_u64(s, 7);
    a->kvm = db_u64(s, 8);
    a->drained = db_u64(s, 9);
    a->last_seen_ms = db_u64(s, 10);
    db_id(s, 11, &a->engine);
    db_text(s, 12, a->why, sizeof(a->why));
    a->stopped = db_u64(s, 13);
    a->drained_until_ms = db_u64(s, 14);
    a->drain_from_ms = db_u64(s, 15);
}

int store_add_agent(struct store *st, struct store_agent *a, const char *facts, uint64_t *ret_reg,
                    struct err *e)
{
    sqlite3_stmt *s = db_use(
        st,
        "INSERT INTO "
        "t_agent(install,key,name,version,labels,boot,cores,memory_mib,kvm,last_seen_ms,"
        "engine,facts) VALUES(?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(install) DO UPDATE SET key ="
        " excluded.key, name = excluded.name, version = excluded.version, labels = excluded.labels,"
        " boot = excluded.boot, cores = excluded.cores, memory_mib = excluded.memory_mib, kvm ="
        " excluded.kvm, last_seen_ms = excluded.last_seen_ms, engine = excluded.engine, facts ="
        " excluded.facts, stopped = 0",
        e);
    if (!s)
        return -EIO;
    db_bind(s, "btttt", a->install, (size_t)16, a->key, a->name, a->version, a->labels);
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
    s = db_use(
        st, "INSERT INTO t_reg(install,boot,name,facts) VALUES(?,?,?,?) ON CONFLICT DO NOTHING", e);
    if (!s)
        return -EIO;
    db_bind(s, "butt", a->install, (size_t)16, a->boot, a->name, facts);
    int r = db_step(st, s, e, "agent");
    if (r < 0)
        return r;
    s = db_use(st, "SELECT num FROM t_reg WHERE install = ? AND boot = ? AND facts = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "but", a->install, (size_t)16, a->boot, facts);
    r = db_step(st, s, e, "agent");
    if (r == 1)
        *ret_reg = db_u64(s, 0);
    sqlite3_reset(s);
    if (r < 0)
        return r;
    s = db_use(st, "SELECT " AGENT_COLS " FROM t_agent WHERE install = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "b", a->install, (size_t)16);
    r = db_step(st, s, e, "agent");
    if (r == 1)
        get_agent(s, a);
    sqlite3_reset(s);
    return r < 0 ? r : 0;
}

int store_find_agent(struct store *st, const char *name, struct store_agent *ret, struct err *e)
{
    sqlite3_stmt *s =
        db_use(st,
               "SELECT " AGENT_COLS " FROM t_agent WHERE name = ?1 OR lower(hex(install)) = ?1"
               " ORDER BY last_seen_ms DESC LIMIT 1",
               e);
    if (!s)
        return -EIO;
    db_bind(s, "t", name);
    int r = db_step(st, s, e, "read");
    if (r == 1)
        get_agent(s, ret);
    sqlite3_reset(s);
    return r < 0 ? r : r ? 0 : err_set(e, ENOENT, "%.128s: no such agent", name);
}

int store_agent_drained(struct store *st, const uint8_t install[16], bool drained, const char *why,
                        uint64_t from_ms, uint64_t until_ms, struct err *e)
{
    sqlite3_stmt *s = db_use(st,
                             "UPDATE t_agent SET drained = ?, drained_why = ?, drain_from_ms = ?,"
                             " drained_until_ms = ? WHERE install = ?",
                             e);
    if (!s)
        return -EIO;
    db_bind(s, "utzzb", (uint64_t)drained, why, from_ms, until_ms, install, (size_t)16);
    return db_step(st, s, e, "agent");
}

int store_agent_stopped(struct store *st, const uint8_t install[16], uint64_t wall_ms,
                        struct err *e)
{
    sqlite3_stmt *s =
        db_use(st, "UPDATE t_agent SET stopped = 1, last_seen_ms = ? WHERE install = ?", e);
    if (!s)
        return -EIO;
    db_bind(s, "ub", wall_ms, install, (size_t)16);
    return db_step(st, s, e, "agent");
}

int store_agents(struct store *st, int (*cb)(void *ctx, const struct store_agent *a), void *ctx,
                 struct err *e)
{
    sqlite3_stmt *s = db_use(st, "SELECT " AGENT_COLS " FROM t_agent ORDER BY name, install", e);
    if (!s)
        return -EIO;
    int r;
    while ((r = db_step(st, s, e, "read")) == 1) {
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
        sqlite3_stmt *s = db_use(st, "SELECT num FROM t_engine WHERE id = ?", e);
        if (!s)
            return -EIO;
        db_bind(s, "i", engine);
        int r = db_step(st, s, e, "read");
        if (r == 1)
            *ret_num = db_u64(s, 0);
        sqlite3_reset(s);
        if (r)
            return r < 0 ? r : 0;
        if (turn || !(s = db_use(st, "INSERT INTO t_engine(id) VALUES(?)", e)))
            break;
        db_bind(s, "i", engine);
        r = db_step(st, s, e, "engine");
        if (r < 0)
            return r;
    }
    return -EIO;
}
