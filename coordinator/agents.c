/* What agents say. A peer that has not said hello on this connection is told to. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/num.h"
#include "proto/format/trace.h"

enum { ROWS_AT_ONCE = 128 };

enum {
    TAKEN_MS =
        600000, /* a start takes over from one at work so often in so long; after that it is a copy */
    TAKEN_MAX = 3,
    COPY_TELL_MS = 60000, /* at least between two log lines about that */
};

enum copy { COPY_NO, COPY_WAIT, COPY_YES };

int hub_engine(struct hub *h, const struct id *engine, uint64_t *ret_num, struct err *e)
{
    int r = store_engine(h->store, engine, ret_num, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < h->n_engines; i++)
        if (h->engines[i] == *ret_num)
            return 0;
    if (h->n_engines == h->room_engines) {
        size_t room = h->room_engines ? h->room_engines * 2 : 8;
        void *v = realloc(h->engines, room * sizeof(*h->engines));
        if (!v)
            return err_sys(e, ENOMEM, "engine");
        h->engines = v;
        h->room_engines = room;
    }
    h->engines[h->n_engines++] = *ret_num;
    return 0;
}

static struct hub_agent *agent_of(struct hub *h, const struct peer *p)
{
    struct hub_agent *a = map_get(&h->agent_of_peer, p->id);
    if (!a) /* exit 1: it may go on, once it has said hello */
        link_refuse(h->link, p->id, 0, 1, "HELLO_FIRST", "say agent_hello first");
    else if (a->hello && !hub_commit(h)) /* the scheduler must know it first */
        return map_get(&h->agent_of_peer, p->id);
    return a;
}

/* A refusal that the agent cannot mend by itself. */
static void refuse_agent(struct hub *h, const struct peer *p, const char *code, const char *text)
{
    log_warn("agent '%s' refused: %s", p->name, text);
    link_refuse(h->link, p->id, 0, 3, code, text);
}

void hub_set_peer(struct hub *h, struct hub_agent *a, uint64_t peer)
{
    if (a->peer)
        map_del(&h->agent_of_peer, a->peer);
    a->peer = peer;
    if (peer)
        map_put(&h->agent_of_peer, peer, a);
}

static bool json_ok(const uint8_t *p, size_t n)
{
    json_t *j = json_loadb((const char *)p, n, 0, NULL);
    bool ok = json_is_object(j);
    json_decref(j);
    return ok;
}

/* What an agent's facts say of collecting: "ready" QEMU and image are there, "can" they can be made. */
static uint8_t collect_of(const char *facts)
{
    CLEANUP(json_decrefp) json_t *j = facts ? json_loads(facts, 0, NULL) : NULL;
    const char *s = json_string_value(json_object_get(j, "collect"));
    if (!s)
        return COLLECT_NO;
    return !strcmp(s, "ready") ? COLLECT_READY : !strcmp(s, "can") ? COLLECT_CAN : COLLECT_NO;
}

/* Each start counts the boot up, so two processes of one boot are two folders. */
static bool another_session(const struct hub_agent *a, const struct msg_agent_hello *m)
{
    static const uint8_t none[16];
    return m->session_len == sizeof(none) && memcmp(a->session, none, sizeof(none)) != 0 &&
           memcmp(a->session, m->session, sizeof(none)) != 0;
}

/* A start of an install at work elsewhere. The same boot is a copy of its data directory. A higher one takes over, as after
 * a restart; but a restarted agent has closed its connection first, so this happens again and again only where copies are
 * restarted by their supervisors, or on a host that loses its power and is back within three beats. Which of the two tells
 * the one before: while it may be gone the new one is not answered (it says hello again), and when it was heard again it
 * stays. */
static enum copy is_copy(const struct hub *h, struct hub_agent *a, const struct sched_agent *known,
                         const struct peer *p, const struct msg_agent_hello *m)
{
    uint64_t now = clock_mono_ms();
    if (!a || !known || !a->peer || a->peer == p->id || !another_session(a, m) ||
        now - known->heard_ms >= 3 * h->conf->heartbeat_ms)
        return COPY_NO;
    if (m->boot == known->boot)
        return COPY_YES;
    if (!link_peer_up(h->link, a->peer))
        return COPY_NO;
    if (a->doubt_ms)
        /* a beat later: what was on its way when it lost its power is no sign of life */
        return known->heard_ms >= a->doubt_ms + h->conf->heartbeat_ms ? COPY_YES : COPY_WAIT;
    if (now - a->taken_ms > TAKEN_MS) {
        a->taken = 0;
        a->taken_ms = now;
    }
    if (++a->taken <= TAKEN_MAX)
        return COPY_NO;
    a->doubt_ms = now;
    return COPY_WAIT;
}

static void refuse_copy(struct hub *h, struct hub_agent *a, const struct peer *p, const char *name)
{
    char text[512];
    uint64_t now = clock_mono_ms();
    snprintf(text, sizeof(text),
             "agent '%s' is at work at %s with this very data directory: one of them is a copy "
             "and needs a directory and a key of its own",
             name, a->addr);
    if (!a->copy_told_ms || now - a->copy_told_ms >= COPY_TELL_MS) {
        log_warn("agent '%s' at %s refused: %s", p->name, p->addr, text);
        a->copy_told_ms = now;
    }
    link_refuse(h->link, p->id, 0, 3, "COPY", text);
}

static uint64_t install_key(const uint8_t install[16])
{
    uint64_t k;
    memcpy(&k, install, sizeof(k)); /* random: any eight bytes serve */
    return k;
}

struct hub_agent *hub_agent(const struct hub *h, const uint8_t install[16])
{
    struct hub_agent *a = map_get(&h->agent_of_install, install_key(install));
    return a && !memcmp(a->info.install, install, 16) ? a : NULL;
}

static uint64_t name_key(const char *name)
{
    return hash_fast(name, strlen(name), 0);
}

void hub_hello(struct hub *h, const struct peer *p, const struct msg_agent_hello *m)
{
    struct err e = { 0 };
    char text[512];
    struct hub_agent *a = hub_agent(h, m->install);
    if (a && a->hello && !hub_commit(h)) /* said twice within a turn: one after the other */
        return;
    const struct sched_agent *known = sched_agent(&h->sched, m->install);
    const struct hub_agent *other = map_get(&h->agent_of_name, name_key(m->name));
    if (other && other != a && other->peer && !strcmp(other->info.name, m->name)) {
        snprintf(text, sizeof(text), "the name '%s' is taken by another agent that is connected",
                 m->name);
        refuse_agent(h, p, "NAME_TAKEN", text);
        return;
    }
    if (known && m->boot < known->boot) {
        snprintf(text, sizeof(text),
                 "boot %" PRIu64 " of agent '%s' is fenced by its boot %" PRIu64 "%s%s", m->boot,
                 m->name, known->boot, a && a->addr[0] ? " at " : "", a ? a->addr : "");
        refuse_agent(h, p, "FENCED", text);
        return;
    }
    if (a && a->peer && strcmp(a->info.key, p->key) != 0) {
        snprintf(text, sizeof(text), "agent '%s': this install is connected with another key",
                 m->name);
        refuse_agent(h, p, "INSTALL_TAKEN", text);
        return;
    }
    enum copy copy = is_copy(h, a, known, p, m);
    if (copy == COPY_YES)
        refuse_copy(h, a, p, m->name);
    if (copy != COPY_NO)
        return;
    if (!hub_write(h))
        return; /* it says hello again */
    struct store_agent info = { .boot = m->boot,
                                .cores = m->cores,
                                .memory_mib = m->memory_mib,
                                .kvm = m->kvm,
                                .engine = m->engine,
                                .last_seen_ms = clock_wall_ms() };
    memcpy(info.install, m->install, 16);
    snprintf(info.key, sizeof(info.key), "%s", p->key);
    snprintf(info.name, sizeof(info.name), "%s", m->name);
    snprintf(info.version, sizeof(info.version), "%s", m->version);
    snprintf(info.labels, sizeof(info.labels), "%s", m->labels);
    CLEANUP(freep)
    char *facts = json_ok(m->facts, m->facts_len) ? strndup((const char *)m->facts, m->facts_len)
                                                  : strdup("{}");
    uint64_t reg = 0, engine = 0;
    int r = facts ? store_add_agent(h->store, &info, facts, &reg, &e) : -ENOMEM;
    if (r == -EEXIST) {
        refuse_agent(h, p, "KEY_TAKEN",
                     "this key belongs to another install: one key for each agent");
        return;
    }
    if (r >= 0)
        r = hub_engine(h, &m->engine, &engine, &e);
    if (r >= 0)
        r = store_event(h->store, info.last_seen_ms, "agent", info.name, "registered", &e);
    struct sched_ref *refs = calloc(m->n_running + 1, sizeof(*refs));
    if (r >= 0 && !refs)
        r = err_sys(&e, ENOMEM, "agent '%s'", info.name);
    if (!a && r >= 0) {
        a = calloc(1, sizeof(*a));
        if (a) {
            a->next = h->agents;
            h->agents = a;
            map_put(&h->agent_of_install, install_key(m->install), a);
        } else {
            r = err_sys(&e, ENOMEM, "agent '%s'", info.name);
        }
    }
    if (r < 0) {
        free(refs);
        hub_fail(h, &e);
        return;
    }
    a->info = info;
    snprintf(a->addr, sizeof(a->addr), "%s", p->addr);
    memset(a->session, 0, sizeof(a->session));
    if (m->session_len == sizeof(a->session))
        memcpy(a->session, m->session, sizeof(a->session));
    map_del(&h->agent_of_name, name_key(info.name));
    map_put(&h->agent_of_name, name_key(info.name), a);
    a->reg = reg;
    a->engine = engine;
    a->last_seen_ms = info.last_seen_ms;
    if (a->doubt_ms) /* the one before is gone: it was a restart */
        a->taken = 0;
    a->doubt_ms = 0;
    a->here = a->peer == p->id; /* a hello that was doubled on its way */
    a->hello = true;
    hub_set_peer(h, a, p->id);
    log_info("agent '%s' registered: boot %" PRIu64 ", %" PRIu64 " cores, holds %zu tasks",
             info.name, info.boot, info.cores, m->n_running);
    for (size_t i = 0; i < m->n_running; i++)
        refs[i] = (struct sched_ref){ m->running[i].task, m->running[i].epoch, m->running[i].n,
                                      (unsigned)m->running[i].state };
    struct sched_event ev = { .type = EV_HELLO,
                              .agent = { .boot = m->boot,
                                         .cores = (uint32_t)m->cores,
                                         .memory_mib = m->memory_mib,
                                         .kvm = m->kvm,
                                         .collect = labels_have(info.labels, "collect=no")
                                                        ? COLLECT_NO
                                                        : collect_of(facts),
                                         .labels = a->info.labels,
                                         .accept = true,
                                         .drained = info.drained,
                                         .drain_at_ms = hub_drain_at(&a->info),
                                         .refs = refs,
                                         .n_refs = m->n_running,
                                         .user = a } };
    memcpy(ev.agent.install, m->install, 16);
    hub_event(h, &ev);
}

void hub_beat(struct hub *h, const struct peer *p, const struct msg_beat *m)
{
    struct hub_agent *a = agent_of(h, p);
    if (!a)
        return;
    a->last_seen_ms = clock_wall_ms();
    hub_agent_space(a, m);
    hub_agent_trips(a, m);
    if (!m->n_tasks && h->peers)
        peers_idle(h->peers, p->id);
    struct sched_ref *refs = calloc(m->n_tasks + 1, sizeof(*refs));
    if (!refs)
        return;
    for (size_t i = 0; i < m->n_tasks; i++)
        refs[i] = (struct sched_ref){ m->tasks[i].task, m->tasks[i].epoch, m->tasks[i].n,
                                      (unsigned)m->tasks[i].state };
    struct sched_event ev = {
        .type = EV_BEAT,
        .agent = { .boot = m->boot, .accept = m->accept, .refs = refs, .n_refs = m->n_tasks }
    };
    memcpy(ev.agent.install, a->info.install, 16);
    struct err e = { 0 };
    size_t at = h->out.n;
    int r = sched_step(&h->sched, &ev, clock_mono_ms(), &h->out, &e);
    if (r == -SF_EREFUSED)
        refuse_agent(h, p, "FENCED", e.text);
    else if (r >= 0 && at < h->out.n)
        h->out.v[at].n = m->seq;
    free(refs);
}

/* ---- results */

struct live *hub_find_live(struct hub *h, const struct id *id, struct live **own)
{
    *own = NULL;
    for (size_t i = 0; i < h->n_lives; i++)
        if (id_eq(&h->lives[i]->id, id))
            return h->lives[i];
    char hex[ID_HEX_LEN];
    struct store_sweep w;
    struct err e = { 0 };
    CLEANUP(freep) char *json = NULL;
    id_hex(id, hex);
    if (store_find_sweep(h->store, hex, &w, &e) < 0 ||
        store_sweep(h->store, w.seq, &w, &json, &e) < 0)
        return NULL;
    json_t *j = json_loads(json, 0, NULL);
    struct live *l = NULL;
    if (j && live_new(j, &l, &e) == 0) {
        l->seq = w.seq;
        l->id = w.id;
        if (hub_look_up_traces(h, l, &e) < 0)
            live_free(&l);
    }
    json_decref(j);
    *own = l;
    return l;
}

static void live_freep(struct live **l)
{
    live_free(l);
}

/* The rows of one message, on their way into the store. */
struct taking {
    const struct msg_rows *m; /* head */
    const struct hub_agent *a;
    const struct live *l;
    bool late; /* the attempt is fenced */
    uint64_t now_ms, n_late, foreign;
    size_t n;
    struct store_row row[ROWS_AT_ONCE];
    struct id said[ROWS_AT_ONCE]; /* the points, as the message has them */
};

static int put_aside(struct hub *h, const struct taking *k, const struct store_row *row,
                     const char *kind, struct err *e)
{
    return store_aside(h->store, row, kind, k->a->info.install, k->now_ms, e);
}

/* Whether a row may be one of this sweep's: right trace, and its point is still to be looked at. Fills what the sweep says of it. */
static bool may_fit(const struct taking *k, const struct wire_row *w, struct store_row *row)
{
    uint32_t t;
    if (live_arch(k->l, w->index, &t, &row->arch) < 0 || !k->l->tr[t].num)
        return false;
    row->trace = k->l->tr[t].num;
    return id_eq(&k->l->tr[t].id, &k->m->trace);
}

/* The ids of all points at once; rows with another one go. */
static int check_points(struct hub *h, struct taking *k, struct err *e)
{
    const struct arch *arch[ROWS_AT_ONCE];
    struct id point[ROWS_AT_ONCE];
    size_t n = 0;
    int r = 0;
    for (size_t i = 0; i < k->n; i++)
        arch[i] = &k->row[i].arch;
    arch_point_ids(arch, k->n, k->l->rules, &k->m->trace, point);
    for (size_t i = 0; r >= 0 && i < k->n; i++) {
        struct store_row *row = &k->row[i];
        row->point = point[i];
        if (id_eq(&point[i], &k->said[i])) {
            if (n < i)
                k->row[n] = *row;
            n++;
        } else {
            k->foreign++;
            r = put_aside(h, k, row, "foreign", e);
        }
    }
    k->n = n;
    return r;
}

/* Store them, and note what becomes of each. */
static int put_rows(struct hub *h, struct taking *k, struct err *e)
{
    enum store_put put[ROWS_AT_ONCE];
    int r = check_points(h, k, e);
    if (r >= 0)
        r = store_put_rows(h->store, k->row, k->n, k->now_ms, put, e);
    for (size_t i = 0; r >= 0 && i < k->n; i++) {
        const struct store_row *w = &k->row[i];
        if (put[i] == PUT_DIFFERS)
            log_error("sweep '%s': point %" PRIu64
                      ": agent '%s' has another result than the accepted one; kept aside",
                      k->l->name, w->index, k->a->info.name);
        if (put[i] == PUT_FIRST || put[i] == PUT_REPLACED) {
            h->rows++;
            hub_event(h, &(struct sched_event){ .type = EV_POINT,
                                                .point = { k->l->seq, w->index, w->duration_us,
                                                           k->m->task, k->m->epoch, k->m->n } });
        }
        k->n_late += k->late;
        if (put[i] == PUT_EQUAL || k->late)
            r = put_aside(h, k, w, put[i] == PUT_EQUAL ? "duplicate" : "late", e);
    }
    k->n = 0;
    return r;
}

/* Take the next row of r; 0 = there is none. */
static int take_row(struct hub *h, struct taking *k, struct rows_reader *r, uint64_t engine,
                    struct err *e)
{
    struct store_row *row = &k->row[k->n];
    struct wire_row w;
    *row = (struct store_row){ .sweep = k->l->seq,
                               .epoch = k->m->epoch,
                               .n = k->m->n,
                               .task = k->m->task,
                               .reg = k->a->reg,
                               .engine = engine,
                               .threads = k->m->threads,
                               .by = BY_ENGINE };
    if (!rows_next(r, &w, &row->stats))
        return 0;
    row->index = w.index;
    row->status = (enum row_status)w.status;
    row->error = w.error;
    row->duration_us = w.duration_us;
    row->started_ms = k->now_ms - w.duration_us / 1000;
    k->said[k->n] = w.point;
    int rc = 0;
    if (!may_fit(k, &w, row) || (row->status == ROW_DONE && !w.stats_len)) {
        k->foreign++;
        rc = put_aside(h, k, row, "foreign", e);
    } else if (++k->n == ROWS_AT_ONCE) {
        rc = put_rows(h, k, e);
    }
    return rc < 0 ? rc : 1;
}

void hub_rows(struct hub *h, const struct peer *p, const struct msg *msg)
{
    struct hub_agent *a = agent_of(h, p);
    struct rows_reader in;
    struct msg_rows head, *m = &head;
    struct err e = { 0 };
    if (!a)
        return;
    if (rows_reader_init(&in, msg, m, &e) < 0) {
        refuse_agent(h, p, "MALFORMED", e.text);
        return;
    }
    if (hub_canary_rows(h, a, m, &in) || !hub_write(h))
        return;
    CLEANUP(live_freep) struct live *own = NULL;
    struct live *l = hub_find_live(h, &m->sweep, &own);
    const struct sched_task *task = sched_task(&h->sched, m->task);
    static struct taking k; /* one loop, one thread */
    k.m = m;
    k.a = a;
    k.l = l;
    k.late = !task || task->epoch != m->epoch || task->n != m->n;
    k.now_ms = clock_wall_ms();
    k.n = k.n_late = k.foreign = 0;
    uint64_t engine = 0;
    int r = store_engine(h->store, &m->engine, &engine, &e);
    a->last_seen_ms = k.now_ms;
    for (bool more = l && r >= 0; more; more = r > 0)
        r = take_row(h, &k, &in, engine, &e);
    if (r >= 0 && k.n)
        r = put_rows(h, &k, &e);
    if (r >= 0 && l && (k.n_late || k.foreign))
        r = store_sweep_late(h->store, l->seq, k.n_late, k.foreign, &e);
    if (r >= 0 && !l) { /* of no sweep here: counted for the store as a whole */
        uint64_t all = 0;
        r = store_get(h->store, "foreign", &all, &e);
        if (r >= 0)
            r = store_set(h->store, "foreign", all + m->n_rows, &e);
    }
    if (r < 0) {
        hub_fail(h, &e);
        return;
    }
    h->rows_late += k.n_late;
    h->rows_foreign += k.foreign;
    if (!l || k.foreign)
        log_warn("agent '%s', task %" PRIu64 ": %zu rows that fit no sweep here, not taken",
                 a->info.name, m->task, l ? (size_t)k.foreign : m->n_rows);
    struct msg ack = { .type = M_ROWS_ACK, .rows_ack = { m->task, m->epoch, m->n, m->seq } };
    hub_answer(h, p->id, 0, &ack, NULL);
}

/* ---- ends */

int hub_note_trace(struct hub *h, const struct id *id, struct store_trace *ret, struct err *e)
{
    int r = store_trace(h->store, id, ret, e);
    if (r != -ENOENT)
        return r;
    CLEANUP(freep) char *path = cas_path(h->cas, id);
    if (!path)
        return err_set(e, ENOENT, "trace: not here");
    struct trace_head head;
    uint64_t events = 0;
    char hex[ID_HEX_LEN], name[32];
    id_hex(id, hex);
    snprintf(name, sizeof(name), "trace %.16s", hex);
    r = trace_read_head(path, &head, &events, e);
    if (r < 0)
        return err_place(e, r, path, name);
    *ret = (struct store_trace){ .id = *id,
                                 .tenants = head.tenants,
                                 .burst = head.burst,
                                 .seed = head.seed,
                                 .replicate = head.replicate };
    snprintf(ret->order, sizeof(ret->order), "%s", order_name((enum trace_order)head.order));
    snprintf(ret->rules, sizeof(ret->rules), "%s", rules_name((enum rules)head.rules));
    char info[64];
    snprintf(info, sizeof(info), "{\"events\":%" PRIu64 "}", events);
    return store_add_trace(h->store, ret, info, e);
}

static void trace_here(struct hub *h, const struct id *key, const struct store_trace *tr)
{
    for (size_t i = 0; i < h->n_lives; i++) {
        struct live *l = h->lives[i];
        for (uint32_t t = 0; t < l->n_traces; t++)
            if (id_eq(&l->key[t], key)) {
                l->tr[t] = *tr;
                l->ready[t] = true;
            }
    }
}

/* A trace was built. Returns 1 when it is here and noted, 0 when it must be fetched first, or an error. */
static int trace_made(struct hub *h, const struct peer *p, const struct id *key,
                      const struct msg_task_end *m, struct err *e)
{
    json_t *info = json_loadb((const char *)m->info, m->info_len, 0, NULL);
    struct id id;
    const char *hex = json_string_value(json_object_get(info, "id"));
    int r = hex ? id_parse(hex, &id, e) : -SF_EFORMAT;
    json_decref(info);
    if (r < 0)
        return err_set(e, SF_EFORMAT, "task %" PRIu64 ": the end names no trace", m->task);
    if (!cas_has(h->cas, &id)) {
        if (hub_spoiled(h, &id))
            return err_set(e, SF_EINTEGRITY, "task %" PRIu64 ": its trace cannot be had whole",
                           m->task);
        if (!xfers_busy(h->xfers, &id))
            xfers_fetch(h->xfers, p->id, 0, &id, clock_mono_ms(), e);
        e->code = 0;
        return 0;
    }
    struct store_trace tr;
    r = hub_note_trace(h, &id, &tr, e);
    CLEANUP(freep) char *json = NULL;
    for (size_t i = 0; i < h->n_lives && !json; i++) {
        const struct recipe *rec = live_recipe(h->lives[i], live_find(h->lives[i], key));
        json_t *j = rec ? recipe_json(rec, false) : NULL;
        json = j ? json_canonical(j) : NULL;
        json_decref(j);
    }
    if (r >= 0)
        r = store_add_recipe(h->store, key, &id, json, e);
    if (r < 0)
        return r;
    trace_here(h, key, &tr);
    return 1;
}

/* Last line of a task's stderr that says something, for people. */
static void last_line(const uint8_t *tail, size_t n, char out[160])
{
    size_t end = n;
    out[0] = 0;
    while (end) {
        while (end && (tail[end - 1] == '\n' || tail[end - 1] == '\r' || tail[end - 1] == ' '))
            end--;
        size_t at = end;
        while (at && tail[at - 1] != '\n')
            at--;
        if (at < end) {
            size_t len = end - at < 159 ? end - at : 159;
            for (size_t i = 0; i < len; i++) {
                uint8_t c = tail[at + i];
                out[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
            }
            out[len] = 0;
            if (!strncmp(out, "siofleet: ", 10))
                memmove(out, out + 10, strlen(out + 10) + 1);
            return;
        }
        end = at;
    }
}

/* Why an attempt failed, as rows and `why` say it. What the program said itself needs no more words: the text is then the one
 * of the same failure on one host. */
static void say_cause(const char *cause, const struct msg_task_end *m, uint64_t timeout_ms,
                      const char *line, char out[200])
{
    char what[80], time[NUM_MS_LEN];
    const char *sig = sigabbrev_np((int)m->signal);
    if ((!strcmp(cause, "exit") || !strcmp(cause, "recipe")) && *line) {
        snprintf(out, 200, "%s", line);
        return;
    }
    if (!strcmp(cause, "timeout")) {
        snprintf(out, 200, "timeout after %s", num_ms_text(timeout_ms, time));
        return;
    }
    if (!strcmp(cause, "exit"))
        snprintf(what, sizeof(what), "exit status %" PRIu64, m->exit);
    else if (!strcmp(cause, "signal") && sig)
        snprintf(what, sizeof(what), "killed by SIG%s", sig);
    else if (!strcmp(cause, "signal"))
        snprintf(what, sizeof(what), "killed by signal %" PRIu64, m->signal);
    else if (!strcmp(cause, "oom"))
        snprintf(what, sizeof(what), "killed for want of memory");
    else if (!strcmp(cause, "space"))
        snprintf(what, sizeof(what), "no space left on its agent");
    else
        snprintf(what, sizeof(what), "%s", cause);
    snprintf(out, 200, "%s%s%s", what, *line ? ": " : "", line);
}

/* An agent got damaged input: perhaps what lies here is. */
static void suspect_inputs(struct hub *h, const struct sched_task *t)
{
    for (size_t i = 0; i < h->n_lives; i++) {
        struct live *l = h->lives[i];
        uint32_t k = live_find(l, &t->trace->key);
        if (k == UINT32_MAX)
            continue;
        const struct recipe *rec = t->kind == TASK_TRACE ? live_recipe(l, k) : NULL;
        for (size_t n = 0; rec && n < rec->n_logs; n++)
            hub_suspect(h, &rec->logs[n].id);
        if (t->kind == TASK_POINTS)
            hub_suspect(h, &l->tr[k].id);
        return;
    }
}

void hub_task_end(struct hub *h, const struct peer *p, const struct msg_task_end *m)
{
    struct hub_agent *a = agent_of(h, p);
    if (a)
        trips_answered(&a->cancels, &(struct trip_key){ m->task, m->epoch, m->n, 0 },
                       clock_mono_ns());
    if (!a || hub_canary_end(h, a, m) || !hub_write(h))
        return;
    struct err e = { 0 };
    const struct sched_task *t = sched_task(&h->sched, m->task);
    bool open = t && t->epoch == m->epoch && t->n == m->n && !task_waits(t);
    const char *cause = m->cause;
    char line[160];
    int r = 0;
    if (open && t->kind == TASK_TRACE && !strcmp(cause, "done")) {
        r = trace_made(h, p, &t->trace->key, m, &e);
        if (r == 0)
            return; /* the agent says it again; by then the trace is here */
        if (r == -SF_EFORMAT ||
            r == -SF_EINTEGRITY) { /* what it made is no trace: its failure, not ours */
            log_warn("agent '%s': %s", a->info.name, e.text);
            cause = "integrity";
            r = 0;
        }
    }
    if (open && t->job && (r = hub_job_end(h, p, a, t, m, &cause, &e)) == 0)
        return; /* likewise: its artefacts */
    if (open && t->trace && !strcmp(cause, "integrity"))
        suspect_inputs(h, t);
    last_line(m->tail, m->tail_len, line);
    if (r >= 0)
        r = store_end_attempt(h->store, m->task, m->epoch, m->n, cause, m->exit, m->signal,
                              clock_wall_ms(), m->tail, m->tail_len, &e);
    if (r < 0) {
        hub_fail(h, &e);
        return;
    }
    if (strcmp(cause, "done") != 0)
        log_info("task %" PRIu64 " on agent '%s' ended: %s%s%s", m->task, a->info.name, cause,
                 *line ? ": " : "", line);
    struct msg ack = { .type = M_END_ACK, .end_ack = { m->task, m->epoch, m->n } };
    hub_answer(h, p->id, 0, &ack, NULL);
    if (!open)
        return;
    char text[200];
    say_cause(cause, m, sched_timeout_ms(t), line, text);
    hub_event(h, &(struct sched_event){ .type = EV_END,
                                        .end = { m->task, m->epoch, m->n, cause, text } });
}

void hub_decline(struct hub *h, const struct peer *p, const struct msg_decline *m)
{
    struct hub_agent *a = agent_of(h, p);
    if (!a || hub_canary_declined(h, a, m))
        return;
    log_info("task %" PRIu64 " declined by agent '%s': %s%s%.200s", m->task, a->info.name, m->code,
             *m->text ? ": " : "", m->text);
    hub_step(h, &(struct sched_event){ .type = EV_DECLINE,
                                       .end = { m->task, m->epoch, m->n, "declined", NULL } });
}
