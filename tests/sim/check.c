/* The rules. Each is checked at the step that could break it, by standing between the parts (--wrap of the linker):
 *
 *   - what is acknowledged is durable: nothing unsynced in the store when an acknowledgement leaves; and whenever a
 *     coordinator starts, every row acknowledged before is in the store, with its right value;
 *   - one accepted result a point, and no other value than the right one;
 *   - an attempt (task, epoch, n) goes to one agent, and runs on one;
 *   - epochs only grow, one a start;
 *   - the invariants of the machines themselves: sched_check(), core_check(), core_move_ok(), xfer_recv_check();
 *   - every queue is within its cap;
 *   - what is moved: check_move.c;
 *   - when the faults have stopped, everything ends: sweeps, tasks, folders, processes.
 */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core.h"
#include "coordinator/hub.h"
#include "coordinator/peers.h"
#include "coordinator/store_in.h"
#include "proto/format/row.h"
#include "proto/link/link.h"
#include "proto/xfer/xfer.h"
#include "tests/sim/mutants.h"
#include "tests/sim/sim.h"

enum {
    SEEN_SWEEPS = 16,
    ATTEMPTS = 1 << 13,
    BATCHES = 512,
    ARTEFACTS = 32,
    STORE = COORDINATOR_HOST
};

struct seen { /* a sweep that rows came for */
    struct id id;
    /* by the lowest bit of the result's time: a wrong host turns it */
    uint8_t acked[2][PLAN_POINTS_MAX / 8];
};

struct attempt {
    uint64_t task, epoch, n;
    unsigned granted, ran; /* host + 1 */
};

struct batch {
    uint64_t task, epoch, n, seq;
    struct seen *sweep;
    size_t n_rows;
    struct {
        uint32_t index;
        bool done, odd;
    } row[64];
};

static struct {
    struct seen seen[SEEN_SWEEPS];
    unsigned n_seen;
    struct attempt *attempt; /* ATTEMPTS, hashed */
    struct batch *batch;     /* BATCHES, newest in turn */
    unsigned next_batch;
    uint64_t epoch, grants;
    const struct part *welcomed_by;
    struct {
        struct id id;
        bool submitted, cancelled;
    } promise[PLAN_SWEEPS_MAX];
    struct id have[ARTEFACTS]; /* that the coordinator said it has */
    unsigned n_have;
    struct {
        unsigned host;
        char name[ID_HEX_LEN];
    } rotten[ARTEFACTS];
    unsigned n_rotten, welcomed; /* welcomed: a bit a host */
    struct hub *hub;             /* of the coordinator that runs */
    const struct core *core[HOSTS_MAX];
} check;

void check_begin(void)
{
    struct attempt *a = check.attempt;
    struct batch *b = check.batch;
    memset(&check, 0, sizeof(check));
    check.attempt = a ? a : malloc(ATTEMPTS * sizeof(*a));
    check.batch = b ? b : malloc(BATCHES * sizeof(*b));
    if (!check.attempt || !check.batch)
        abort();
    memset(check.attempt, 0, ATTEMPTS * sizeof(*a));
    memset(check.batch, 0, BATCHES * sizeof(*b));
    check_obey_begin();
}

void check_clear(void)
{
    free(check.attempt);
    free(check.batch);
    memset(&check, 0, sizeof(check));
}

void check_result(uint64_t seed, uint64_t gbps, struct row_stats *ret)
{
    struct rng r = { seed * 1000003 + gbps };
    memset(ret, 0, sizeof(*ret));
    ret->time_ps = rng_u64(&r) >> 24;
    ret->requests = rng_u64(&r) >> 40;
    ret->mbps = rng_u64(&r) >> 44;
    ret->jain_ppm = rng_below(&r, 1000001);
}

/* Whether the plan lets a point end as failed, or with a wrong value. */
static bool may(enum plan_verb a, enum plan_verb b)
{
    for (size_t i = 0; i < world.plan->n_ev; i++)
        if (world.plan->ev[i].verb == a || world.plan->ev[i].verb == b)
            return true;
    return false;
}

static bool may_fail(void)
{
    return may(PLAN_poison, PLAN_bad) || may(PLAN_hang, PLAN_killtask) ||
           may(PLAN_full, PLAN_eio) || may(PLAN_enospc, PLAN_torn) ||
           may(PLAN_nosync, PLAN_power) || may(PLAN_powerop, PLAN_slow);
}

/* ---- attempts */

static struct attempt *attempt(uint64_t task, uint64_t epoch, uint64_t n)
{
    struct rng r = { task * 31 + epoch * 1009 + n };
    for (size_t i = rng_below(&r, ATTEMPTS);; i = (i + 1) % ATTEMPTS) {
        struct attempt *a = &check.attempt[i];
        if (!a->task)
            *a = (struct attempt){ .task = task, .epoch = epoch, .n = n };
        if (a->task == task && a->epoch == epoch && a->n == n)
            return a;
    }
}

static void check_grant(const struct msg_grant *m, unsigned host)
{
    struct attempt *a = attempt(m->task, m->epoch, m->n);
    if (++check.grants > ATTEMPTS / 2) {
        sim_fail("more than %d grants: it does not come to an end", ATTEMPTS / 2);
        return;
    }
    if (a->granted && a->granted != host + 1)
        sim_fail("task %" PRIu64 ", attempt (%" PRIu64 ", %" PRIu64 ") is granted to %s and to %s",
                 m->task, m->epoch, m->n, world.host[a->granted - 1].name, world.host[host].name);
    a->granted = host + 1;
}

void check_task_started(const char *dir, unsigned host)
{
    uint64_t task, epoch, n;
    const char *name = strrchr(dir, '/') + 1;
    if (sscanf(name, "%" SCNu64 "-%" SCNu64 "-%" SCNu64, &task, &epoch, &n) != 3)
        return;
    struct attempt *a = attempt(task, epoch, n);
    if (a->ran && a->ran != host + 1)
        sim_fail("task %s runs on %s and on %s", name, world.host[a->ran - 1].name,
                 world.host[host].name);
    a->ran = host + 1;
}

/* ---- what the coordinator was told and what it promised */

static struct seen *seen(const struct id *id)
{
    for (unsigned i = 0; i < check.n_seen; i++)
        if (id_eq(&check.seen[i].id, id))
            return &check.seen[i];
    if (check.n_seen == SEEN_SWEEPS)
        return NULL;
    check.seen[check.n_seen].id = *id;
    return &check.seen[check.n_seen++];
}

static struct batch *find_batch(uint64_t task, uint64_t epoch, uint64_t n, uint64_t seq)
{
    for (unsigned i = 0; i < BATCHES; i++) {
        struct batch *b = &check.batch[(check.next_batch + BATCHES - 1 - i) % BATCHES];
        if (!b->task)
            return NULL;
        if (b->task == task && b->epoch == epoch && b->n == n && b->seq == seq)
            return b;
    }
    return NULL;
}

static bool is_canary(uint64_t task)
{
    for (const struct hub_agent *a = check.hub ? check.hub->agents : NULL; a; a = a->next)
        if (a->canary.task == task)
            return true;
    return false;
}

static bool acked(const struct seen *s, uint64_t index, bool odd)
{
    return index < PLAN_POINTS_MAX && (s->acked[odd][index / 8] >> index % 8 & 1);
}

/* The rows of m, in the form in which they can be changed. For mutants. */
static struct msg twisted(const struct seen *s, const struct msg *m)
{
    static struct wire_row rows[ROWS_MAX];
    static uint8_t bytes[ROWS_MAX][ROW_STATS_BYTES];
    struct msg t = { .type = M_ROWS };
    struct rows_reader in;
    struct row_stats stats;
    rows_reader_init(&in, m, &t.rows, NULL);
    t.rows.rows = rows;
    for (struct wire_row *w = rows; rows_next(&in, w, &stats); w++) {
        if (!w->stats_len)
            continue;
        if (acked(s, w->index, !(stats.time_ps & 1)))
            stats.time_ps ^= 1;
        row_stats_pack(&stats, bytes[w - rows]);
        w->stats = bytes[w - rows];
        w->stats_len = ROW_STATS_BYTES;
    }
    return t;
}

void __real_hub_rows(struct hub *h, const struct peer *p, const struct msg *m);
void __wrap_hub_rows(struct hub *h, const struct peer *p, const struct msg *m);
void __wrap_hub_rows(struct hub *h, const struct peer *p, const struct msg *m)
{
    struct rows_reader in;
    struct msg_rows head;
    struct wire_row w;
    struct row_stats stats;
    struct err e = { 0 };
    if (rows_reader_init(&in, m, &head, &e) < 0)
        sim_fail("%s", e.text);
    struct seen *s = seen(&head.sweep);
    struct batch *b = NULL;
    bool canary = s && is_canary(head.task);
    while (s && rows_next(&in, &w, &stats)) {
        bool odd = w.stats_len && stats.time_ps & 1;
        if (canary) {
            /* of an epoch before: a late row that differs, and no canary any more */
            if (head.epoch == check.epoch && w.status == ROW_DONE && acked(s, w.index, !odd) &&
                !acked(s, w.index, odd))
                check_canary_differs(p->addr, head.task);
            continue;
        }
        if (!b || b->n_rows == sizeof(b->row) / sizeof(b->row[0])) {
            b = &check.batch[check.next_batch++ % BATCHES];
            *b = (struct batch){ head.task, head.epoch, head.n, head.seq, .sweep = s };
        }
        b->row[b->n_rows].index = (uint32_t)w.index;
        b->row[b->n_rows].odd = odd;
        b->row[b->n_rows++].done = w.status == ROW_DONE;
    }
    if (!mutant("differing-silent") || !s || canary) {
        __real_hub_rows(h, p, m);
        return;
    }
    struct msg t = twisted(s, m);
    __real_hub_rows(h, p, &t);
}

/* Nothing that is promised may still be in the disk's cache. A fault since the last sync leaves garbage there rightly. */
static void check_durable(const char *what)
{
    if (disk_unsynced("/sim/c/data/store.db-wal"))
        sim_fail("%s is sent before the store is synced", what);
}

void check_have(const struct id *id)
{
    for (unsigned i = 0; i < check.n_have; i++)
        if (id_eq(&check.have[i], id))
            return;
    if (check.n_have < ARTEFACTS)
        check.have[check.n_have++] = *id;
}

void check_sent(struct part *from, unsigned to, const struct msg *m)
{
    struct batch *b;
    if (!from->dead)
        check_message(from->host, to, m);
    if (from->kind != PART_COORDINATOR || from->dead)
        return;
    switch (m->type) {
    case M_WELCOME:
        if (check.welcomed_by != from && m->welcome.epoch <= check.epoch)
            sim_fail("epoch %" PRIu64 " after epoch %" PRIu64, m->welcome.epoch, check.epoch);
        check.welcomed_by = from;
        check.welcomed |= 1u << to;
        if (to == USER_HOST)
            sim_fail("a second install has an agent's key and is welcome");
        check.epoch = m->welcome.epoch;
        check_durable("welcome");
        break;
    case M_GRANT:
        check_grant(&m->grant, to);
        check_obey_grant(to, &m->grant, is_canary(m->grant.task));
        check_durable("grant");
        break;
    case M_ROWS_ACK:
        check_durable("rows_ack");
        b = find_batch(m->rows_ack.task, m->rows_ack.epoch, m->rows_ack.n, m->rows_ack.seq);
        for (size_t i = 0; b && i < b->n_rows; i++)
            if (b->row[i].done && b->row[i].index < PLAN_POINTS_MAX)
                b->sweep->acked[b->row[i].odd][b->row[i].index / 8] |=
                    (uint8_t)(1u << b->row[i].index % 8);
        break;
    case M_PUT_HAVE:
        check_durable("put_have");
        check_have(&m->put_have.id);
        break;
    case M_STREAM_OVER:
        check_durable("stream_over");
        break;
    case M_END_ACK:
        check_durable("end_ack");
        if (m->end_ack.epoch == check.epoch)
            check_canary_over(to, m->end_ack.task);
        break;
    case M_SUBMITTED:
        check_durable("submitted");
        break;
    default:
        break;
    }
}

void check_submitted(const struct id *sweep, unsigned no)
{
    if (check.promise[no].submitted && !id_eq(&check.promise[no].id, sweep))
        sim_fail("sweep s%u was submitted once and is there twice", no);
    check.promise[no].submitted = true;
    check.promise[no].id = *sweep;
}

void check_cancelled(unsigned no, bool is)
{
    check.promise[no].cancelled = is;
}

/* ---- machines */

int __real_sched_step(struct sched *s, const struct sched_event *ev, uint64_t now_ms,
                      struct sched_actions *out, struct err *e);
int __wrap_sched_step(struct sched *s, const struct sched_event *ev, uint64_t now_ms,
                      struct sched_actions *out, struct err *e);
int __wrap_sched_step(struct sched *s, const struct sched_event *ev, uint64_t now_ms,
                      struct sched_actions *out, struct err *e)
{
    struct err why = { 0 };
    int type = (int)ev->type;
    size_t orphans = 0;
    if (mutant_event(s, ev, now_ms))
        return 0;
    if (ev->type == EV_TICK && now_ms <= s->start_ms + s->cfg.lease_ms)
        orphans = check_orphans(s);
    int r = __real_sched_step(s, ev, now_ms, out, e);
    mutant_actions(out);
    if (orphans && check_orphans(s) < orphans)
        sim_fail("what an agent may still claim was given up %d ms after the start",
                 (int)(now_ms - s->start_ms));
    if (sched_check(s, &why) < 0)
        sim_fail("scheduler, after event %d: %s", type, why.text);
    if (s->bad_moves)
        sim_fail("scheduler, event %d: a move that its table does not allow", type);
    return r;
}

void __real_core_step(struct core *c, const struct core_event *ev, uint64_t now_ms,
                      struct core_actions *out);
void __wrap_core_step(struct core *c, const struct core_event *ev, uint64_t now_ms,
                      struct core_actions *out);
void __wrap_core_step(struct core *c, const struct core_event *ev, uint64_t now_ms,
                      struct core_actions *out)
{
    struct core_task was[CORE_TASKS_MAX];
    memcpy(was, c->t, sizeof(was));
    if (mutant("cancel-unheard") && (ev->kind == CORE_CANCEL || ev->kind == CORE_DROPPED)) {
        out->n = 0;
        return;
    }
    __real_core_step(c, ev, now_ms, out);
    const char *why = core_check(c);
    if (why)
        sim_fail("%s, after event %d: %s", world.cur->name, (int)ev->kind, why);
    for (size_t i = 0; i < CORE_TASKS_MAX; i++)
        if (was[i].state != c->t[i].state && task_key_eq(&was[i].key, &c->t[i].key) &&
            !core_move_ok(was[i].state, c->t[i].state) && ev->kind != CORE_ADOPT)
            sim_fail("%s, event %d: a task goes from %s to %s", world.cur->name, (int)ev->kind,
                     core_state_name(was[i].state), core_state_name(c->t[i].state));
    check.core[world.cur->host] = c;
}

int __real_xfer_recv_step(struct xfer_recv *x, const struct xfer_event *ev, uint64_t now_ms,
                          struct xfer_actions *out);
int __wrap_xfer_recv_step(struct xfer_recv *x, const struct xfer_event *ev, uint64_t now_ms,
                          struct xfer_actions *out);
int __wrap_xfer_recv_step(struct xfer_recv *x, const struct xfer_event *ev, uint64_t now_ms,
                          struct xfer_actions *out)
{
    if (mutant_transfer(x, ev)) {
        out->n = 0;
        return 0;
    }
    int r = __real_xfer_recv_step(x, ev, now_ms, out);
    const char *why = xfer_recv_check(x);
    if (why)
        sim_fail("%s, transfer, after event %d: %s", world.cur->name, (int)ev->kind, why);
    return r;
}

static void check_store(bool final);
static void check_artefacts(void);

void __real_hub_tick(struct hub *h);
void __wrap_hub_tick(struct hub *h);
void __wrap_hub_tick(struct hub *h)
{
    if (check.hub != h) { /* the first turn since its start */
        struct part *p = world.cur;
        check.hub = h;
        world.cur = NULL;
        check_store(false);
        check_artefacts();
        world.cur = p;
    }
    __real_hub_tick(h);
    const char *why = h->peers ? peers_check(h->peers) : NULL;
    if (why)
        sim_fail("who gets what from whom: %s", why);
    if (xfers_running(h->xfers) > XFERS_MAX || h->n_answers || h->n_events)
        sim_fail("the coordinator keeps %zu answers, %zu events, %zu transfers behind a turn",
                 h->n_answers, h->n_events, xfers_running(h->xfers));
}

/* ---- the store */

struct db {
    sqlite3 *db;
    sqlite3_stmt *s;
};

static bool db_open(struct db *d)
{
    *d = (struct db){ 0 };
    if (sqlite3_open_v2("/sim/c/data/store.db", &d->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX,
                        NULL) == SQLITE_OK &&
        db_functions(d->db) == SQLITE_OK)
        return true;
    sim_fail("the store cannot be opened: %s", sqlite3_errmsg(d->db));
    sqlite3_close(d->db);
    return false;
}

static void db_close(struct db *d)
{
    sqlite3_finalize(d->s);
    sqlite3_close(d->db);
}

static bool db_ask(struct db *d, const char *sql)
{
    sqlite3_finalize(d->s);
    d->s = NULL;
    if (sqlite3_prepare_v2(d->db, sql, -1, &d->s, NULL) == SQLITE_OK)
        return true;
    sim_fail("the store does not answer: %s: %s", sql, sqlite3_errmsg(d->db));
    return false;
}

static bool db_row(struct db *d)
{
    int rc = sqlite3_step(d->s);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        sim_fail("the store does not answer: %s", sqlite3_errmsg(d->db));
    return rc == SQLITE_ROW;
}

static const char *text(struct db *d, int col)
{
    const char *s = (const char *)sqlite3_column_text(d->s, col);
    return s ? s : "";
}

struct sweep_rows {
    uint64_t rows, done;
    char state[16];
    bool differs;
    uint8_t have[PLAN_POINTS_MAX / 8];
    bool found;
};

void check_rotten(unsigned host, const char *file)
{
    if (check.n_rotten == ARTEFACTS)
        return;
    check.rotten[check.n_rotten].host = host;
    snprintf(check.rotten[check.n_rotten++].name, ID_HEX_LEN, "%.64s", file); /* without .hashes */
}

static bool rotten_at_coordinator(const char *hex)
{
    for (unsigned i = 0; i < check.n_rotten; i++)
        if (check.rotten[i].host == COORDINATOR_HOST &&
            (!hex || !strcmp(check.rotten[i].name, hex)))
            return true;
    return false;
}

/* Rot that a task may fail of: of an artefact's copies both at the coordinator and at an agent, or at one agent
 * again and again. */
static bool rotten_for_good(void)
{
    for (unsigned i = 0; i < check.n_rotten; i++)
        for (unsigned j = 0; j < i; j++)
            if (!strcmp(check.rotten[i].name, check.rotten[j].name) &&
                ((check.rotten[i].host == COORDINATOR_HOST) !=
                     (check.rotten[j].host == COORDINATOR_HOST) ||
                 (check.rotten[i].host == check.rotten[j].host &&
                  check.rotten[i].host != COORDINATOR_HOST)))
                return true;
    return false;
}

bool check_welcomed(unsigned host)
{
    return check.welcomed >> host & 1;
}

static void check_row(struct db *d, unsigned no, uint64_t index, struct sweep_rows *st)
{
    const struct plan_sweep *w = &world.plan->sweep[no];
    struct row_stats right;
    const char *status = text(d, 2);
    if (index >= w->recipes * w->archs || (st->have[index / 8] >> index % 8 & 1)) {
        sim_fail("s%u has a second or foreign row for point %" PRIu64, no, index);
        return;
    }
    st->rows++;
    if (!strcmp(status, "done")) {
        st->have[index / 8] |= (uint8_t)(1u << index % 8);
        st->done++;
        check_result(w->seed + index / w->archs, w->gbps + index % w->archs, &right);
        if ((uint64_t)sqlite3_column_int64(d->s, 3) != right.time_ps &&
            !may(PLAN_wrong, PLAN_wrong))
            sim_fail("s%u, point %" PRIu64 ": a wrong result was accepted", no, index);
    } else if (!may_fail() && !rotten_for_good() &&
               !(w->by_id == 2 && rotten_at_coordinator(NULL))) { /* its only copies are there */
        sim_fail("s%u, point %" PRIu64 " is %s without a reason: %s", no, index, status,
                 text(d, 4));
    }
}

void check_artefact(unsigned host, const struct id *want, const char *what)
{
    char hex[ID_HEX_LEN], path[128];
    struct ofd *f;
    struct id id;
    id_hex(want, hex);
    if (host == COORDINATOR_HOST && rotten_at_coordinator(hex))
        return; /* found when somebody needs it, or never */
    snprintf(path, sizeof(path), "/sim/%s/data/%s/%.2s/%s", world.host[host].name,
             host == COORDINATOR_HOST ? "cas" : "cache", hex, hex);
    if (disk_open(path, 0, 0, &f) < 0) {
        sim_fail("artefact %.8s was %s and is lost", hex, what);
        return;
    }
    cid_bytes(disk_bytes(f), disk_size(f), &id);
    if (!id_eq(&id, want))
        sim_fail("artefact %.8s was %s and is damaged", hex, what);
    disk_close(f);
}

static void check_artefacts(void)
{
    for (unsigned i = 0; i < check.n_have && !world.failed; i++)
        check_artefact(STORE, &check.have[i], "acknowledged");
}

void check_lost(const char *job, const char *why)
{
    sim_fail("job %.8s was submitted: %s", job, why);
}

/* Answers of commands: of the newest attempt, as it printed it, with the file that it left. */
static void check_answers(struct db *d, bool final)
{
    bool ok =
        db_ask(d, "SELECT t.task, t.ended_ms, t.cause, t.info, (SELECT a.task || '-' || a.epoch || "
                  "'-' || a.n FROM t_attempt a WHERE a.task = t.task ORDER BY a.epoch DESC, "
                  "a.n DESC LIMIT 1) FROM t_jobtask t");
    while (ok && !world.failed && db_row(d)) {
        const char *task = text(d, 0);
        if (sqlite3_column_type(d->s, 1) == SQLITE_NULL) {
            if (final)
                sim_fail("task %s of a job never ended", task);
            continue;
        }
        if (strcmp(text(d, 2), "done") != 0)
            continue;
        json_t *info = json_loads(text(d, 3), 0, NULL);
        const char *said = json_string_value(json_object_get(info, "attempt")); /* a collection */
        if (!said)
            said = json_string_value(json_object_get(json_object_get(info, "stdout"), "text"));
        const json_t *file = json_array_get(json_object_get(info, "files"), 0);
        const char *hex = json_string_value(json_object_get(file, "id"));
        struct id id;
        if (!said || strcmp(said, text(d, 4)) != 0)
            sim_fail("task %s: the answer is of attempt %s, the newest is %s", task,
                     said ? said : "?", text(d, 4));
        else if (!hex && json_object_get(file, "error") && may(PLAN_eio, PLAN_eio))
            ; /* its disk failed when it was to be read: the answer says so */
        else if (!hex || id_parse(hex, &id, NULL) < 0)
            sim_fail("task %s: its answer names no file", task);
        else
            check_artefact(STORE, &id, "acknowledged");
        json_decref(info);
    }
}

/* Everything promised is there. final: and everything has ended as it should. */
static void check_store(bool final)
{
    static struct sweep_rows states[PLAN_SWEEPS_MAX];
    struct db d;
    memset(states, 0, sizeof(states));
    if (world.failed || !db_open(&d))
        return;
    bool ok = db_ask(&d, "SELECT name, lower(sweep), state, differing FROM sweeps");
    struct id ids[PLAN_SWEEPS_MAX] = { 0 };
    while (ok && db_row(&d)) {
        unsigned no = (unsigned)atoi(text(&d, 0) + 1);
        if (no >= world.plan->n_sweeps || states[no].found) {
            sim_fail("sweep %s is there twice, or was never submitted", text(&d, 0));
            break;
        }
        states[no].found = true;
        id_parse(text(&d, 1), &ids[no], NULL);
        snprintf(states[no].state, sizeof(states[no].state), "%s", text(&d, 2));
        states[no].differs = sqlite3_column_int64(d.s, 3) > 0;
        if (states[no].differs && !may(PLAN_wrong, PLAN_wrong))
            sim_fail("sweep %s has differing results", text(&d, 0));
    }
    ok = ok && db_ask(&d, "SELECT name, \"index\", status, time_ps, error FROM results");
    while (ok && !world.failed && db_row(&d))
        check_row(&d, (unsigned)atoi(text(&d, 0) + 1), (uint64_t)sqlite3_column_int64(d.s, 1),
                  &states[atoi(text(&d, 0) + 1)]);
    for (unsigned i = 0; i < check.n_seen && !world.failed; i++) {
        unsigned no = 0;
        while (no < world.plan->n_sweeps && !id_eq(&ids[no], &check.seen[i].id))
            no++;
        for (uint64_t k = 0; k < PLAN_POINTS_MAX && no < world.plan->n_sweeps; k++)
            if (acked(&check.seen[i], k, false) && acked(&check.seen[i], k, true) &&
                !states[no].differs) {
                sim_fail("s%u, point %" PRIu64 ": two different results, and no alarm", no, k);
                break;
            }
        for (uint64_t k = 0; k < PLAN_POINTS_MAX; k++)
            if ((acked(&check.seen[i], k, false) || acked(&check.seen[i], k, true)) &&
                (no == world.plan->n_sweeps || !(states[no].have[k / 8] >> k % 8 & 1))) {
                if (no == world.plan->n_sweeps)
                    sim_fail("a sweep is lost with results that were acknowledged");
                else
                    sim_fail("s%u, point %" PRIu64 ": its result was acknowledged and is lost", no,
                             k);
                break;
            }
    }
    for (unsigned no = 0; no < world.plan->n_sweeps && !world.failed; no++) {
        const struct sweep_rows *st = &states[no];
        uint64_t points = world.plan->sweep[no].recipes * world.plan->sweep[no].archs;
        bool cancelled = !strcmp(st->state, "cancelled");
        if (check.promise[no].submitted && (!st->found || !id_eq(&ids[no], &check.promise[no].id)))
            sim_fail("s%u was submitted and is lost", no);
        if (!final || !st->found || world.failed)
            continue;
        if (!cancelled && strcmp(st->state, "done") != 0 && strcmp(st->state, "failed") != 0)
            sim_fail("s%u is %s at the end", no, st->state);
        else if (!strcmp(st->state, "failed") && !st->rows && world.plan->sweep[no].by_id == 2 &&
                 may_fail())
            continue; /* its collection failed */
        else if (!cancelled && st->rows != points)
            sim_fail("s%u is %s with %" PRIu64 " of %" PRIu64 " rows", no, st->state, st->rows,
                     points);
        else if (check.promise[no].cancelled && !cancelled)
            sim_fail("s%u was cancelled and is %s", no, st->state);
        else if (cancelled && !may(PLAN_cancel, PLAN_cancel) && !plan_takes_hosts(world.plan))
            sim_fail("s%u is cancelled though nobody asked for it", no);
    }
    if (final && !world.failed && db_ask(&d, "SELECT task FROM attempts WHERE ended IS NULL") &&
        db_row(&d))
        sim_fail("task %s has an attempt that never ended", text(&d, 0));
    if (!world.failed)
        check_answers(&d, final);
    db_close(&d);
}

bool check_all_over(void)
{
    struct part *c = world.host[COORDINATOR_HOST].main;
    if (!c || !check.hub || check.hub->n_lives || check.hub->jobs.used || users_waiting())
        return false;
    for (unsigned h = FIRST_AGENT_HOST; h < world.n_hosts; h++) {
        if (!world.host[h].main || !check.core[h] || tasks_alive(h))
            return false;
        for (size_t i = 0; i < CORE_TASKS_MAX; i++)
            if (check.core[h]->t[i].state != CORE_ST_GONE)
                return false;
    }
    char why[200];
    return check_moves_over(why);
}

void check_part_over(const struct part *p)
{
    if (p->kind == PART_COORDINATOR)
        check.hub = NULL;
    else if (p->kind == PART_AGENT)
        check.core[p->host] = NULL;
}

/* Why it is not over, for people. */
static void say_not_over(void)
{
    char why[200] = "";
    if (!world.host[COORDINATOR_HOST].main)
        snprintf(why, sizeof(why), "the coordinator is down");
    else if (users_waiting())
        snprintf(why, sizeof(why), "a user's command waits");
    for (unsigned h = FIRST_AGENT_HOST; h < world.n_hosts && !*why; h++) {
        const struct core *c = check.core[h];
        if (!world.host[h].main)
            snprintf(why, sizeof(why), "agent %s is down", world.host[h].name);
        for (size_t i = 0; c && i < CORE_TASKS_MAX && !*why; i++)
            if (c->t[i].state != CORE_ST_GONE)
                snprintf(why, sizeof(why), "agent %s holds task %" PRIu64 " (%s)",
                         world.host[h].name, c->t[i].key.task, core_state_name(c->t[i].state));
    }
    if (!*why)
        check_moves_over(why);
    sim_fail("it does not end: %s", *why ? why : "sweeps are open");
}

void check_end(void)
{
    if (!world.failed && !check_all_over())
        say_not_over();
    check_store(true);
    check_artefacts();
    for (unsigned h = FIRST_AGENT_HOST; h < world.n_hosts && !world.failed; h++) {
        char path[64];
        struct ofd *d;
        snprintf(path, sizeof(path), "/sim/%s/data/tasks", world.host[h].name);
        if (disk_open(path, 0, 0, &d) < 0)
            continue;
        if (disk_name(d, 0))
            sim_fail("%s/%s is left behind", path, disk_name(d, 0));
        disk_close(d);
    }
}
