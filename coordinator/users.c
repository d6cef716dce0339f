/* What users ask for: submit, control, questions. Each request gets exactly one answer. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/num.h"

enum { KNOWN_AT_SUBMIT = 20000, LS_PAGE = 2000, SQL_MS = 2000 };

void hub_refuse(struct hub *h, uint64_t peer, uint64_t req, const struct err *e, const char *code)
{
    link_refuse(h->link, peer, req, err_exit(e->code), code ? code : err_name(e->code), e->text);
}

/* ---- live sweeps */

int hub_add_live(struct hub *h, struct live *l)
{
    if (h->n_lives == h->room_lives) {
        size_t room = h->room_lives ? h->room_lives * 2 : 16;
        void *v = realloc(h->lives, room * sizeof(struct live *));
        if (!v)
            return -ENOMEM;
        h->lives = v;
        h->room_lives = room;
    }
    int r = map_put(&h->live, l->seq, l);
    if (r >= 0)
        h->lives[h->n_lives++] = l;
    return r;
}

void hub_drop_live(struct hub *h, struct live *l)
{
    for (size_t i = 0; i < h->n_lives; i++)
        if (h->lives[i] == l) {
            h->lives[i] = h->lives[--h->n_lives];
            map_del(&h->live, l->seq);
            break;
        }
    live_free(&l);
}

int hub_look_up_traces(struct hub *h, struct live *l, struct err *e)
{
    for (uint32_t t = 0; t < l->n_traces; t++) {
        int r = l->build[t] ? store_recipe(h->store, &l->key[t], &l->tr[t], e)
                            : hub_note_trace(h, &l->key[t], &l->tr[t], e);
        if (r == -ENOENT) {
            l->tr[t].num = 0;
            continue;
        }
        if (r < 0)
            return r;
        l->ready[t] = cas_has(h->cas, &l->tr[t].id);
    }
    return 0;
}

/* Points whose result is known already, and invalid ones, get their rows at once. *todo: the rest. */
static int known_now(struct hub *h, struct live *l, struct spans *todo, struct err *e)
{
    for (uint64_t i = 0; i < l->points; i++) {
        struct store_row row = { .sweep = l->seq, .index = i, .by = BY_ENGINE };
        uint32_t t;
        int r = 0;
        if (live_point(l, i, &t, &row.arch, &row.point) == 0 && l->tr[t].num) {
            struct err why = { 0 };
            row.trace = l->tr[t].num;
            if (arch_check(&row.arch, l->rules, &why) < 0) {
                row.status = ROW_INVALID;
                row.error = why.text;
                r = store_put_row(h->store, &row, clock_wall_ms(), e);
                if (r >= 0)
                    continue;
            } else {
                r = store_put_known(h->store, l->seq, i, &row.point, h->engines, h->n_engines, e);
                if (r == 1)
                    continue;
            }
        }
        if (r >= 0)
            r = spans_add(todo, i, i + 1);
        if (r < 0)
            return r;
    }
    return 0;
}

int hub_load_sweep(struct hub *h, uint64_t seq, struct err *e)
{
    struct store_sweep w;
    CLEANUP(freep) char *json = NULL;
    int r = store_sweep(h->store, seq, &w, &json, e);
    if (r < 0)
        return r;
    json_t *j = json_loads(json, 0, NULL);
    struct live *l = NULL;
    r = j ? live_new(j, &l, e)
          : err_set(e, SF_EINTEGRITY, "sweep %" PRIu64 ": its recipe is damaged", seq);
    json_decref(j);
    if (r < 0)
        return r;
    l->seq = seq;
    l->id = w.id;
    struct spans todo = { 0 };
    r = hub_look_up_traces(h, l, e);
    if (r >= 0)
        r = store_missing(h->store, seq, l->points, &todo, e);
    if (r >= 0)
        r = hub_add_live(h, l);
    if (r < 0) {
        spans_clear(&todo);
        live_free(&l);
        return r;
    }
    struct sched_event ev;
    struct sched_actions *out = &h->out;
    struct sweep_head head = *sweep_head(l->sweep);
    head.priority = w.priority;
    live_event(l, &head, w.held, &todo, &ev);
    r = sched_step(&h->sched, &ev, clock_mono_ms(), out, e);
    spans_clear(&todo);
    return r;
}

/* ---- submit */

static int admit(struct hub *h, struct live *l, struct err *e)
{
    int r = 0;
    if (!sweep_head(l->sweep)->skip_invalid)
        r = live_check(l, e);
    if (r < 0)
        return r;
    for (uint32_t t = 0; t < l->n_traces; t++) {
        const struct recipe *rec = live_recipe(l, t);
        char hex[ID_HEX_LEN];
        if (!rec && !cas_has(h->cas, &l->key[t])) {
            id_hex(&l->key[t], hex);
            return err_set(e, ENOENT, "trace %.16s: not at the coordinator; put it first", hex);
        }
        for (size_t i = 0; rec && i < rec->n_logs && !l->ready[t]; i++)
            if (!cas_has(h->cas, &rec->logs[i].id)) {
                id_hex(&rec->logs[i].id, hex);
                return err_set(e, ENOENT, "log %.16s: not at the coordinator; put it first", hex);
            }
    }
    return 0;
}

static void answer_submitted(struct hub *h, const struct peer *p, uint64_t req,
                             const struct store_sweep *w, uint64_t known)
{
    struct msg m = { .type = M_SUBMITTED,
                     .submitted = {
                         .req = req, .sweep = w->id, .points = w->points, .known = known } };
    hub_answer(h, p->id, req, &m, NULL);
}

void hub_submit(struct hub *h, const struct peer *p, const struct msg_submit *m)
{
    struct err e = { 0 };
    struct store_sweep w = { 0 };
    CLEANUP(freep) char *json = NULL;
    struct live *l = NULL;
    json_error_t je;
    int r;
    if (!hub_write(h)) {
        hub_refuse(h, p->id, m->req, &h->why, h->why.code == ENOSPC ? "NO_SPACE" : NULL);
        return;
    }
    if (*m->request_id && store_sweep_by_request(h->store, m->request_id, &w, &e) == 0) {
        answer_submitted(h, p, m->req, &w, w.known);
        return;
    }
    if (h->conf->store_max_b && cas_bytes(h->cas) >= h->conf->store_max_b) {
        err_set(&e, ENOSPC, "store: full (--store-max)");
        hub_refuse(h, p->id, m->req, &e, "NO_SPACE");
        return;
    }
    json_t *j = json_loadb((const char *)m->sweep, m->sweep_len, JSON_REJECT_DUPLICATES, &je);
    r = j ? live_new(j, &l, &e) : err_set(&e, SF_EUSAGE, "sweep: not JSON: %s", je.text);
    if (r >= 0)
        json = json_canonical(j);
    json_decref(j);
    if (r >= 0 && !json)
        r = err_sys(&e, ENOMEM, "sweep");
    if (r >= 0)
        r = hub_look_up_traces(h, l, &e);
    if (r >= 0)
        r = admit(h, l, &e);
    if (r < 0) {
        hub_refuse(h, p->id, m->req, &e, r == -ENOENT ? "MISSING" : NULL);
        live_free(&l);
        return;
    }
    const struct sweep_head *head = sweep_head(l->sweep);
    random_bytes(w.id.b, sizeof(w.id.b)); /* two submits of one recipe are two sweeps */
    snprintf(w.name, sizeof(w.name), "%s", head->name);
    snprintf(w.request_id, sizeof(w.request_id), "%s", m->request_id);
    w.priority = head->priority;
    w.points = l->points;
    w.submitted_ms = clock_wall_ms();
    char hex[ID_HEX_LEN];
    id_hex(&w.id, hex);
    r = store_add_sweep(h->store, &w, json, p->name, &e);
    l->seq = w.seq;
    l->id = w.id;
    struct spans todo = { 0 };
    bool look = l->points <= KNOWN_AT_SUBMIT;
    if (r >= 0 && look)
        r = known_now(h, l, &todo, &e);
    if (r >= 0)
        r = store_event(h->store, w.submitted_ms, "sweep", hex, "submitted", &e);
    if (r >= 0)
        r = store_sweep(h->store, w.seq, &w, NULL, &e);
    if (r >= 0)
        r = hub_add_live(h, l);
    if (r < 0) {
        struct msg no = { .type = M_REFUSE };
        spans_clear(&todo);
        live_free(&l);
        hub_answer(h, p->id, m->req, &no, NULL); /* hub_commit() tells all who wait */
        hub_fail(h, &e);
        return;
    }
    log_info("sweep '%s' (%.8s) from '%s': %" PRIu64 " points, %" PRIu64 " known, %u traces",
             w.name, hex, p->name, w.points, w.known, l->n_traces);
    answer_submitted(h, p, m->req, &w, w.known);
    struct sched_event ev;
    live_event(l, head, false, NULL, &ev);
    /* the scheduler takes the ranges in hub_commit(); they live until then behind the event */
    if (look) {
        ev.sweep.todo = malloc(sizeof(todo));
        if (ev.sweep.todo)
            *ev.sweep.todo = todo;
        else
            spans_clear(&todo);
    }
    hub_event(h, &ev);
}

/* ---- control */

static void answer_ok(struct hub *h, const struct peer *p, uint64_t req, const char *text)
{
    struct msg m = { .type = M_OK, .ok = { .req = req } };
    hub_answer(h, p->id, req, &m, text);
}

static bool is_task(const char *target, uint64_t *ret)
{
    return strlen(target) < 8 && num_u64(target, 1, UINT64_MAX, "task", ret, NULL) == 0;
}

static int control_task(struct hub *h, const char *verb, uint64_t task, char text[256],
                        struct err *e)
{
    const struct sched_task *t = sched_task(&h->sched, task);
    if (!t)
        return err_set(e, ENOENT, "task %" PRIu64 ": not queued or running", task);
    struct sched_event ev = { .end = { .task = task } };
    if (!strcmp(verb, "cancel"))
        ev.type = EV_CANCEL_TASK;
    else if (!strcmp(verb, "retry"))
        ev.type = EV_RETRY_TASK;
    else
        return err_set(e, SF_EUSAGE, "%s: works on sweeps, not on tasks", verb);
    hub_step(h, &ev);
    snprintf(text, 256, "task %" PRIu64 ": %s", task,
             ev.type == EV_RETRY_TASK ? "retried now" : "cancelled");
    return 0;
}

static int retry_sweep(struct hub *h, const struct store_sweep *w, bool failed_only, char text[256],
                       struct err *e)
{
    const struct sched_sweep *s = sched_sweep(&h->sched, w->seq);
    struct spans again = { 0 };
    if (s && s->over)
        return err_set(e, EBUSY, "sweep '%.100s': its last tasks are ending; try again in a moment",
                       w->name);
    int r = store_take_failed(h->store, w->seq, &again, e);
    uint64_t n = again.total;
    if (r >= 0 && s) {
        r = sched_step(
            &h->sched,
            &(struct sched_event){ .type = EV_REDO, .sweep = { .seq = w->seq, .todo = &again } },
            clock_mono_ms(), &h->out, e);
    } else if (r >= 0 && (n || (w->state == SWEEP_CANCELLED && !failed_only))) {
        r = store_sweep_state(h->store, w->seq, SWEEP_RUNNING, 0, e);
        if (r >= 0)
            r = hub_load_sweep(h, w->seq, e);
        n = w->points - w->done - w->invalid;
    }
    spans_clear(&again);
    snprintf(text, 256, "sweep '%.100s': %" PRIu64 " points run again", w->name, n);
    return r < 0 ? r : 0;
}

static int control_sweep(struct hub *h, const char *verb, const struct store_sweep *w,
                         char text[256], struct err *e)
{
    struct sched_event ev = { .sweep = { .seq = w->seq } };
    int r = 0;
    if (!strncmp(verb, "retry", 5))
        return retry_sweep(h, w, !strcmp(verb, "retry-failed"), text, e);
    if (w->state > SWEEP_RUNNING) {
        snprintf(text, 256, "sweep '%.100s' is %s already", w->name,
                 sweep_state_name(w->state, false));
        return 0;
    }
    if (!strcmp(verb, "cancel")) {
        ev.type = EV_CANCEL_SWEEP;
        snprintf(text, 256, "sweep '%.100s': cancelled", w->name);
        /* durable before it is answered, whatever becomes of its tasks */
        r = store_sweep_state(h->store, w->seq, SWEEP_CANCELLED, clock_wall_ms(), e);
    } else {
        bool hold = !strcmp(verb, "hold");
        ev.type = hold ? EV_HOLD : EV_RELEASE;
        snprintf(text, 256, "sweep '%.100s': %s", w->name, hold ? "held" : "released");
        r = store_sweep_held(h->store, w->seq, hold, e);
    }
    if (r >= 0)
        hub_event(h, &ev);
    return r;
}

static int control_agent(struct hub *h, const char *verb, const char *target, char text[256],
                         struct err *e)
{
    struct store_agent a;
    bool drain = !strcmp(verb, "drain");
    int r = store_find_agent(h->store, target, &a, e);
    if (r >= 0)
        r = store_agent_drained(h->store, a.install, drain, e);
    if (r < 0)
        return r;
    struct sched_event ev = { .type = EV_DRAIN, .agent = { .accept = !drain } };
    memcpy(ev.agent.install, a.install, 16);
    hub_event(h, &ev);
    for (struct hub_agent *i = h->agents; i; i = i->next)
        if (!memcmp(i->info.install, a.install, 16))
            i->info.drained = drain;
    snprintf(text, 256, "agent '%.64s': %s", a.name,
             drain ? "takes nothing new, what runs ends" : "takes tasks again");
    return 0;
}

void hub_control(struct hub *h, const struct peer *p, const struct msg_control *m)
{
    static const char *const verbs[] = { "cancel",       "hold",  "release", "retry",
                                         "retry-failed", "drain", "undrain" };
    struct err e = { 0 };
    char text[256] = "";
    size_t v = 0;
    uint64_t task;
    int r = 0;
    while (v < ARRAY_LEN(verbs) && strcmp(verbs[v], m->verb) != 0)
        v++;
    if (!hub_write(h)) {
        e = h->why;
        r = -1;
    } else if (v == ARRAY_LEN(verbs)) {
        r = err_set(&e, SF_EUSAGE, "%.31s: unknown to this coordinator", m->verb);
    } else if (v >= 5) {
        r = control_agent(h, m->verb, m->target, text, &e);
    } else if (is_task(m->target, &task)) {
        r = control_task(h, m->verb, task, text, &e);
    } else {
        struct store_sweep w;
        r = store_find_sweep(h->store, m->target, &w, &e);
        if (r >= 0)
            r = control_sweep(h, m->verb, &w, text, &e);
    }
    if (r < 0) {
        if (!e.code)
            err_sys(&e, -r, "%s", m->verb);
        hub_refuse(h, p->id, m->req, &e, r == -ENOSPC ? "NO_SPACE" : NULL);
        if (r == -ENOSPC || r == -EIO)
            hub_fail(h, &e);
        return;
    }
    log_info("%s", text);
    struct err ignored = { 0 };
    store_event(h->store, clock_wall_ms(), "control", m->target, text, &ignored);
    answer_ok(h, p, m->req, text);
}

/* ---- questions */

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
    running += LIST_OF(i, struct sched_task, by_sweep)->state != TASK_QUEUED;
    json_t *j = json_object();
    json_object_set_new(j, "sweep", json_string(hex));
    json_object_set_new(j, "name", json_str(w->name));
    json_object_set_new(j, "state", json_string(sweep_state_name(w->state, w->held)));
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
    json_object_set_new(j, "priority", json_u64(w->priority));
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
    const struct hub_agent *live = NULL;
    for (const struct hub_agent *i = p->h->agents; i; i = i->next)
        if (!memcmp(i->info.install, a->install, 16))
            live = i;
    const struct sched_agent *s = sched_agent(&p->h->sched, a->install);
    uint32_t running = s ? s->n_tasks[0] + s->n_tasks[1] : 0;
    bool alive = s && s->alive;
    const char *state = !alive ? "lost" : !a->drained ? "ready" : running ? "draining" : "drained";
    uint64_t seen = live ? live->last_seen_ms : a->last_seen_ms, now = clock_wall_ms();
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
    json_object_set_new(j, "kind", json_string(t->kind == TASK_TRACE ? "trace" : "points"));
    json_object_set_new(j, "state", json_string(task_state_name(t->state)));
    json_object_set_new(j, "agent", a ? json_str(a->info.name) : json_null());
    json_object_set_new(j, "epoch", t->n ? json_u64(t->epoch) : json_null());
    json_object_set_new(j, "attempt", json_u64(t->n));
    json_object_set_new(j, "points", json_u64(t->total));
    json_object_set_new(j, "done", json_u64(t->total - t->left.total));
    json_array_append_new(p->items, j);
}

static json_t *ls_doc(const char *kind, json_t *items)
{
    json_t *j = json_object();
    json_object_set_new(j, "schema", json_string("siofleet.ls/1"));
    json_object_set_new(j, "kind", json_string(kind));
    json_object_set_new(j, "items", items);
    return j;
}

static int ask_ls(struct hub *h, const char *kind, const char *cursor, json_t **ret,
                  char next[STORE_CURSOR], struct err *e)
{
    struct page p = { .h = h, .items = json_array() };
    int r = 0;
    if (*cursor && num_u64(cursor, 0, UINT64_MAX, "cursor", &p.skip, e) < 0) {
        json_decref(p.items);
        return -SF_EUSAGE;
    }
    if (!strcmp(kind, "sweeps")) {
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
        for (uint64_t i = 0; r >= 0 && i < l->points && i < KNOWN_AT_SUBMIT * 10; i++) {
            struct arch a;
            struct id point;
            uint32_t t;
            if (live_point(l, i, &t, &a, &point) == 0 && l->tr[t].num)
                r = store_is_known(h->store, &point, h->engines, h->n_engines, e);
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

void hub_ask(struct hub *h, const struct peer *p, const struct msg_ask *m)
{
    struct err e = { 0 };
    char next[STORE_CURSOR] = "";
    CLEANUP(buf_clear) struct buf body = BUF_INIT(1 << 20);
    json_t *args = m->args_len ? json_loadb((const char *)m->args, m->args_len, 0, NULL)
                               : json_object(),
           *doc = NULL;
    int r;
    if (!json_is_object(args))
        r = err_set(&e, SF_EUSAGE, "%s: arguments are not a JSON object", m->what);
    else if (!strcmp(m->what, "results"))
        r = store_results(h->store, args, m->cursor, &body, next, &e);
    else if (!strcmp(m->what, "sql"))
        r = store_sql(h->store, args, SQL_MS, m->cursor, &body, next, &e);
    else if (!strcmp(m->what, "ls-artefacts"))
        r = store_ls_artefacts(h->store, m->cursor, &body, next, &e);
    else if (!strcmp(m->what, "ls-sweeps") || !strcmp(m->what, "ls-tasks") ||
             !strcmp(m->what, "ls-agents"))
        r = ask_ls(h, m->what + 3, m->cursor, &doc, next, &e);
    else if (!strcmp(m->what, "sweep"))
        r = ask_sweep(h, args, &doc, &e);
    else if (!strcmp(m->what, "artefact"))
        r = ask_artefact(h, args, &doc, &e);
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
