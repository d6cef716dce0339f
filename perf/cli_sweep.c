/* Verb `perf sweep`: a whole sweep on this host. */
#include "perf/cli_perf.h"

#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "perf/build.h"
#include "perf/rowout.h"
#include "perf/run.h"
#include "perf/sweep.h"
#include "perf/tracedoc.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

enum { BATCH_POINTS = 4096, BATCH_TRACES = 64 };
#define BATCH_EVENTS (UINT64_C(256) << 20) /* of traces held at once, in events of 4 bytes */

/* A trace of the sweep while its points run. */
struct held {
    struct trace *t;
    struct id id, recipe_id;
    bool from_recipe;
    const char *name, *file; /* borrowed from the sweep; file NULL: to be built */
    struct recipe recipe;    /* what to build */
    struct err why;          /* code 0, or why there is no t: its points fail */
};

/* Where rows go: straight to the stream, or into a document or table that is printed at the end. */
struct sink {
    struct cli *c;
    const struct perf_sweep_opts *o;
    FILE *f;
    uint64_t n_rows;         /* written as CSV or JSON */
    struct result_row *kept; /* of the table */
    size_t n_kept, room;
    uint64_t failed, first_failed; /* how many, and the index of the first */
    char why[256];                 /* of the first */
};

struct batch {
    struct result_row *rows;
    const size_t *row; /* of each job */
    char (*errors)[256];
    struct progress *p;
    uint64_t done, total;
};

static int on_row(void *user, size_t i, const struct point_result *res)
{
    struct batch *b = user;
    size_t k = b->row[i];
    b->rows[k].status = res->status;
    b->rows[k].stats = res->stats;
    memcpy(b->errors[k], res->error, sizeof(res->error));
    b->rows[k].error = res->error[0] ? b->errors[k] : NULL;
    progress_step(b->p, ++b->done, b->total);
    return 0;
}

static int emit_row(struct sink *s, const struct result_row *r, struct err *e)
{
    if (r->status == ROW_FAILED && !s->failed++) {
        s->first_failed = r->index;
        snprintf(s->why, sizeof(s->why), "%s", r->error ? r->error : "failed");
    }
    if (s->o->csv) {
        if (!s->n_rows++)
            result_csv_head(s->f);
        result_csv(r, s->f);
    } else if (s->o->jsonl) {
        json_t *j = result_json(r);
        json_object_set_new(j, "name", json_str(r->name));
        json_object_set_new(j, "index", json_u64(r->index));
        CLEANUP(freep) char *text = json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER);
        json_decref(j);
        if (!text)
            return err_sys(e, ENOMEM, "rows");
        fprintf(s->f, "%s\n", text);
    } else if (s->o->json) {
        json_t *cells = result_cells_json(r);
        CLEANUP(freep) char *text = json_dumps(cells, JSON_COMPACT);
        json_decref(cells);
        if (!text)
            return err_sys(e, ENOMEM, "rows");
        fprintf(s->f, "%s\n  %s", s->n_rows++ ? "," : "", text);
    } else {
        if (s->n_kept == s->room) {
            size_t room = s->room ? 2 * s->room : 256;
            struct result_row *v = realloc(s->kept, room * sizeof(*v));
            if (!v)
                return err_sys(e, ENOMEM, "rows");
            s->kept = v;
            s->room = room;
        }
        s->kept[s->n_kept++] = *r;
        return 0;
    }
    if (ferror(s->f))
        return err_sys(e, errno ? errno : EIO, "%s", s->o->out ? s->o->out : "standard output");
    return 0;
}

/* The table for people: index, what varies, and the figures that matter. */
static int print_table(const struct sink *s)
{
    static const char *const always[] = { "index",     "tenants",    "status",
                                          "mbps",      "util_ppm",   "pkts_dropped",
                                          "iotlb_hit", "iotlb_miss", "jain_ppm" };
    size_t n, m = 0;
    const char *const *names = result_columns(&n);
    const char *shown[RESULT_COLUMNS_MAX];
    size_t column[RESULT_COLUMNS_MAX];
    int status = result_column("status");
    for (size_t i = 0; i < n; i++) {
        bool show = false;
        for (size_t k = 0; k < ARRAY_LEN(always); k++)
            show |= !strcmp(always[k], names[i]);
        bool parameter =
            i < (size_t)status && strcmp(names[i], "point") && strcmp(names[i], "trace");
        char a[160], b[160];
        for (size_t k = 1; parameter && !show && k < s->n_kept; k++) {
            result_cell(&s->kept[0], i, a);
            result_cell(&s->kept[k], i, b);
            show = strcmp(a, b) != 0;
        }
        if (show) {
            column[m] = i;
            shown[m++] = names[i];
        }
    }
    CLEANUP(table_free) struct table *t = table_new(shown, m);
    for (size_t k = 0; t && k < s->n_kept; k++)
        for (size_t i = 0; i < m; i++) {
            char cell[160];
            result_cell(&s->kept[k], column[i], cell);
            table_cell(t, "%s", *cell ? cell : "-");
        }
    if (t)
        table_print(t, s->f);
    return 0;
}

static void held_clear(struct held *h)
{
    trace_free(&h->t);
    recipe_clear(&h->recipe);
    *h = (struct held){ 0 };
}

/* What a trace of the sweep is; the sweep itself serves one caller at a time. */
static int hold_plan(struct sweep *s, uint64_t number, struct held *h, struct err *e)
{
    struct sweep_trace st;
    int r = sweep_trace(s, number, &st, e);
    if (r < 0)
        return r;
    h->name = st.name;
    if (st.from_recipe) {
        for (size_t i = 0; i < st.recipe->n_logs; i++)
            if (st.recipe->logs[i].path && !strcmp(st.recipe->logs[i].path, RECIPE_COLLECT))
                return err_set(e, SF_EUSAGE, "[trace%s%s]: %s needs the fleet (siofleet sweep run)",
                               *st.name ? " " : "", st.name, RECIPE_COLLECT);
        h->from_recipe = true;
        h->recipe_id = st.recipe_id;
        return recipe_copy(st.recipe, &h->recipe, e);
    }
    if (!st.file)
        return err_set(e, SF_EUSAGE,
                       "[trace%s%s]: a trace by id needs the fleet (siofleet sweep run)",
                       *st.name ? " " : "", st.name);
    h->file = st.file;
    h->id = st.id;
    return 0;
}

/* A recipe that its logs cannot fulfil fails its own points only, as in the fleet; where this host fails, all ends. */
static int hold_make(struct held *h, struct err *e)
{
    if (!h->file) {
        int r = build_trace(&h->recipe, NULL, &h->t, NULL, e);
        if (r == -SF_EUSAGE || r == -SF_EFORMAT || r == -SF_EINTEGRITY) {
            h->why = *e;
            return err_wrap(&h->why, 0, "trace could not be built");
        }
        return r < 0 ? err_wrap(e, r, "[trace%s%s]", *h->name ? " " : "", h->name)
                     : trace_content_id(h->t, &h->id, e);
    }
    int r = trace_load(h->file, 0, &h->t, e);
    if (r < 0)
        return r;
    CLEANUP(trace_origin_clear) struct trace_origin origin;
    trace_origin_load(h->file, &h->id, &origin);
    h->from_recipe = origin.have_recipe;
    h->recipe_id = origin.recipe_id;
    return 0;
}

/* n traces from number first on, one a thread. The error of the first in order is told, whoever met his first. */
static int hold(struct sweep *s, uint64_t first, size_t n, struct held held[], struct err *e)
{
    struct err errs[BATCH_TRACES];
    int rs[BATCH_TRACES];
    for (size_t i = 0; i < n; i++) {
        int r = hold_plan(s, first + i, &held[i], e);
        if (r < 0)
            return r;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)n)
    for (size_t i = 0; i < n; i++) {
        errs[i] = (struct err){ 0 };
        rs[i] = hold_make(&held[i], &errs[i]);
    }
    for (size_t i = 0; i < n; i++)
        if (rs[i] < 0) {
            *e = errs[i];
            return rs[i];
        }
    return 0;
}

/* Points first..end, whose traces are held from number base on. */
static int run_batch(const struct sweep *s, const struct held *held, uint64_t base, uint64_t from,
                     uint64_t end, unsigned threads, struct sink *sink, struct progress *p,
                     struct err *e)
{
    const struct sweep_head *h = sweep_head(s);
    size_t n = end - from;
    CLEANUP(freep) struct point_job *jobs = calloc(n, sizeof(*jobs));
    CLEANUP(freep) struct result_row *rows = calloc(n, sizeof(*rows));
    CLEANUP(freep) void *errors = calloc(n, 256);
    CLEANUP(freep) size_t *row = calloc(n, sizeof(*row));
    size_t n_jobs = 0;
    if (!jobs || !rows || !errors || !row)
        return err_sys(e, ENOMEM, "rows");
    for (size_t i = 0; i < n; i++) {
        uint64_t number;
        struct arch a;
        sweep_point(s, from + i, &number, &a);
        const struct held *x = &held[number - base];
        rows[i] = (struct result_row){ .name = h->name,
                                       .index = from + i,
                                       .trace = x->id,
                                       .have_trace = x->t != NULL,
                                       .recipe_id = x->recipe_id,
                                       .have_recipe = x->from_recipe,
                                       .rules = h->rules,
                                       .arch = a };
        if (x->t) {
            result_from_head(&rows[i], &x->t->head);
            jobs[n_jobs] = (struct point_job){ x->t, a };
            row[n_jobs++] = i;
        } else {
            result_from_recipe(&rows[i], &x->recipe);
            rows[i].status = ROW_FAILED;
            rows[i].error = x->why.text;
        }
    }
    struct batch b = { .rows = rows,
                       .row = row,
                       .errors = errors,
                       .p = p,
                       .done = from + (n - n_jobs),
                       .total = sweep_points(s) };
    if (!n_jobs)
        progress_step(p, b.done, b.total);
    int r = run_jobs(jobs, n_jobs, h->rules, threads, h->pace_ms, on_row, &b, e);
    for (size_t i = 0; i < n && r == 0; i++)
        r = emit_row(sink, &rows[i], e);
    return r;
}

static int run_points_of(struct sweep *s, unsigned threads, struct sink *sink, struct progress *p,
                         struct err *e)
{
    struct held held[BATCH_TRACES] = { 0 };
    uint64_t points = sweep_points(s), traces = sweep_n_traces(s), per = points / traces;
    uint64_t at_once = threads ? threads : (uint64_t)omp_get_num_procs();
    int r = 0;
    for (uint64_t base = 0; base < traces && r == 0;) {
        /* a handful of traces at once, so that threads do not wait for the last point of each */
        uint64_t n = 0, events = 0, most = BATCH_POINTS / per;
        most = most < 1 ? 1 : most > BATCH_TRACES ? BATCH_TRACES : most;
        most = most > traces - base ? traces - base : most;
        while (r == 0 && n < most && events < BATCH_EVENTS) {
            uint64_t k = most - n < at_once ? most - n : at_once;
            r = hold(s, base + n, k, &held[n], e);
            for (uint64_t i = n; r == 0 && i < n + k; i++)
                events += held[i].t ? held[i].t->n : 0;
            n += k;
        }
        for (uint64_t i = base * per; i < (base + n) * per && r == 0;) {
            uint64_t end =
                i + BATCH_POINTS < (base + n) * per ? i + BATCH_POINTS : (base + n) * per;
            r = run_batch(s, held, base, i, end, threads, sink, p, e);
            i = end;
        }
        for (uint64_t i = 0; i < n; i++)
            held_clear(&held[i]);
        base += n;
    }
    return r;
}

static int finish(struct sink *s, struct file_new *file, struct err *e)
{
    int status = s->failed ? 1 : 0;
    if (s->o->jsonl) {
        fprintf(s->f, "{\"schema\":\"siofleet.end/1\",\"exit\":%d}\n", status);
    } else if (s->o->json) {
        fprintf(s->f, "%s]\n}\n", s->n_rows ? "\n " : "");
    } else if (!s->o->csv) {
        print_table(s);
    }
    if (fflush(s->f) != 0 || ferror(s->f))
        return err_sys(e, errno ? errno : EIO, "%s", s->o->out ? s->o->out : "standard output");
    return s->o->out ? file_commit(file, e) : 0;
}

int perf_sweep(struct cli *c, void *opts, int argc, char **argv)
{
    (void)argc;
    const struct perf_sweep_opts *o = opts;
    struct err e = { 0 };
    CLEANUP(sweep_free) struct sweep *s = NULL;
    CLEANUP(file_abort) struct file_new file = { .fd = -1 };
    CLEANUP(fclosep) FILE *stream = NULL;
    struct sink sink = { .c = c, .o = o, .f = stdout };
    int r = 0;
    if (o->json + o->jsonl + o->csv > 1)
        r = err_set(&e, SF_EUSAGE, "--csv: give one of --json, --jsonl and --csv");
    if (r == 0)
        r = sweep_load(argv[0], &s, &e);
    if (r == 0)
        r = sweep_identify(s, &e);
    if (r == 0 && o->out)
        r = file_begin(&file, o->out, 0644, o->force, &e);
    if (r == 0 && o->out) {
        int fd = dup(file.fd);
        sink.f = stream = fd < 0 ? NULL : fdopen(fd, "w");
        if (!stream)
            r = err_sys(&e, errno, "%s", o->out);
    }
    if (r < 0)
        return cli_fail(c, &e);
    /* one document or none: what goes to stdout waits for the last row */
    CLEANUP(freep) char *text = NULL;
    size_t text_n = 0;
    CLEANUP(fclosep) FILE *memory = NULL;
    if (o->json && !o->out) {
        sink.f = memory = open_memstream(&text, &text_n);
        if (!memory)
            return cli_failf(c, ENOMEM, "rows: out of memory");
    }
    if (o->json) {
        CLEANUP(json_decrefp) json_t *columns = result_columns_json();
        CLEANUP(freep) char *names = json_dumps(columns, JSON_COMPACT);
        fprintf(sink.f, "{\n \"schema\": \"siofleet.results/1\",\n \"columns\": %s,\n \"rows\": [",
                names ? names : "[]");
    }
    struct progress p;
    progress_start(&p, "points");
    r = run_points_of(s, (unsigned)o->threads.v, &sink, &p, &e);
    progress_end(&p);
    if (r == 0)
        r = finish(&sink, &file, &e);
    free(sink.kept);
    if (r < 0) {
        int status = cli_fail(c, &e);
        return o->jsonl && !o->out ? cli_jsonl_end(c, status) : status;
    }
    if (memory)
        fwrite(text, 1, text_n, stdout);
    if (cli_flush(c))
        return 1;
    if (sink.failed)
        fprintf(stderr,
                "siofleet: %s: %" PRIu64 " of %" PRIu64 " points failed; the first: point %" PRIu64
                ": %s\n",
                argv[0], sink.failed, sweep_points(s), sink.first_failed, sink.why);
    return sink.failed ? 1 : 0;
}

const struct opt perf_sweep_options[] = {
    { .name = "threads",
      .arg = "N",
      .help = "default: all cores; rows are the same for any N",
      .kind = OPT_U64,
      .off = offsetof(struct perf_sweep_opts, threads),
      .min = 1,
      .max = 1024 },
    { .name = "csv",
      .help = "RFC 4180 with header",
      .kind = OPT_FLAG,
      .off = offsetof(struct perf_sweep_opts, csv) },
    { .name = "json",
      .help = "siofleet.results/1",
      .kind = OPT_FLAG,
      .off = offsetof(struct perf_sweep_opts, json) },
    { .name = "jsonl",
      .help = "siofleet.row/1, one object a line",
      .kind = OPT_FLAG,
      .off = offsetof(struct perf_sweep_opts, jsonl) },
    { .name = "output",
      .letter = 'o',
      .arg = "FILE",
      .help = "write there instead of to stdout",
      .kind = OPT_STR,
      .off = offsetof(struct perf_sweep_opts, out) },
    { .name = "force",
      .help = "replace an existing file",
      .kind = OPT_FLAG,
      .off = offsetof(struct perf_sweep_opts, force) },
    { 0 },
};
