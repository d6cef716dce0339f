/* Verbs `trace build|info|export|import`. */
#include "perf/cli_perf.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "perf/build.h"
#include "perf/compat/compat.h"
#include "perf/oracle_general.h"
#include "perf/tracedoc.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/num.h"

/* ---- printing */

static uint64_t field(const json_t *o, const char *name)
{
    uint64_t v = 0;
    json_get_u64(o, name, &v, NULL);
    return v;
}

static void print_range(const json_t *o)
{
    printf("%#" PRIx64 "..%#" PRIx64 ": %" PRIu64 " events", field(o, "from"), field(o, "to"),
           field(o, "events"));
}

static void print_tenant(const json_t *o)
{
    printf("%" PRIu64 ", sid %#" PRIx64 ": %" PRIu64 " events, %" PRIu64 " pages",
           field(o, "tenant"), field(o, "sid"), field(o, "events"), field(o, "pages"));
}

/* A line an element; of long lists the first ones. */
static void print_list(const json_t *list, const char *what, void (*print)(const json_t *o))
{
    enum { LINES = 32 };
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n && i < LINES; i++) {
        printf("%-10s ", what);
        print(json_array_get(list, i));
        putchar('\n');
    }
    if (n > LINES)
        printf("%-10s and %zu more (--json has all)\n", what, n - LINES);
}

static int print_trace(struct cli *c, json_t *doc, bool more)
{
    if (c->json)
        return cli_json(c, doc);
    static const char *const fields[] = { "id",      "recipe_id", "path",  "bytes", "events",
                                          "tenants", "devices",   "pages", "order", "burst",
                                          "seed",    "replicate", "rules" };
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const json_t *v = json_object_get(doc, fields[i]);
        CLEANUP(freep)
        char *text =
            json_is_string(v) ? strdup(json_string_value(v)) : json_dumps(v, JSON_ENCODE_ANY);
        printf("%-10s %s\n", fields[i], text ? text : "");
    }
    if (json_is_true(json_object_get(doc, "early_end")))
        printf("%-10s %s\n", "ends", "with its first exhausted tenant");
    if (more) {
        const char *name;
        json_t *v;
        size_t i;
        json_object_foreach (json_object_get(doc, "pages_by_size"), name, v)
            printf("%-10s %s B: %" JSON_INTEGER_FORMAT " pages\n", "size", name,
                   json_integer_value(v));
        json_object_foreach (json_object_get(doc, "hot_ppm"), name, v)
            printf("%-10s %.1f %% of the events go to %s %% of the pages\n", "hot",
                   (double)json_integer_value(v) / 10000.0, name);
        json_array_foreach (json_object_get(doc, "reuse"), i, v) {
            const json_t *d = json_object_get(v, "distance");
            if (json_is_null(d))
                printf("%-10s first touch: %" JSON_INTEGER_FORMAT "\n", "reuse",
                       json_integer_value(json_object_get(v, "count")));
            else
                printf("%-10s <= %" JSON_INTEGER_FORMAT " pages: %" JSON_INTEGER_FORMAT "\n",
                       "reuse", json_integer_value(d),
                       json_integer_value(json_object_get(v, "count")));
        }
        print_list(json_object_get(doc, "iova_ranges"), "iova", print_range);
        print_list(json_object_get(doc, "per_tenant"), "tenant", print_tenant);
    }
    json_decref(doc);
    return cli_flush(c);
}

static uint64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* ---- build */

struct build_opts {
    struct opt_multi logs;
    struct opt_u64 tenants, devices, burst, seed, replicate;
    const char *order, *rules, *out;
    bool force, json;
};

static int flags_into(struct recipe *r, const struct build_opts *o, struct err *e)
{
    int rc = 0;
    if (o->logs.n) {
        /* flags win: they replace the recipe's logs */
        CLEANUP(recipe_clear) struct recipe fresh;
        recipe_init(&fresh);
        for (size_t i = 0; i < o->logs.n && rc == 0; i++)
            rc = recipe_add_log(&fresh, o->logs.v[i], e);
        struct recipe_log *v = r->logs;
        size_t n = r->n_logs;
        r->logs = fresh.logs;
        r->n_logs = fresh.n_logs;
        fresh.logs = v;
        fresh.n_logs = n;
    }
    if (o->tenants.set)
        r->tenants = o->tenants.v;
    if (o->devices.set)
        r->devices_per_log = o->devices.v;
    if (o->burst.set)
        r->burst = o->burst.v;
    if (o->seed.set)
        r->seed = o->seed.v;
    if (o->replicate.set)
        r->replicate = o->replicate.v;
    if (rc == 0 && o->order)
        rc = order_parse(o->order, "--order", &r->order, e);
    if (rc == 0 && o->rules)
        rc = rules_parse(o->rules, "--rules", &r->rules, e);
    return rc;
}

static int check_out(const char *out, bool force, struct err *e)
{
    struct stat st;
    if (!out)
        return err_set(e, SF_EUSAGE, "-o: the output file is missing");
    if (!force && lstat(out, &st) == 0)
        return err_set(e, EEXIST, "%s: exists already (--force replaces it)", out);
    return 0;
}

static void warn(void *user, const struct build_note *n)
{
    uint64_t *told = user;
    if (n->kind != BUILD_REFUSED)
        return;
    if (++*told <= 10)
        fprintf(stderr, "siofleet: %s:%" PRIu64 ": line refused: %s\n", n->path ? n->path : "log",
                n->a, n->text);
    else if (*told == 11)
        fprintf(stderr, "siofleet: %s: more lines are refused; only the first ten are shown\n",
                n->path ? n->path : "log");
}

static int build(const struct build_opts *o, int argc, char **argv, json_t **ret, struct err *e)
{
    CLEANUP(recipe_clear) struct recipe r;
    recipe_init(&r);
    int rc = argc ? recipe_load(&r, argv[0], e) : 0;
    if (rc == 0)
        rc = flags_into(&r, o, e);
    if (rc == 0 && !r.n_logs)
        rc = err_set(e, SF_EUSAGE, "--log: no log is named (--log FILE, or logs= in a recipe)");
    for (size_t i = 0; rc == 0 && i < r.n_logs; i++)
        if (!strcmp(r.logs[i].path, RECIPE_COLLECT))
            rc = err_set(e, SF_EUSAGE, "logs: %s has a meaning in a sweep only", RECIPE_COLLECT);
    if (rc == 0)
        rc = check_out(o->out, o->force, e);
    if (rc == 0)
        rc = recipe_identify(&r, e);
    if (rc < 0)
        return rc;
    CLEANUP(trace_free) struct trace *t = NULL;
    CLEANUP(build_report_clear) struct build_report rep = { 0 };
    uint64_t told = 0;
    struct build_hooks hooks = { .user = &told, .note = warn };
    rc = build_trace(&r, &hooks, &t, &rep, e);
    struct id id;
    if (rc == 0)
        rc = trace_save(t, o->out, o->force, &id, e);
    if (rc < 0)
        return rc;
    CLEANUP(trace_origin_clear) struct trace_origin origin = { 0 };
    if (trace_origin_from_build(&r, &rep, &origin) < 0)
        return err_sys(e, ENOMEM, "%s", o->out);
    rc = trace_origin_save(o->out, &id, &origin, e);
    if (rc == 0)
        *ret = trace_json(t, &id, size_of(o->out), o->out, &origin);
    return rc;
}

static int run_build(struct cli *c, void *opts, int argc, char **argv)
{
    struct err e = { 0 };
    json_t *doc = NULL;
    if (build(opts, argc, argv, &doc, &e) < 0)
        return cli_fail(c, &e);
    return print_trace(c, doc, false);
}

static const struct opt build_options[] = {
    { .name = "log",
      .arg = "FILE",
      .help = "a log; in place of those of the recipe",
      .kind = OPT_MULTI,
      .off = offsetof(struct build_opts, logs) },
    { .name = "tenants",
      .arg = "N",
      .help = "tenants wanted; default: all that the logs hold",
      .kind = OPT_U64,
      .off = offsetof(struct build_opts, tenants),
      .min = 1,
      .max = RECIPE_TENANTS_MAX },
    { .name = "devices-per-log",
      .arg = "N",
      .help = "devices that count in each log (24)",
      .kind = OPT_U64,
      .off = offsetof(struct build_opts, devices),
      .min = 1,
      .max = 65536 },
    { .name = "order",
      .arg = "rr|rand|orig",
      .help = "how tenants take turns (rr)",
      .kind = OPT_STR,
      .off = offsetof(struct build_opts, order) },
    { .name = "burst",
      .arg = "N",
      .help = "events a turn (3)",
      .kind = OPT_U64,
      .off = offsetof(struct build_opts, burst),
      .min = 1,
      .max = RECIPE_BURST_MAX },
    { .name = "seed",
      .arg = "N",
      .help = "of order rand (1)",
      .kind = OPT_U64,
      .off = offsetof(struct build_opts, seed) },
    { .name = "replicate",
      .arg = "N",
      .help = "staggered copies of each real tenant (1 = none)",
      .kind = OPT_U64,
      .off = offsetof(struct build_opts, replicate),
      .min = 1,
      .max = RECIPE_REPLICATE_MAX },
    { .name = "rules",
      .arg = "model|hypersio",
      .help = "rules of the numbering (model)",
      .kind = OPT_STR,
      .off = offsetof(struct build_opts, rules) },
    { .name = "output",
      .letter = 'o',
      .arg = "OUT.trc",
      .help = "the trace",
      .kind = OPT_STR,
      .off = offsetof(struct build_opts, out) },
    { .name = "force",
      .help = "replace an existing file",
      .kind = OPT_FLAG,
      .off = offsetof(struct build_opts, force) },
    { .name = "json",
      .help = "siofleet.trace/1",
      .kind = OPT_FLAG,
      .off = offsetof(struct build_opts, json) },
    { 0 },
};

/* ---- info */

struct info_opts {
    bool json;
};

static int run_info(struct cli *c, void *o, int argc, char **argv)
{
    (void)o;
    (void)argc;
    struct err e = { 0 };
    struct id id;
    uint64_t bytes;
    CLEANUP(trace_free) struct trace *t = NULL;
    CLEANUP(trace_origin_clear) struct trace_origin origin = { 0 };
    if (trace_load(argv[0], 0, &t, &e) < 0 || cid_file(argv[0], &id, &bytes, &e) < 0)
        return cli_fail(c, &e);
    trace_origin_load(argv[0], &id, &origin);
    json_t *doc = trace_json(t, &id, bytes, argv[0], &origin);
    if (trace_info_json(t, doc, &e) < 0) {
        json_decref(doc);
        return cli_fail(c, &e);
    }
    return print_trace(c, doc, true);
}

static const struct opt info_options[] = {
    { .name = "json",
      .help = "siofleet.trace/1",
      .kind = OPT_FLAG,
      .off = offsetof(struct info_opts, json) },
    { 0 },
};

/* ---- export, import */

struct port_opts {
    const char *hypersio, *prefix, *oracle, *out;
    bool force, json;
};

static int check_port(const struct port_opts *o, struct err *e)
{
    if (!o->hypersio == !o->oracle)
        return err_set(e, SF_EUSAGE,
                       "--hypersio: give either --hypersio DIR --prefix P or --oraclegeneral FILE");
    if (o->hypersio && (!o->prefix || !*o->prefix))
        return err_set(e, SF_EUSAGE, "--prefix: is missing beside --hypersio");
    if (o->prefix && !o->hypersio)
        return err_set(e, SF_EUSAGE, "--prefix: has a meaning beside --hypersio only");
    if (o->prefix && strchr(o->prefix, '/'))
        return err_set(e, SF_EUSAGE, "--prefix: '%.100s' holds a '/'", o->prefix);
    return 0;
}

static int export(const struct port_opts *o, const char *path, struct err *e)
{
    CLEANUP(trace_free) struct trace *t = NULL;
    int r = check_port(o, e);
    if (r == 0 && o->oracle)
        r = check_out(o->oracle, o->force, e);
    for (int i = 0; r == 0 && o->hypersio && i < 3; i++) {
        static const char *const parts[] = { "iotlb_trace", "cc_data", "slpt_data" };
        CLEANUP(freep) char *p = path_fmt("%s/%s_%s.bin", o->hypersio, o->prefix, parts[i]);
        r = check_out(p, o->force, e);
    }
    if (r == 0)
        r = trace_load(path, TRACE_WITH_OFFSETS | TRACE_WITH_EXPORT, &t, e);
    if (r < 0)
        return r;
    if (o->oracle)
        return oracle_general_write(t, o->oracle, o->force, e);
    /* the reference's records have 16 bits for each */
    for (uint32_t i = 0; i < t->n_entries; i++)
        if (t->entry[i].sid > UINT16_MAX || t->entry[i].gid > UINT16_MAX)
            return err_set(e, SF_EFORMAT,
                           "%s: its source-ids or tenants need more than 16 bits; build it with "
                           "--rules hypersio",
                           path);
    r = trace_next(t, e);
    if (r == 0)
        r = dir_make(o->hypersio, 0777, e);
    return r < 0 ? r : compat_files_write(t, o->hypersio, o->prefix, e);
}

static int run_export(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc;
    struct err e = { 0 };
    if (export(o, argv[0], &e) < 0)
        return cli_fail(c, &e);
    return 0;
}

static int import(const struct port_opts *o, json_t **ret, struct err *e)
{
    CLEANUP(trace_free) struct trace *t = NULL;
    struct id id;
    int r = check_port(o, e);
    if (r == 0)
        r = check_out(o->out, o->force, e);
    if (r == 0)
        r = o->oracle ? oracle_general_read(o->oracle, &t, e)
                      : hypersio_import(o->hypersio, o->prefix, &t, e);
    if (r == 0 && !t->n)
        r = err_set(e, SF_EFORMAT, "%s: no translation in it", o->oracle ? o->oracle : o->hypersio);
    if (r == 0)
        r = trace_save(t, o->out, o->force, &id, e);
    if (r == 0)
        *ret = trace_json(t, &id, size_of(o->out), o->out, NULL);
    return r;
}

static int run_import(struct cli *c, void *o, int argc, char **argv)
{
    (void)argc, (void)argv;
    struct err e = { 0 };
    json_t *doc = NULL;
    if (import(o, &doc, &e) < 0)
        return cli_fail(c, &e);
    return print_trace(c, doc, false);
}

#define PORT_OPTIONS                                                                               \
    { .name = "hypersio",                                                                          \
      .arg = "DIR",                                                                                \
      .help = "folder of the reference's three binary files",                                      \
      .kind = OPT_STR,                                                                             \
      .off = offsetof(struct port_opts, hypersio) },                                               \
        { .name = "prefix",                                                                        \
          .arg = "P",                                                                              \
          .help = "their names: P_iotlb_trace.bin, P_cc_data.bin, P_slpt_data.bin",                \
          .kind = OPT_STR,                                                                         \
          .off = offsetof(struct port_opts, prefix) },                                             \
        { .name = "oraclegeneral",                                                                 \
          .arg = "FILE",                                                                           \
          .help = "libCacheSim's oracleGeneral format, 24 bytes an event",                         \
          .kind = OPT_STR,                                                                         \
          .off = offsetof(struct port_opts, oracle) },                                             \
    {                                                                                              \
        .name = "force", .help = "replace existing files", .kind = OPT_FLAG,                       \
        .off = offsetof(struct port_opts, force)                                                   \
    }

static const struct opt export_options[] = { PORT_OPTIONS, { 0 } };

static const struct opt import_options[] = {
    PORT_OPTIONS,
    { .name = "output",
      .letter = 'o',
      .arg = "OUT.trc",
      .help = "the trace",
      .kind = OPT_STR,
      .off = offsetof(struct port_opts, out) },
    { .name = "json",
      .help = "siofleet.trace/1",
      .kind = OPT_FLAG,
      .off = offsetof(struct port_opts, json) },
    { 0 },
};

const struct verb trace_verbs[] = {
    { .name = "trace build",
      .args = "[RECIPE.ini]",
      .summary = "build one trace from logs",
      .details =
          "A recipe says which logs, how many tenants, in which order:\n\n"
          "  [trace]\n"
          "  logs = run1/*.slog, old.log   lists and globs; text logs, plain or zstd, and .slog "
          "files\n"
          "  tenants = 120                 default: all that the logs hold\n"
          "  devices_per_log = 24\n"
          "  order = rr                    rr, rand or orig\n"
          "  burst = 3                     events a tenant sends in a row\n"
          "  seed = 1                      of order rand\n"
          "  replicate = 1                 k: staggered copies, each real tenant stands k times\n"
          "  rules = model                 or hypersio: the reference's numbering and "
          "collisions\n\n"
          "Flags win over the recipe. The same logs and parameters give the same bytes, hence the "
          "same\n"
          "id. What it was made from is written beside it, to OUT.trc.json.",
      .examples = "siofleet trace build --log a.log --log b.log --tenants 48 -o t.trc\n"
                  "siofleet trace build recipe.ini --burst 9 -o t9.trc --json",
      .opts = build_options,
      .opts_size = sizeof(struct build_opts),
      .max_args = 1,
      .run = run_build },
    { .name = "trace info",
      .args = "FILE",
      .summary = "what a trace holds: tenants, pages, reuse distances, hot pages",
      .examples = "siofleet trace info t.trc\n"
                  "siofleet trace info t.trc --json | jq .hot_ppm",
      .opts = info_options,
      .opts_size = sizeof(struct info_opts),
      .min_args = 1,
      .max_args = 1,
      .run = run_info },
    { .name = "trace export",
      .args = "FILE",
      .summary = "write a trace as the reference's files or as oracleGeneral",
      .examples = "siofleet trace export t.trc --hypersio out --prefix t   out/t_iotlb_trace.bin "
                  "and two more\n"
                  "siofleet trace export t.trc --oraclegeneral t.bin       for libCacheSim",
      .opts = export_options,
      .opts_size = sizeof(struct port_opts),
      .min_args = 1,
      .max_args = 1,
      .run = run_export },
    { .name = "trace import",
      .args = "",
      .summary = "make a trace from the reference's files or from oracleGeneral",
      .examples = "siofleet trace import --hypersio traces --prefix web_tnt_24_rr3 -o web.trc\n"
                  "siofleet trace import --oraclegeneral cdn.bin -o cdn.trc",
      .opts = import_options,
      .opts_size = sizeof(struct port_opts),
      .run = run_import },
    { 0 },
};
