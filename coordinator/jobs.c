/* Jobs at the coordinator: submitted, granted, answered, asked about. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "coordinator/job.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/num.h"

enum { ITEMS_B = 400 << 10, LS_PAGE = 2000 };

struct job *hub_job(struct hub *h, uint64_t seq)
{
    return map_get(&h->jobs, seq);
}

void hub_drop_job(struct hub *h, struct job *j)
{
    if (!j)
        return;
    map_del(&h->jobs, j->seq);
    job_free(&j);
}

static void log_job(const struct job *j, const char *what)
{
    char hex[ID_HEX_LEN];
    id_hex(&j->id, hex);
    log_info("%s job '%s' (%.8s): %s", task_kind_name(j->kind), j->name, hex, what);
}

/* ---- submit */

static struct sched_job_task *next_task(struct job *j, size_t room)
{
    if (!j->tasks)
        j->tasks = calloc(room + 1, sizeof(*j->tasks)); /* untouched pages cost nothing */
    if (!j->tasks || j->n_tasks >= room)
        return NULL;
    struct sched_job_task *t = &j->tasks[j->n_tasks++];
    t->needs = j->needs;
    return t;
}

static bool named(const json_t *hosts, const char *name)
{
    const json_t *x;
    size_t i;
    json_array_foreach (hosts, i, x)
        if (!strcmp(json_string_value(x), name))
            return true;
    return false;
}

/* Named hosts that are not there are an error before anything starts. */
static int check_hosts(struct hub *h, const json_t *hosts, struct err *e)
{
    const json_t *x;
    size_t i;
    json_array_foreach (hosts, i, x) {
        const char *name = json_string_value(x);
        struct store_agent a;
        int r = store_find_agent(h->store, name, &a, e);
        if (r < 0)
            return r;
        const struct sched_agent *s = sched_agent(&h->sched, a.install);
        if (!s || !s->alive)
            return err_set(e, ENOENT, "agent '%.64s': not there", name);
        if (s->drained)
            return err_set(e, SF_EFAILED, "agent '%.64s': drained; `siofleet undrain` undoes it",
                           name);
    }
    return 0;
}

static const char *label_value(const char *labels, const char *key, size_t *ret_n)
{
    size_t k = strlen(key);
    while (labels && *labels) {
        size_t n = strcspn(labels, ",");
        if (n > k && labels[k] == '=' && !memcmp(labels, key, k)) {
            *ret_n = n - k - 1;
            return labels + k + 1;
        }
        labels += n + (labels[n] == ',');
    }
    return NULL;
}

static bool of_class(const char *labels, const char *class)
{
    size_t n = 0;
    const char *v = class ? label_value(labels, "class", &n) : NULL;
    return !class || (v && n == strlen(class) && !memcmp(v, class, n));
}

/* One task for each agent that is there and fits; its name goes along for people. */
static int tasks_of_exec(struct hub *h, struct job *j, char (*names)[65], size_t room,
                         struct err *e)
{
    const json_t *hosts = json_object_get(j->doc, "hosts");
    const char *class = json_string_value(json_object_get(j->doc, "class"));
    if (!json_array_size(hosts))
        hosts = NULL;
    int r = check_hosts(h, hosts, e);
    if (r < 0)
        return r;
    size_t there = 0;
    char labels[1100];
    struct sched_needs asked = j->needs; /* and the class, for the text if nobody has it */
    const struct sched_agent *near = NULL;
    if (class)
        snprintf(labels, sizeof(labels), "class=%s%s%s", class, j->labels ? "," : "",
                 j->labels ? j->labels : "");
    asked.labels = class ? labels : j->labels;
    for (const struct hub_agent *a = h->agents; a; a = a->next) {
        const struct sched_agent *s = sched_agent(&h->sched, a->info.install);
        if (!s || !s->alive || s->drained || (hosts && !named(hosts, a->info.name)))
            continue;
        there++;
        near = sched_nearer(near, s, &asked);
        if (!of_class(a->info.labels, class) || !sched_agent_fits(s, &j->needs))
            continue;
        struct sched_job_task *t = next_task(j, room);
        if (!t)
            return err_sys(e, ENOMEM, "job");
        t->needs.pinned = true;
        memcpy(t->needs.install, a->info.install, 16);
        snprintf(names[j->n_tasks - 1], 65, "%s", a->info.name);
    }
    for (size_t i = 1; i < j->n_tasks; i++) /* by name, as people read them */
        for (size_t k = i; k && strcmp(names[k - 1], names[k]) > 0; k--) {
            char name[65];
            struct sched_job_task t = j->tasks[k];
            memcpy(name, names[k], sizeof(name));
            memcpy(names[k], names[k - 1], sizeof(name));
            memcpy(names[k - 1], name, sizeof(name));
            j->tasks[k] = j->tasks[k - 1];
            j->tasks[k - 1] = t;
        }
    if (j->n_tasks)
        return 0;
    if (!there)
        return err_set(e, SF_EFAILED, "exec: no agent is there");
    char text[SCHED_WHY];
    sched_lacks_text(&asked, near, hub_agent_name, text);
    return err_set(e, SF_EFAILED, "exec: none of %zu agents matches: %s", there, text);
}

struct known_run {
    struct hub *h;
    struct store_job_task *to;
};

static int here(void *ctx, const struct id *id)
{
    return cas_has(((struct hub *)ctx)->cas, id) ? 0 : 1;
}

/* A run that was made before: its answer serves again while its logs are here. */
static int take_known(void *ctx, const struct store_job_task *t)
{
    struct known_run *k = ctx;
    CLEANUP(json_decrefp) json_t *info = t->info ? json_loads(t->info, 0, NULL) : NULL;
    if (!info || job_artefacts(info, here, k->h) != 0)
        return 0;
    k->to->state = SWEEP_DONE;
    snprintf(k->to->cause, sizeof(k->to->cause), "known");
    snprintf(k->to->agent, sizeof(k->to->agent), "%s", t->agent);
    k->to->info = strdup(t->info);
    k->to->duration_ms = t->duration_ms;
    k->to->ended_ms = t->ended_ms;
    return 0;
}

static int find_known(struct hub *h, const struct job *j, uint64_t index, struct store_job_task *t,
                      struct err *e)
{
    job_run_key(j, index, &t->key);
    if (j->again)
        return 0;
    struct known_run k = { h, t };
    int r = store_find_run(h->store, &t->key, take_known, &k, e);
    return r == -ENOENT ? 0 : r;
}

static int check_files(struct hub *h, const struct job *j, struct err *e)
{
    const char *key;
    json_t *x;
    json_object_foreach (json_object_get(j->doc, "files"), key, x) {
        struct id id;
        if (id_parse(json_string_value(x), &id, NULL) < 0 || !cas_has(h->cas, &id))
            return err_set(e, ENOENT, "%s: not at the coordinator; put it first", key);
    }
    return 0;
}

/* Store the job's tasks and fill j->tasks with those that are to run. */
static int put_tasks(struct hub *h, struct job *j, char (*names)[65], struct err *e)
{
    uint64_t n = j->kind == TASK_EXEC ? j->n_tasks : j->runs;
    uint64_t first = sched_reserve(&h->sched, n);
    for (uint64_t i = 0; i < n; i++) {
        struct store_job_task t = { .task = first + i, .job = j->seq, .index = i };
        int r = 0;
        if (j->kind == TASK_EXEC) {
            memcpy(t.install, j->tasks[i].needs.install, 16);
            snprintf(t.agent, sizeof(t.agent), "%s", names[i]);
        } else {
            r = find_known(h, j, i, &t, e);
        }
        if (r >= 0)
            r = store_add_job_task(h->store, &t, e);
        free(t.info);
        if (r < 0)
            return r;
        if (t.state == SWEEP_DONE)
            continue;
        struct sched_job_task *x = j->kind == TASK_EXEC ? &j->tasks[i] : next_task(j, n);
        if (!x)
            return err_sys(e, ENOMEM, "job");
        x->num = t.task;
    }
    return 0;
}

int hub_add_job(struct hub *h, struct job **pj, const char *request_id, const char *by,
                struct store_job *ret, struct err *e)
{
    struct job *j = *pj;
    size_t room = 1;
    for (const struct hub_agent *a = h->agents; a; a = a->next)
        room++;
    CLEANUP(freep) char(*names)[65] = calloc(room, 65);
    CLEANUP(freep) char *json = json_canonical(j->doc);
    if (!names || !json)
        return err_sys(e, ENOMEM, "job");
    int r = j->kind == TASK_EXEC ? tasks_of_exec(h, j, names, room, e) : check_files(h, j, e);
    if (r < 0)
        return r;
    uint64_t now = clock_wall_ms();
    *ret = (struct store_job){ .submitted_ms = now, .priority = j->priority };
    random_bytes(ret->id.b, sizeof(ret->id.b));
    j->id = ret->id;
    snprintf(ret->kind, sizeof(ret->kind), "%s", task_kind_name(j->kind));
    snprintf(ret->name, sizeof(ret->name), "%s", j->name);
    snprintf(ret->request_id, sizeof(ret->request_id), "%s", request_id);
    char hex[ID_HEX_LEN];
    id_hex(&j->id, hex);
    r = store_add_job(h->store, ret, json, by, e);
    j->seq = ret->seq;
    if (r >= 0)
        r = put_tasks(h, j, names, e);
    if (r >= 0)
        r = store_event(h->store, now, "job", hex, "submitted", e);
    if (r >= 0)
        r = store_job(h->store, j->seq, ret, NULL, e);
    if (r >= 0)
        r = map_put(&h->jobs, j->seq, j);
    if (r < 0) {
        if (!e->code)
            err_sys(e, -r, "job");
        hub_fail(h, e);
        return r;
    }
    char text[100];
    snprintf(text, sizeof(text), "%" PRIu64 " tasks, %" PRIu64 " known, from '%.40s'", ret->tasks,
             ret->known, by);
    log_job(j, text);
    struct sched_event ev;
    job_event(j, false, &ev);
    hub_event(h, &ev);
    *pj = NULL;
    return 0;
}

void hub_submit_job(struct hub *h, const struct peer *p, const struct msg_submit_job *m)
{
    struct err e = { 0 };
    struct store_job w = { 0 };
    CLEANUP(job_free) struct job *j = NULL;
    json_error_t je;
    hub_restore_rest(h); /* older ones go first */
    if (!hub_write(h)) {
        hub_refuse(h, p->id, m->req, &h->why, h->why.code == ENOSPC ? "NO_SPACE" : NULL);
        return;
    }
    if (!*m->request_id || store_job_by_request(h->store, m->request_id, &w, &e) != 0) {
        CLEANUP(json_decrefp)
        json_t *doc = json_loadb((const char *)m->job, m->job_len, JSON_REJECT_DUPLICATES, &je);
        int r = doc ? job_new(doc, &j, &e) : err_set(&e, SF_EUSAGE, "job: not JSON: %s", je.text);
        if (r >= 0 && j->kind == TASK_COLLECT) /* a command may be what makes room */
            r = hub_admit(h, 0, &e);
        if (r >= 0)
            r = hub_add_job(h, &j, m->request_id, p->name, &w, &e);
        if (r < 0 && h->failed) {
            struct msg no = { .type = M_REFUSE };
            hub_answer(h, p->id, m->req, &no, NULL); /* hub_commit() tells all who wait */
            return;
        }
        if (r < 0) {
            hub_refuse(h, p->id, m->req, &e,
                       r == -ENOENT       ? "MISSING"
                       : r == -ENOSPC     ? "NO_SPACE"
                       : r == -SF_EFAILED ? "NO_AGENT"
                                          : NULL);
            return;
        }
    }
    struct msg ans = { .type = M_SUBMITTED,
                       .submitted = {
                           .req = m->req, .sweep = w.id, .points = w.tasks, .known = w.known } };
    hub_answer(h, p->id, m->req, &ans, NULL);
}

/* ---- from the store, at a start and when failed tasks are to run again */

static int load_task(void *ctx, uint64_t task, const uint8_t install[16])
{
    static const uint8_t any[16];
    struct sched_job_task *x = next_task(ctx, JOB_TASKS_MAX);
    if (!x)
        return -ENOMEM;
    x->num = task;
    x->needs.pinned = install && memcmp(install, any, sizeof(any)) != 0;
    if (install)
        memcpy(x->needs.install, install, 16);
    return 0;
}

static int by_num(const void *x, const void *y)
{
    const struct sched_job_task *a = x, *b = y;
    return a->num < b->num ? -1 : a->num > b->num;
}

static void load_tried(void *ctx, uint64_t task, uint64_t n, uint64_t fails)
{
    struct job *j = ctx;
    struct sched_job_task want = { .num = task }, *x = NULL;
    if (j->n_tasks)
        x = bsearch(&want, j->tasks, j->n_tasks, sizeof(want), by_num);
    if (!x)
        return;
    x->n = n;
    x->fails = (uint32_t)fails;
}

int hub_load_job(struct hub *h, uint64_t seq, bool fresh, struct err *e)
{
    struct store_job w;
    CLEANUP(freep) char *json = NULL;
    CLEANUP(job_free) struct job *j = NULL;
    int r = store_job_head(h->store, seq, &w, &json, e);
    if (r < 0)
        return r;
    CLEANUP(json_decrefp) json_t *doc = json_loads(json, 0, NULL);
    r = doc ? job_new(doc, &j, e)
            : err_set(e, SF_EINTEGRITY, "job %" PRIu64 ": its text is damaged", seq);
    if (r < 0)
        return r;
    j->seq = seq;
    j->id = w.id;
    j->priority = w.priority;
    r = store_waiting_tasks(h->store, seq, load_task, load_tried, j, e);
    if (r >= 0)
        r = map_put(&h->jobs, seq, j);
    if (r < 0)
        return r;
    for (size_t i = 0; fresh && i < j->n_tasks; i++)
        j->tasks[i].fails = 0; /* asked for by somebody: it has all its tries again */
    struct sched_event ev;
    job_event(j, w.held, &ev);
    r = sched_step(&h->sched, &ev, clock_mono_ms(), &h->out, e);
    job_forget_tasks(j);
    j = NULL; /* the scheduler's user from here on */
    return r;
}

/* ---- answers of agents */

struct fetch {
    struct hub *h;
    uint64_t peer;
    bool missing, spoiled;
};

static int fetch_missing(void *ctx, const struct id *id)
{
    struct fetch *f = ctx;
    if (cas_has(f->h->cas, id))
        return 0;
    f->missing = true;
    f->spoiled |= hub_spoiled(f->h, id);
    if (!xfers_busy(f->h->xfers, id))
        xfers_fetch(f->h->xfers, f->peer, 0, id, clock_mono_ms(), NULL);
    return 0;
}

int hub_job_end(struct hub *h, const struct peer *p, const struct hub_agent *a,
                const struct sched_task *t, const struct msg_task_end *m, const char **cause,
                struct err *e)
{
    struct fetch f = { .h = h, .peer = p->id };
    CLEANUP(json_decrefp)
    json_t *info = m->info_len ? json_loadb((const char *)m->info, m->info_len, 0, NULL) : NULL;
    bool bad = m->info_len && !json_is_object(info);
    if (!bad && info && job_artefacts(info, fetch_missing, &f) < 0)
        bad = true;
    if (f.spoiled && !bad) {
        log_warn("agent '%s': task %" PRIu64 ": what it made cannot be had whole", a->info.name,
                 m->task);
        *cause = "integrity";
        json_decref(info);
        info = NULL;
    } else if (f.missing && !bad)
        return 0; /* the agent says it again; by then they are here */
    if (bad || (!info && !strcmp(*cause, "done"))) {
        log_warn("agent '%s': task %" PRIu64 ": its answer is not readable", a->info.name, m->task);
        *cause = "integrity";
        json_decref(info);
        info = NULL;
    }
    if (!sched_job_final(t, *cause))
        return 1;
    bool cancelled = strcmp(*cause, "done") != 0 && (t->state == TASK_STOPPING || t->cancelled);
    CLEANUP(freep) char *text = info ? strndup((const char *)m->info, m->info_len) : NULL;
    CLEANUP(freep) char *tail = m->tail_len ? strndup((const char *)m->tail, m->tail_len) : NULL;
    struct store_job_task x = { .task = t->num,
                                .state = !strcmp(*cause, "done") ? SWEEP_DONE
                                         : cancelled             ? SWEEP_CANCELLED
                                                                 : SWEEP_FAILED,
                                .exit = m->exit,
                                .signal = m->signal,
                                .duration_ms = m->duration_ms,
                                .ended_ms = clock_wall_ms(),
                                .info = text,
                                .tail = tail };
    snprintf(x.cause, sizeof(x.cause), "%s", *cause);
    snprintf(x.agent, sizeof(x.agent), "%s", a->info.name);
    int r = store_end_job_task(h->store, &x, e);
    return r < 0 ? r : 1;
}

/* A task that was given up without a word of its agent. */
int hub_job_task(struct hub *h, const struct sched_action *a, struct err *e)
{
    bool cancelled = a->fails == UINT32_MAX;
    struct store_job_task x = { .task = a->task,
                                .state = cancelled ? SWEEP_CANCELLED : SWEEP_FAILED,
                                .ended_ms = clock_wall_ms() };
    snprintf(x.cause, sizeof(x.cause), "%s", a->text);
    log_info("task %" PRIu64 ": %s: %s", a->task, cancelled ? "cancelled" : "given up", a->text);
    return store_end_job_task(h->store, &x, e);
}

int hub_job_over(struct hub *h, const struct sched_action *a, struct err *e)
{
    struct store_job w;
    int r = store_job(h->store, a->sweep, &w, NULL, e);
    if (r < 0)
        return r;
    enum sweep_state state = w.cancelled || w.state == SWEEP_CANCELLED ? SWEEP_CANCELLED
                             : w.failed                                ? SWEEP_FAILED
                                                                       : SWEEP_DONE;
    uint64_t now = clock_wall_ms();
    char text[160], hex[ID_HEX_LEN];
    id_hex(&w.id, hex);
    snprintf(text, sizeof(text),
             "%s: %" PRIu64 " of %" PRIu64 " tasks done, %" PRIu64 " failed, %" PRIu64
             " known before",
             sweep_state_name(state, false), w.done, w.tasks, w.failed, w.known);
    log_info("%s job '%s' (%.8s) is %s", w.kind, w.name, hex, text);
    r = store_job_state(h->store, w.seq, state, now, e);
    return r < 0 ? r : store_event(h->store, now, "job", hex, text, e);
}

/* ---- control */

/* Those in quarantine; how many. */
static uint64_t free_tasks(struct hub *h, const struct sched_job *j)
{
    uint64_t n = 0;
    LIST_EACH(p, next, &j->tasks)
    {
        const struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        if (t->state != TASK_QUARANTINED)
            continue;
        hub_event(h, &(struct sched_event){ .type = EV_RETRY_TASK, .end = { .task = t->num } });
        n++;
    }
    return n;
}

int hub_control_job(struct hub *h, const char *verb, uint64_t value, const struct store_job *w,
                    char text[256], struct err *e)
{
    struct sched_event ev = { .job = { .seq = w->seq } };
    int r;
    if (!strncmp(verb, "retry", 5)) {
        uint64_t n = 0;
        const struct sched_job *j = sched_job(&h->sched, w->seq);
        if (j && !(n = free_tasks(h, j)))
            return err_set(e, EBUSY, "job '%.100s': still at work; retry it when it is over",
                           w->name);
        if (j) {
            snprintf(text, 256, "job '%.100s': %" PRIu64 " tasks leave quarantine", w->name, n);
            return 0;
        }
        r = store_redo_job(h->store, w->seq, !!strcmp(verb, "retry-failed"), &n, e);
        if (r >= 0 && n)
            r = store_job_state(h->store, w->seq, SWEEP_RUNNING, 0, e);
        if (r >= 0 && n)
            r = hub_commit_now(h, e); /* the scheduler hears of it when it is stored */
        if (r >= 0 && n)
            r = hub_load_job(h, w->seq, true, e);
        snprintf(text, 256, "job '%.100s': %" PRIu64 " tasks run again", w->name, n);
        return r < 0 ? r : 0;
    }
    if (w->state > SWEEP_RUNNING) {
        snprintf(text, 256, "job '%.100s' is %s already", w->name,
                 sweep_state_name(w->state, false));
        return 0;
    }
    if (!strcmp(verb, "cancel")) {
        ev.type = EV_CANCEL_JOB;
        snprintf(text, 256, "job '%.100s': cancelled", w->name);
        /* durable before it is answered; what its agents still say is late */
        r = store_cancel_job(h->store, w->seq, clock_wall_ms(), e);
    } else if (!strcmp(verb, "priority")) {
        ev.type = EV_PRIORITY_JOB;
        ev.job.priority = value;
        snprintf(text, 256, "job '%.100s': priority %" PRIu64, w->name, value);
        r = store_job_priority(h->store, w->seq, value, e);
    } else {
        bool hold = !strcmp(verb, "hold");
        ev.type = EV_HOLD_JOB;
        ev.job.held = hold;
        snprintf(text, 256, "job '%.100s': %s", w->name, hold ? "held" : "released");
        r = store_job_held(h->store, w->seq, hold, e);
    }
    if (r >= 0)
        hub_event(h, &ev);
    return r;
}

/* ---- questions */

static json_t *job_doc(struct hub *h, const struct store_job *w)
{
    char when[CLOCK_RFC3339_LEN];
    json_t *j = json_object();
    json_object_set_new(j, "job", json_id(&w->id));
    json_object_set_new(j, "kind", json_str(w->kind));
    json_object_set_new(j, "name", json_str(w->name));
    json_object_set_new(j, "state", json_string(hub_job_state(h, w)));
    json_object_set_new(j, "tasks", json_u64(w->tasks));
    json_object_set_new(j, "done", json_u64(w->done));
    json_object_set_new(j, "failed", json_u64(w->failed));
    json_object_set_new(j, "known", json_u64(w->known));
    clock_rfc3339(w->submitted_ms, when);
    json_object_set_new(j, "submitted", json_string(when));
    clock_rfc3339(w->ended_ms, when);
    json_object_set_new(j, "ended", w->ended_ms ? json_string(when) : json_null());
    return j;
}

struct items {
    struct hub *h;
    json_t *v;
    size_t bytes;
    uint64_t next;
    bool more;
};

static json_t *words(const char *s)
{
    return s && *s ? json_str(s) : json_null();
}

static int add_item(void *ctx, const struct store_job_task *t)
{
    struct items *p = ctx;
    size_t size = 900 + (t->info ? strlen(t->info) : 0) + (t->tail ? strlen(t->tail) : 0);
    if (p->bytes && p->bytes + size > ITEMS_B) {
        p->more = true;
        p->next = t->index;
        return 1;
    }
    p->bytes += size;
    const struct sched_task *s = sched_task(&p->h->sched, t->task);
    const struct hub_agent *a = s && s->agent ? s->agent->user : NULL;
    const char *state = t->state > SWEEP_RUNNING ? sweep_state_name(t->state, false)
                        : s                      ? task_state_name(s->state)
                                                 : "queued";
    char why[SCHED_WHY] = "";
    if (s && task_waits(s))
        sched_job_why(&p->h->sched, s, hub_agent_name, clock_mono_ms(), why);
    json_t *j = json_object();
    json_object_set_new(j, "task", json_u64(t->task));
    json_object_set_new(j, "index", json_u64(t->index));
    json_object_set_new(j, "state", json_string(state));
    json_object_set_new(j, "agent", words(a ? a->info.name : t->agent));
    json_object_set_new(j, "attempt", json_u64(s ? s->n : t->n));
    json_object_set_new(j, "cause", words(t->cause));
    json_object_set_new(j, "exit", t->ended_ms ? json_u64(t->exit) : json_null());
    json_object_set_new(j, "signal", t->signal ? json_u64(t->signal) : json_null());
    json_object_set_new(j, "duration_ms", t->ended_ms ? json_u64(t->duration_ms) : json_null());
    json_object_set_new(j, "reason", words(why));
    json_t *info = t->info ? json_loads(t->info, 0, NULL) : NULL;
    json_object_set_new(j, "info", info ? info : json_null());
    json_object_set_new(j, "tail", words(t->tail));
    json_array_append_new(p->v, j);
    return 0;
}

int hub_ask_job(struct hub *h, const json_t *args, const char *cursor, json_t **ret,
                char next[STORE_CURSOR], struct err *e)
{
    const char *text = json_string_value(json_object_get(args, "id"));
    struct store_job w;
    struct items p = { .h = h };
    uint64_t from = 0;
    int r = store_find_job(h->store, text ? text : "last", &w, e);
    if (r >= 0 && *cursor)
        r = num_u64(cursor, 0, UINT64_MAX, "cursor", &from, e);
    if (r < 0)
        return r;
    *ret = json_object();
    json_object_set_new(*ret, "schema", json_string("siofleet.job/1"));
    CLEANUP(json_decrefp) json_t *doc = job_doc(h, &w);
    json_object_update(*ret, doc);
    if (!json_is_true(json_object_get(args, "items")))
        return 0;
    p.v = json_array();
    json_object_set_new(*ret, "items", p.v);
    r = store_job_tasks(h->store, w.seq, from, add_item, &p, e);
    if (p.more)
        snprintf(next, STORE_CURSOR, "%" PRIu64, p.next);
    return r < 0 ? r : 0;
}

static int ls_one(void *ctx, const struct store_job *w)
{
    struct items *p = ctx;
    if (json_array_size(p->v) == LS_PAGE) {
        p->more = true;
        p->next = w->seq;
        return 1;
    }
    json_array_append_new(p->v, job_doc(p->h, w));
    return 0;
}

int hub_ls_jobs(struct hub *h, const char *cursor, json_t *items, char next[STORE_CURSOR],
                struct err *e)
{
    struct items p = { .h = h, .v = items };
    uint64_t from = 0;
    if (*cursor && num_u64(cursor, 0, UINT64_MAX, "cursor", &from, e) < 0)
        return -SF_EUSAGE;
    int r = store_jobs(h->store, from, false, ls_one, &p, e);
    if (p.more)
        snprintf(next, STORE_CURSOR, "%" PRIu64, p.next);
    return r < 0 ? r : 0;
}

int hub_ask_runs(struct hub *h, const json_t *args, json_t **ret, struct err *e)
{
    CLEANUP(job_free) struct job *j = NULL;
    int r = job_new(json_object_get(args, "job"), &j, e);
    if (r < 0)
        return r;
    if (j->kind != TASK_COLLECT)
        return err_set(e, SF_EUSAGE, "job: only a collection has runs");
    uint64_t known = 0;
    json_t *missing = json_array();
    for (uint64_t i = 0; r >= 0 && i < j->runs; i++) {
        struct store_job_task t = { 0 };
        r = find_known(h, j, i, &t, e);
        known += t.state == SWEEP_DONE;
        if (r >= 0 && t.state != SWEEP_DONE)
            json_array_append_new(missing, json_u64(i + 1));
        free(t.info);
    }
    *ret = json_pack("{s:o, s:o, s:o}", "runs", json_u64(j->runs), "known", json_u64(known),
                     "missing", missing);
    return r < 0 ? r : 0;
}
