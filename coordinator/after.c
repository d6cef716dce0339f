/* A sweep with [collect]: it waits for its collection, and then has its logs. One submission, two records: the sweep, and a
 * job of its own that makes (or knows) the runs. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/hub.h"
#include "proto/base/clean.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

int hub_submit_after(struct hub *h, const struct live *l, struct store_sweep *w, const char *json,
                     const char *by, struct err *e)
{
    CLEANUP(job_free) struct job *j = NULL;
    CLEANUP(json_decrefp) json_t *doc = json_loads(sweep_collect_text(l->sweep), 0, NULL);
    struct store_job made;
    if (!doc)
        return err_set(e, SF_EUSAGE,
                       "sweep '%.100s': [collect] does not hold a job; submit it with this version "
                       "of siofleet",
                       l->name);
    json_object_set_new(doc, "priority", json_u64(w->priority));
    int r = job_new(doc, &j, e);
    if (r >= 0 && j->kind != TASK_COLLECT)
        r = err_set(e, SF_EUSAGE, "sweep '%.100s': [collect] is no collection", l->name);
    if (r >= 0)
        r = hub_add_job(h, &j, "", by, &made, e);
    if (r < 0)
        return r;
    char hex[ID_HEX_LEN];
    id_hex(&w->id, hex);
    r = store_add_sweep(h->store, w, json, by, e);
    if (r >= 0)
        r = store_add_after(h->store, w->seq, made.seq, e);
    if (r >= 0)
        r = store_event(h->store, w->submitted_ms, "sweep", hex, "submitted, waits for its logs",
                        e);
    if (r < 0) {
        hub_fail(h, e);
        return r;
    }
    log_info("sweep '%s' (%.8s) from '%s': %" PRIu64 " points, after %" PRIu64 " runs of '%s'",
             w->name, hex, by, w->points, made.tasks, made.name);
    return 0;
}

/* ---- when the job is over */

struct logs {
    struct id *id;
    size_t n, room;
};

static int add_log(void *ctx, const struct store_job_task *t)
{
    struct logs *x = ctx;
    CLEANUP(json_decrefp) json_t *info = t->info ? json_loads(t->info, 0, NULL) : NULL;
    const json_t *f;
    size_t i;
    json_array_foreach (json_object_get(info, "files"), i, f) {
        const char *kind = json_string_value(json_object_get(f, "kind")),
                   *hex = json_string_value(json_object_get(f, "id"));
        if (!kind || strcmp(kind, "log") != 0 || !hex)
            continue;
        if (x->n == x->room) {
            size_t room = x->room ? 2 * x->room : 64;
            void *v = realloc(x->id, room * sizeof(*x->id));
            if (!v)
                return -ENOMEM;
            x->id = v;
            x->room = room;
        }
        if (id_parse(hex, &x->id[x->n], NULL) == 0)
            x->n++;
    }
    return 0;
}

/* The logs take the place of @collect, in the store too: from here on it is a sweep like any other. */
static int bind(struct hub *h, uint64_t sweep, uint64_t job, struct err *e)
{
    struct store_sweep w;
    struct logs logs = { 0 };
    struct sweep *s = NULL;
    CLEANUP(freep) char *json = NULL, *bound = NULL;
    int r = store_sweep(h->store, sweep, &w, &json, e);
    if (r >= 0)
        r = store_job_tasks(h->store, job, 0, add_log, &logs, e);
    CLEANUP(json_decrefp) json_t *doc = json ? json_loads(json, 0, NULL) : NULL;
    if (r >= 0)
        r = doc ? sweep_from_json(doc, &s, e) : err_set(e, SF_EINTEGRITY, "its recipe is damaged");
    if (r >= 0 && !logs.n)
        r = err_set(e, SF_EFAILED, "its collection made no log");
    if (r >= 0)
        r = sweep_bind_collect(s, logs.id, logs.n, e);
    free(logs.id);
    if (r >= 0) {
        json_t *j = sweep_json(s);
        json_object_set_new(j, "collect", json_null());
        bound = json_canonical(j);
        json_decref(j);
    }
    sweep_free(&s);
    if (r >= 0 && !bound)
        r = err_sys(e, ENOMEM, "sweep");
    return r < 0 ? r : store_bind_sweep(h->store, sweep, bound, e);
}

/* It ends without a row. */
static int end_sweep(struct hub *h, uint64_t sweep, enum sweep_state state, const char *why,
                     struct err *e)
{
    struct store_sweep w;
    char hex[ID_HEX_LEN];
    uint64_t now = clock_wall_ms();
    int r = store_sweep(h->store, sweep, &w, NULL, e);
    if (r < 0)
        return r;
    id_hex(&w.id, hex);
    log_warn("sweep '%s' (%.8s) is %s: %s", w.name, hex, sweep_state_name(state, false), why);
    r = store_sweep_state(h->store, sweep, state, now, e);
    return r < 0 ? r : store_event(h->store, now, "sweep", hex, why, e);
}

/* Sweeps that are to go on once that is durable. */
struct going {
    struct hub *h;
    uint64_t seq[64];
    size_t n;
    bool more;
};

static int look(void *ctx, uint64_t sweep, uint64_t job)
{
    struct going *g = ctx;
    struct hub *h = g->h;
    struct store_job j;
    struct err e = { 0 };
    int r = store_job(h->store, job, &j, NULL, &e);
    if (r >= 0 && j.state <= SWEEP_RUNNING)
        return 0;
    if ((g->more = g->n == ARRAY_LEN(g->seq)))
        return 1;
    if (r >= 0 && j.state == SWEEP_CANCELLED)
        r = end_sweep(h, sweep, SWEEP_CANCELLED, "its collection was cancelled", &e);
    else if (r >= 0 && j.state == SWEEP_FAILED)
        r = end_sweep(h, sweep, SWEEP_FAILED, "its collection failed", &e);
    else if (r >= 0 && (r = bind(h, sweep, job, &e)) >= 0)
        g->seq[g->n++] = sweep;
    else if (r < 0 && r != -ENOSPC && r != -EIO && r != -ENOMEM) {
        struct err why = e;
        r = end_sweep(h, sweep, SWEEP_FAILED, why.text, &e);
    }
    if (r < 0) {
        hub_fail(h, &e);
        return r;
    }
    return 0;
}

void hub_look_after(struct hub *h)
{
    struct err e = { 0 };
    struct going g = { .h = h };
    if (!h->jobs_over || !hub_write(h))
        return;
    if (store_afters(h->store, look, &g, &e) < 0 && !h->failed)
        hub_fail(h, &e);
    if (!hub_commit(h))
        return; /* tried again at the next turn */
    h->jobs_over = g.more;
    for (size_t i = 0; i < g.n && hub_write(h); i++)
        if (hub_load_sweep(h, g.seq[i], &e) < 0)
            log_error("sweep %" PRIu64 ": %s; it waits as it is", g.seq[i], e.text);
    hub_commit(h);
}

int hub_after_job(struct hub *h, uint64_t sweep, struct store_job *ret, bool *ret_bound,
                  struct err *e)
{
    uint64_t job;
    int r = store_after(h->store, sweep, &job, ret_bound, e);
    return r < 0 ? r : store_job(h->store, job, ret, NULL, e);
}
