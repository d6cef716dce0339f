/* sweep plan: what a sweep would be. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cli/cli_collect_fleet.h"
#include "coordinator/cli/fleet_run.h"
#include "coordinator/cli/sheet.h"
#include "perf/sweep.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

enum {
    PLAN_FIRST = 10,
    PLAN_INVALID_MAX = 1000,
    PLAN_CHECK_MAX = 4000000,
    PLAN_TRACES_MAX = 4096,
    ASK_ARGS_MAX = 65536,
    PLAN_CONNECT_MS = 1500
};

/* What tells traces of a recipe apart, beside their tenants. */
static const char *const trace_keys[] = { "order", "burst", "seed", "replicate" };
enum { TRACE_KEYS = ARRAY_LEN(trace_keys) };

static void trace_values(const struct recipe *r, uint64_t v[TRACE_KEYS])
{
    const uint64_t all[TRACE_KEYS] = { r->order, r->burst, r->seed, r->replicate };
    memcpy(v, all, sizeof(all));
}

struct plan {
    struct id id;
    uint64_t points, traces, archs, checked, n_invalid;
    json_t *invalid, *first;
    bool differs[ARCH_N]; /* keys that the sweep varies */
    bool trace_differs[TRACE_KEYS];
};

static int compare_traces(struct sweep *s, struct plan *p, struct err *e)
{
    uint64_t base[TRACE_KEYS] = { 0 }, v[TRACE_KEYS];
    bool any = false;
    for (uint64_t i = 0; i < p->traces && i < PLAN_TRACES_MAX; i++) {
        struct sweep_trace t;
        int r = sweep_trace(s, i, &t, e);
        if (r < 0)
            return r;
        if (!t.from_recipe)
            continue;
        trace_values(t.recipe, v);
        if (!any)
            memcpy(base, v, sizeof(base));
        any = true;
        for (unsigned k = 0; k < TRACE_KEYS; k++)
            p->trace_differs[k] |= v[k] != base[k];
    }
    return 0;
}

static bool of_collect(const struct recipe *r)
{
    for (size_t i = 0; r && i < r->n_logs; i++)
        if (r->logs[i].path && !strcmp(r->logs[i].path, RECIPE_COLLECT))
            return true;
    return false;
}

static json_t *first_row(struct sweep *s, uint64_t index, struct err *e)
{
    struct arch a;
    struct sweep_trace t;
    uint64_t n;
    const struct sweep_head *h = sweep_head(s);
    if (sweep_point(s, index, &n, &a) < 0 || sweep_trace(s, n, &t, e) < 0)
        return NULL;
    struct id point;
    bool known = t.have_id;
    if (known)
        arch_point_id(&a, h->rules, &t.id, &point);
    const struct recipe *r = t.from_recipe ? t.recipe : NULL;
    struct err why = { .text = "" };
    bool ok = arch_check(&a, h->rules, &why) >= 0;
    return json_pack("{s:I, s:o, s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:s, s:o}", "index",
                     (json_int_t)index, "point", known ? json_id(&point) : json_null(), "trace",
                     known ? json_id(&t.id) : json_null(), "recipe_id",
                     r && !of_collect(r) ? json_id(&t.recipe_id) : json_null(), "section",
                     t.name ? t.name : "", "rules", rules_name(h->rules), "tenants",
                     r && r->tenants ? json_u64(r->tenants) : json_null(), "replicated",
                     r ? json_boolean(r->replicate > 1) : json_null(), "arch", arch_json(&a),
                     "status", ok ? "queued" : "invalid", "error",
                     ok ? json_null() : json_str(why.text));
}

static int plan_make(struct sweep *s, struct plan *p, struct err *e)
{
    json_t *j = sweep_json(s);
    if (!j)
        return err_sys(e, ENOMEM, "sweep");
    json_hash(j, &p->id);
    json_decref(j);
    p->points = sweep_points(s);
    p->traces = sweep_n_traces(s);
    /* the architectures repeat for every trace, so those of the first one stand for all */
    p->archs = p->points ? sweep_trace_end(s, 0) : 0;
    p->checked = p->archs < PLAN_CHECK_MAX ? p->archs : PLAN_CHECK_MAX;
    p->invalid = json_array();
    json_t *bad = json_array();
    p->first = json_array();
    struct arch base, a;
    uint64_t t;
    for (uint64_t i = 0; i < p->checked; i++) {
        if (sweep_point(s, i, &t, &a) < 0) {
            json_decref(bad);
            return err_set(e, SF_EFORMAT, "sweep: no point %" PRIu64, i);
        }
        if (i == 0)
            base = a;
        const uint32_t *v = (const uint32_t *)&a, *b = (const uint32_t *)&base;
        for (unsigned k = 0; k < ARCH_N; k++)
            p->differs[k] |= v[k] != b[k];
        struct err why;
        if (arch_check(&a, sweep_head(s)->rules, &why) >= 0)
            continue;
        p->n_invalid += p->traces;
        if (json_array_size(bad) < PLAN_INVALID_MAX)
            json_array_append_new(
                bad, json_pack("{s:o, s:s}", "index", json_u64(i), "reason", why.text));
    }
    for (uint64_t k = 0; k < p->traces && json_array_size(p->invalid) < PLAN_INVALID_MAX; k++) {
        size_t i;
        json_t *v;
        json_array_foreach (bad, i, v) {
            uint64_t index = 0;
            json_get_u64(v, "index", &index, NULL);
            json_array_append_new(p->invalid,
                                  json_pack("{s:o, s:O}", "index", json_u64(k * p->archs + index),
                                            "reason", json_object_get(v, "reason")));
            if (json_array_size(p->invalid) == PLAN_INVALID_MAX)
                break;
        }
    }
    json_decref(bad);
    for (uint64_t i = 0; i < p->points && i < PLAN_FIRST; i++) {
        json_t *row = first_row(s, i, e);
        if (!row)
            return err_set(e, SF_EFORMAT, "sweep: no point %" PRIu64, i);
        json_array_append_new(p->first, row);
    }
    return compare_traces(s, p, e);
}

/* Somebody said where a coordinator is, without naming it in this command. */
static bool fleet_configured(void)
{
    const char *env = getenv("SIOFLEET_CONNECT");
    CLEANUP(freep) char *dir = path_xdg("CONFIG");
    CLEANUP(freep) char *ini = dir ? path_fmt("%s/client.ini", dir) : NULL;
    return (env && *env) || (ini && access(ini, F_OK) == 0);
}

/* Of the points, how many have a result already: only a coordinator can tell; null when none is named. One that is only
 * configured need not answer: a plan is for people without a fleet, too. */
static int ask_known(const struct sweep_opt *o, struct sweep *s, json_t **ret, json_t **ret_runs,
                     struct err *e)
{
    CLEANUP(client_free) struct client *cl = NULL;
    *ret = json_null();
    bool named = o->fleet.connect != NULL;
    if (!named && !fleet_configured())
        return 0;
    struct err why = { 0 };
    /* points of logs that are still to be collected cannot be known; their runs can */
    bool collects = sweep_collect_text(s) != NULL;
    json_t *job = NULL;
    if (collects && sweep_collect_job(s, NULL, &job, e) < 0)
        return -e->code;
    json_t *args = collects ? json_pack("{s:o}", "job", job)
                            : json_pack("{s:o}", "sweep", sweep_json(s)),
           *doc = NULL;
    CLEANUP(freep) char *text = args ? json_dumps(args, JSON_COMPACT) : NULL;
    int r = client_open(&o->fleet, named ? 0 : PLAN_CONNECT_MS, &fleet_stop, &cl, &why);
    if (r >= 0 && text && strlen(text) < ASK_ARGS_MAX)
        r = client_ask_one(cl, collects ? "plan-runs" : "plan-known", args, &doc, &why);
    json_decref(args);
    if (r >= 0 && collects)
        *ret_runs = json_incref(doc);
    else if (r >= 0 && json_object_get(doc, "known"))
        *ret = json_incref(json_object_get(doc, "known"));
    json_decref(doc);
    if (r < 0 && named)
        return err_set(e, why.code, "%s", why.text);
    if (r < 0)
        fprintf(stderr, "what is known already stays open: %s\n", why.text);
    return 0;
}

/* The cells of a point's trace under those of trace_keys that vary. */
static void plan_trace_cells(struct table *t, struct sweep *s, const struct plan *p, uint64_t index)
{
    struct arch a;
    struct sweep_trace tr = { 0 };
    uint64_t n, v[TRACE_KEYS] = { 0 };
    bool known =
        sweep_point(s, index, &n, &a) >= 0 && sweep_trace(s, n, &tr, NULL) >= 0 && tr.from_recipe;
    if (known)
        trace_values(tr.recipe, v);
    for (unsigned k = 0; k < TRACE_KEYS; k++) {
        if (!p->trace_differs[k])
            continue;
        if (!known)
            table_cell(t, "-");
        else if (k == 0)
            table_cell(t, "%s", order_name(tr.recipe->order));
        else
            table_cell(t, "%" PRIu64, v[k]);
    }
}

/* The runs of [collect]: how many, and what a coordinator knows of them (runs; NULL = none was asked). */
static json_t *plan_collect(struct sweep *s, const json_t *runs)
{
    struct collect_recipe run;
    if (!sweep_collect_text(s) || collect_recipe_load(sweep_head(s)->collect_run, &run, NULL) < 0)
        return json_null();
    json_t *known = json_object_get(runs, "known"), *missing = json_object_get(runs, "missing");
    json_t *j = json_pack("{s:s, s:s, s:o, s:o, s:o}", "run", sweep_head(s)->collect_run, "profile",
                          run.profile, "runs", json_u64(run.runs), "known",
                          known ? json_incref(known) : json_null(), "missing",
                          missing ? json_incref(missing) : json_null());
    collect_recipe_clear(&run);
    return j;
}

static void plan_print(const struct sweep_head *h, struct sweep *s, const struct plan *p,
                       const json_t *known, const json_t *collect)
{
    char room[CELL_LEN];
    printf("sweep    %s (rules %s)\n", h->name[0] ? h->name : "without a name",
           rules_name(h->rules));
    printf("points   %" PRIu64 " = %" PRIu64 " trace%s x %" PRIu64 " architecture%s\n", p->points,
           p->traces, p->traces == 1 ? "" : "s", p->archs, p->archs == 1 ? "" : "s");
    if (json_is_object(collect)) {
        const char *runs = cell_text(json_object_get(collect, "runs"), room);
        printf("collect  %s run%s of profile %s", runs, strcmp(runs, "1") ? "s" : "",
               json_string_value(json_object_get(collect, "profile")));
        if (json_is_array(json_object_get(collect, "missing")))
            printf(", %zu missing", json_array_size(json_object_get(collect, "missing")));
        printf("; which points are known shows then\n");
    }
    if (!json_is_null(known))
        printf("known    %s have a result already\n", cell_text(known, room));
    if (p->n_invalid) {
        printf("invalid  %" PRIu64 ", no engine can run them:\n", p->n_invalid);
        size_t i;
        json_t *v;
        json_array_foreach (p->invalid, i, v) {
            if (i == 5) {
                printf("           ... (all of them: --json)\n");
                break;
            }
            printf("           point %s: %s\n", cell_text(json_object_get(v, "index"), room),
                   json_string_value(json_object_get(v, "reason")));
        }
    }
    printf("\ntraces\n");
    static const char *const names[] = { "section", "tenants",   "order", "burst",
                                         "seed",    "replicate", "from" };
    struct table *t = table_new(names, ARRAY_LEN(names));
    for (uint64_t i = 0; t && i < p->traces && i < 20; i++) {
        struct sweep_trace tr;
        if (sweep_trace(s, i, &tr, NULL) < 0)
            break;
        table_cell(t, "%s", tr.name && *tr.name ? tr.name : "-");
        if (!tr.from_recipe) {
            for (int k = 0; k < 5; k++)
                table_cell(t, "-");
            char hex[ID_HEX_LEN] = "";
            if (tr.have_id)
                id_hex(&tr.id, hex);
            table_cell(t, "%s", tr.file ? tr.file : hex);
            continue;
        }
        const struct recipe *r = tr.recipe;
        if (r->tenants)
            table_cell(t, "%" PRIu64, r->tenants);
        else
            table_cell(t, "all");
        table_cell(t, "%s", order_name(r->order));
        table_cell(t, "%" PRIu64, r->burst);
        table_cell(t, "%" PRIu64, r->seed);
        table_cell(t, "%" PRIu64, r->replicate);
        if (of_collect(r))
            table_cell(t, "[collect]");
        else
            table_cell(t, "%zu log%s", r->n_logs, r->n_logs == 1 ? "" : "s");
    }
    if (t)
        table_print(t, stdout);
    table_free(&t);
    if (p->traces > 20)
        printf("... %" PRIu64 " more\n", p->traces - 20);

    printf("\nfirst points (what varies)\n");
    const char *cols[3 + TRACE_KEYS + ARCH_N];
    unsigned key[ARCH_N], n_keys = 0;
    size_t n = 0;
    cols[n++] = "index";
    cols[n++] = "trace";
    cols[n++] = "tenants";
    for (unsigned k = 0; k < TRACE_KEYS; k++)
        if (p->trace_differs[k])
            cols[n++] = trace_keys[k];
    for (unsigned k = 0; k < ARCH_N; k++)
        if (p->differs[k]) {
            key[n_keys++] = k;
            cols[n++] = arch_names[k];
        }
    t = table_new(cols, n);
    size_t i;
    json_t *row;
    json_array_foreach (p->first, i, row) {
        if (!t)
            break;
        table_cell(t, "%s", cell_text(json_object_get(row, "index"), room));
        table_cell(t, "%s", json_string_value(json_object_get(row, "section")));
        const json_t *tenants = json_object_get(row, "tenants");
        table_cell(t, "%s", json_is_null(tenants) ? "-" : cell_text(tenants, room));
        plan_trace_cells(t, s, p, i);
        for (unsigned k = 0; k < n_keys; k++)
            table_cell(
                t, "%s",
                cell_text(json_object_get(json_object_get(row, "arch"), arch_names[key[k]]), room));
    }
    if (t)
        table_print(t, stdout);
    table_free(&t);
    if (p->points > PLAN_FIRST)
        printf("... %" PRIu64 " more\n", p->points - PLAN_FIRST);
}

int run_sweep_plan(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    struct sweep_opt *o = opts;
    c->json = o->json;
    struct err e = { 0 };
    CLEANUP(sweep_free) struct sweep *s = NULL;
    struct plan p = { 0 };
    json_t *known = NULL, *runs = NULL, *collect = NULL;
    int r = sweep_open(argv[0], &s, &e);
    r = r < 0 ? r : plan_make(s, &p, &e);
    r = r < 0 ? r : ask_known(o, s, &known, &runs, &e);
    if (r >= 0)
        collect = plan_collect(s, runs);
    int status;
    if (r < 0) {
        status = cli_fail(c, &e);
    } else if (o->json) {
        status =
            cli_json(c, json_pack("{s:s, s:o, s:o, s:o, s:O, s:O, s:O, s:O}", "schema",
                                  "siofleet.plan/1", "recipe_id", json_id(&p.id), "points",
                                  json_u64(p.points), "traces", json_u64(p.traces), "known", known,
                                  "invalid", p.invalid, "first", p.first, "collect", collect));
    } else {
        plan_print(sweep_head(s), s, &p, known, collect);
        status = cli_flush(c);
    }
    json_decref(known);
    json_decref(runs);
    json_decref(collect);
    json_decref(p.invalid);
    json_decref(p.first);
    return status;
}
