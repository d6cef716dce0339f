/* What users want to know. Each question gets exactly one answer; nothing is changed by one. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/audit.h"
#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/num.h"

enum { KNOWN_IN_PLAN = 200000, LS_PAGE = 2000, SQL_MS = 2000 };
static const uint64_t REVOKED_SHOWN_MS = 7 * 86400000ull; /* after an agent was heard */

const char *hub_sweep_state(struct hub *h, const struct store_sweep *w)
{
    const struct sched_sweep *s = sched_sweep(&h->sched, w->seq);
    bool rest = true;
    struct store_job job;
    bool bound;
    if (s && w->state <= SWEEP_RUNNING && !w->held)
        sched_quarantined(s, &rest);
    else if (!s && w->state <= SWEEP_RUNNING && hub_after_job(h, w->seq, &job, &bound, NULL) == 0)
        rest = bound || strcmp(hub_job_state(h, &job), "quarantined") != 0;
    return rest ? sweep_state_name(w->state, w->held) : "quarantined";
}

const char *hub_job_state(struct hub *h, const struct store_job *w)
{
    const struct sched_job *j = sched_job(&h->sched, w->seq);
    bool rest = !j || w->held || w->state > SWEEP_RUNNING;
    if (!rest)
        LIST_EACH(p, n, &j->tasks)
    rest |= LIST_OF(p, struct sched_task, by_sweep)->state != TASK_QUARANTINED;
    return rest ? sweep_state_name(w->state, w->held) : "quarantined";
}

bool hub_is_task(const struct hub *h, const char *text, uint64_t *ret)
{
    return num_u64(text, 1, UINT64_MAX, "task", ret, NULL) == 0 &&
           (strlen(text) < 8 || sched_task(&h->sched, *ret));
}

const char *hub_agent_state(struct hub *h, const struct store_agent *a)
{
    const struct sched_agent *s = sched_agent(&h->sched, a->install);
    if (!link_key_allowed(h->link, a->key, ROLE_AGENT))
        return "revoked";
    if (!s || !s->alive)
        return (s ? s->stopped : a->stopped) ? "stopped" : "lost";
    if (a->drained)
        return list_empty(&s->tasks) ? "drained" : "draining";
    return s->accept ? "ready" : "closed";
}

const char *hub_ended_state(const char *cause)
{
    return !strcmp(cause, "done") ? "done" : !strcmp(cause, "cancelled") ? "cancelled" : "failed";
}

/* The collection that a sweep with [collect] waits for, or waited for; null without one. */
static json_t *collect_doc(struct hub *h, const struct store_sweep *w)
{
    struct store_job j;
    bool bound;
    if (hub_after_job(h, w->seq, &j, &bound, NULL) < 0)
        return json_null();
    return json_pack("{s:o, s:s, s:o, s:o, s:o, s:o}", "job", json_id(&j.id), "state",
                     hub_job_state(h, &j), "runs", json_u64(j.tasks), "done", json_u64(j.done),
                     "failed", json_u64(j.failed), "known", json_u64(j.known));
}

static json_t *sweep_doc(struct hub *h, const struct store_sweep *w)
{
    char hex[ID_HEX_LEN], when[CLOCK_RFC3339_LEN];
    id_hex(&w->id, hex);
    clock_rfc3339(w->submitted_ms, when);
    const struct sched_sweep *s = sched_sweep(&h->sched, w->seq);
    uint64_t eta = s && w->state <= SWEEP_RUNNING ? sched_eta_ms(&h->sched, s) : UINT64_MAX;
    if (w->state > SWEEP_RUNNING)
        eta = 0;
    uint64_t running = 0;
    if (s)
        LIST_EACH(i, n, &s->tasks)
    running += !task_waits(LIST_OF(i, struct sched_task, by_sweep));
    json_t *j = json_object();
    json_object_set_new(j, "sweep", json_string(hex));
    json_object_set_new(j, "name", json_str(w->name));
    bool rest = true;
    uint64_t quarantined = s && w->state <= SWEEP_RUNNING ? sched_quarantined(s, &rest) : 0;
    json_object_set_new(j, "state", json_string(hub_sweep_state(h, w)));
    json_object_set_new(j, "points", json_u64(w->points));
    json_object_set_new(j, "done", json_u64(w->done + w->invalid));
    json_object_set_new(j, "failed", json_u64(w->failed));
    json_object_set_new(j, "known", json_u64(w->known));
    json_object_set_new(j, "eta_ms", eta == UINT64_MAX ? json_null() : json_u64(eta));
    json_object_set_new(j, "invalid", json_u64(w->invalid));
    json_object_set_new(j, "running", json_u64(running));
    json_object_set_new(j, "duplicate_equal", json_u64(w->equal));
    json_object_set_new(j, "late", json_u64(w->late));
    json_object_set_new(j, "differing", json_u64(w->differing));
    json_object_set_new(j, "foreign", json_u64(w->foreign));
    json_object_set_new(j, "quarantined", json_u64(quarantined));
    json_object_set_new(j, "collect", collect_doc(h, w));
    json_object_set_new(j, "priority", json_u64(w->priority));
    char paused[200];
    if (w->state > SWEEP_RUNNING)
        *paused = 0;
    else
        hub_space_why(h, paused);
    json_object_set_new(j, "paused", *paused ? json_string(paused) : json_null());
    json_object_set_new(j, "submitted", json_string(when));
    clock_rfc3339(w->ended_ms, when);
    json_object_set_new(j, "ended", w->ended_ms ? json_string(when) : json_null());
    return j;
}

struct page {
    struct hub *h;
    json_t *items;
    uint64_t skip, seen, last;
    bool more;
};

static int ls_sweep(void *ctx, const struct store_sweep *w)
{
    struct page *p = ctx;
    if (json_array_size(p->items) == LS_PAGE) {
        p->more = true;
        p->last = w->seq;
        return 1;
    }
    json_array_append_new(p->items, sweep_doc(p->h, w));
    return 0;
}

static int ls_agent(void *ctx, const struct store_agent *a)
{
    struct page *p = ctx;
    if (p->seen++ < p->skip)
        return 0;
    if (json_array_size(p->items) == LS_PAGE) {
        p->more = true;
        return 1;
    }
    const struct hub_agent *live = hub_agent(p->h, a->install);
    const struct sched_agent *s = sched_agent(&p->h->sched, a->install);
    uint32_t running = 0;
    for (int k = 0; s && k < TASK_KINDS; k++)
        running += s->n_tasks[k];
    const char *state = hub_agent_state(p->h, a);
    uint64_t seen = live ? live->last_seen_ms : a->last_seen_ms, now = clock_wall_ms();
    if (!strcmp(state, "revoked") && !running && now > seen + REVOKED_SHOWN_MS)
        return 0;
    json_t *labels = json_object();
    CLEANUP(freep) char *text = strdup(a->labels);
    char *save = NULL;
    for (char *kv = text ? strtok_r(text, ",", &save) : NULL; kv; kv = strtok_r(NULL, ",", &save)) {
        char *eq = strchr(kv, '=');
        if (eq) {
            *eq = 0;
            json_object_set_new(labels, kv, json_str(eq + 1));
        }
    }
    json_t *j = json_object();
    json_object_set_new(j, "name", json_str(a->name));
    json_object_set_new(j, "state", json_string(state));
    json_object_set_new(j, "version", json_str(a->version));
    json_object_set_new(j, "boot", json_u64(a->boot));
    json_object_set_new(j, "cores", json_u64(a->cores));
    json_object_set_new(j, "memory_mib", json_u64(a->memory_mib));
    json_object_set_new(j, "kvm", json_string(a->kvm ? "usable" : "unusable"));
    json_object_set_new(j, "labels", labels);
    json_object_set_new(j, "running", json_integer(running));
    json_object_set_new(j, "last_seen_ms", json_u64(now > seen ? now - seen : 0));
    char until[CLOCK_RFC3339_LEN], from[CLOCK_RFC3339_LEN];
    clock_rfc3339(a->drained_until_ms, until);
    clock_rfc3339(a->drain_from_ms, from);
    bool planned = !a->drained && a->drain_from_ms, is = a->drained || planned;
    bool why = is && *a->why, ends = is && a->drained_until_ms;
    json_object_set_new(j, "reason", why ? json_str(a->why) : json_null());
    json_object_set_new(j, "until", ends ? json_string(until) : json_null());
    json_object_set_new(j, "from", planned ? json_string(from) : json_null());
    bool told = live && live->peer && live->space.disk.disk_b;
    json_object_set_new(j, "space",
                        told ? json_string(space_name(live->space.disk.level)) : json_null());
    json_object_set_new(j, "answers", hub_agent_answers(live));
    json_array_append_new(p->items, j);
    return 0;
}

static void ls_task(struct page *p, const struct sched_task *t)
{
    if (p->seen++ < p->skip || p->more)
        return;
    if (json_array_size(p->items) == LS_PAGE) {
        p->more = true;
        return;
    }
    const struct live *l = t->sweep ? t->sweep->user : NULL;
    char hex[ID_HEX_LEN];
    if (l)
        id_hex(&l->id, hex);
    const struct hub_agent *a = t->agent ? t->agent->user : NULL;
    json_t *j = json_object();
    json_object_set_new(j, "task", json_u64(t->num));
    json_object_set_new(j, "sweep", l ? json_string(hex) : json_null());
    json_object_set_new(j, "kind", json_string(task_kind_name(t->kind)));
    json_object_set_new(j, "state", json_string(task_state_name(t->state)));
    json_object_set_new(j, "agent", a ? json_str(a->info.name) : json_null());
    json_object_set_new(j, "epoch", t->n ? json_u64(t->epoch) : json_null());
    json_object_set_new(j, "attempt", json_u64(t->n));
    json_object_set_new(j, "points", json_u64(t->total));
    json_object_set_new(j, "done", json_u64(t->total - t->left.total));
    json_object_set_new(j, "cause", json_null());
    const struct job *job = t->job ? t->job->user : NULL;
    json_object_set_new(j, "job", job ? json_id(&job->id) : json_null());
    json_array_append_new(p->items, j);
}

/* An attempt that ended, newest first. */
static int ls_ended(void *ctx, const struct store_try *a)
{
    struct page *p = ctx;
    char hex[ID_HEX_LEN];
    id_hex(&a->sweep_id, hex);
    json_t *j = json_object();
    json_object_set_new(j, "task", json_u64(a->task));
    json_object_set_new(j, "sweep", a->has_sweep ? json_string(hex) : json_null());
    json_object_set_new(j, "kind", json_string(a->kind));
    json_object_set_new(j, "state", json_string(hub_ended_state(a->cause)));
    json_object_set_new(j, "agent", json_str(a->agent));
    json_object_set_new(j, "epoch", json_u64(a->epoch));
    json_object_set_new(j, "attempt", json_u64(a->n));
    json_object_set_new(j, "points", json_u64(a->points));
    json_object_set_new(j, "done", !strcmp(a->cause, "done") ? json_u64(a->points) : json_null());
    json_object_set_new(j, "cause", json_string(a->cause));
    json_object_set_new(j, "job", a->has_job ? json_id(&a->job_id) : json_null());
    json_array_append_new(p->items, j);
    return 0;
}

static json_t *ls_doc(const char *kind, json_t *items)
{
    json_t *j = json_object();
    json_object_set_new(j, "schema", json_string("siofleet.ls/1"));
    json_object_set_new(j, "kind", json_string(kind));
    json_object_set_new(j, "items", items);
    return j;
}

static int ask_ls(struct hub *h, const char *kind, const json_t *args, const char *cursor,
                  json_t **ret, char next[STORE_CURSOR], struct err *e)
{
    uint64_t ended = 0;
    struct page p = { .h = h, .items = json_array() };
    int r = 0;
    if (*cursor && num_u64(cursor, 0, UINT64_MAX, "cursor", &p.skip, e) < 0) {
        json_decref(p.items);
        return -SF_EUSAGE;
    }
    if (!strcmp(kind, "jobs")) {
        r = hub_ls_jobs(h, cursor, p.items, next, e);
    } else if (!strcmp(kind, "sweeps")) {
        r = store_sweeps(h->store, p.skip, false, ls_sweep, &p, e);
        if (p.more)
            snprintf(next, STORE_CURSOR, "%" PRIu64, p.last);
    } else {
        if (!strcmp(kind, "agents"))
            r = store_agents(h->store, ls_agent, &p, e);
        else {
            LIST_EACH(i, n, &h->sched.trace_tasks)
            ls_task(&p, LIST_OF(i, struct sched_task, by_sweep));
            for (size_t k = 0; k < h->sched.n_order; k++)
                LIST_EACH(i, n, &h->sched.order[k]->tasks)
            ls_task(&p, LIST_OF(i, struct sched_task, by_sweep));
            LIST_EACH(q, m, &h->sched.job_list)
            LIST_EACH(i, n, &LIST_OF(q, struct sched_job, all)->tasks)
            ls_task(&p, LIST_OF(i, struct sched_task, by_sweep));
            json_get_u64(args, "ended", &ended, NULL);
            if (!p.more && ended)
                r = store_tries(h->store, TRIES_ENDED, 0, NULL, ended < LS_PAGE ? ended : LS_PAGE,
                                ls_ended, &p, e);
        }
        if (p.more)
            snprintf(next, STORE_CURSOR, "%" PRIu64, p.skip + LS_PAGE);
    }
    *ret = ls_doc(kind, p.items);
    return r < 0 ? r : 0;
}

/* How many points of a sweep that is only planned have a result already. */
static int ask_known(struct hub *h, const json_t *args, json_t **ret, struct err *e)
{
    struct live *l = NULL;
    uint64_t known = 0;
    int r = live_new(json_object_get(args, "sweep"), &l, e);
    if (r >= 0) {
        for (uint32_t t = 0; r >= 0 && t < l->n_traces; t++) {
            r = l->build[t] ? store_recipe(h->store, &l->key[t], &l->tr[t], e)
                            : store_trace(h->store, &l->key[t], &l->tr[t], e);
            if (r == -ENOENT) {
                l->tr[t].num = 0;
                r = 0;
            }
        }
        for (uint64_t i = 0; r >= 0 && i < l->points && i < KNOWN_IN_PLAN; i++) {
            struct store_row row = { .index = i };
            uint32_t t;
            if (live_point(l, i, &t, &row.arch, &row.point) == 0 && l->tr[t].num) {
                row.trace = l->tr[t].num;
                r = store_is_known(h->store, &row, h->engines, h->n_engines, e);
            }
            known += r == 1;
        }
    }
    live_free(&l);
    if (r >= 0)
        *ret = json_pack("{s:o}", "known", json_u64(known));
    return r < 0 ? r : 0;
}

static int ask_artefact(struct hub *h, const json_t *args, json_t **ret, struct err *e)
{
    const char *text = json_string_value(json_object_get(args, "id"));
    struct store_artefact a;
    int r = store_artefact(h->store, text ? text : "", &a, e);
    if (r >= 0)
        *ret = json_pack("{s:o,s:o,s:s,s:o}", "id", json_id(&a.id), "size_b", json_u64(a.size_b),
                         "kind", a.kind, "name", json_str(a.name));
    return r;
}

static int ask_sweep(struct hub *h, const json_t *args, json_t **ret, struct err *e)
{
    const char *text = json_string_value(json_object_get(args, "id"));
    struct store_sweep w;
    int r = store_find_sweep(h->store, text ? text : "last", &w, e);
    if (r < 0)
        return r;
    *ret = json_object();
    json_object_set_new(*ret, "schema", json_string("siofleet.sweep/1"));
    json_t *doc = sweep_doc(h, &w);
    json_object_update(*ret, doc);
    json_decref(doc);
    return 0;
}

/* What waits and runs of sweeps that are neither held nor stuck: by it whoever starts agents knows how many. */
static json_t *ask_queue(struct hub *h)
{
    uint64_t points = 0, sweeps = 0;
    for (size_t k = 0; k < h->sched.n_order; k++) {
        const struct sched_sweep *w = h->sched.order[k];
        bool rest = true;
        uint64_t left = sched_left(w), stuck = sched_quarantined(w, &rest);
        if (w->held || w->over || left <= stuck)
            continue;
        sweeps++;
        points += left - stuck;
    }
    return json_pack("{s:o, s:o}", "sweeps", json_u64(sweeps), "points", json_u64(points));
}

static const char *sweep_state(void *ctx, const struct store_sweep *w)
{
    return hub_sweep_state(ctx, w);
}

void hub_ask(struct hub *h, const struct peer *p, const struct msg_ask *m)
{
    struct err e = { 0 };
    char next[STORE_CURSOR] = "";
    CLEANUP(buf_clear) struct buf body = BUF_INIT(1 << 20);
    json_t *args = m->args_len ? json_loadb((const char *)m->args, m->args_len, 0, NULL)
                               : json_object(),
           *doc = NULL;
    int r;
    hub_restore_rest(h);
    if (!json_is_object(args))
        r = err_set(&e, SF_EUSAGE, "%s: arguments are not a JSON object", m->what);
    else if (!strcmp(m->what, "results"))
        r = store_results(h->store, args, m->cursor, &body, next, &e);
    else if (!strcmp(m->what, "sql"))
        r = store_sql(h->store, args, SQL_MS, m->cursor, &body, next, &e);
    else if (!strcmp(m->what, "ls-artefacts"))
        r = store_ls_artefacts(h->store, m->cursor, &body, next, &e);
    else if (!strcmp(m->what, "ls-sweeps") || !strcmp(m->what, "ls-tasks") ||
             !strcmp(m->what, "ls-agents") || !strcmp(m->what, "ls-jobs"))
        r = ask_ls(h, m->what + 3, args, m->cursor, &doc, next, &e);
    else if (!strcmp(m->what, "sweep"))
        r = ask_sweep(h, args, &doc, &e);
    else if (!strcmp(m->what, "why"))
        r = hub_why(h, args, &doc, &e);
    else if (!strcmp(m->what, "queue"))
        r = (doc = ask_queue(h)) ? 0 : -ENOMEM;
    else if (!strcmp(m->what, "audit"))
        r = audit_page(h->store, args, m->cursor, sweep_state, h, &doc, next, &e);
    else if (!strcmp(m->what, "job"))
        r = hub_ask_job(h, args, m->cursor, &doc, next, &e);
    else if (!strcmp(m->what, "plan-runs"))
        r = hub_ask_runs(h, args, &doc, &e);
    else if (!strcmp(m->what, "logs")) {
        r = hub_ask_logs(h, p, m, args, &doc, &e);
        if (r == 1) { /* its agent was asked */
            json_decref(args);
            return;
        }
    } else if (!strcmp(m->what, "artefact"))
        r = ask_artefact(h, args, &doc, &e);
    else if (!strcmp(m->what, "store-ls"))
        r = hub_store_ls(h, m->cursor, &doc, next, &e);
    else if (!strcmp(m->what, "store-df"))
        r = hub_store_df(h, &doc, &e);
    else if (!strcmp(m->what, "store-gc"))
        r = hub_store_gc(h, args, m->cursor, &doc, next, &e);
    else if (!strcmp(m->what, "store-verify"))
        r = hub_store_verify(h, args, m->cursor, &doc, next, &e);
    else if (!strcmp(m->what, "plan-known"))
        r = ask_known(h, args, &doc, &e);
    else
        r = err_set(&e, SF_EUSAGE, "%s: unknown to this coordinator", m->what);
    json_decref(args);
    if (r >= 0 && doc) {
        CLEANUP(freep) char *text = json_dumps(doc, JSON_COMPACT);
        r = text ? buf_adds(&body, text) : -ENOMEM;
    }
    json_decref(doc);
    if (r < 0) {
        if (!e.code)
            err_sys(&e, -r, "%s", m->what);
        hub_refuse(h, p->id, m->req, &e, r == -ENOENT ? "NOT_FOUND" : NULL);
        return;
    }
    struct msg part = { .type = M_PART,
                        .part = { .req = m->req,
                                  .cursor = next,
                                  .cursor_len = strlen(next),
                                  .body = body.data,
                                  .body_len = body.len } };
    if (link_send(h->link, p->id, &part, &e) < 0)
        log_warn("user '%s': answer to '%s' not sent: %s", p->name, m->what, e.text);
}
