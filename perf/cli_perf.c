/* Verbs `perf run|sweep|mrc`. */
#include "perf/cli_perf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "perf/build.h"
#include "perf/compat/compat.h"
#include "perf/engine.h"
#include "perf/mrc.h"
#include "perf/rowout.h"
#include "perf/tracedoc.h"
#include "proto/base/clean.h"

/* ---- perf run */

struct run_opts {
    const char *recipe, *rules, *preset, *cfg;
    struct opt_multi arch;
    bool detail, json;
};

static int arch_of_opts(const struct run_opts *o, struct arch *a, struct err *e)
{
    arch_default(a);
    int r = o->preset ? arch_preset(a, o->preset, "--preset", e) : 0;
    if (r == 0 && o->cfg) {
        r = arch_read_cfg(a, o->cfg, e);
        if (r < 0 && e)
            e->code = SF_EUSAGE; /* nothing was started */
    }
    for (size_t i = 0; r == 0 && i < o->arch.n; i++) {
        const char *eq = strchr(o->arch.v[i], '=');
        if (!eq) {
            r = err_set(e, SF_EUSAGE, "--arch: '%.64s' is not KEY=VALUE", o->arch.v[i]);
            break;
        }
        char key[64], place[80];
        snprintf(key, sizeof(key), "%.*s", (int)(eq - o->arch.v[i]), o->arch.v[i]);
        snprintf(place, sizeof(place), "--arch %.60s", key);
        for (size_t k = 0; r == 0 && k < i; k++)
            if (!strncmp(o->arch.v[k], o->arch.v[i], (size_t)(eq - o->arch.v[i]) + 1))
                r = err_set(e, SF_EUSAGE, "%s: stands twice", place);
        if (r == 0)
            r = arch_set(a, key, eq + 1, place, e);
    }
    return r < 0 && e && e->code == SF_EUSAGE ? -SF_EUSAGE : r;
}

static json_t *list_json(const uint64_t *v, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_u64(v[i]));
    return a;
}

static json_t *range_json(uint64_t from, uint64_t n, uint64_t most)
{
    json_t *a = json_array();
    for (uint64_t i = from; i < from + n && i < most; i++)
        json_array_append_new(a, json_u64(i));
    return a;
}

static json_t *flows_json(const struct engine_detail *d, enum rules rules)
{
    json_t *flows = json_object();
    for (size_t i = 0; i < d->n_flows; i++) {
        char name[24];
        snprintf(name, sizeof(name), "%" PRIu32, d->flows[i].gid);
        json_t *o = json_object();
        json_object_set_new(o, "bw_mbps", json_u64(d->flows[i].bw_mbps));
        if (rules == RULES_HYPERSIO)
            json_object_set_new(o, "time_ns", json_u64(d->flows[i].time_ps / 1000));
        json_object_set_new(o, "time_ps", json_u64(d->flows[i].time_ps));
        json_object_set_new(o, "trans", json_u64(d->flows[i].trans));
        json_object_set_new(flows, name, o);
    }
    return flows;
}

/* Put what --detail adds into the row's stats, named as in the reference's own figures. */
static int add_detail(json_t *row, const struct trace *t, const struct arch *a, enum rules rules,
                      const struct row_stats *s, const struct engine_detail *d, struct err *e)
{
    static const char *const caches[] = { "CC", "IOTLB", "L2PAGE", "L3PAGE" };
    json_t *stats = json_object_get(row, "stats");
    json_t *pf = json_object_get(stats, "prefetcher");
    for (unsigned i = 0; i < 4; i++)
        json_object_set_new(json_object_get(json_object_get(stats, "caches"), caches[i]), "rows",
                            list_json(d->rows[i], d->n_rows[i]));
    CLEANUP(freep) uint32_t *order = calloc(d->n_flows + 1, sizeof(*order));
    if (!order)
        return err_sys(e, ENOMEM, "flows");
    for (uint32_t i = 0; i < d->n_flows; i++)
        order[i] = i;
    if (rules == RULES_HYPERSIO) {
        json_object_set_new(stats, "time_ns", json_u64(s->time_ps / 1000));
        if (compat_flow_order(d, order) < 0)
            return err_sys(e, ENOMEM, "flows");
    }
    json_object_set_new(stats, "flows", flows_json(d, rules));
    json_t *print = json_array();
    for (size_t i = 0; i < d->n_flows; i++)
        json_array_append_new(print, json_u64(d->flows[order[i]].gid));
    json_object_set_new(stats, "flow_print_order", print);
    json_t *history = json_object();
    for (size_t i = 0; i < d->n_hist; i++) {
        char name[24];
        snprintf(name, sizeof(name), "0x%" PRIx32, d->hist[i].sid);
        json_t *o = json_object();
        json_object_set_new(o, "hit", json_u64(d->hist[i].hit));
        json_object_set_new(o, "miss", json_u64(d->hist[i].miss));
        json_object_set_new(history, name, o);
    }
    json_object_set_new(pf, "history", history);
    json_object_set_new(pf, "distance", json_u64(a->pf_distance));
    json_object_set_new(pf, "histlen", json_u64(a->pf_history));
    json_t *cacheable = json_object();
    if (a->salloc) {
        uint64_t i = a->iotlb_groups, l2 = a->l2_groups, l3 = a->l3_groups, n = UINT64_MAX;
        json_object_set_new(cacheable, "IOTLB", range_json(0, i, n));
        json_object_set_new(cacheable, "L2PAGE", range_json(i, l2, n));
        json_object_set_new(cacheable, "L3PAGE", range_json(i + l2, l3, n));
    }
    json_object_set_new(stats, "cacheable_dids", cacheable);
    json_object_set_new(stats, "warn_lines", json_u64(d->warnings));
    (void)t;
    return 0;
}

static void print_row(const struct result_row *r)
{
    const struct row_stats *s = &r->stats;
    char hex[ID_HEX_LEN];
    struct id point;
    arch_point_id(&r->arch, r->rules, &r->trace, &point);
    id_hex(&point, hex);
    printf("point         %s\nrules         %s\ntenants       %" PRIu64 "%s\n", hex,
           rules_name(r->rules), r->tenants,
           r->replicate > 1 ? " (replicated: staggered copies of real tenants)" : "");
    printf("architecture ");
    struct arch def;
    arch_default(&def);
    bool any = false;
    for (unsigned k = 0; k < ARCH_N; k++)
        if (arch_get(&r->arch, k) != arch_get(&def, k)) {
            char text[16];
            arch_text(&r->arch, k, text);
            printf(" %s=%s", arch_names[k], text);
            any = true;
        }
    puts(any ? "" : " default");
    if (r->status != ROW_DONE) {
        printf("status        %s: %s\n", row_status_name(r->status), r->error);
        return;
    }
    printf("time          %" PRIu64 ".%03" PRIu64 " ns\nrequests      %" PRIu64
           "\npackets       %" PRIu64 " sent, %" PRIu64 " slots refused\n",
           s->time_ps / 1000, s->time_ps % 1000, s->requests, s->pkts_sent, s->pkts_dropped);
    printf("throughput    %" PRIu64 " Mb/s, %.2f %% of the link\n", s->mbps,
           (double)s->util_ppm / 10000.0);
    printf("flows         %" PRIu64 " to %" PRIu64 " Mb/s, fairness (Jain) %.4f\n",
           s->min_flow_mbps, s->max_flow_mbps, (double)s->jain_ppm / 1e6);
    const char *const names[] = { "cache", "hit", "miss", "conflict", "domains" };
    const char *const caches[] = { "context", "IOTLB", "L2 pages", "L3 pages" };
    const uint64_t *v[] = { &s->cc_hit, &s->iotlb_hit, &s->l2_hit, &s->l3_hit };
    CLEANUP(table_free) struct table *t = table_new(names, ARRAY_LEN(names));
    for (unsigned i = 0; t && i < 4; i++) {
        table_cell(t, "%s", caches[i]);
        for (unsigned k = 0; k < 4; k++)
            table_cell(t, "%" PRIu64, v[i][k]);
    }
    if (t)
        table_print(t, stdout);
    if (s->pf_size || s->pf_predictions)
        printf("prefetcher    %" PRIu64 " predictions, %" PRIu64 " correct; buffer of %" PRIu64
               ": %" PRIu64 " hits, %" PRIu64 " misses\n",
               s->pf_predictions, s->pf_correct, s->pf_size, s->pf_hit, s->pf_miss);
}

/* The trace of a recipe file, built in memory. */
static int trace_of_recipe(const char *path, struct trace **ret, struct id *ret_id,
                           struct id *ret_recipe, struct err *e)
{
    CLEANUP(recipe_clear) struct recipe r;
    recipe_init(&r);
    int rc = recipe_load(&r, path, e);
    if (rc == 0 && !r.n_logs)
        rc = err_set(e, SF_EUSAGE, "%s: no logs= in [trace]", path);
    if (rc == 0)
        rc = recipe_identify(&r, e);
    if (rc == 0)
        rc = build_trace(&r, NULL, ret, NULL, e);
    if (rc == 0)
        rc = trace_content_id(*ret, ret_id, e);
    if (rc == 0)
        recipe_id(&r, ret_recipe);
    return rc;
}

static int load_trace(const char *path, struct trace **ret, struct id *ret_id, struct err *e)
{
    int r = trace_load(path, 0, ret, e);
    return r < 0 ? r : cid_file(path, ret_id, NULL, e);
}

static int run_run(struct cli *c, void *opts, int argc, char **argv)
{
    const struct run_opts *o = opts;
    struct err e = { 0 };
    CLEANUP(trace_free) struct trace *t = NULL;
    struct result_row row = { .status = ROW_DONE };
    int r = arch_of_opts(o, &row.arch, &e);
    if (r == 0 && o->rules)
        r = rules_parse(o->rules, "--rules", &row.rules, &e);
    if (r == 0 && (argc == 1) == (o->recipe != NULL))
        r = err_set(&e, SF_EUSAGE, "perf run: give either a trace or --recipe RECIPE.ini");
    if (r == 0) {
        r = arch_check(&row.arch, row.rules, &e);
        if (r < 0 && o->cfg)
            err_wrap(&e, r, "%s", o->cfg);
    }
    if (r == 0)
        r = o->recipe ? trace_of_recipe(o->recipe, &t, &row.trace, &row.recipe_id, &e)
                      : load_trace(argv[0], &t, &row.trace, &e);
    if (r < 0)
        return cli_fail(c, &e);
    row.have_trace = true;
    row.have_recipe = o->recipe != NULL;
    if (!o->recipe) {
        CLEANUP(trace_origin_clear) struct trace_origin origin;
        trace_origin_load(argv[0], &row.trace, &origin);
        row.have_recipe = origin.have_recipe;
        row.recipe_id = origin.recipe_id;
    }
    result_from_head(&row, &t->head);
    if (row.arch.iotlb_policy == POLICY_ORACLE && trace_next(t, &e) < 0)
        return cli_fail(c, &e);
    CLEANUP(engine_detail_clear) struct engine_detail detail = { 0 };
    if (engine_run(t, &row.arch, row.rules, &row.stats, o->detail ? &detail : NULL, &e) < 0)
        return cli_fail(c, &e);
    if (!c->json && !o->detail) {
        print_row(&row);
        return cli_flush(c);
    }
    json_t *doc = result_json(&row);
    if (o->detail && add_detail(doc, t, &row.arch, row.rules, &row.stats, &detail, &e) < 0) {
        json_decref(doc);
        return cli_fail(c, &e);
    }
    return cli_json(c, doc);
}

static const struct opt run_options[] = {
    { .name = "recipe",
      .arg = "RECIPE.ini",
      .help = "build the trace in memory instead of reading one",
      .kind = OPT_STR,
      .off = offsetof(struct run_opts, recipe) },
    { .name = "rules",
      .arg = "model|hypersio",
      .help = "rule set (model)",
      .kind = OPT_STR,
      .off = offsetof(struct run_opts, rules) },
    { .name = "preset",
      .arg = "P",
      .help = "default or hypertrio",
      .kind = OPT_STR,
      .off = offsetof(struct run_opts, preset) },
    { .name = "cfg",
      .arg = "FILE",
      .help = "a HyperSIO architecture file, after the preset",
      .kind = OPT_STR,
      .off = offsetof(struct run_opts, cfg) },
    { .name = "arch",
      .arg = "KEY=VALUE",
      .help = "one architecture key, after preset and file",
      .kind = OPT_MULTI,
      .off = offsetof(struct run_opts, arch) },
    { .name = "detail",
      .help = "flows, sets and histories too (as JSON)",
      .kind = OPT_FLAG,
      .off = offsetof(struct run_opts, detail) },
    { .name = "json",
      .help = "siofleet.row/1",
      .kind = OPT_FLAG,
      .off = offsetof(struct run_opts, json) },
    { 0 },
};

/* ---- perf mrc */

struct mrc_opts {
    struct opt_u64 sets, sample;
    bool full, json;
};

static int print_curve(struct cli *c, const struct mrc *m, const struct id *id)
{
    enum { MOST = 512 };
    uint64_t sizes[MOST];
    size_t n = mrc_sizes(m, sizes, MOST);
    const char *mode = m->ppm < 1000000 ? "sampled" : m->sets > 1 ? "sets" : "full";
    if (!c->json) {
        static const char *const names[] = { "entries", "ways", "miss_ppm", "err_ppm" };
        CLEANUP(table_free) struct table *t = table_new(names, ARRAY_LEN(names));
        for (size_t i = 0; t && i < n; i++) {
            struct mrc_point p = mrc_at(m, sizes[i]);
            table_cell(t, "%" PRIu64, p.entries);
            table_cell(t, "%" PRIu64, p.ways);
            table_cell(t, "%" PRIu64, p.miss_ppm);
            table_cell(t, "%" PRIu64, p.err_ppm);
        }
        if (t)
            table_print(t, stdout);
        return cli_flush(c);
    }
    json_t *j = json_object(), *curve = json_array();
    json_object_set_new(j, "schema", json_string("siofleet.mrc/1"));
    json_object_set_new(j, "trace", json_id(id));
    json_object_set_new(j, "events", json_u64(m->events));
    json_object_set_new(j, "mode", json_string(mode));
    for (size_t i = 0; i < n; i++) {
        struct mrc_point p = mrc_at(m, sizes[i]);
        json_t *o = json_object();
        json_object_set_new(o, "entries", json_u64(p.entries));
        json_object_set_new(o, "ways", json_u64(p.ways));
        json_object_set_new(o, "miss_ppm", json_u64(p.miss_ppm));
        json_object_set_new(o, "err_ppm", json_u64(p.err_ppm));
        json_array_append_new(curve, o);
    }
    json_object_set_new(j, "curve", curve);
    json_object_set_new(j, "sets", json_u64(m->sets));
    json_object_set_new(j, "sample_ppm", json_u64(m->ppm));
    return cli_json(c, j);
}

static int run_mrc(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    const struct mrc_opts *o = opts;
    struct err e = { 0 };
    struct id id;
    CLEANUP(trace_free) struct trace *t = NULL;
    CLEANUP(mrc_clear) struct mrc m = { 0 };
    int r = 0;
    if (o->full && o->sets.set)
        r = err_set(&e, SF_EUSAGE, "--full: is one set; leave out --sets");
    else if (o->sample.set && o->sets.set)
        r = err_set(&e, SF_EUSAGE, "--sample: goes with full associativity; leave out --sets");
    else if (o->sets.set && o->sets.v & (o->sets.v - 1))
        r = err_set(&e, SF_EUSAGE, "--sets: %" PRIu64 " is not a power of two", o->sets.v);
    if (r == 0)
        r = load_trace(argv[0], &t, &id, &e);
    if (r == 0)
        r = o->sample.set ? mrc_sample(t, o->sample.v, &m, &e)
            : o->sets.set ? mrc_sets(t, o->sets.v, &m, &e)
                          : mrc_full(t, &m, &e);
    return r < 0 ? cli_fail(c, &e) : print_curve(c, &m, &id);
}

static const struct opt mrc_options[] = {
    { .name = "sets",
      .arg = "N",
      .help = "all associativities of a cache of N sets",
      .kind = OPT_U64,
      .off = offsetof(struct mrc_opts, sets),
      .min = 1,
      .max = 1u << 24 },
    { .name = "full",
      .help = "all sizes of a fully associative cache (default)",
      .kind = OPT_FLAG,
      .off = offsetof(struct mrc_opts, full) },
    { .name = "sample",
      .arg = "PPM",
      .help = "look at that share of the pages only, with an error band",
      .kind = OPT_U64,
      .off = offsetof(struct mrc_opts, sample),
      .min = 1,
      .max = 1000000 },
    { .name = "json",
      .help = "siofleet.mrc/1",
      .kind = OPT_FLAG,
      .off = offsetof(struct mrc_opts, json) },
    { 0 },
};

const struct verb perf_verbs[] = {
    { .name = "perf run",
      .args = "[TRACE]",
      .summary = "run one architecture over one trace, on this host",
      .details = "Architecture keys: link_gbps queue inorder salloc, "
                 "{cc,iotlb,l2,l3}_{entries,ways,groups},\n"
                 "iotlb_policy (lru, lfu, oracle), pf_{entries,distance,history}. Order of effect: "
                 "--preset,\n"
                 "--cfg, --arch. Rules: model (default), or hypersio: every figure as the "
                 "reference gives it.",
      .examples = "siofleet perf run t.trc\n"
                  "siofleet perf run t.trc --preset hypertrio --arch iotlb_entries=256 --json\n"
                  "siofleet perf run --recipe recipe.ini --rules hypersio --detail",
      .opts = run_options,
      .opts_size = sizeof(struct run_opts),
      .max_args = 1,
      .run = run_run },
    { .name = "perf sweep",
      .args = "SWEEP.ini",
      .summary = "run a sweep on all cores of this host, without a fleet",
      .details =
          "  [sweep]\n"
          "  name = iotlb\n"
          "  [trace real]\n"
          "  logs = logs/*.log\n"
          "  tenants = 4,24,72,120\n"
          "  [arch base]\n"
          "  iotlb_entries = 64..1024:x2\n"
          "  [arch improved]\n"
          "  preset = hypertrio\n\n"
          "Values: a,b,c  lo..hi:+N  lo..hi:xN  @file. Every [trace] meets every [arch]; the last "
          "key is\n"
          "the fastest. Rows come by index and are the same as those of `siofleet sweep run`.",
      .examples = "siofleet perf sweep sweep.ini\n"
                  "siofleet perf sweep sweep.ini --csv -o rows.csv\n"
                  "siofleet perf sweep sweep.ini --threads 1 --jsonl",
      .opts = perf_sweep_options,
      .opts_size = sizeof(struct perf_sweep_opts),
      .min_args = 1,
      .max_args = 1,
      .run = perf_sweep },
    { .name = "perf mrc",
      .args = "TRACE",
      .summary = "miss-ratio curve of an IOTLB over all its sizes, from one pass",
      .details = "What an LRU IOTLB of every size would miss, in trace order (no prefetch): the "
                 "curve tells which\n"
                 "sizes are worth a sweep.",
      .examples =
          "siofleet perf mrc t.trc                    every size, fully associative, exact\n"
          "siofleet perf mrc t.trc --sets 8           8 sets of every associativity\n"
          "siofleet perf mrc t.trc --sample 10000     1 % of the pages, with an error band",
      .opts = mrc_options,
      .opts_size = sizeof(struct mrc_opts),
      .min_args = 1,
      .max_args = 1,
      .run = run_mrc },
    { 0 },
};
